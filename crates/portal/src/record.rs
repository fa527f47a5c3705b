//! One request as those see it who watch over the portal: counted (`metrics/`), and, where the configuration wants it,
//! written to the access log when its answer or tunnel has ended.
//!
//! Invariant: no query, header field or body is written down, since they carry codes and tokens; and nothing in a
//! record can break its line.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::error::Error;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use percent_encoding::{CONTROLS, utf8_percent_encode};
use portreeve_model::UserName;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::front::{Connection, RequestId};
use crate::limits;
use crate::room::Room;
use crate::sessions::Session;

/// A request from its head to the head of its answer.
pub(crate) struct Record<'a> {
    room: &'a Room,
    version: Version,
    begun: Instant,
    status: Option<StatusCode>,
    line: Option<Rc<Line>>,
}

impl<'a> Record<'a> {
    /// `logged`: it is to have a line in the access log.
    pub(crate) fn begin(connection: &'a Connection, id: RequestId, parts: &Parts, logged: bool) -> Self {
        connection.room.tally.request_begun();
        let begun = Instant::now();
        let line = logged.then(|| Rc::new(Line::begin(connection, id, parts, begun)));
        Self { room: &connection.room, version: parts.version, begun, status: None, line }
    }

    /// Who asks.
    pub(crate) fn comes_from(&self, session: &Session) {
        if let Some(line) = &self.line {
            let _ = line.user.set(session.user.clone());
        }
    }

    /// What it is for.
    pub(crate) fn goes_to(&self, place: impl FnOnce() -> String) {
        if let Some(line) = &self.line {
            let _ = line.place.set(place());
        }
    }

    /// It was refused, with this code.
    pub(crate) fn refused(&self, code: &str) {
        self.room.tally.refused(code);
    }

    /// When its head was there.
    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// For the tunnel that comes of it.
    pub(crate) fn line(&self) -> Option<Rc<Line>> {
        self.line.clone()
    }

    /// Its answer, to be sent.
    pub(crate) fn answered(mut self, response: Response<Answer>) -> Response<Sent> {
        self.status = Some(response.status());
        let line = self.line.take();
        if let Some(line) = &line {
            line.status.set(response.status().as_u16());
            line.head.set(Some(self.begun.elapsed()));
        }
        response.map(|answer| Sent { answer, line })
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        self.room.tally.request_ended(self.version, self.status, self.begun.elapsed());
    }
}

/// A line of the access log, written when nobody holds it any more.
pub(crate) struct Line {
    id: RequestId,
    peer: SocketAddr,
    method: Method,
    host: Box<str>,
    path: Box<str>,
    version: Version,
    begun: Instant,
    user: OnceCell<UserName>,
    place: OnceCell<String>,
    /// 0: there was no answer.
    status: Cell<u16>,
    head: Cell<Option<Duration>>,
    bytes: Cell<u64>,
    end: Cell<End>,
}

/// How an answer or tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// All of it was handed to the browser's connection.
    Sent,
    /// Before its end: the browser left, the application broke off, or a right was withdrawn.
    Cut,
    /// A tunnel that both sides closed.
    Closed,
}

impl Line {
    fn begin(connection: &Connection, id: RequestId, parts: &Parts, begun: Instant) -> Self {
        let header = || parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        // What is not ASCII in a path could turn text round in a terminal, or end a line for some readers.
        let path = Cow::from(utf8_percent_encode(parts.uri.path(), CONTROLS));
        let host = parts.uri.authority().map(http::uri::Authority::as_str).or_else(header).unwrap_or("-");
        Self {
            id,
            peer: connection.peer,
            method: parts.method.clone(),
            host: shortened(host, limits::HOST_SHOWN),
            path: shortened(&path, limits::PATH_SHOWN),
            version: parts.version,
            begun,
            user: OnceCell::new(),
            place: OnceCell::new(),
            status: Cell::new(0),
            head: Cell::new(None),
            bytes: Cell::new(0),
            end: Cell::new(End::Cut),
        }
    }

    /// Bytes that went to the browser.
    pub(crate) fn sent(&self, bytes: u64) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    /// How it ended.
    pub(crate) fn ended(&self, end: End) {
        self.end.set(end);
    }
}

/// Not more than so many characters of it.
fn shortened(text: &str, most: usize) -> Box<str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}

/// In milliseconds, to the microsecond.
fn milliseconds(took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact for the next 285 years")]
    let microseconds = took.as_micros() as f64;
    microseconds / 1000.0
}

impl Drop for Line {
    fn drop(&mut self) {
        // Texts are recorded as such, not by their Display: so the log's formatter escapes what could break a line.
        tracing::info!(
            target: "access",
            request = %self.id,
            user = self.user.get().map_or("-", UserName::as_str),
            peer = %self.peer,
            method = self.method.as_str(),
            host = &*self.host,
            path = &*self.path,
            protocol = match self.version {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            place = self.place.get().map_or("-", String::as_str),
            status = self.status.get(),
            bytes = self.bytes.get(),
            head_ms = self.head.get().map(milliseconds),
            total_ms = milliseconds(self.begun.elapsed()),
            end = match self.end.get() {
                End::Sent => "sent",
                End::Cut => "cut",
                End::Closed => "closed",
            },
        );
    }
}

/// An answer's body on its last step, the browser's connection.
pub(crate) struct Sent {
    answer: Answer,
    line: Option<Rc<Line>>,
}

impl Drop for Sent {
    fn drop(&mut self) {
        // A library does not poll again for the end of a body that says it is at its end.
        if let Some(line) = &self.line
            && self.answer.is_end_stream()
        {
            line.ended(End::Sent);
        }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.answer).poll_frame(cx);
        if let Some(line) = &self.line {
            match &polled {
                Poll::Ready(Some(Ok(frame))) => {
                    line.sent(frame.data_ref().map_or(0, |data| data.len() as u64));
                }
                Poll::Ready(None) => line.ended(End::Sent),
                Poll::Ready(Some(Err(_))) | Poll::Pending => {}
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Written {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    impl Written {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// What ends lines, colours terminals, and ends strings and objects.
    const NASTY: &str = "a\nb\r\u{1b}[31mc\" end=\"sent\"}\\";

    fn line(connection: &Connection) -> Line {
        let parts = http::Request::get("/x?token=secret").body(()).unwrap().into_parts().0;
        let id = connection.next_request();
        let mut line = Line::begin(connection, id, &parts, Instant::now());
        (line.host, line.path) = (NASTY.into(), NASTY.into());
        line.place.set(NASTY.to_owned()).unwrap();
        line
    }

    #[tokio::test]
    async fn nothing_in_a_record_breaks_its_line() {
        let (_state, room) = crate::room::tests::room();
        let connection = Connection::new(Rc::new(room), ([127, 0, 0, 1], 1).into()).unwrap();
        let (text, json) = (Written::default(), Written::default());
        let log = tracing_subscriber::fmt().with_writer(text.clone()).with_ansi(false).finish();
        tracing::subscriber::with_default(log, || drop(line(&connection)));
        let log = tracing_subscriber::fmt().json().with_writer(json.clone()).finish();
        tracing::subscriber::with_default(log, || drop(line(&connection)));
        for written in [text.text(), json.text()] {
            assert_eq!(written.lines().count(), 1, "{written:?}");
            let body = written.trim_end_matches('\n');
            assert!(!body.contains(|c: char| c.is_control()), "{body:?}");
            assert!(!body.contains("secret"));
        }
        assert!(text.text().contains(r#"path="a\nb\r\u{1b}[31mc"#), "{}", text.text());
        let record: serde_json::Value = serde_json::from_str(&json.text()).unwrap();
        assert_eq!(record["fields"]["path"], NASTY);
        assert_eq!(record["fields"]["end"], "cut");
        assert_eq!(record["fields"]["status"], 0);
        assert_eq!(record["target"], "access");
    }

    #[tokio::test]
    async fn a_record_is_made_only_when_it_is_wanted() {
        let (_state, room) = crate::room::tests::room();
        let connection = Connection::new(Rc::new(room), ([127, 0, 0, 1], 1).into()).unwrap();
        let parts = http::Request::get("/").body(()).unwrap().into_parts().0;
        let written = Written::default();
        let log = tracing_subscriber::fmt().with_writer(written.clone()).with_ansi(false).finish();
        tracing::subscriber::with_default(log, || {
            for logged in [false, true] {
                let record = Record::begin(&connection, connection.next_request(), &parts, logged);
                assert_eq!(record.line().is_some(), logged);
                record.goes_to(|| if logged { "workspace".to_owned() } else { panic!("not wanted") });
                drop(record.answered(Response::new(Answer::from("0123456789".to_owned()))));
            }
        });
        let text = written.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        // Dropped before it was polled: not one byte of it was sent.
        for field in [" user=\"-\" ", " status=200 ", " bytes=0 ", " end=\"cut\"", " place=\"workspace\" "] {
            assert!(format!("{} ", text.trim_end()).contains(field), "{field}: {text}");
        }
    }

    #[tokio::test]
    async fn a_path_is_ascii() {
        let (_state, room) = crate::room::tests::room();
        let connection = Connection::new(Rc::new(room), ([127, 0, 0, 1], 1).into()).unwrap();
        let of = |path: &str| {
            let parts = http::Request::get(path).body(()).unwrap().into_parts().0;
            Line::begin(&connection, connection.next_request(), &parts, Instant::now()).path.clone()
        };
        assert_eq!(&*of("/a%0Ab/\u{85}\u{202e}\u{2028}ä?secret"), "/a%0Ab/%C2%85%E2%80%AE%E2%80%A8%C3%A4");
        assert_eq!(of(&format!("/{}", "a".repeat(2000))).len(), limits::PATH_SHOWN + "...".len());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(&*shortened("äöü", 3), "äöü");
        assert_eq!(&*shortened("äöü", 2), "äö...");
        assert_eq!(&*shortened("", 0), "");
    }
}
