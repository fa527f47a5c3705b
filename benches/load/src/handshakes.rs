//! A new connection for each request.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::task::{JoinSet, spawn_local};

use crate::figures::{Figures, Seen};
use crate::target::{Asked, Sessions, Target};

#[derive(clap::Args)]
pub(crate) struct Handshakes {
    #[command(flatten)]
    asked: Asked,
    /// At once
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// For so many seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Build on the handshake before
    #[arg(long)]
    resume: bool,
}

impl Handshakes {
    pub(crate) async fn run(self) -> anyhow::Result<Figures> {
        let sessions = if self.resume { Sessions::Resumed } else { Sessions::Fresh };
        let target = Rc::new(self.asked.target(sessions, b"http/1.1")?);
        if self.resume {
            // What the first brings home, the others build on.
            once(&target).await?;
        }
        let seen = Rc::new(RefCell::new(Seen::begin()));
        let until = Instant::now() + Duration::from_secs(self.seconds);
        let mut all = JoinSet::new();
        for _ in 0..self.connections {
            let (target, seen) = (Rc::clone(&target), Rc::clone(&seen));
            all.spawn_local(async move {
                while Instant::now() < until {
                    let began = Instant::now();
                    match once(&target).await {
                        Ok((bytes, resumed)) => {
                            let mut seen = seen.borrow_mut();
                            seen.took(began.elapsed());
                            seen.bytes(bytes);
                            if resumed {
                                seen.resumed();
                            }
                        }
                        Err(error) => return seen.borrow_mut().problem(&error),
                    }
                }
            });
        }
        all.join_all().await;
        Ok(seen.replace(Seen::begin()).figures())
    }
}

async fn once(target: &Target) -> anyhow::Result<(u64, bool)> {
    let (stream, resumed) = target.connect().await?;
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = spawn_local(connection);
    let mut request = target.request("GET", false, Empty::<Bytes>::new())?;
    request.headers_mut().insert("connection", "close".parse()?);
    let answer = send.send_request(request).await?;
    ensure!(answer.status() == 200, "status {}", answer.status());
    let body = answer.into_body().collect().await?.to_bytes();
    let _ = driver.await;
    Ok((body.len() as u64, resumed))
}
