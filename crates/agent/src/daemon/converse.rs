//! One connection to a portal: it asks, we answer. Before: `dial`, which made it. Quick questions are answered where they
//! are read; a look at processes gets a thread, and its answer comes when it comes.

use std::sync::Arc;

use portreeve_model::wire::agent::{Answer, FromAgent, ToAgent};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::answer::{Answerer, Reply, Work};
use super::limits;
use super::login::{Line, LoginDesk};
use crate::channel::{FrameError, FrameReader, queue_frame, write_queue};

/// What all connections share.
pub(super) struct Shared {
    pub(super) answerer: Arc<Answerer>,
    pub(super) desk: Option<Arc<LoginDesk>>,
    /// Places for looks that wait or run.
    places: Arc<Semaphore>,
    /// Threads for those that run.
    threads: Arc<Semaphore>,
}

impl Shared {
    pub(super) fn new(answerer: Arc<Answerer>, desk: Option<Arc<LoginDesk>>) -> Self {
        let semaphore = |places| Arc::new(Semaphore::new(places));
        Self { answerer, desk, places: semaphore(limits::SLOW), threads: semaphore(limits::SLOW_THREADS) }
    }
}

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The portal said why.
    #[error("the portal ended the connection: {0:?}")]
    Goodbye(String),
    /// A reply to nothing that was asked.
    #[error("the portal answered what was not asked")]
    Unasked,
    /// The stream.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Converses until one of the two ends it. `welcome` is called when the portal took us.
pub(super) async fn converse<S: AsyncRead + AsyncWrite>(
    stream: S,
    hello: &FromAgent,
    shared: &Shared,
    welcome: impl FnOnce(),
) -> End {
    let (reading, mut writing) = tokio::io::split(stream);
    let (queue, mut waiting) = mpsc::channel(limits::ANSWERS);
    let read = async {
        match read(FrameReader::new(reading), hello, shared, queue, welcome).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    };
    tokio::select! {
        end = read => end,
        written = write_queue(&mut writing, &mut waiting, limits::STALL) => match written {
            Ok(()) => FrameError::Ended.into(),
            Err(error) => error.into(),
        },
    }
}

async fn read<R: AsyncRead + Unpin>(
    mut reader: FrameReader<R>,
    hello: &FromAgent,
    shared: &Shared,
    queue: mpsc::Sender<Vec<u8>>,
    welcome: impl FnOnce(),
) -> Result<std::convert::Infallible, End> {
    queue_frame(&queue, hello).await.map_err(FrameError::from)?;
    let (mut looks, mut welcome) = (JoinSet::new(), Some(welcome));
    let line = shared.desk.as_ref().map(|desk| Line::new(desk, queue.clone()));
    loop {
        match reader.next(limits::SILENT, limits::FRAME).await? {
            ToAgent::Ask { id, question } => {
                // The first question is the sign that the portal knows us.
                if let Some(welcome) = welcome.take() {
                    welcome();
                    if let Some(line) = &line {
                        line.open();
                    }
                }
                let answer = match shared.answerer.answer(question) {
                    Reply::Now(answer) => answer,
                    Reply::Later(work) => match begin(shared, &mut looks, &queue, id, work) {
                        Ok(()) => continue,
                        Err(refused) => refused,
                    },
                };
                queue_frame(&queue, &FromAgent::Answer { id, answer }).await.map_err(FrameError::from)?;
            }
            ToAgent::Login { id, reply } => {
                if !line.as_ref().is_some_and(|line| line.reply(id, reply)) {
                    return Err(End::Unasked);
                }
            }
            ToAgent::Goodbye { why } => return Err(End::Goodbye(why)),
        }
    }
}

/// Has a look at processes made by a thread.
fn begin(
    shared: &Shared,
    looks: &mut JoinSet<()>,
    queue: &mpsc::Sender<Vec<u8>>,
    id: u32,
    work: Work,
) -> Result<(), Answer> {
    while looks.try_join_next().is_some() {}
    let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() else {
        let why = "too many looks at processes are asked for at once".to_owned();
        return Err(Answer::Refused { why });
    };
    let (threads, slow, queue) = (Arc::clone(&shared.threads), shared.answerer.slow(), queue.clone());
    looks.spawn(async move {
        let Ok(thread) = threads.acquire_owned().await else { return };
        let looked = tokio::task::spawn_blocking(move || {
            // Kept until the thread is free, even if nobody waits any more.
            let _kept = (place, thread);
            slow.answer(work)
        });
        let answer = looked.await.unwrap_or_else(|_| Answer::Refused { why: "the look failed".to_owned() });
        if let Err(error) = queue_frame(&queue, &FromAgent::Answer { id, answer }).await {
            tracing::error!(%error, "an answer could not be sent");
        }
    });
    Ok(())
}
