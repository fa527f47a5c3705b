//! Large bodies, one after the other on each connection.

use std::cell::RefCell;
use std::convert::Infallible;
use std::time::Instant;

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use crate::effort::Effort;
use crate::figures::{Figures, Seen};
use crate::target::{Asked, Sessions, Target};

#[derive(clap::Args)]
pub(crate) struct Transfers {
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    effort: Effort,
    /// How long a body is, in bytes
    #[arg(long)]
    bytes: u64,
    /// POST it, instead of asking for one
    #[arg(long)]
    upload: bool,
}

impl Transfers {
    pub(crate) async fn run(self) -> anyhow::Result<Figures> {
        let target = self.asked.target(Sessions::Fresh, b"http/1.1")?;
        Ok(self
            .effort
            .spend(async |seen, until| connection(&target, seen, until, self.bytes, self.upload).await)
            .await)
    }
}

/// A body that is made while it is sent.
pub(crate) type Pieces = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

pub(crate) fn pieces(bytes: u64) -> anyhow::Result<Pieces> {
    static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];
    let whole = bytes / PIECE.len() as u64;
    let rest = usize::try_from(bytes % PIECE.len() as u64)?;
    let all =
        std::iter::repeat_n(&PIECE[..], usize::try_from(whole)?).chain((rest > 0).then(|| &PIECE[..rest]));
    Ok(StreamBody::new(stream::iter(all.map(|piece| Ok(Frame::data(Bytes::from_static(piece))))).boxed()))
}

async fn connection(
    target: &Target,
    seen: &RefCell<Seen>,
    until: Instant,
    bytes: u64,
    upload: bool,
) -> anyhow::Result<()> {
    let mut send = target.http1().await?;
    while Instant::now() < until {
        let began = Instant::now();
        let sent = if upload { bytes } else { 0 };
        let mut request = target.request(if upload { "POST" } else { "GET" }, false, pieces(sent)?)?;
        request.headers_mut().insert("content-length", sent.into());
        send.ready().await?;
        let answer = send.send_request(request).await?;
        ensure!(answer.status() == 200, "status {}", answer.status());
        let mut body = answer.into_body();
        let (mut got, mut said) = (0, Vec::new());
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            got += data.len() as u64;
            if upload {
                said.extend_from_slice(&data);
            }
        }
        if upload {
            // The backend says how much reached it.
            got = std::str::from_utf8(&said)?.trim().parse().context("the backend's answer is no number")?;
        }
        ensure!(got == bytes, "{got} bytes of {bytes}");
        let mut seen = seen.borrow_mut();
        seen.took(began.elapsed());
        seen.bytes(got);
    }
    Ok(())
}
