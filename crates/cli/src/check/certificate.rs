//! The portal's certificate: whole, of its key, for its names, and good for some time yet.

use std::path::{Path, PathBuf};

use portreeve_model::split_host_port;
use portreeve_portal::{now, server_config};
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use x509_parser::certificate::X509Certificate;

use super::{Finding, Installation};

/// One that ends within so long is told, in seconds.
const SOON: i64 = 14 * 24 * 3600;

impl Installation {
    /// Chain and key: beside the configuration, where the portal's unit takes them from, or else as configured.
    pub(super) fn tls_files(&self) -> (PathBuf, PathBuf) {
        let given = (self.dir.join("tls.crt"), self.dir.join("tls.key"));
        match &self.config.tls {
            Some(tls) if !given.0.exists() && !given.1.exists() => (tls.certificate.clone(), tls.key.clone()),
            _ => given,
        }
    }

    /// The portal's own name, an IPv6 address in brackets.
    pub(super) fn host(&self) -> Option<&str> {
        let authority = self.config.portal.url.as_ref()?.strip_prefix("https://")?;
        split_host_port(authority).map(|(host, _)| host)
    }
}

pub(super) fn check(at: &Installation) -> Vec<Finding> {
    let (file, key) = at.tls_files();
    let get = "put the portal's certificate there, and those of its issuers behind it";
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(error) => {
            return [Some(Finding::unreadable(&file, &error, get)), key_of(&[], &key)]
                .into_iter()
                .flatten()
                .collect();
        }
    };
    let shown = file.display();
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let Some(chain) = chain.ok().filter(|chain| !chain.is_empty()) else {
        return vec![Finding::problem(format!("{shown} holds no certificates in PEM form"), get)];
    };
    let parsed: Result<Vec<_>, _> =
        chain.iter().map(|one| x509_parser::parse_x509_certificate(one)).collect();
    let Ok(parsed) = parsed else {
        return vec![Finding::problem(format!("{shown} holds something that is no certificate"), get)];
    };
    let parsed: Vec<_> = parsed.into_iter().map(|(_, certificate)| certificate).collect();
    let mut findings: Vec<Finding> = key_of(&chain, &key).into_iter().collect();
    if parsed.windows(2).any(|pair| pair[0].issuer().as_raw() != pair[1].subject().as_raw()) {
        let what = format!("the certificates in {shown} are not each followed by its issuer's");
        findings.push(Finding::problem(what, "write the portal's own first, then its issuer's, and so on"));
    }
    findings.extend(parsed.iter().enumerate().map(|(place, one)| lasting(one, place, now())));
    findings.extend(names(at, &chain[0]));
    findings.extend(not_used(at, &file));
    findings
}

/// What systemd hands to the portal goes before what is configured.
fn not_used(at: &Installation, file: &Path) -> Option<Finding> {
    let configured = at.config.tls.as_ref().filter(|tls| tls.certificate != file)?;
    let what =
        format!("tls.certificate, {}, is not used: {} is", configured.certificate.display(), file.display());
    Some(Finding::warning(what, "remove [tls], or that file and the credentials from the portal's unit"))
}

/// Whether the key is there, and is that of the chain; nothing to say of a good key without a chain.
fn key_of(chain: &[CertificateDer<'static>], file: &Path) -> Option<Finding> {
    let remedy = "put the key there with which the certificate was asked for";
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) => return Some(Finding::unreadable(file, &error, remedy)),
    };
    let shown = file.display();
    let Ok(key) = PrivateKeyDer::from_pem_slice(&text) else {
        return Some(Finding::problem(format!("{shown} holds no private key in PEM form"), remedy));
    };
    if chain.is_empty() {
        return None;
    }
    Some(match server_config(chain.to_vec(), key) {
        Ok(_) => Finding::fine(format!("{shown} is its key")),
        Err(error) => {
            let error = anyhow::Error::from(error);
            Finding::problem(format!("{shown} does not go with the certificate: {error:#}"), remedy)
        }
    })
}

/// `place` is where it stands in the file, from 0 on.
fn lasting(certificate: &X509Certificate<'_>, place: usize, now: i64) -> Finding {
    let which = match place {
        0 => "the certificate".to_owned(),
        place => format!("the certificate in place {} of the chain", place + 1),
    };
    let (begins, ends) = (certificate.validity().not_before, certificate.validity().not_after);
    let (first, last) = (begins.to_datetime().date(), ends.to_datetime().date());
    let renew = "get a new one, and systemctl reload portreeve-portal";
    match ends.timestamp() {
        _ if now < begins.timestamp() => {
            Finding::problem(format!("{which} is not good before {first}"), "look at this machine's clock")
        }
        end if end <= now => Finding::problem(format!("{which} ended on {last}"), renew),
        end if end - now < SOON => Finding::problem(format!("{which} ends on {last}"), renew),
        _ => Finding::fine(format!("{which} is good until {last}")),
    }
}

/// Whether browsers take it for each name of the portal.
fn names(at: &Installation, certificate: &CertificateDer<'_>) -> Vec<Finding> {
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else {
        let remedy = "get one of version 3 with a subject alternative name";
        return vec![Finding::problem("it is no certificate of a server", remedy)];
    };
    let portal = &at.config.portal;
    let host = |url: &str| split_host_port(url.strip_prefix("https://")?).map(|(host, _)| host.to_owned());
    let shared = portal.apps_url.as_deref().and_then(host);
    let others = portal.names.iter().map(String::as_str).chain(shared.as_deref());
    let all = at.host().into_iter().chain(others).map(str::to_owned);
    // Any name of theirs: only one with an asterisk is good for all.
    let apps = at.config.portal.apps_domain.iter();
    let apps = apps.flat_map(|domain| ["fh", "fn"].map(|kind| format!("any-name.{kind}.{domain}")));
    let of_one = |name: String| {
        let bare = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        let covered = ServerName::try_from(bare).is_ok_and(|name| verify_server_name(&parsed, &name).is_ok());
        if covered {
            return Finding::fine(format!("it is for {name}"));
        }
        Finding::problem(format!("it is not for {name}"), "get one that has this name, too")
    };
    all.chain(apps).map(of_one).collect()
}
