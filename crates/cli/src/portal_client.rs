//! A visit to the cluster's portal over HTTPS, as whoever types the command: in with a sign-in address from the login
//! socket, one question, out again.
//!
//! Invariants: the code goes to the address that the login socket gave, and only over TLS with a certificate that the
//! system (or `--cacert`) trusts; the session ends before the command does, also when the question failed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http::header::{ACCEPT, CONTENT_TYPE, COOKIE, HOST, ORIGIN, SET_COOKIE, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode};
use portreeve_model::{Secret, split_host_port};
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
    code: Secret,
    tls: TlsConnector,
}

/// What a request brings.
enum Body {
    /// A form of the portal's own.
    Form(String),
    Json(serde_json::Value),
}

/// A visit.
pub(crate) struct Session<'c> {
    client: &'c PortalClient,
    cookie: Secret,
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
        let (host, port) =
            split_host_port(authority).context("what the login socket gave has no host name")?;
        let port = port.map_or(443, |port| port.get());
        let tls = TlsConnector::from(Arc::new(tls(cacert)?));
        Ok(Self { host: host.to_owned(), port, code: Secret::new(code.to_owned()), tls })
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
            let answer = act(&session).await;
            let left = session.leave().await;
            let answer = answer?;
            left.context(
                "the sign-out afterwards failed; `portreeve sign-out --everywhere` ends the session",
            )?;
            Ok(answer)
        })
    }

    async fn enter(&self) -> anyhow::Result<Session<'_>> {
        let form = Some(Body::Form(format!("code={}", self.code.reveal())));
        let reply = self.ask(Method::POST, "/-/enter", None, form).await?;
        let cookie =
            if reply.status == StatusCode::SEE_OTHER { session_cookie(&reply.headers) } else { None };
        let Some(cookie) = cookie else { return Err(self.refused(&reply).context("the sign-in failed")) };
        Ok(Session { client: self, cookie })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        cookie: Option<&Secret>,
        body: Option<Body>,
    ) -> anyhow::Result<Reply> {
        let asked = self.ask_at_length(method, path, cookie, body);
        tokio::time::timeout(PATIENCE, asked)
            .await
            .map_err(|_| anyhow!("https://{}/ took too long", self.authority()))?
    }

    async fn ask_at_length(
        &self,
        method: Method,
        path: &str,
        cookie: Option<&Secret>,
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
        if let Some(cookie) = cookie {
            request = request.header(COOKIE, format!("{COOKIE_NAME}={}", cookie.reveal()));
        }
        let body = match body {
            // As our own page would.
            Some(Body::Form(form)) => {
                request = request
                    .header(ORIGIN, format!("https://{authority}"))
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
                form
            }
            Some(Body::Json(value)) => {
                request = request.header(CONTENT_TYPE, "application/json");
                value.to_string()
            }
            None => String::new(),
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
        let said: Option<serde_json::Value> = serde_json::from_str(&reply.body).ok();
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
        match (text("title"), text("detail")) {
            (Some(title), Some(detail)) if detail.is_empty() => anyhow!("the portal says: {title}{fields}"),
            (Some(title), Some(detail)) => anyhow!("the portal says: {title}: {detail}{fields}"),
            _ => anyhow!("https://{}/ answered {}", self.authority(), reply.status),
        }
    }
}

impl Session<'_> {
    async fn json(&self, path: &str) -> anyhow::Result<String> {
        let reply = self.client.ask(Method::GET, path, Some(&self.cookie), None).await?;
        match reply.status {
            StatusCode::OK => Ok(reply.body),
            StatusCode::NOT_FOUND => bail!("this portal has no {path}: it is of another version"),
            _ => Err(self.client.refused(&reply)),
        }
    }

    /// The portal's, as a browser calls it.
    pub(crate) fn origin(&self) -> String {
        format!("https://{}", self.client.authority())
    }

    /// Asks `/api/v1/`; the answer's text.
    pub(crate) async fn api(
        &self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> anyhow::Result<String> {
        let path = format!("/api/v1/{path}");
        let reply = self.client.ask(method, &path, Some(&self.cookie), body.map(Body::Json)).await?;
        if reply.status.is_success() { Ok(reply.body) } else { Err(self.client.refused(&reply)) }
    }

    async fn leave(&self) -> anyhow::Result<()> {
        let reply = self
            .client
            .ask(Method::POST, "/-/sign-out", Some(&self.cookie), Some(Body::Form(String::new())))
            .await?;
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
