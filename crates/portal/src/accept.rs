//! Takes TCP connections and gives each to one thread, where it stays. One thread accepts; each of the others runs
//! its own single-threaded runtime, so that nothing on a request's way is shared between threads.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;

use tokio::runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::LocalSet;

use crate::flows;
use crate::front;
use crate::limits;
use crate::metrics::{self, MetricsSocket};
use crate::portal::Portal;
use crate::room::Room;

/// A connection on its way to a thread, with the place it takes.
struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
}

struct Thread {
    queue: mpsc::UnboundedSender<Accepted>,
    connections: Arc<AtomicUsize>,
    handle: JoinHandle<()>,
}

/// Listening sockets, bound before anything else so that a port that is taken is said at once.
pub struct Listening {
    browsers: Vec<TcpListener>,
    metrics: Vec<MetricsSocket>,
}

impl Listening {
    /// Takes over sockets that are bound and listening.
    ///
    /// # Errors
    /// When one can't be made non-blocking.
    pub fn new(sockets: Vec<TcpListener>) -> io::Result<Self> {
        for socket in &sockets {
            socket.set_nonblocking(true)?;
        }
        Ok(Self { browsers: sockets, metrics: Vec::new() })
    }

    /// And sockets for whoever watches over the portal.
    #[must_use]
    pub fn with_metrics(mut self, sockets: impl IntoIterator<Item = MetricsSocket>) -> Self {
        self.metrics.extend(sockets);
        self
    }
}

/// Serves until the portal drains and everything has ended or was cut off.
///
/// # Errors
/// When a thread can't be started.
pub async fn run(portal: Arc<Portal>, listening: Listening) -> io::Result<()> {
    let config = &portal.settings.load().config;
    let wanted = config.worker_threads(std::thread::available_parallelism().map_or(1, usize::from));
    let places = Arc::new(Semaphore::new(config.limits.connections));
    portal.metrics.takes_at_most(config.limits.connections);
    let mut threads = Vec::with_capacity(wanted);
    for number in 0..wanted {
        threads.push(start_thread(Arc::clone(&portal), number as u64)?);
    }
    let queues: Vec<_> = threads.iter().map(|t| (t.queue.clone(), Arc::clone(&t.connections))).collect();
    // To the very end: that the portal drains is said there.
    let mut watched = tokio::task::JoinSet::new();
    for socket in listening.metrics {
        watched.spawn(metrics::serve(Arc::clone(&portal), socket));
    }
    let mut acceptors = tokio::task::JoinSet::new();
    // Until everything has ended: who is signed out while the portal drains is out.
    let mut service = tokio::task::JoinSet::new();
    service.spawn(portal.service.clone().run(Arc::clone(&portal)));
    // Whoever came while the portal was restarted waits in the kernel's queue a moment longer, instead of being refused.
    tokio::select! {
        () = portal.service.begun() => {}
        () = portal.draining.wait() => {}
    }
    for listener in listening.browsers {
        acceptors.spawn(accept(Arc::clone(&portal), listener, queues.clone(), Arc::clone(&places)));
    }
    drop(queues);
    portal.draining.wait().await;
    acceptors.shutdown().await;
    let cut_off = async {
        tokio::time::sleep(portal.settings.load().config.limits.drain).await;
        portal.stopping.set();
        tokio::time::sleep(limits::CUT_OFF).await;
    };
    let keeper = portal.service.clone();
    let ended = tokio::task::spawn_blocking(move || {
        let (queues, handles): (Vec<_>, Vec<_>) = threads.into_iter().map(|t| (t.queue, t.handle)).unzip();
        drop(queues);
        for handle in handles {
            // A thread that panicked has said so; the others still end in order.
            let _ = handle.join();
        }
        keeper.keep();
    });
    tokio::select! {
        _ = ended => {}
        () = cut_off => {}
    }
    service.shutdown().await;
    portal.service.take_leave();
    Ok(())
}

async fn accept(
    portal: Arc<Portal>,
    listener: TcpListener,
    threads: Vec<(mpsc::UnboundedSender<Accepted>, Arc<AtomicUsize>)>,
    places: Arc<Semaphore>,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a listening socket can't be used"),
    };
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = portal.draining.wait() => return,
        };
        // Off this thread's reactor: it will be on that of the thread that serves it.
        match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
            Ok((stream, peer)) => {
                failing = false;
                // With every place taken, this one waits in hand, and later ones in the kernel's queue.
                let place = tokio::select! {
                    place = Arc::clone(&places).acquire_owned() => place,
                    () = portal.draining.wait() => return,
                };
                let Ok(place) = place else { return };
                let least = threads.iter().min_by_key(|(_, count)| count.load(Relaxed));
                if let Some((queue, count)) = least {
                    // The queue has no bound of its own; it holds no more than there are places.
                    count.fetch_add(1, Relaxed);
                    let _ = queue.send(Accepted { stream, peer, place });
                }
            }
            Err(error) => {
                portal.metrics.accept_failed();
                // Out of descriptors, or the peer was gone already: neither may end the listener, nor fill the log.
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "a connection could not be accepted; it is tried again");
                }
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}

fn start_thread(portal: Arc<Portal>, number: u64) -> io::Result<Thread> {
    let (queue, mut incoming) = mpsc::unbounded_channel::<Accepted>();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let runtime = runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(limits::BLOCKING_THREADS)
        .thread_keep_alive(limits::BLOCKING_IDLE)
        .build()?;
    let (started, has_started) = std::sync::mpsc::sync_channel(1);
    let handle = std::thread::Builder::new().name(format!("portal-{number}")).spawn(move || {
        let local = LocalSet::new();
        let room = match Room::open(portal, number) {
            Ok(room) => Rc::new(room),
            Err(error) => return drop(started.send(Err(error))),
        };
        let _ = started.send(Ok(()));
        let work = async {
            let sweeper = tokio::task::spawn_local(flows::sweep(Rc::clone(&room)));
            let judge = tokio::task::spawn_local(flows::judge_from_time_to_time(Rc::clone(&room)));
            while let Some(Accepted { stream, peer, place }) = incoming.recv().await {
                let room_of_task = Rc::clone(&room);
                let count = Arc::clone(&count);
                room.tally.connection_accepted();
                room.tasks.spawn_local(async move {
                    front::serve_connection(Rc::clone(&room_of_task), stream, peer).await;
                    room_of_task.tally.connection_ended();
                    count.fetch_sub(1, Relaxed);
                    drop(place);
                });
            }
            room.tasks.close();
            room.stop_keeping();
            tokio::select! {
                () = room.tasks.wait() => {}
                () = room.portal.stopping.wait() => {}
            }
            sweeper.abort();
            judge.abort();
        };
        runtime.block_on(local.run_until(work));
        runtime.shutdown_timeout(limits::BLOCKING_END);
    })?;
    // A thread that can't ask the kernel who owns a socket could serve nobody.
    has_started.recv().unwrap_or_else(|_| Err(io::Error::other("a thread did not start")))?;
    Ok(Thread { queue, connections, handle })
}
