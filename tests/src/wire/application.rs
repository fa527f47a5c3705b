//! An application that does what the test says, and notes every connection and every byte.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::stream::{Message, Record, Wire};

/// One connection, on the application's side.
pub type Caller = Wire<TcpStream>;

/// An application on this machine; it ends when dropped.
#[derive(Debug)]
pub struct Application {
    /// Where it listens.
    pub port: u16,
    /// What it saw.
    pub seen: Seen,
    accepting: JoinHandle<()>,
}

/// What an application saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    records: Arc<Mutex<Vec<Record>>>,
    requests: Arc<Mutex<Vec<Message>>>,
    open: Arc<AtomicUsize>,
}

impl Seen {
    /// Connections until now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.records.lock().unwrap().len()
    }

    /// Connections that its code has not left.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(SeqCst)
    }

    /// Bytes on all connections.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.records.lock().unwrap().iter().map(Record::count).sum()
    }

    /// The bytes themselves, one text for each connection that had any.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        let records = self.records.lock().unwrap();
        records.iter().map(Record::text).filter(|text| !text.is_empty()).collect()
    }

    /// Requests that were noted.
    #[must_use]
    pub fn requests(&self) -> Vec<Message> {
        self.requests.lock().unwrap().clone()
    }

    /// The only request that was noted.
    ///
    /// # Panics
    /// When there is another number of them.
    #[must_use]
    pub fn request(&self) -> Message {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "requests at the application: {requests:#?}");
        requests.into_iter().next().unwrap()
    }

    /// Notes a request.
    pub fn note(&self, request: &Message) {
        self.requests.lock().unwrap().push(request.clone());
    }

    /// Forgets the requests.
    pub fn forget(&self) {
        self.requests.lock().unwrap().clear();
    }
}

struct Leaves(Arc<AtomicUsize>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Application {
    /// Runs `serve` for each connection.
    ///
    /// # Panics
    /// When nothing can listen.
    pub async fn start<F, Run>(serve: F) -> Self
    where
        F: Fn(Caller, Seen) -> Run + Send + 'static,
        Run: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Seen::default();
        let noted = seen.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let caller = Wire::new(stream);
                noted.records.lock().unwrap().push(caller.record.clone());
                noted.open.fetch_add(1, SeqCst);
                let leaves = Leaves(Arc::clone(&noted.open));
                let serving = serve(caller, noted.clone());
                tokio::spawn(async move {
                    let _leaves = leaves;
                    serving.await;
                });
            }
        });
        Self { port, seen, accepting }
    }

    /// Answers every request with what `reply` makes of it, keeping connections open.
    pub async fn answering<F, B>(reply: F) -> Self
    where
        F: Fn(&Message) -> B + Send + Sync + 'static,
        B: AsRef<[u8]> + Send,
    {
        let reply = Arc::new(reply);
        Self::start(move |mut caller, seen| {
            let reply = Arc::clone(&reply);
            async move {
                while let Ok(Some(request)) = caller.request().await {
                    seen.note(&request);
                    if caller.send(reply(&request)).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// Answers every request with the same bytes.
    pub async fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::answering(move |_| answer.clone()).await
    }

    /// Answers every request with "ok".
    pub async fn ok() -> Self {
        Self::saying(OK).await
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An answer without anything particular.
pub const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
