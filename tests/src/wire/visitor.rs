//! A visitor who speaks either version of HTTP, for everything that holds for both: requests by their parts, answers in
//! one form. What only one version has is said with `Rig::http1`, `Rig::http2` and `Rig::frames`.

use std::future::poll_fn;
use std::io;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use super::http2::{Http2, give_back};
use super::rig::Rig;
use super::soon;
use super::stream::{Framing, Message, Wire};
use crate::world::Secure;

/// What a visitor speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
}

/// Makes two tests of each of these functions, which take a [`Version`]: `NAME::over_http1` and `NAME::over_http2`.
#[macro_export]
macro_rules! over_both {
    ($($test:ident),* $(,)?) => {$(
        mod $test {
            use $crate::wire::visitor::Version;

            #[tokio::test]
            async fn over_http1() {
                super::$test(Version::Http1).await;
            }

            #[tokio::test]
            async fn over_http2() {
                super::$test(Version::Http2).await;
            }
        }
    )*};
}

/// How a request announces its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upload {
    /// There is none.
    Nothing,
    /// It has so many bytes.
    Length(u64),
    /// It ends when it ends; over HTTP/1.1 it comes in chunks.
    Unknown,
}

/// Somebody who asks for an application, on one connection.
#[derive(Debug)]
pub struct Visitor<'r> {
    rig: &'r Rig,
    cookie: String,
    connection: Connection,
}

#[derive(Debug)]
enum Connection {
    Http1(Box<Wire<Secure>>),
    Http2(Http2),
}

impl<'r> Visitor<'r> {
    pub(super) async fn begin(rig: &'r Rig, version: Version, cookie: String) -> Self {
        let connection = match version {
            Version::Http1 => Connection::Http1(Box::new(rig.http1().await)),
            Version::Http2 => Connection::Http2(rig.http2().await),
        };
        Self { rig, cookie, connection }
    }

    /// Asks without a body, and takes the whole answer. `fields` are whole lines, as HTTP/1.1 has them.
    ///
    /// # Panics
    /// When there is none.
    pub async fn ask(&mut self, method: &str, path: &str, fields: &str) -> Message {
        let answer = self.send(method, path, fields, Upload::Nothing).await.answer().await;
        answer.unwrap_or_else(|error| panic!("no answer to {method} {path} {fields:?}: {error}"))
    }

    /// Asks with a body of announced length.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn ask_with(&mut self, method: &str, path: &str, fields: &str, body: &str) -> Message {
        let mut exchange = self.send(method, path, fields, Upload::Length(body.len() as u64)).await;
        // The portal may have refused before it has read all; its answer counts.
        let _ = exchange.upload(body).await;
        let _ = exchange.finish("").await;
        let answer = exchange.answer().await;
        answer.unwrap_or_else(|error| panic!("no answer to {method} {path} {fields:?}: {error}"))
    }

    /// Sends a request's head, and leaves the rest to the exchange.
    ///
    /// # Panics
    /// When the connection is over.
    pub async fn send(&mut self, method: &str, path: &str, fields: &str, upload: Upload) -> Exchange<'_> {
        let mut fields = self.cookie.clone() + fields;
        if let Upload::Length(length) = upload {
            fields += &format!("content-length: {length}\r\n");
        }
        let path = self.rig.path(path);
        let host = self.rig.host();
        let side = match &mut self.connection {
            Connection::Http1(wire) => {
                if upload == Upload::Unknown {
                    fields += "transfer-encoding: chunked\r\n";
                }
                if fields.lines().any(|line| line.starts_with("te:")) {
                    fields += "connection: te\r\n";
                }
                wire.send(format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n")).await.unwrap();
                Side::Http1 { wire, chunks: upload == Upload::Unknown, framing: Framing::Length(0) }
            }
            Connection::Http2(http2) => {
                let mut request =
                    http::Request::builder().method(method).uri(format!("https://{host}{path}"));
                *request.headers_mut().unwrap() = header_map(&fields);
                let request = request.body(()).unwrap();
                let (answer, sending) = http2.stream(request, upload == Upload::Nothing).await;
                Side::Http2 { answer, sending, body: None }
            }
        };
        Exchange { side, bodiless: method == "HEAD", trailers: Vec::new() }
    }
}

fn header_map(lines: &str) -> HeaderMap {
    let fields = lines.split_terminator("\r\n").map(|line| {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no field: {line:?}"));
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.trim().as_bytes()).unwrap())
    });
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(name, value);
    }
    map
}

fn field_lines(map: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    map.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

fn message<T>(answer: &Response<T>) -> Message {
    let line = format!("HTTP/2 {}", answer.status().as_u16());
    Message { line, fields: field_lines(answer.headers()), ..Message::default() }
}

/// One request whose head was sent, and its answer.
#[derive(Debug)]
pub struct Exchange<'v> {
    side: Side<'v>,
    bodiless: bool,
    trailers: Vec<(String, String)>,
}

#[derive(Debug)]
enum Side<'v> {
    Http1 { wire: &'v mut Wire<Secure>, chunks: bool, framing: Framing },
    Http2 { answer: ResponseFuture, sending: SendStream<Bytes>, body: Option<RecvStream> },
}

impl Exchange<'_> {
    /// Sends a piece of the request's body; waits for room, without a limit.
    ///
    /// # Errors
    /// When the other side takes no more.
    ///
    /// # Panics
    /// When it is a chunk without a byte.
    pub async fn upload(&mut self, piece: impl AsRef<[u8]>) -> io::Result<()> {
        let piece = piece.as_ref();
        match &mut self.side {
            Side::Http1 { wire, chunks: true, .. } => {
                // A chunk of no bytes would be the last.
                assert!(!piece.is_empty());
                wire.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).await
            }
            Side::Http1 { wire, .. } => wire.send(piece).await,
            Side::Http2 { sending, .. } => {
                let mut rest = Bytes::copy_from_slice(piece);
                while !rest.is_empty() {
                    sending.reserve_capacity(rest.len());
                    let room = poll_fn(|cx| sending.poll_capacity(cx)).await;
                    let room = room.ok_or(io::ErrorKind::BrokenPipe)?.map_err(io::Error::other)?;
                    let now = rest.split_to(room.min(rest.len()));
                    sending.send_data(now, false).map_err(io::Error::other)?;
                }
                Ok(())
            }
        }
    }

    /// Ends the request's body, with trailers as whole lines.
    ///
    /// # Errors
    /// When the other side takes no more.
    pub async fn finish(&mut self, trailers: &str) -> io::Result<()> {
        match &mut self.side {
            Side::Http1 { wire, chunks: true, .. } => wire.send(format!("0\r\n{trailers}\r\n")).await,
            Side::Http1 { .. } => Ok(()),
            Side::Http2 { sending, .. } => {
                let sent = match trailers {
                    "" => sending.send_data(Bytes::new(), true),
                    _ => sending.send_trailers(header_map(trailers)),
                };
                sent.map_err(io::Error::other)
            }
        }
    }

    /// The next interim answer.
    ///
    /// # Errors
    /// When something else comes.
    pub async fn interim(&mut self) -> io::Result<Message> {
        soon("an interim answer", async {
            match &mut self.side {
                Side::Http1 { wire, .. } => {
                    let head = wire.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
                    if head.status() < 200 { Ok(head) } else { Err(io::ErrorKind::InvalidData.into()) }
                }
                Side::Http2 { answer, .. } => match poll_fn(|cx| answer.poll_informational(cx)).await {
                    Some(head) => head.map(|head| message(&head)).map_err(io::Error::other),
                    None => Err(io::ErrorKind::InvalidData.into()),
                },
            }
        })
        .await
    }

    /// The answer's head, with the interim answers before it.
    ///
    /// # Errors
    /// When there is none.
    pub async fn head(&mut self) -> io::Result<Message> {
        soon("an answer", async {
            match &mut self.side {
                Side::Http1 { wire, framing, .. } => {
                    let head = wire.answer_head().await?;
                    if !(self.bodiless || [204, 304].contains(&head.status())) {
                        *framing = head.framing(true)?;
                    }
                    Ok(head)
                }
                Side::Http2 { answer, body, .. } => {
                    let mut interim = Vec::new();
                    while let Some(head) = poll_fn(|cx| answer.poll_informational(cx)).await {
                        interim.push(message(&head.map_err(io::Error::other)?));
                    }
                    let head = answer.await.map_err(io::Error::other)?;
                    let found = Message { interim, ..message(&head) };
                    *body = Some(head.into_body());
                    Ok(found)
                }
            }
        })
        .await
    }

    /// The next piece of the answer's body, once its head is there; `None` at its end.
    ///
    /// # Errors
    /// When it is cut off.
    pub async fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        soon("more of the answer", async {
            match &mut self.side {
                Side::Http1 { wire, framing, .. } => wire.piece(framing, &mut self.trailers).await,
                Side::Http2 { body, .. } => {
                    let body = body.as_mut().ok_or(io::ErrorKind::NotConnected)?;
                    while let Some(data) = body.data().await {
                        let data = data.map_err(io::Error::other)?;
                        give_back(body, data.len());
                        // The last frame may be an empty one.
                        if !data.is_empty() {
                            return Ok(Some(data.into()));
                        }
                    }
                    let trailers = body.trailers().await.map_err(io::Error::other)?;
                    self.trailers = trailers.as_ref().map(field_lines).unwrap_or_default();
                    Ok(None)
                }
            }
        })
        .await
    }

    /// The whole answer. One that is cut off is no error here: `complete` says so.
    ///
    /// # Errors
    /// When there is none.
    pub async fn answer(mut self) -> io::Result<Message> {
        let mut answer = self.head().await?;
        answer.complete = loop {
            match self.piece().await {
                Ok(Some(piece)) => answer.body.extend(piece),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        answer.trailers = self.trailers;
        Ok(answer)
    }
}
