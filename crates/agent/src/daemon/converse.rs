//! One connection to a portal: it asks, we answer. Before: `dial`, which made it. Quick questions are answered where they
//! are read; a look at processes gets a thread, and its answer comes when it comes.

use std::sync::Arc;
use std::time::Duration;

use portreeve_model::wire::agent::{Answer, FromAgent, ToAgent};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::answer::{Answerer, Reply, Work};
use super::limits;
use super::login::{Line, LoginDesk};
use crate::channel::{FrameError, FrameReader, queue_frame, write_queue};

/// What all connections share.
pub(super) struct Shared {
    pub(super) answerer: Arc<Answerer>,
    pub(super) desk: Option<Arc<LoginDesk>>,
    /// For who owns a connection.
    owners: Lane,
    /// For what somebody has listening: apart, because any user can ask for it as often as they like.
    lists: Lane,
}

/// Looks at processes that wait for one another.
struct Lane {
    /// Places for looks that wait or run.
    places: Arc<Semaphore>,
    /// Threads for those that run.
    threads: Arc<Semaphore>,
    /// For how long one waits.
    patience: Duration,
}

impl Lane {
    fn new(places: usize, threads: usize, patience: Duration) -> Self {
        let semaphore = |places| Arc::new(Semaphore::new(places));
        Self { places: semaphore(places), threads: semaphore(threads), patience }
    }
}

impl Shared {
    pub(super) fn new(answerer: Arc<Answerer>, desk: Option<Arc<LoginDesk>>) -> Self {
        let owners = Lane::new(limits::SLOW, limits::SLOW_THREADS, limits::SLOW_WAIT);
        let lists = Lane::new(limits::LISTENING, limits::LISTENING_THREADS, limits::LISTENING_WAIT);
        Self { answerer, desk, owners, lists }
    }

    fn lane(&self, work: &Work) -> &Lane {
        match work {
            Work::Owner(_) | Work::Confirm(..) => &self.owners,
            Work::Listening(_) => &self.lists,
        }
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
    let refused = |why: &str| Answer::Refused { why: why.to_owned() };
    let lane = shared.lane(&work);
    let Ok(place) = Arc::clone(&lane.places).try_acquire_owned() else {
        return Err(refused("too many looks at processes are asked for at once"));
    };
    let thread = timeout(lane.patience, Arc::clone(&lane.threads).acquire_owned());
    let (slow, queue) = (shared.answerer.slow(), queue.clone());
    looks.spawn(async move {
        let answer = match thread.await {
            Ok(Ok(thread)) => {
                let looked = tokio::task::spawn_blocking(move || {
                    // Kept until the thread is free, even if nobody waits any more.
                    let _kept = (place, thread);
                    slow.answer(work)
                });
                looked.await.unwrap_or_else(|_| refused("the look failed"))
            }
            Ok(Err(_)) | Err(_) => refused("it waited too long for other looks at processes"),
        };
        if let Err(error) = queue_frame(&queue, &FromAgent::Answer { id, answer }).await {
            tracing::error!(%error, "an answer could not be sent");
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use portreeve_model::Tuple;

    use super::*;

    fn shared() -> Shared {
        Shared::new(Arc::new(Answerer::open().unwrap()), None)
    }

    fn owner() -> Work {
        let end = |port| ([127, 0, 0, 1], port).into();
        Work::Owner(Tuple { client: end(1), server: end(2) })
    }

    async fn answer(answers: &mut mpsc::Receiver<Vec<u8>>) -> String {
        String::from_utf8_lossy(&answers.recv().await.unwrap()).into_owned()
    }

    #[tokio::test]
    async fn lists_take_nothing_from_owners_looks_and_wait_for_a_while_only() {
        let (shared, mut looks) = (shared(), JoinSet::new());
        let (queue, mut answers) = mpsc::channel(limits::ANSWERS);
        // Two lists that hang.
        let threads = u32::try_from(limits::LISTENING_THREADS).unwrap();
        let hanging = Arc::clone(&shared.lists.threads).acquire_many_owned(threads).await.unwrap();
        for id in 0..limits::LISTENING {
            let id = u32::try_from(id).unwrap();
            begin(&shared, &mut looks, &queue, id, Work::Listening(1)).unwrap();
        }
        let refused = begin(&shared, &mut looks, &queue, 1000, Work::Listening(1));
        assert!(matches!(refused, Err(Answer::Refused { .. })), "{refused:?}");
        // The owner is answered before any of them.
        begin(&shared, &mut looks, &queue, 2000, owner()).unwrap();
        let first = answer(&mut answers).await;
        assert!(first.contains("2000"), "{first}");
        for _ in 0..limits::LISTENING {
            let answer = answer(&mut answers).await;
            assert!(answer.contains("waited too long"), "{answer}");
        }
        drop(hanging);
        begin(&shared, &mut looks, &queue, 3000, Work::Listening(1)).unwrap();
        let made = answer(&mut answers).await;
        assert!(made.contains("3000") && made.contains("rows"), "{made}");
    }
}
