//! Signs tickets: JSON Web Tokens (RFC 7519) with Ed25519 (RFC 8037), `typ` as RFC 8725 section 3.11 advises.
//!
//! Invariant: the private key stays in this crate. The portal gets [`TicketKey::public`] and can verify, not mint.

use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use portreeve_model::wire::broker::PublicKey;
use portreeve_model::{Claims, TICKET_TYP};

use crate::private_file::{self, FileError};

/// The key that signs tickets.
pub struct TicketKey {
    encoding: EncodingKey,
    public: Vec<u8>,
    id: String,
}

/// Why there is no key or no ticket.
#[derive(Debug, thiserror::Error)]
pub enum TicketError {
    /// The key file could not be read or written.
    #[error("the ticket key can't be kept")]
    File(#[from] FileError),
    /// The file holds something that is no Ed25519 key.
    #[error(
        "{0} is not an Ed25519 key in PKCS#8; remove it to have a new one made (everybody signs in again)"
    )]
    NotAKey(String),
    /// The cryptographic library refused.
    #[error("the ticket could not be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
    /// No randomness, or the library failed.
    #[error("no key could be made")]
    Generate,
}

impl TicketKey {
    /// The key kept at `path`, made now if there is none.
    ///
    /// # Errors
    /// When the file can't be read, written, or holds no key.
    pub fn load_or_make(path: &Path) -> Result<Self, TicketError> {
        if let Some(kept) = private_file::read(path)? {
            return Self::from_pkcs8(&kept).ok_or_else(|| TicketError::NotAKey(path.display().to_string()));
        }
        let (made, pkcs8) = Self::generate()?;
        private_file::write(path, &pkcs8)?;
        Ok(made)
    }

    /// A new key, and the form to keep it in (PKCS#8).
    ///
    /// # Errors
    /// `Generate`.
    pub fn generate() -> Result<(Self, Vec<u8>), TicketError> {
        let made = Ed25519KeyPair::generate().map_err(|_| TicketError::Generate)?;
        let pkcs8 = made.to_pkcs8().map_err(|_| TicketError::Generate)?.as_ref().to_vec();
        let key = Self::from_pkcs8(&pkcs8).ok_or(TicketError::Generate)?;
        Ok((key, pkcs8))
    }

    /// The key that [`TicketKey::generate`] gave; `None` if it is none.
    #[must_use]
    pub fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).ok()?;
        let public = pair.public_key().as_ref().to_vec();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &public);
        let id = HEXLOWER.encode(&digest.as_ref()[..8]);
        Some(Self { encoding: EncodingKey::from_ed_der(pkcs8), public, id })
    }

    /// The public half: 32 bytes, as RFC 8032 encodes them.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Names this key in the tickets it signs.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public half as it is told to others.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey { id: self.id.clone(), key: BASE64URL_NOPAD.encode(&self.public) }
    }

    /// A ticket that says `claims`.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn sign(&self, claims: &Claims) -> Result<String, TicketError> {
        self.sign_as(TICKET_TYP, claims)
    }

    pub(crate) fn sign_as(&self, typ: &str, claims: &Claims) -> Result<String, TicketError> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(typ.to_owned());
        header.kid = Some(self.id.clone());
        jsonwebtoken::encode(&header, claims, &self.encoding).map_err(TicketError::Sign)
    }
}
