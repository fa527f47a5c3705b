//! Messages between `portreeve`, the command, and a running portal or broker, on a socket of its own.

use serde::{Deserialize, Serialize};

/// What a caller may ask. The caller's identity comes from the socket's peer credentials, never from the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlRequest {
    /// A single-use sign-in address for the caller.
    Login,
    /// Where the portal is.
    Where,
}

/// What the portal answers.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlReply {
    /// The answer to `Login`.
    Address {
        /// An address with a single-use code in it: a secret until used, hence left out of Debug.
        url: String,
    },
    /// The answer to `Where`.
    Portal {
        /// The portal's base address.
        url: String,
        /// The portal's process.
        pid: u32,
    },
    /// The request was understood, and refused.
    Refused {
        /// One sentence for people.
        reason: String,
    },
}

impl std::fmt::Debug for ControlReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address { url: _ } => f.debug_struct("Address").finish_non_exhaustive(),
            Self::Portal { url, pid } => {
                f.debug_struct("Portal").field("url", url).field("pid", pid).finish()
            }
            Self::Refused { reason } => f.debug_struct("Refused").field("reason", reason).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{MAX_FRAME, WireError, decode, encode, frame_length};

    #[test]
    fn messages_survive_the_way() {
        for request in [ControlRequest::Login, ControlRequest::Where] {
            let frame = encode(&request).unwrap();
            let length = frame_length(frame[..4].try_into().unwrap()).unwrap();
            assert_eq!(length, frame.len() - 4);
            assert_eq!(decode::<ControlRequest>(&frame[4..]).unwrap(), request);
        }
        for reply in [
            ControlReply::Address { url: "https://localhost:8443/-/in?c=1".into() },
            ControlReply::Portal { url: "https://localhost:8443/".into(), pid: 7 },
            ControlReply::Refused { reason: "Not yours.".into() },
        ] {
            let frame = encode(&reply).unwrap();
            assert_eq!(decode::<ControlReply>(&frame[4..]).unwrap(), reply);
        }
    }

    #[test]
    fn the_form_on_the_wire_is_fixed() {
        assert_eq!(encode(&ControlRequest::Login).unwrap(), b"\x00\x00\x00\x07\"login\"");
        let portal = ControlReply::Portal { url: "u".into(), pid: 7 };
        assert_eq!(&encode(&portal).unwrap()[4..], br#"{"portal":{"url":"u","pid":7}}"#);
    }

    #[test]
    fn lengths_are_bounded() {
        assert!(matches!(frame_length([0; 4]), Err(WireError::Empty)));
        assert_eq!(frame_length(65_536u32.to_be_bytes()).unwrap(), MAX_FRAME);
        for length in [65_537u32, 1 << 17, u32::MAX] {
            assert!(matches!(frame_length(length.to_be_bytes()), Err(WireError::TooLong { .. })), "{length}");
        }
        let long = ControlReply::Refused { reason: "x".repeat(MAX_FRAME) };
        assert!(matches!(encode(&long), Err(WireError::TooLong { .. })));
        assert!(matches!(decode::<ControlReply>(&vec![b' '; MAX_FRAME + 1]), Err(WireError::TooLong { .. })));
    }

    #[test]
    fn anything_else_is_refused() {
        for body in [
            &b""[..],
            b"login",
            b"\"logout\"",
            b"\"login\" \"where\"",
            b"{\"login\":{\"uid\":0}}",
            b"\xff",
            b"[[[[[[[[",
        ] {
            assert!(decode::<ControlRequest>(body).is_err(), "{body:?}");
        }
        for body in [
            &br#"{"portal":{"url":"u","pid":7,"root":true}}"#[..],
            br#"{"portal":{"url":"u"}}"#,
            br#"{"portal":{"url":"u","pid":7},"refused":{"reason":""}}"#,
        ] {
            assert!(decode::<ControlReply>(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn debug_keeps_the_code() {
        let reply = ControlReply::Address { url: "https://h/-/in?code=secret".into() };
        assert!(!format!("{reply:?}").contains("secret"));
    }
}
