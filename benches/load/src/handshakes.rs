//! A new connection for each request.

use std::time::Instant;

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;

use crate::effort::Effort;
use crate::figures::Figures;
use crate::target::{Asked, Sessions, Target};

#[derive(clap::Args)]
pub(crate) struct Handshakes {
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    effort: Effort,
    /// Build on the handshake before
    #[arg(long)]
    resume: bool,
}

impl Handshakes {
    pub(crate) async fn run(self) -> anyhow::Result<Figures> {
        let sessions = if self.resume { Sessions::Resumed } else { Sessions::Fresh };
        let target = self.asked.target(sessions, b"http/1.1")?;
        if self.resume {
            // What the first brings home, the others build on.
            once(&target).await?;
        }
        let spent = self.effort.spend(async |seen, until| {
            while Instant::now() < until {
                let began = Instant::now();
                let (bytes, resumed) = once(&target).await?;
                let mut seen = seen.borrow_mut();
                seen.took(began.elapsed());
                seen.bytes(bytes);
                if resumed {
                    seen.resumed();
                }
            }
            Ok(())
        });
        Ok(spent.await)
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
