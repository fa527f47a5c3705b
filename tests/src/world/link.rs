//! One HTTP connection to the portal, over either version.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::tls::{Secure, client_config};

/// A request's body.
pub type SendBody = BoxBody<Bytes, std::convert::Infallible>;

/// A connection that requests can be sent on.
#[derive(Debug)]
pub enum Link {
    /// HTTP/1.1
    One(http1::SendRequest<SendBody>),
    /// HTTP/2
    Two(http2::SendRequest<SendBody>),
}

/// A TLS stream to this address, for the host `name`.
///
/// # Panics
/// When there is none.
pub(super) async fn secure(at: SocketAddr, name: &str, alpn: &[&[u8]]) -> std::io::Result<Secure> {
    let stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let name = rustls::pki_types::ServerName::try_from(name.to_owned())
        .unwrap_or_else(|_| rustls::pki_types::ServerName::try_from("localhost").expect("a name"));
    tokio_rustls::TlsConnector::from(client_config(alpn)).connect(name, stream).await
}

impl Link {
    /// Connects and agrees on `version`.
    ///
    /// # Errors
    /// When the portal does not take the connection.
    ///
    /// # Panics
    /// When it agrees on another version.
    pub async fn open(at: SocketAddr, name: &str, version: Version) -> std::io::Result<Self> {
        let alpn: &[u8] = if version == Version::HTTP_2 { b"h2" } else { b"http/1.1" };
        Self::over(secure(at, name, &[alpn]).await?, version).await
    }

    /// Speaks `version` over a stream on which it was agreed.
    ///
    /// # Errors
    /// When the connection breaks.
    ///
    /// # Panics
    /// When another version was agreed on.
    pub async fn over(stream: Secure, version: Version) -> std::io::Result<Self> {
        let alpn: &[u8] = if version == Version::HTTP_2 { b"h2" } else { b"http/1.1" };
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn), "ALPN");
        let io = TokioIo::new(stream);
        if version == Version::HTTP_2 {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.map_err(std::io::Error::other)?;
            tokio::spawn(connection);
            Ok(Self::Two(sender))
        } else {
            let (sender, connection) = http1::handshake(io).await.map_err(std::io::Error::other)?;
            tokio::spawn(connection.with_upgrades());
            Ok(Self::One(sender))
        }
    }

    /// Sends a request and waits for the answer's head.
    ///
    /// # Errors
    /// When the connection breaks before.
    pub async fn send(&mut self, request: Request<SendBody>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}
