//! Frames: one JSON value, bounded. On a channel that keeps messages apart (SEQPACKET) a frame is the JSON text alone; on
//! a stream its length stands before it (u32, big-endian, of what follows).
//! Invariant: a length is refused before anything is allocated for it.

use serde::{Serialize, de::DeserializeOwned};

/// The longest JSON text of one frame, in bytes: a user with a thousand groups fits in.
pub const MAX_FRAME: usize = 64 * 1024;

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

/// A frame for a channel that keeps messages apart.
///
/// # Errors
/// `TooLong` if the JSON text exceeds `MAX_FRAME`; `Json` if the value has no JSON form.
pub fn encode_bare<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let body = serde_json::to_vec(message).map_err(WireError::Json)?;
    if body.len() > MAX_FRAME {
        return Err(WireError::TooLong { length: body.len() });
    }
    Ok(body)
}

/// A frame for a stream, with its length.
///
/// # Errors
/// As [`encode_bare`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let body = encode_bare(message)?;
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
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
