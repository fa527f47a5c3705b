//! HTTP/1.1 messages over any stream, strict where it matters to the tests: a body that ends too early is told from
//! one that ends.

use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A request or an answer as it was on the wire.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// The first line.
    pub line: String,
    /// Field lines, names as they were written.
    pub fields: Vec<(String, String)>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// What followed a chunked body.
    pub trailers: Vec<(String, String)>,
    /// The body came to the end that its framing announced.
    pub complete: bool,
    /// Interim answers before this one.
    pub interim: Vec<Message>,
}

impl Message {
    /// Status of an answer.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn status(&self) -> u16 {
        let number = self.line.split(' ').nth(1).and_then(|number| number.parse().ok());
        number.unwrap_or_else(|| panic!("no status in {:?}", self.line))
    }

    /// Path and query of a request.
    #[must_use]
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    /// Method of a request.
    #[must_use]
    pub fn method(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }

    /// All values of a field, in order.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a field that is there once.
    ///
    /// # Panics
    /// When it is there several times.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} is there {} times: {:?}", all.len(), self.fields);
        all.first().copied()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What the portal says is wrong, if it is the portal that answers.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.field("x-portreeve-error")
    }

    /// How the end of the body is told.
    ///
    /// # Errors
    /// When the length is no number.
    pub fn framing(&self, is_answer: bool) -> io::Result<Framing> {
        if self.says("transfer-encoding", "chunked") {
            return Ok(Framing::Chunks { begun: false, left: 0 });
        }
        match self.all("content-length").first() {
            Some(length) => Ok(Framing::Length(length.parse().map_err(|_| io::ErrorKind::InvalidData)?)),
            None if is_answer => Ok(Framing::UntilTheEnd),
            None => Ok(Framing::Length(0)),
        }
    }

    fn says(&self, name: &str, token: &str) -> bool {
        self.all(name).iter().any(|v| v.split(',').any(|one| one.trim().eq_ignore_ascii_case(token)))
    }
}

/// What is still to come of a body.
#[derive(Debug, Clone, Copy)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunks {
        /// There was one already, whose end of line is still to be read.
        begun: bool,
        /// Bytes that are missing from this one.
        left: u64,
    },
    /// Whatever comes until the connection ends.
    UntilTheEnd,
}

/// Every byte that came in, up to a limit.
#[derive(Debug, Clone, Default)]
pub struct Record(Arc<Mutex<(Vec<u8>, u64)>>);

const RECORDED: usize = 1 << 20;

impl Record {
    fn note(&self, bytes: &[u8]) {
        let mut inner = self.0.lock().unwrap();
        inner.1 += bytes.len() as u64;
        let room = RECORDED.saturating_sub(inner.0.len()).min(bytes.len());
        inner.0.extend_from_slice(&bytes[..room]);
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.lock().unwrap().1
    }

    /// The first of them, as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap().0).into_owned()
    }
}

/// A stream that carries HTTP/1.1.
#[derive(Debug)]
pub struct Wire<S> {
    /// The stream itself.
    pub stream: S,
    buffer: Vec<u8>,
    /// What was read from it.
    pub record: Record,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Over a stream on which nothing was read yet.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new(), record: Record::default() }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the other side is gone.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    /// When the other side is gone.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Some bytes, none at the end. A TLS stream that ends without saying so ends all the same.
    ///
    /// # Errors
    /// When the other side broke off.
    pub async fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() && !self.fill().await? {
            return Ok(Vec::new());
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    /// So many bytes.
    ///
    /// # Errors
    /// When they do not come.
    pub async fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// Everything until the end, however it comes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while matches!(self.fill().await, Ok(true)) {}
        std::mem::take(&mut self.buffer)
    }

    async fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        let count = match self.stream.read(&mut chunk).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            outcome => outcome?,
        };
        self.record.note(&chunk[..count]);
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(count > 0)
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn field_lines(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// The next message's head; `None` when the stream ends instead.
    ///
    /// # Errors
    /// When it is cut off or is none.
    pub async fn head(&mut self) -> io::Result<Option<Message>> {
        if self.buffer.is_empty() && !self.fill().await? {
            return Ok(None);
        }
        let line = self.line().await?;
        Ok(Some(Message { line, fields: self.field_lines().await?, ..Message::default() }))
    }

    /// A request with its body; `None` when the stream ends instead.
    ///
    /// # Errors
    /// When it is cut off or is none.
    pub async fn request(&mut self) -> io::Result<Option<Message>> {
        let Some(mut message) = self.head().await? else { return Ok(None) };
        self.body(&mut message, false).await?;
        Ok(Some(message))
    }

    /// An answer to anything but HEAD.
    ///
    /// # Errors
    /// When there is none. A body that is cut off is no error here: `complete` says so.
    pub async fn answer(&mut self) -> io::Result<Message> {
        self.answer_to("GET").await
    }

    /// An answer to this method.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub async fn answer_to(&mut self, method: &str) -> io::Result<Message> {
        let mut message = self.answer_head().await?;
        match message.status() {
            101 => {}
            204 | 304 => message.complete = true,
            _ if method == "HEAD" => message.complete = true,
            _ => message.complete = self.body(&mut message, true).await.is_ok(),
        }
        Ok(message)
    }

    /// An answer's head, with the interim answers before it.
    ///
    /// # Errors
    /// When there is none.
    pub async fn answer_head(&mut self) -> io::Result<Message> {
        let mut interim = Vec::new();
        loop {
            let message = self.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            match message.status() {
                101 | 200.. => return Ok(Message { interim, ..message }),
                _ => interim.push(message),
            }
        }
    }

    /// Reads the body that the fields announce into `message`; one that is cut off stays there as far as it came.
    ///
    /// # Errors
    /// When it is cut off.
    pub async fn body(&mut self, message: &mut Message, is_answer: bool) -> io::Result<()> {
        let mut rest = message.framing(is_answer)?;
        while let Some(piece) = self.piece(&mut rest, &mut message.trailers).await? {
            message.body.extend(piece);
        }
        message.complete = true;
        Ok(())
    }

    /// The next bytes of a body, as many as are there; `None` once at its end, with the trailers that are.
    ///
    /// # Errors
    /// When it is cut off.
    pub async fn piece(
        &mut self,
        rest: &mut Framing,
        trailers: &mut Vec<(String, String)>,
    ) -> io::Result<Option<Vec<u8>>> {
        if let Framing::Chunks { begun, left: 0 } = rest {
            if *begun && self.exactly(2).await? != b"\r\n" {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let left = u64::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            *rest = Framing::Chunks { begun: true, left };
            if left == 0 {
                *trailers = self.field_lines().await?;
                return Ok(None);
            }
        }
        let (Framing::Length(left) | Framing::Chunks { left, .. }) = rest else {
            return Ok(Some(self.some().await?).filter(|bytes| !bytes.is_empty()));
        };
        if *left == 0 {
            return Ok(None);
        }
        if self.buffer.is_empty() && !self.fill().await? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let now = usize::try_from(*left).unwrap_or(usize::MAX).min(self.buffer.len());
        *left -= now as u64;
        let later = self.buffer.split_off(now);
        Ok(Some(std::mem::replace(&mut self.buffer, later)))
    }
}
