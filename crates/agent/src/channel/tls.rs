//! TLS between agents and portals. Both ends show a raw public key (RFC 7250) and compare the other's with the one they
//! were given: there is no certificate, no authority, no name and no date that could be wrong.
//! Invariant: TLS 1.3, Ed25519 keys, no resumption and no early data, so that a key that was revoked opens nothing.

use std::fmt;
use std::sync::Arc;

use portreeve_model::{AgentKey, Secret};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs as provider, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    ServerConfig, SignatureScheme,
};

/// Between agents and portals. Neither end can be taken for a server of another protocol, whose key somebody may have
/// reused.
const PROTOCOL: &[u8] = b"portreeve-agent";

/// Why a private key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is none in the text.
    #[error("there is no private key in PEM form")]
    Missing,
    /// The library refuses it.
    #[error("the private key can't be used")]
    Refused(#[source] Error),
    /// A key of another kind.
    #[error("the private key is not an Ed25519 key")]
    Kind,
}

/// A private key with its public one.
#[derive(Clone)]
pub struct Identity {
    key: Arc<CertifiedKey>,
    public: AgentKey,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public)
    }
}

impl Identity {
    /// The first private key in a text in PEM form.
    ///
    /// # Errors
    /// When there is none, or it is not an Ed25519 key.
    pub fn from_pem(pem: &Secret) -> Result<Self, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem.reveal().as_bytes()).map_err(|_| KeyError::Missing)?;
        let key = provider::sign::any_supported_type(&der).map_err(KeyError::Refused)?;
        let (public, spki) = {
            let spki = key.public_key().ok_or(KeyError::Kind)?;
            (AgentKey::from_spki(&spki).ok_or(KeyError::Kind)?, spki.to_vec())
        };
        Ok(Self { key: Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], key)), public })
    }

    /// What others know it by.
    #[must_use]
    pub fn public(&self) -> AgentKey {
        self.public
    }
}

/// The agent's end: the portal must show one of `portals`.
///
/// # Errors
/// When the library refuses the settings.
pub fn client_config(own: &Identity, portals: Vec<AgentKey>) -> Result<ClientConfig, Error> {
    client_config_for(PROTOCOL, own, portals)
}

/// The end that connects, of this protocol: the other must show one of `servers`.
///
/// # Errors
/// When the library refuses the settings.
pub fn client_config_for(
    protocol: &[u8],
    own: &Identity,
    servers: Vec<AgentKey>,
) -> Result<ClientConfig, Error> {
    let crypto = Arc::new(provider::default_provider());
    let known = Known::new(&crypto, Box::new(move |key| servers.contains(key)));
    let mut config = ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(known))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&own.key))));
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// The portal's end: the agent must show a key that is known at that moment.
///
/// # Errors
/// When the library refuses the settings.
pub fn server_config(
    own: &Identity,
    is_known: impl Fn(&AgentKey) -> bool + Send + Sync + 'static,
) -> Result<ServerConfig, Error> {
    server_config_for(PROTOCOL, own, is_known)
}

/// The end that listens, of this protocol: the other must show a key that is known at that moment.
///
/// # Errors
/// When the library refuses the settings.
pub fn server_config_for(
    protocol: &[u8],
    own: &Identity,
    is_known: impl Fn(&AgentKey) -> bool + Send + Sync + 'static,
) -> Result<ServerConfig, Error> {
    let crypto = Arc::new(provider::default_provider());
    let known = Known::new(&crypto, Box::new(is_known));
    let mut config = ServerConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(known))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&own.key))));
    config.alpn_protocols = vec![protocol.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The key that the other end proved to have, after the handshake.
#[must_use]
pub fn peer_key(shown: Option<&[CertificateDer<'_>]>) -> Option<AgentKey> {
    match shown {
        Some([spki]) => AgentKey::from_spki(spki),
        _ => None,
    }
}

/// The one check of either end: is the key that the other one shows known?
struct Known {
    is_known: Box<dyn Fn(&AgentKey) -> bool + Send + Sync>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Known {
    fn new(crypto: &CryptoProvider, is_known: Box<dyn Fn(&AgentKey) -> bool + Send + Sync>) -> Self {
        Self { is_known, algorithms: crypto.signature_verification_algorithms }
    }

    fn check(&self, shown: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), Error> {
        match AgentKey::from_spki(shown) {
            Some(key) if more.is_empty() && (self.is_known)(&key) => Ok(()),
            _ => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(shown.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signed, &self.algorithms)
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").finish_non_exhaustive()
    }
}

/// Only TLS 1.3 is offered, so this is never asked.
fn never_in_tls12() -> Error {
    PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into()
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(never_in_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Known {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(never_in_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{ClientConnection, ServerConnection};

    fn identity() -> Identity {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        Identity::from_pem(&Secret::new(pair.serialize_pem())).unwrap()
    }

    /// Both ends in memory, until neither has anything more to say.
    fn shake(client: ClientConfig, server: ServerConfig) -> Result<Option<AgentKey>, Error> {
        let name = ServerName::try_from("portal").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.wants_write() || server.wants_write() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                server.process_new_packets()?;
            }
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                client.process_new_packets()?;
            }
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok(peer_key(server.peer_certificates()))
    }

    #[test]
    fn known_keys_and_no_others() {
        let (agent, portal, other) = (identity(), identity(), identity());
        let client = |own: &Identity, portal: &Identity| client_config(own, vec![portal.public()]).unwrap();
        let server = |known: AgentKey| server_config(&portal, move |key| *key == known).unwrap();
        assert_eq!(shake(client(&agent, &portal), server(agent.public())), Ok(Some(agent.public())));
        for refused in [
            shake(client(&other, &portal), server(agent.public())),
            shake(client(&agent, &other), server(agent.public())),
            shake(client(&agent, &portal), server(other.public())),
        ] {
            let failure = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
            assert_eq!(refused, Err(failure));
        }
    }

    #[test]
    fn nobody_is_let_in_without_a_key_or_with_a_certificate() {
        let (agent, portal) = (identity(), identity());
        let known = agent.public();
        let server = || server_config(&portal, move |key| *key == known).unwrap();
        let crypto = Arc::new(provider::default_provider());
        let verifier = || Arc::new(Known::new(&crypto, Box::new(|_| true)));
        let builder = || {
            ClientConfig::builder_with_provider(Arc::clone(&crypto))
                .with_protocol_versions(&[&TLS13])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(verifier())
        };
        let mut keyless = builder().with_no_client_auth();
        keyless.alpn_protocols = vec![PROTOCOL.to_vec()];
        assert!(shake(keyless, server()).is_err());
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
        let der = PrivateKeyDer::from_pem_slice(pair.serialize_pem().as_bytes()).unwrap();
        let mut certified = builder().with_client_auth_cert(vec![certificate.der().clone()], der).unwrap();
        certified.alpn_protocols = vec![PROTOCOL.to_vec()];
        assert!(shake(certified, server()).is_err());
        // The right key, for another protocol.
        let mut other = client_config(&agent, vec![portal.public()]).unwrap();
        other.alpn_protocols = vec![b"http/1.1".to_vec()];
        assert!(shake(other, server()).is_err());
    }

    #[test]
    fn only_ed25519_keys_are_taken() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        assert!(matches!(Identity::from_pem(&Secret::new(pair.serialize_pem())), Err(KeyError::Kind)));
        assert!(matches!(Identity::from_pem(&Secret::new(String::new())), Err(KeyError::Missing)));
    }
}
