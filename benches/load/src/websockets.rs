//! WebSocket messages that come back, and connections that only stay open.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{SinkExt, StreamExt};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::effort::Effort;
use crate::figures::{Figures, Seen};
use crate::target::{Asked, Sessions, Stream, Target};

#[derive(clap::Args)]
pub(crate) struct Echoes {
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    effort: Effort,
    /// How long a message is, in bytes
    #[arg(long, default_value_t = 64)]
    bytes: usize,
}

impl Echoes {
    pub(crate) async fn run(self) -> anyhow::Result<Figures> {
        let target = self.asked.target(Sessions::Fresh, b"http/1.1")?;
        Ok(self.effort.spend(async |seen, until| echo(&target, seen, until, self.bytes).await).await)
    }
}

async fn open(target: &Target) -> anyhow::Result<WebSocketStream<Box<dyn Stream>>> {
    let (stream, _) = target.connect().await?;
    let (socket, _) = tokio_tungstenite::client_async(target.websocket()?, stream).await?;
    Ok(socket)
}

async fn echo(target: &Target, seen: &RefCell<Seen>, until: Instant, bytes: usize) -> anyhow::Result<()> {
    let mut socket = open(target).await?;
    let message = Message::binary(vec![b'x'; bytes]);
    while Instant::now() < until {
        let began = Instant::now();
        socket.send(message.clone()).await?;
        let back = socket.next().await.context("it closed")??;
        let took = began.elapsed();
        ensure!(back == message, "another message came back");
        let mut seen = seen.borrow_mut();
        seen.took(took);
        seen.bytes(bytes as u64);
    }
    socket.close(None).await?;
    Ok(())
}

#[derive(clap::Args)]
pub(crate) struct Idle {
    #[command(flatten)]
    asked: Asked,
    /// So many
    #[arg(long)]
    connections: usize,
    /// Once they are open, for so many seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// Handshakes at once while they are opened.
const OPENED_AT_ONCE: usize = 32;

impl Idle {
    /// Says `open` once all are, and at the end how many still answer.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let target = Rc::new(self.asked.target(Sessions::Resumed, b"http/1.1")?);
        let mut opening = JoinSet::new();
        let mut sockets = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            if opening.len() == OPENED_AT_ONCE {
                sockets.push(opening.join_next().await.context("some are on their way")???);
            }
            let target = Rc::clone(&target);
            opening.spawn_local(async move { open(&target).await });
        }
        while let Some(opened) = opening.join_next().await {
            sockets.push(opened??);
        }
        println!("open {}", sockets.len());
        sleep(Duration::from_secs(self.seconds)).await;
        let mut alive = 0;
        for mut socket in sockets {
            let message = Message::text("are you there");
            if socket.send(message.clone()).await.is_ok()
                && matches!(socket.next().await, Some(Ok(back)) if back == message)
            {
                alive += 1;
            }
        }
        println!("alive {alive}");
        Ok(())
    }
}
