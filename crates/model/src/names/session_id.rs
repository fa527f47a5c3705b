//! Session ids. Before: the broker's random bytes, or a ticket. Invariant: exactly one text for one 128-bit value.

use super::{NameError, NameKind, check, text_name};

/// 128 random bits in base64url without padding (RFC 4648, section 5): 22 characters. It names a session in logs and
/// in the revocation list; holding it opens nothing.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Box<str>);
text_name!(SessionId);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const LENGTH: usize = 22;

impl SessionId {
    /// 22 characters of base64url.
    ///
    /// # Errors
    /// What was wrong; also when the last character carries bits beyond the 128, since then two texts would be one id.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let kind = NameKind::Session;
        check(kind, text, LENGTH, |c| u8::try_from(c).is_ok_and(|b| ALPHABET.contains(&b)))?;
        match text.as_bytes().last() {
            Some(b'A' | b'Q' | b'g' | b'w') if text.len() == LENGTH => Ok(Self(text.into())),
            _ => Err(NameError::Form { kind }),
        }
    }

    /// The id of these 128 bits, which must come from the system's random source.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let bits = u128::from_be_bytes(bytes);
        let sextet = |i: usize| if i == LENGTH - 1 { bits << 4 } else { bits >> (128 - 6 * (i + 1)) } & 0x3f;
        Self((0..LENGTH).map(|i| char::from(ALPHABET[sextet(i) as usize])).collect::<String>().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_to_text() {
        for (bytes, text) in [
            ([0; 16], "AAAAAAAAAAAAAAAAAAAAAA"),
            ([0xff; 16], "_____________________w"),
            (*b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f", "AAECAwQFBgcICQoLDA0ODw"),
            (*b"sixteen bytes :)", "c2l4dGVlbiBieXRlcyA6KQ"),
        ] {
            let id = SessionId::from_bytes(bytes);
            assert_eq!(id.as_str(), text);
            assert_eq!(SessionId::parse(text).unwrap(), id);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "AAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAB", // bits beyond the 128
            "AAAAAAAAAAAAAAAAAAAA==",
            "AAAAAAAAAAAA+AAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAA\0A",
            "ÄAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert!(SessionId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
