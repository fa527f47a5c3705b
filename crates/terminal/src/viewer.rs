//! The conversation with one browser. Before: `routes`. After: `room`.
//!
//! Invariants: reading and saying do not wait for each other. Whoever says what makes no sense, or nothing at all, is told
//! so and has gone; that ends nothing but this conversation.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::limits;
use crate::message::{FromBrowser, ToBrowser};
use crate::room::{Arrival, Guest, Room};
use crate::seat::Next;
use crate::size::Size;

/// Why a conversation ends.
#[derive(Debug, thiserror::Error)]
enum Over {
    #[error("the server ends")]
    Done,
    #[error("the browser has left")]
    Left,
    #[error("the browser said nothing for too long")]
    Silent,
    #[error("there are too many browsers already")]
    Crowded,
    #[error("the message is too long")]
    TooLong,
    #[error("the message makes no sense here: {0}")]
    Senseless(&'static str),
    #[error("the connection failed")]
    Failed(#[source] Error),
}

impl From<Error> for Over {
    fn from(error: Error) -> Self {
        match error {
            Error::ConnectionClosed | Error::AlreadyClosed => Self::Left,
            Error::Capacity(CapacityError::MessageTooLong { .. }) => Self::TooLong,
            error => Self::Failed(error),
        }
    }
}

impl Over {
    /// What the browser is told, if it is still there.
    fn goodbye(&self) -> Option<(CloseCode, &'static str)> {
        Some(match self {
            Self::Done => (CloseCode::Normal, "the terminal has ended"),
            Self::Left | Self::Failed(_) => return None,
            Self::Silent => (CloseCode::Policy, "nothing was heard for too long"),
            Self::Crowded => (CloseCode::Again, "too many browsers show this terminal"),
            Self::TooLong => (CloseCode::Size, "the message is too long"),
            Self::Senseless(reason) => (CloseCode::Policy, reason),
        })
    }
}

/// Talks with it to the end.
pub(crate) async fn converse<S>(socket: WebSocketStream<S>, room: &Rc<Room>, may_type: bool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut mouth, mut ear) = socket.split();
    let over = match admitted(&mut ear, room, may_type).await {
        Ok(guest) => tokio::select! {
            over = listen(&mut ear, &guest) => over,
            over = talk(&mut mouth, &guest) => over,
        },
        Err(over) => over,
    };
    tracing::debug!(error = &over as &dyn std::error::Error, "a browser leaves");
    if let Some((code, reason)) = over.goodbye() {
        // Without hearing the answer, what was said last could be lost with the connection.
        let _ = timeout(limits::GOODBYE, async {
            if code != CloseCode::Normal {
                let _ = mouth.send(text(&ToBrowser::Error { message: reason })).await;
            }
            let _ = mouth.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
            while let Some(Ok(_)) = ear.next().await {}
        })
        .await;
    }
}

/// The first message, which says what the browser has seen.
async fn admitted<S>(
    ear: &mut SplitStream<WebSocketStream<S>>,
    room: &Rc<Room>,
    may_type: bool,
) -> Result<Guest, Over>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let first = timeout(limits::ATTACH, async {
        loop {
            match ear.next().await.ok_or(Over::Left)?? {
                Message::Text(text) => return Ok(text),
                Message::Binary(_) => return Err(Over::Senseless("the first message is attach")),
                Message::Close(_) => return Err(Over::Left),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    });
    let first = first.await.map_err(|_| Over::Silent)??;
    match FromBrowser::parse(&first) {
        Some(FromBrowser::Attach { run, offset, client, cols, rows }) => {
            let size = Size::nearest(cols, rows);
            room.enter(Arrival { run, offset, client, size, may_type }).ok_or(Over::Crowded)
        }
        _ => Err(Over::Senseless("the first message is attach")),
    }
}

async fn listen<S>(ear: &mut SplitStream<WebSocketStream<S>>, guest: &Guest) -> Over
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        // Not while typed bytes wait for the program: then nothing is read.
        let heard = match timeout(limits::SILENCE, ear.next()).await {
            Err(_) => return Over::Silent,
            Ok(None) => return Over::Left,
            Ok(Some(Err(error))) => return error.into(),
            Ok(Some(Ok(heard))) => heard,
        };
        match heard {
            Message::Text(text) => {
                if let Err(over) = obey(&text, guest) {
                    return over;
                }
            }
            Message::Binary(typed) => guest.typed(typed).await,
            Message::Close(_) => return Over::Left,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

fn obey(text: &str, guest: &Guest) -> Result<(), Over> {
    match FromBrowser::parse(text) {
        Some(FromBrowser::Ack { bytes }) if guest.acknowledge(bytes) => Ok(()),
        Some(FromBrowser::Ack { .. }) => Err(Over::Senseless("more was shown than was said")),
        Some(FromBrowser::Resize { cols, rows }) => {
            guest.resize(Size::nearest(cols, rows));
            Ok(())
        }
        Some(FromBrowser::Take) => {
            guest.take();
            Ok(())
        }
        Some(FromBrowser::Attach { .. }) => Err(Over::Senseless("attach comes once")),
        None => Err(Over::Senseless("the message is not known")),
    }
}

async fn talk<S>(mouth: &mut SplitSink<WebSocketStream<S>, Message>, guest: &Guest) -> Over
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let now = Instant::now();
    let mut heartbeat = interval_at(now + limits::HEARTBEAT, limits::HEARTBEAT);
    let mut ping = interval_at(now + limits::PING, limits::PING);
    loop {
        let message = match guest.next() {
            Some(Next::Say(message)) => text(&message),
            Some(Next::Output(bytes)) => Message::Binary(bytes),
            Some(Next::Close) => return Over::Done,
            None => tokio::select! {
                () = guest.changed() => continue,
                _ = heartbeat.tick() => text(&ToBrowser::Heartbeat),
                _ = ping.tick() => Message::Ping(Bytes::new()),
            },
        };
        if let Err(error) = mouth.send(message).await {
            return error.into();
        }
    }
}

fn text(message: &ToBrowser) -> Message {
    // Numbers and texts: there is nothing in them that JSON can't hold.
    Message::text(serde_json::to_string(message).unwrap_or_default())
}
