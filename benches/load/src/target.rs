//! Where the load goes, and connections to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use hyper::Request;
use hyper::body::Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;

/// On the command line.
#[derive(clap::Args)]
pub(crate) struct Asked {
    /// Where to connect
    #[arg(long, value_name = "IP:PORT")]
    address: SocketAddr,
    /// Speak TLS, and trust this certificate
    #[arg(long, value_name = "PEM")]
    trust: Option<PathBuf>,
    /// What stands in the address for it, NAME or NAME:PORT
    #[arg(long, value_name = "NAME")]
    host: String,
    /// The path
    #[arg(long, default_value = "/")]
    path: String,
    /// A header field, such as `Cookie: a=b`
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
}

/// Where it goes.
pub(crate) struct Target {
    asked: Asked,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    headers: Vec<(String, String)>,
}

/// A connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Whether handshakes may build on an earlier one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sessions {
    Fresh,
    Resumed,
}

impl Asked {
    /// # Errors
    /// When the certificate can't be read, or a header field is none.
    pub(crate) fn target(self, sessions: Sessions, protocol: &[u8]) -> anyhow::Result<Target> {
        let headers = self.headers.iter().map(|line| {
            let (name, value) = line.split_once(':').with_context(|| format!("{line}: no header field"))?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        });
        let headers = headers.collect::<anyhow::Result<_>>()?;
        let tls = match &self.trust {
            None => None,
            Some(file) => {
                let mut trusted = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(file)? {
                    trusted.add(certificate?)?;
                }
                let provider = Arc::new(aws_lc_rs::default_provider());
                let mut config = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()?
                    .with_root_certificates(trusted)
                    .with_no_client_auth();
                config.alpn_protocols = vec![protocol.to_vec()];
                if sessions == Sessions::Fresh {
                    config.resumption = Resumption::disabled();
                }
                let name = self.host.rsplit_once(':').map_or(self.host.as_str(), |(name, _)| name);
                Some((TlsConnector::from(Arc::new(config)), ServerName::try_from(name.to_owned())?))
            }
        };
        Ok(Target { asked: self, tls, headers })
    }
}

impl Target {
    /// A new connection; whether its handshake built on an earlier one.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn connect(&self) -> anyhow::Result<(Box<dyn Stream>, bool)> {
        let stream = TcpStream::connect(self.asked.address).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok((Box::new(stream), false)),
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await?;
                let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
                Ok((Box::new(stream), resumed))
            }
        }
    }

    /// A new connection for requests of HTTP/1.1, one after the other.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn http1<B>(&self) -> anyhow::Result<SendRequest<B>>
    where
        B: Body + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (stream, _) = self.connect().await?;
        let (send, connection) = handshake(TokioIo::new(stream)).await?;
        spawn_local(connection);
        Ok(send)
    }

    /// A request for the path: of HTTP/1.1, or with `whole_address` of HTTP/2.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn request<B>(
        &self,
        method: &str,
        whole_address: bool,
        body: B,
    ) -> anyhow::Result<Request<B>> {
        let Asked { host, path, .. } = &self.asked;
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut request = Request::builder().method(method);
        request = if whole_address {
            request.uri(format!("{scheme}://{host}{path}"))
        } else {
            request.uri(path.as_str()).header("host", host.as_str())
        };
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        Ok(request.body(body)?)
    }

    /// A request of HTTP/1.1 for the path and what is to follow it.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn request_below<B>(&self, method: &str, rest: &str, body: B) -> anyhow::Result<Request<B>> {
        let mut request = self.request(method, false, body)?;
        *request.uri_mut() = format!("{}{rest}", self.asked.path).parse()?;
        Ok(request)
    }

    /// The address of a WebSocket, and what is sent with it.
    pub(crate) fn websocket(&self) -> anyhow::Result<Request<()>> {
        let mut request = self.request("GET", false, ())?;
        let headers = request.headers_mut();
        headers.insert("connection", "Upgrade".parse()?);
        headers.insert("upgrade", "websocket".parse()?);
        headers.insert("sec-websocket-version", "13".parse()?);
        headers.insert(
            "sec-websocket-key",
            tokio_tungstenite::tungstenite::handshake::client::generate_key().parse()?,
        );
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        *request.uri_mut() = format!("{scheme}://{}{}", self.asked.host, self.asked.path).parse()?;
        Ok(request)
    }
}
