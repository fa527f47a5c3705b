//! Messages on the control socket between `portreeve` the command and a running portal.
//! Invariant: a frame is at most `MAX_FRAME` bytes, and its length is refused before anything is allocated for it.
//! A frame is a length (u32, big-endian, of what follows) and one JSON value.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The longest JSON text of one frame, in bytes.
pub const MAX_FRAME: usize = 4096;

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

/// A frame that can't be sent or understood.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A frame with nothing in it.
    #[error("the frame is empty")]
    Empty,
    /// Longer than `MAX_FRAME`.
    #[error("the frame has {length} bytes, and at most {MAX_FRAME} are allowed")]
    TooLong {
        /// Bytes announced or made.
        length: usize,
    },
    /// Not the JSON that was expected.
    #[error("the frame does not hold a message of the expected form")]
    Json(#[source] serde_json::Error),
}

/// One whole frame, length included.
///
/// # Errors
/// `TooLong` if the JSON text exceeds `MAX_FRAME`; `Json` if the value has no JSON form.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let body = serde_json::to_vec(message).map_err(WireError::Json)?;
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    frame_length(length)?;
    let mut frame = Vec::with_capacity(length.len() + body.len());
    frame.extend_from_slice(&length);
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// How many bytes follow this head.
///
/// # Errors
/// `Empty` for 0, `TooLong` above `MAX_FRAME`: the peer's word never sizes a buffer.
pub fn frame_length(head: [u8; 4]) -> Result<usize, WireError> {
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    match length {
        0 => Err(WireError::Empty),
        1..=MAX_FRAME => Ok(length),
        _ => Err(WireError::TooLong { length }),
    }
}

/// The message in a frame's body (without its head).
///
/// # Errors
/// `Empty`, `TooLong`, or `Json`: also for unknown fields and for anything after the value.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, WireError> {
    match body.len() {
        0 => Err(WireError::Empty),
        1..=MAX_FRAME => serde_json::from_slice(body).map_err(WireError::Json),
        length => Err(WireError::TooLong { length }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(frame_length(4096u32.to_be_bytes()).unwrap(), MAX_FRAME);
        for length in [4097u32, 1 << 16, u32::MAX] {
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
