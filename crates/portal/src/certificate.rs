//! The portal's certificate: a self-signed one that is made once and kept, or the one that the configuration names.

use std::path::{Path, PathBuf};

use portreeve_broker::private_file::{self, FileError};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::tls::server_config;

/// A certificate chain and its key.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// How long a certificate made here is valid, and how long before its end a new one is made, in seconds. Browsers
/// refuse certificates valid for more than 398 days, unless their user overrides that.
const VALID: i64 = 397 * 24 * 3600;
const RENEW_BEFORE: i64 = 30 * 24 * 3600;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file of the state directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file that the configuration names.
    #[error("{path}: can't be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No certificate or key in it.
    #[error("{0}: holds no {1} in PEM form")]
    Empty(PathBuf, &'static str),
    /// Making one failed.
    #[error("no certificate could be made")]
    Make(#[from] rcgen::Error),
}

/// The identity in the two files, of which the key's may be readable by nobody else... as its owner arranged it.
///
/// # Errors
/// When one can't be read or holds no certificate or key.
pub fn from_files(certificate: &Path, key: &Path) -> Result<Identity, CertificateError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| CertificateError::Read { path: path.to_owned(), source })
    };
    parse(&read(certificate)?, &read(key)?, certificate, key)
}

/// The self-signed identity kept in `state`, made now if there is none, if it soon ends, or if it lacks a name.
/// `names` are DNS names (a wildcard may be among them) and IP addresses as text.
///
/// # Errors
/// When it can't be read, made or kept.
pub fn self_signed(state: &Path, names: &[String], now: i64) -> Result<Identity, CertificateError> {
    let (certificate_path, key_path) = (state.join("certificate.pem"), state.join("certificate-key.pem"));
    let kept = (private_file::read(&certificate_path)?, private_file::read(&key_path)?);
    if let (Some(certificate), Some(key)) = kept
        && let Ok(identity) = parse(&certificate, &key, &certificate_path, &key_path)
        && identity.0.first().is_some_and(|first| still_good(first, names, now))
        // The disk may have been full after the first of them was written.
        && server_config(identity.0.clone(), identity.1.clone_key()).is_ok()
    {
        return Ok(identity);
    }
    let (certificate, key) = make(names, now)?;
    // The key first: a certificate without its key would be taken for a pair.
    private_file::write(&key_path, key.as_bytes())?;
    private_file::write(&certificate_path, certificate.as_bytes())?;
    parse(certificate.as_bytes(), key.as_bytes(), &certificate_path, &key_path)
}

fn parse(certificate: &[u8], key: &[u8], at: &Path, key_at: &Path) -> Result<Identity, CertificateError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate).filter_map(Result::ok).collect();
    if chain.is_empty() {
        return Err(CertificateError::Empty(at.to_owned(), "certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| CertificateError::Empty(key_at.to_owned(), "private key"))?;
    Ok((chain, key))
}

fn still_good(certificate: &CertificateDer<'_>, names: &[String], now: i64) -> bool {
    use x509_parser::extensions::GeneralName;
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let Ok(Some(alternative)) = parsed.subject_alternative_name() else { return false };
    let has = |wanted: &String| {
        alternative.value.general_names.iter().any(|name| match name {
            GeneralName::DNSName(dns) => dns.eq_ignore_ascii_case(wanted),
            GeneralName::IPAddress(bytes) => {
                let ip = <[u8; 4]>::try_from(*bytes)
                    .map(std::net::IpAddr::from)
                    .or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from));
                ip.is_ok_and(|ip| wanted.parse() == Ok(ip))
            }
            _ => false,
        })
    };
    let validity = parsed.validity();
    validity.not_before.timestamp() <= now
        && now + RENEW_BEFORE < validity.not_after.timestamp()
        && names.iter().all(has)
}

fn make(names: &[String], now: i64) -> Result<(String, String), CertificateError> {
    let mut params = CertificateParams::default();
    for name in names {
        params.subject_alt_names.push(match name.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "Portreeve, made on this machine");
    params.distinguished_name = subject;
    // A clock that is a little behind on the browser's side must not make it "not valid yet".
    let start = time_of(now - 24 * 3600);
    params.not_before = start;
    params.not_after = time_of(now - 24 * 3600 + VALID);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn time_of(seconds: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;

    fn first(identity: &Identity) -> Vec<u8> {
        identity.0[0].to_vec()
    }

    #[test]
    fn it_is_kept_until_it_soon_ends_or_lacks_a_name() {
        let state = tempfile::tempdir().unwrap();
        let names =
            ["localhost".to_owned(), "*.localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let now = 1_800_000_000;
        let made = first(&self_signed(state.path(), &names, now).unwrap());
        assert_eq!(first(&self_signed(state.path(), &names, now + 300 * DAY).unwrap()), made);
        assert_eq!(first(&self_signed(state.path(), &names[..1], now).unwrap()), made);
        let more = [names.to_vec(), vec!["login1".to_owned()]].concat();
        let wider = first(&self_signed(state.path(), &more, now).unwrap());
        assert_ne!(wider, made);
        assert_ne!(first(&self_signed(state.path(), &more, now + 370 * DAY).unwrap()), wider);
    }

    #[test]
    fn a_damaged_certificate_is_replaced_and_an_exposed_key_refused() {
        use std::os::unix::fs::PermissionsExt;
        let state = tempfile::tempdir().unwrap();
        let names = ["localhost".to_owned()];
        self_signed(state.path(), &names, 1_800_000_000).unwrap();
        private_file::write(&state.path().join("certificate.pem"), b"nonsense").unwrap();
        self_signed(state.path(), &names, 1_800_000_000).unwrap();
        let other = tempfile::tempdir().unwrap();
        self_signed(other.path(), &names, 1_800_000_000).unwrap();
        let key = state.path().join("certificate-key.pem");
        std::fs::rename(other.path().join("certificate-key.pem"), &key).unwrap();
        let (chain, matching) = self_signed(state.path(), &names, 1_800_000_000).unwrap();
        assert!(server_config(chain, matching).is_ok(), "a key without its certificate is replaced");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(self_signed(state.path(), &names, 1_800_000_000), Err(CertificateError::File(_))));
    }
}
