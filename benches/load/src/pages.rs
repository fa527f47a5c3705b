//! Many requests at once, as a browser loads a page: all on one connection of HTTP/2, or on six of HTTP/1.1.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use http_body_util::{BodyExt, Empty};
use hyper::Response;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::spawn_local;

use crate::figures::{Figures, Seen};
use crate::target::{Asked, Sessions, Target};

/// Connections that browsers open to one HTTP/1.1 server.
const BROWSERS_CONNECTIONS: usize = 6;

#[derive(clap::Args)]
pub(crate) struct Pages {
    #[command(flatten)]
    asked: Asked,
    /// Requests of one page
    #[arg(long)]
    requests: usize,
    /// For so many seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// HTTP/2
    #[arg(long)]
    http2: bool,
}

impl Pages {
    /// What is timed is a page: from its first connection to the last answer.
    pub(crate) async fn run(self) -> anyhow::Result<Figures> {
        let target = self.asked.target(Sessions::Fresh, if self.http2 { b"h2" } else { b"http/1.1" })?;
        let mut seen = Seen::begin();
        let until = Instant::now() + Duration::from_secs(self.seconds);
        while Instant::now() < until {
            let began = Instant::now();
            let done = if self.http2 {
                over_2(&target, self.requests).await
            } else {
                over_1(&target, self.requests).await
            };
            match done {
                Ok(bytes) => {
                    seen.took(began.elapsed());
                    seen.bytes(bytes);
                }
                Err(error) => {
                    seen.problem(&error);
                    break;
                }
            }
        }
        Ok(seen.figures())
    }
}

async fn over_2(target: &Target, requests: usize) -> anyhow::Result<u64> {
    let (stream, _) = target.connect().await?;
    let (send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let driver = spawn_local(connection);
    let all =
        (0..requests).map(|_| {
            let mut send = send.clone();
            async move {
                whole(send.send_request(target.request("GET", true, Empty::<Bytes>::new())?).await?).await
            }
        });
    let bytes = try_join_all(all).await?.into_iter().sum();
    driver.abort();
    Ok(bytes)
}

async fn over_1(target: &Target, requests: usize) -> anyhow::Result<u64> {
    let connections = (0..BROWSERS_CONNECTIONS).map(async |number| {
        let mut send = target.http1().await?;
        let mut bytes = 0;
        for _ in (number..requests).step_by(BROWSERS_CONNECTIONS) {
            send.ready().await?;
            bytes +=
                whole(send.send_request(target.request("GET", false, Empty::<Bytes>::new())?).await?).await?;
        }
        anyhow::Ok(bytes)
    });
    join_all(connections).await.into_iter().sum()
}

async fn whole(answer: Response<Incoming>) -> anyhow::Result<u64> {
    ensure!(answer.status() == 200, "status {}", answer.status());
    Ok(answer.into_body().collect().await?.to_bytes().len() as u64)
}
