//! A reverse proxy of hyper and rustls alone: TLS in front, connections to the backend that are kept, streamed bodies, WebSockets; and no
//! policy, no header rules, no log. What it costs, no proxy on these libraries is below.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::HeaderValue;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;

#[derive(clap::Args)]
pub(crate) struct Floor {
    /// Where to listen
    #[arg(long, value_name = "IP:PORT")]
    listen: SocketAddr,
    /// Where the backend is
    #[arg(long, value_name = "IP:PORT")]
    backend: SocketAddr,
    /// The certificate
    #[arg(long, value_name = "PEM")]
    certificate: PathBuf,
    /// Its key
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
    /// Let handshakes build on earlier ones
    #[arg(long)]
    tickets: bool,
}

struct Pool {
    backend: SocketAddr,
    idle: RefCell<Vec<SendRequest<Incoming>>>,
}

impl Floor {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let certificates = CertificateDer::pem_file_iter(&self.certificate)?.collect::<Result<_, _>>()?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, PrivateKeyDer::from_pem_file(&self.key)?)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if self.tickets {
            config.ticketer = aws_lc_rs::Ticketer::new()?;
        } else {
            config.send_tls13_tickets = 0;
        }
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let pool = Rc::new(Pool { backend: self.backend, idle: RefCell::default() });
        let listener = TcpListener::bind(self.listen).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (acceptor, pool) = (acceptor.clone(), Rc::clone(&pool));
            spawn_local(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let is_2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let service = service_fn(move |request| forward(Rc::clone(&pool), request));
                let stream = TokioIo::new(stream);
                if is_2 {
                    let _ = http2::Builder::new(Local).serve_connection(stream, service).await;
                } else {
                    let _ = http1::Builder::new().serve_connection(stream, service).with_upgrades().await;
                }
            });
        }
    }
}

#[derive(Clone)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

async fn forward(pool: Rc<Pool>, mut request: Request<Incoming>) -> anyhow::Result<Response<Incoming>> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    if request.version() == Version::HTTP_2 {
        if let Some(host) = request.uri().authority().map(ToString::to_string) {
            request.headers_mut().insert("host", host.parse()?);
        }
        // A browser may send each of its cookies in a field of its own; HTTP/1.1 knows one (RFC 9113 section 8.2.3).
        let cookies: Vec<&[u8]> =
            request.headers().get_all("cookie").iter().map(|value| value.as_bytes()).collect();
        if cookies.len() > 1 {
            let joined = cookies.join(b"; ".as_slice());
            request.headers_mut().insert("cookie", HeaderValue::from_bytes(&joined)?);
        }
        *request.version_mut() = Version::HTTP_11;
    }
    *request.uri_mut() = Uri::try_from(path)?;
    let mut to = pool.take().await?;
    let theirs = hyper::upgrade::on(&mut request);
    let mut answer = to.send_request(request).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let ours = hyper::upgrade::on(&mut answer);
        spawn_local(async move {
            if let (Ok(theirs), Ok(ours)) = (theirs.await, ours.await) {
                let _ =
                    tokio::io::copy_bidirectional(&mut TokioIo::new(theirs), &mut TokioIo::new(ours)).await;
            }
        });
    } else {
        spawn_local(async move {
            if to.ready().await.is_ok() {
                pool.idle.borrow_mut().push(to);
            }
        });
    }
    Ok(answer)
}

impl Pool {
    async fn take(&self) -> anyhow::Result<SendRequest<Incoming>> {
        while let Some(kept) = self.idle.borrow_mut().pop() {
            if kept.is_ready() {
                return Ok(kept);
            }
        }
        let stream = TcpStream::connect(self.backend).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        spawn_local(connection.with_upgrades());
        Ok(send)
    }
}
