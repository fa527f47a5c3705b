//! What the server and the page say to each other, in JSON; output and typed bytes go as they are, in binary messages.
//!
//! A binary message to the page: 8 bytes, big-endian, the offset of what follows (of a picture: of what comes after it).
//! Invariant: what a browser says is understood in full, or the connection ends.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::ended::Ended;
use crate::limits;
use crate::size::Size;

/// To the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum ToBrowser {
    /// The first message. Output before `until` is old: nobody waits for the terminal's answers to it.
    Hello { run: String, title: String, until: u64 },
    /// Forget what is shown; so many bytes of a picture follow, and then output from `offset` on.
    Snapshot { offset: u64, bytes: u64, until: u64, cols: u16, rows: u16 },
    /// From here on.
    Size(Size),
    /// Whether this browser is the one that types; whether it may be; whether another is.
    Writer { you: bool, may: bool, other: bool },
    /// The program has, and all of its output was said.
    Exited(Ended),
    /// The connection lives.
    Heartbeat,
    /// The connection ends, for this reason.
    Error { message: &'static str },
}

/// From the page.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum FromBrowser {
    /// The first message: what it has seen, of which run, and which size it would like. `client` is the same when it
    /// comes again.
    Attach {
        #[serde(default)]
        run: String,
        #[serde(default)]
        offset: u64,
        #[serde(default)]
        client: String,
        cols: i64,
        rows: i64,
    },
    /// So many more bytes are on the screen.
    Ack { bytes: u64 },
    /// Its size has changed.
    Resize { cols: i64, rows: i64 },
    /// Its user would like to type.
    Take,
}

impl FromBrowser {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let said = serde_json::from_str(text).ok()?;
        match &said {
            Self::Attach { run, client, .. }
                if run.len() > limits::CLIENT || client.len() > limits::CLIENT =>
            {
                None
            }
            _ => Some(said),
        }
    }
}

/// A binary message to the page.
pub(crate) fn output(offset: u64, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + bytes.len());
    frame.put_u64(offset);
    frame.put_slice(bytes);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_meant_is_not_understood() {
        for bad in [
            "",
            "{}",
            "[]",
            "take",
            r#"{"type":"shell"}"#,
            r#"{"type":"ack","bytes":-1}"#,
            r#"{"type":"ack"}"#,
            r#"{"type":"ack","bytes":1e99}"#,
            r#"{"type":"attach","offset":-1,"cols":1,"rows":1}"#,
            r#"{"type":"resize","cols":99999999999999999999,"rows":1}"#,
            &format!(r#"{{"type":"attach","client":"{}","cols":1,"rows":1}}"#, "x".repeat(65)),
        ] {
            assert_eq!(FromBrowser::parse(bad), None, "{bad}");
        }
        assert_eq!(FromBrowser::parse(r#"{"type":"take"}"#), Some(FromBrowser::Take));
    }

    #[test]
    fn messages_read_as_the_page_expects_them() {
        let said = |message: &ToBrowser| serde_json::to_string(message).unwrap();
        assert_eq!(said(&ToBrowser::Size(Size { cols: 2, rows: 1 })), r#"{"type":"size","cols":2,"rows":1}"#);
        assert_eq!(said(&ToBrowser::Exited(Ended::Code(3))), r#"{"type":"exited","code":3}"#);
        assert_eq!(said(&ToBrowser::Exited(Ended::Signal(9))), r#"{"type":"exited","signal":9}"#);
        assert_eq!(said(&ToBrowser::Heartbeat), r#"{"type":"heartbeat"}"#);
        assert_eq!(output(258, b"x"), &b"\0\0\0\0\0\0\x01\x02x"[..]);
    }
}
