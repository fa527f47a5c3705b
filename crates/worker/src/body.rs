//! A request's body in JSON. Invariant: nothing is kept of what is longer than `MAX_BODY`, or late.

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use portreeve_model::wire::worker::MAX_BODY;
use tokio::time::timeout;

use crate::limits;
use crate::respond::Refused;

/// The value in it.
pub(crate) async fn json<T, B>(body: B) -> Result<T, Refused>
where
    T: serde::de::DeserializeOwned,
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // What is announced is refused before it comes.
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(Refused::TooLarge);
    }
    let collected = timeout(limits::BODY, Limited::new(body, MAX_BODY).collect()).await;
    let bytes = match collected {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Refused::TooLarge),
        Ok(Err(error)) => {
            tracing::debug!(error = &*error as &dyn std::error::Error, "a body broke off");
            return Err(Refused::Malformed);
        }
        Err(_) => return Err(Refused::Late),
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        // Which line it is, not what stands there.
        tracing::warn!(line = error.line(), column = error.column(), kind = ?error.classify(), "a body can't be understood");
        Refused::Malformed
    })
}
