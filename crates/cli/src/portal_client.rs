//! A visit to a portal over HTTPS, as whoever types the command: in with a sign-in address from the login socket, questions,
//! out again. Or each question shows an access token, and there is no session.
//!
//! Invariants: the code goes to the address that the login socket gave, a token to the one that was named, and only over TLS
//! with a certificate that the system (or `--cacert`) trusts; the session ends before the command does, also when a question
//! failed, or the command is interrupted.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, ORIGIN, RANGE, SET_COOKIE, USER_AGENT,
};
use http::{HeaderMap, Method, Request, StatusCode};
use portreeve_model::{Secret, TOKEN_PREFIX, split_host_port};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::http_client::{Reply, ask};

/// For a request.
const PATIENCE: Duration = Duration::from_secs(60);
/// The portal's cookie.
const COOKIE_NAME: &str = "__Host-portreeve";

/// A portal that can be visited.
pub(crate) struct PortalClient {
    host: String,
    port: u16,
    key: Key,
    tls: TlsConnector,
}

/// What lets one in.
enum Key {
    /// A single-use code, which makes a session.
    Code(Secret),
    Token(Secret),
}

/// What a request shows.
enum Shown {
    Cookie(Secret),
    Token(Secret),
}

/// What a request brings.
enum Body {
    /// A form of the portal's own.
    Form(String),
    Json(serde_json::Value),
    /// A part of a file.
    Bytes(Bytes),
    /// Nothing; wanted are these bytes of a file.
    Range(std::ops::RangeInclusive<u64>),
}

/// A visit.
pub(crate) struct Session<'c> {
    client: &'c PortalClient,
    shown: Shown,
}

impl PortalClient {
    /// The portal of this sign-in address.
    ///
    /// # Errors
    /// When it is none, or no certificate authority is known.
    pub(crate) fn to(address: &str, cacert: Option<&Path>) -> anyhow::Result<Self> {
        let (authority, code) = address
            .strip_prefix("https://")
            .and_then(|rest| rest.split_once("/-/enter?code="))
            .context("what the login socket gave is no sign-in address")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if code.is_empty() || !code.chars().all(plain) {
            bail!("what the login socket gave has no code");
        }
        let key = Key::Code(Secret::new(code.to_owned()));
        Self::at(authority, key, cacert)?.context("what the login socket gave has no host name")
    }

    /// The portal at this address, `https://HOST/`, which is shown an access token.
    ///
    /// # Errors
    /// When it is no address or no token, or no certificate authority is known.
    pub(crate) fn with_token(url: &str, token: &str, cacert: Option<&Path>) -> anyhow::Result<Self> {
        let fits = token
            .strip_prefix(TOKEN_PREFIX)
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        if !fits {
            bail!("there is no access token: it is one word that begins with {TOKEN_PREFIX}");
        }
        let no_address =
            || format!("{url:?} is no address of a portal: write https://HOST or https://HOST:PORT");
        let rest = url.strip_prefix("https://").with_context(no_address)?;
        let key = Key::Token(Secret::new(token.to_owned()));
        Self::at(rest.strip_suffix('/').unwrap_or(rest), key, cacert)?.with_context(no_address)
    }

    fn at(authority: &str, key: Key, cacert: Option<&Path>) -> anyhow::Result<Option<Self>> {
        let Some((host, port)) = split_host_port(authority) else { return Ok(None) };
        let port = port.map_or(443, |port| port.get());
        let tls = TlsConnector::from(Arc::new(tls(cacert)?));
        Ok(Some(Self { host: host.to_owned(), port, key, tls }))
    }

    fn authority(&self) -> String {
        match self.port {
            443 => self.host.clone(),
            port => format!("{}:{port}", self.host),
        }
    }

    /// Signs in, asks for the JSON that is at this path, and signs out.
    ///
    /// # Errors
    /// Whatever of it failed.
    pub(crate) fn json(&self, path: &str) -> anyhow::Result<String> {
        self.visit(async |session| session.json(path).await)
    }

    /// Signs in, does something, and signs out. Each request has its own limit.
    ///
    /// # Errors
    /// Whatever of it failed.
    pub(crate) fn visit<T>(
        &self,
        act: impl AsyncFnOnce(&Session<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let session = self.enter().await?;
            let answer = tokio::select! {
                answer = act(&session) => answer,
                _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
            };
            let left = session.leave().await;
            let answer = answer?;
            left.context(
                "the sign-out afterwards failed; `portreeve sign-out --everywhere` ends the session",
            )?;
            Ok(answer)
        })
    }

    async fn enter(&self) -> anyhow::Result<Session<'_>> {
        let code = match &self.key {
            Key::Token(token) => return Ok(Session { client: self, shown: Shown::Token(token.clone()) }),
            Key::Code(code) => code,
        };
        let form = Some(Body::Form(format!("code={}", code.reveal())));
        let reply = self.ask(Method::POST, "/-/enter", None, form).await?;
        let cookie =
            if reply.status == StatusCode::SEE_OTHER { session_cookie(&reply.headers) } else { None };
        let Some(cookie) = cookie else { return Err(self.refused(&reply).context("the sign-in failed")) };
        Ok(Session { client: self, shown: Shown::Cookie(cookie) })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        shown: Option<&Shown>,
        body: Option<Body>,
    ) -> anyhow::Result<Reply> {
        let asked = self.ask_at_length(method, path, shown, body);
        tokio::time::timeout(PATIENCE, asked)
            .await
            .map_err(|_| anyhow!("https://{}/ took too long", self.authority()))?
    }

    async fn ask_at_length(
        &self,
        method: Method,
        path: &str,
        shown: Option<&Shown>,
        body: Option<Body>,
    ) -> anyhow::Result<Reply> {
        let authority = self.authority();
        let at = format!("https://{authority}{path}");
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &authority)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("portreeve/", env!("CARGO_PKG_VERSION")));
        request = match shown {
            Some(Shown::Cookie(cookie)) => {
                request.header(COOKIE, format!("{COOKIE_NAME}={}", cookie.reveal()))
            }
            Some(Shown::Token(token)) => request.header(AUTHORIZATION, format!("Bearer {}", token.reveal())),
            None => request,
        };
        let body = match body {
            // As our own page would.
            Some(Body::Form(form)) => {
                request = request
                    .header(ORIGIN, format!("https://{authority}"))
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
                form.into()
            }
            Some(Body::Json(value)) => {
                request = request.header(CONTENT_TYPE, "application/json");
                value.to_string().into()
            }
            Some(Body::Bytes(bytes)) => bytes,
            Some(Body::Range(range)) => {
                request = request.header(RANGE, format!("bytes={}-{}", range.start(), range.end()));
                Bytes::new()
            }
            None => Bytes::new(),
        };
        let request = request.body(body)?;
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let reached = TcpStream::connect((bare, self.port)).await;
        let stream = reached.with_context(|| format!("https://{authority}/ can't be reached"))?;
        let name =
            ServerName::try_from(bare.to_owned()).with_context(|| format!("{bare} is no host name"))?;
        let stream = self.tls.connect(name, stream).await.with_context(|| {
            format!(
                "https://{authority}/ does not prove who it is; --cacert FILE names the authority to trust"
            )
        })?;
        ask(stream, request).await.with_context(|| format!("{at} did not answer"))
    }

    /// What the portal said about why not.
    fn refused(&self, reply: &Reply) -> anyhow::Error {
        let said: Option<serde_json::Value> = serde_json::from_slice(&reply.body).ok();
        let text = |key: &str| {
            let value = said.as_ref()?.get(key)?.as_str()?;
            Some(value.chars().filter(|c| !c.is_control()).collect::<String>())
        };
        let fields = said.as_ref().and_then(|said| said.get("fields")?.as_object());
        let fields: String = fields
            .into_iter()
            .flatten()
            .map(|(name, why)| format!("\n  {name}: {}", why.as_str().unwrap_or_default()))
            .filter(|line| !line.trim_start().chars().any(char::is_control))
            .collect();
        // A sentence more, of the portal's own refusals.
        let remedy = text("remedy").filter(|text| !text.is_empty()).map(|text| format!(" {text}"));
        let remedy = remedy.unwrap_or_default();
        match (text("title"), text("detail")) {
            (Some(title), Some(detail)) if detail.is_empty() => anyhow!("the portal says: {title}{fields}"),
            (Some(title), Some(detail)) => anyhow!("the portal says: {title}: {detail}{remedy}{fields}"),
            _ => anyhow!("https://{}/ answered {}", self.authority(), reply.status),
        }
    }
}

impl Session<'_> {
    async fn json(&self, path: &str) -> anyhow::Result<String> {
        let reply = self.client.ask(Method::GET, path, Some(&self.shown), None).await?;
        match reply.status {
            StatusCode::OK => Ok(reply.text().into_owned()),
            StatusCode::NOT_FOUND => bail!("this portal has no {path}: it is of another version"),
            _ => Err(self.client.refused(&reply)),
        }
    }

    /// Asks `/api/v1/`; the answer's text.
    pub(crate) async fn api(
        &self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> anyhow::Result<String> {
        Ok(self.reply(method, path, body).await?.text().into_owned())
    }

    /// The same, and what stands beside the text.
    pub(crate) async fn reply(
        &self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> anyhow::Result<Reply> {
        let reply = self.reply_whatever(method, path, body).await?;
        if reply.status.is_success() { Ok(reply) } else { Err(self.client.refused(&reply)) }
    }

    /// The same, whatever the portal answers.
    pub(crate) async fn reply_whatever(
        &self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> anyhow::Result<Reply> {
        let path = format!("/api/v1/{path}");
        self.client.ask(method, &path, Some(&self.shown), body.map(Body::Json)).await
    }

    /// Sends a part of a file; whatever the portal answers.
    pub(crate) async fn part(&self, path: &str, bytes: Bytes) -> anyhow::Result<Reply> {
        let path = format!("/api/v1/{path}");
        self.client.ask_at_length(Method::PUT, &path, Some(&self.shown), Some(Body::Bytes(bytes))).await
    }

    /// Fetches a part of a file; whatever the portal answers.
    pub(crate) async fn range(
        &self,
        path: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> anyhow::Result<Reply> {
        let path = format!("/api/v1/{path}");
        self.client.ask_at_length(Method::GET, &path, Some(&self.shown), Some(Body::Range(range))).await
    }

    /// What the portal said about why not.
    pub(crate) fn refused(&self, reply: &Reply) -> anyhow::Error {
        self.client.refused(reply)
    }

    async fn leave(&self) -> anyhow::Result<()> {
        if matches!(self.shown, Shown::Token(_)) {
            return Ok(());
        }
        let form = Some(Body::Form(String::new()));
        let reply = self.client.ask(Method::POST, "/-/sign-out", Some(&self.shown), form).await?;
        match reply.status {
            StatusCode::SEE_OTHER => Ok(()),
            _ => Err(self.client.refused(&reply)),
        }
    }
}

fn session_cookie(headers: &HeaderMap) -> Option<Secret> {
    headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok()).find_map(|value| {
        let value = value.strip_prefix(COOKIE_NAME)?.strip_prefix('=')?;
        let value = value.split(';').next().filter(|value| !value.is_empty())?;
        Some(Secret::new(value.to_owned()))
    })
}

fn tls(cacert: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match cacert {
        Some(file) => {
            let shown = file.display();
            let all =
                CertificateDer::pem_file_iter(file).with_context(|| format!("{shown} can't be read"))?;
            for certificate in all {
                let certificate = certificate.with_context(|| format!("{shown} is no PEM file"))?;
                roots
                    .add(certificate)
                    .with_context(|| format!("{shown} has something that is no certificate"))?;
            }
            if roots.is_empty() {
                bail!("{shown} has no certificate");
            }
        }
        None => {
            // What can't be read of the system's list is left out, as other programs do.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                bail!("this system has no list of certificate authorities: name one with --cacert FILE");
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_portals() {
        let own = rcgen::generate_simple_self_signed(["p".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, own.cert.pem()).unwrap();
        let to = |address: &str| PortalClient::to(address, Some(&file));
        for (address, authority, port) in [
            ("https://portal.example.org/-/enter?code=aA0-_", "portal.example.org", 443),
            ("https://localhost:8443/-/enter?code=a", "localhost:8443", 8443),
            ("https://[::1]:8443/-/enter?code=a", "[::1]:8443", 8443),
        ] {
            let client = to(address).unwrap();
            assert_eq!((client.authority().as_str(), client.port), (authority, port));
        }
        for bad in [
            "",
            "http://portal/-/enter?code=a",
            "https://portal/-/enter?code=",
            "https://portal/-/enter?code=a&next=b",
            "https://portal/-/enter?code=a%0d",
            "https:///-/enter?code=a",
            "https://user@portal/-/enter?code=a",
            "https://portal/x/-/enter?code=a",
        ] {
            assert!(to(bad).is_err(), "{bad}");
        }
        for (url, token, fits) in [
            ("https://portal.example.org/", "ptr_abc", true),
            ("https://localhost:8443", "ptr_abc", true),
            ("http://portal/", "ptr_abc", false),
            ("https://portal/x", "ptr_abc", false),
            ("https://user@portal/", "ptr_abc", false),
            ("https:///", "ptr_abc", false),
            ("https://portal/", "abc", false),
            ("https://portal/", "ptr_", false),
            ("https://portal/", "ptr_a\r\nx: y", false),
        ] {
            let client = PortalClient::with_token(url, token, Some(&file));
            assert_eq!(client.is_ok(), fits, "{url} {token:?}");
        }
        std::fs::write(&file, "nothing").unwrap();
        assert!(to("https://portal/-/enter?code=a").is_err(), "nobody to trust");
        assert!(PortalClient::to("https://p/-/enter?code=a", Some(&dir.path().join("none"))).is_err());
    }

    #[test]
    fn the_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(SET_COOKIE, "__Host-portreeve-next=; Max-Age=0".parse().unwrap());
        headers.append(SET_COOKIE, "__Host-portreeve=; Max-Age=0".parse().unwrap());
        assert!(session_cookie(&headers).is_none());
        headers.append(SET_COOKIE, "__Host-portreeve=T.I.C; Path=/; Secure".parse().unwrap());
        assert_eq!(session_cookie(&headers).unwrap().reveal(), "T.I.C");
    }
}
