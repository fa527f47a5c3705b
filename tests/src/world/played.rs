//! Plays a portal for a program: the test answers each request itself.

use std::path::Path;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::tls::made_for_localhost;

/// Such a portal.
pub struct PlayedPortal {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    /// Its address.
    pub url: String,
}

impl PlayedPortal {
    /// On a port of its own. Its certificate is put there.
    ///
    /// # Panics
    /// When it can't be.
    pub async fn with_certificate_at(path: impl AsRef<Path>) -> Self {
        let (config, certificate) = made_for_localhost();
        std::fs::write(path, certificate.pem()).expect("a certificate is written");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        Self { listener, acceptor: TlsAcceptor::from(config), url: format!("https://localhost:{port}/") }
    }

    /// The next connection's request: its head in lower case, and where its answer goes.
    ///
    /// # Errors
    /// When whoever connects leaves before.
    pub async fn asked(&self) -> std::io::Result<(String, TlsStream<TcpStream>)> {
        let stream = self.listener.accept().await?.0;
        let mut stream = self.acceptor.accept(stream).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        Ok((String::from_utf8_lossy(&head).to_lowercase(), stream))
    }
}
