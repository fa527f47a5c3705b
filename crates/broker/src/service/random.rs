//! 128 bits of the system's randomness: what secrets and ids are made of.

/// The system gave none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub(super) struct NoRandom;

/// 128 random bits.
pub(super) fn random() -> Result<[u8; 16], NoRandom> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}
