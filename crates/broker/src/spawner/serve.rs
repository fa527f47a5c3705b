//! The loop of root's process. Invariants: it waits in one place; orders are read only while no news wait to be taken, so
//! that a broker that does not listen can't fill this process's memory; no frame, however broken, ends it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use portreeve_model::wire::spawner::{Order, SpawnerNews, Start};
use portreeve_model::wire::{MAX_FRAME, decode, encode_bare};
use portreeve_sys::message::{self, Message, ReceiveError};

use super::children::Children;
use super::start::{Refusal, start};
use super::{Settings, SpawnerError, chain, system};

/// Orders that are obeyed before the children are looked after again.
const ORDERS_AT_A_TIME: usize = 64;

/// From now on these signals wait to be read instead of interrupting. A child gets them as usual.
pub(super) fn hold_signals() -> Result<SigSet, SpawnerError> {
    let held: SigSet =
        [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    held.thread_block().map_err(system("hold signals back"))?;
    Ok(held)
}

/// `signals` were held back before there was any child.
pub(super) fn serve(
    settings: &Settings,
    channel: OwnedFd,
    signals: &SigSet,
    broker: Option<Pid>,
) -> Result<(), SpawnerError> {
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(signals, flags).map_err(system("read signals"))?;
    let mut spawner = Spawner {
        settings,
        channel,
        signals,
        broker,
        children: Children::default(),
        news: VecDeque::new(),
        buffer: vec![0; MAX_FRAME].into(),
    };
    let over = loop {
        match spawner.turn() {
            Ok(Turn::Next) => {}
            Ok(Turn::Stop) => break Ok(()),
            Ok(Turn::BrokerEnded) => break Err(SpawnerError::BrokerEnded),
            Err(error) => break Err(error),
        }
    };
    spawner.end_all()?;
    over
}

struct Spawner<'s> {
    settings: &'s Settings,
    channel: OwnedFd,
    signals: SignalFd,
    broker: Option<Pid>,
    children: Children,
    /// At most one for each child and one for each order of a turn.
    news: VecDeque<SpawnerNews>,
    /// The longest frame there is: what a message says of itself sizes nothing.
    buffer: Box<[u8]>,
}

/// What comes after a turn of the loop.
enum Turn {
    Next,
    Stop,
    BrokerEnded,
}

impl Spawner<'_> {
    fn turn(&mut self) -> Result<Turn, SpawnerError> {
        let (channel, signalled) = self.wait(self.children.next_until())?;
        let mut turn = Turn::Next;
        if signalled {
            turn = self.take_signals()?;
        }
        self.children.expire(Instant::now());
        if matches!(turn, Turn::Next) && channel.contains(PollFlags::POLLIN) {
            turn = self.take_orders()?;
        }
        if matches!(turn, Turn::Next) && channel.intersects(PollFlags::POLLERR | PollFlags::POLLHUP) {
            turn = Turn::BrokerEnded;
        }
        if matches!(turn, Turn::Next) { self.tell() } else { Ok(turn) }
    }

    /// Waits for the channel, a signal or a moment: what the channel is ready for, and whether there was a signal.
    fn wait(&self, until: Option<Instant>) -> Result<(PollFlags, bool), SpawnerError> {
        let wanted = if self.news.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT };
        let mut waited =
            [PollFd::new(self.channel.as_fd(), wanted), PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waited, timeout(until)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok((PollFlags::empty(), true)),
            Err(other) => return Err(system("wait")(other)),
        }
        let [channel, signals] = waited.map(|one| one.revents().unwrap_or(PollFlags::empty()));
        Ok((channel, !signals.is_empty()))
    }

    fn take_signals(&mut self) -> Result<Turn, SpawnerError> {
        let mut turn = Turn::Next;
        while let Some(signal) = self.signals.read_signal().map_err(system("read signals"))? {
            match Signal::try_from(signal.ssi_signo.cast_signed()) {
                // The broker reads the configuration again, not this process.
                Ok(Signal::SIGHUP) => {
                    if let Some(broker) = self.broker {
                        let _ = kill(broker, Signal::SIGHUP);
                    }
                }
                Ok(Signal::SIGTERM | Signal::SIGINT) => turn = Turn::Stop,
                _ => {}
            }
        }
        let broker_ended = self.reap()?;
        Ok(if broker_ended && matches!(turn, Turn::Next) { Turn::BrokerEnded } else { turn })
    }

    /// Takes the statuses of all that ended; whether the broker is among them.
    fn reap(&mut self) -> Result<bool, SpawnerError> {
        let mut broker_ended = false;
        loop {
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) => (pid, Some(status)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    tracing::info!(%pid, %signal, "a child was ended by a signal");
                    (pid, None)
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(broker_ended),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(other) => return Err(system("look after the children")(other)),
            };
            if self.broker == Some(pid) {
                tracing::info!(?status, "the broker has ended");
                self.broker = None;
                broker_ended = true;
            } else if let Some(child) = self.children.remove(pid) {
                tracing::debug!(child, %pid, ?status, "ended");
                self.news.push_back(SpawnerNews::Ended { child, status });
            }
        }
    }

    fn take_orders(&mut self) -> Result<Turn, SpawnerError> {
        for _ in 0..ORDERS_AT_A_TIME {
            match message::receive(&self.channel, &mut self.buffer, 1) {
                Ok(order) => {
                    let answer = obey(self.settings, &mut self.children, order);
                    self.news.extend(answer);
                }
                Err(ReceiveError::Closed) => return Ok(Turn::BrokerEnded),
                Err(ReceiveError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(ReceiveError::Io(error)) => return Err(system("read orders")(error)),
                Err(error) => tracing::warn!(%error, "a broken order is passed over"),
            }
        }
        Ok(Turn::Next)
    }

    /// Sends the news that the broker's end has room for.
    fn tell(&mut self) -> Result<Turn, SpawnerError> {
        while let Some(news) = self.news.front() {
            let frame = match encode_bare(news) {
                Ok(frame) => frame,
                Err(error) => {
                    tracing::error!(%error, ?news, "these news can't be told");
                    self.news.pop_front();
                    continue;
                }
            };
            match message::send(&self.channel, &frame, &[]) {
                Ok(()) => drop(self.news.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
                {
                    return Ok(Turn::BrokerEnded);
                }
                Err(error) => return Err(system("tell news")(error)),
            }
        }
        Ok(Turn::Next)
    }

    /// Ends the broker and all children, and waits for them: first those who must tidy up are given their time.
    fn end_all(&mut self) -> Result<(), SpawnerError> {
        if let Some(broker) = self.broker {
            let _ = kill(broker, Signal::SIGTERM);
        }
        let until = Instant::now() + self.settings.end_patience;
        self.children.end_all(until);
        // After a kill, they are gone at once, but for one that waits for a file system and can't be.
        let hopeless = until + self.settings.end_patience;
        while self.children.len() > 0 || self.broker.is_some() {
            let now = Instant::now();
            if now >= hopeless {
                tracing::error!(children = self.children.len(), "left behind: they can't be killed");
                break;
            }
            if now >= until
                && let Some(broker) = self.broker
            {
                let _ = kill(broker, Signal::SIGKILL);
            }
            self.children.expire(now);
            let next = if now < until { until } else { hopeless };
            let mut waited = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waited, timeout(Some(next))) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(other) => return Err(system("wait")(other)),
            }
            while let Ok(Some(_)) = self.signals.read_signal() {}
            self.reap()?;
            self.news.clear();
        }
        Ok(())
    }
}

/// Until then, rounded up to a millisecond, so that the moment has come when the wait is over.
fn timeout(until: Option<Instant>) -> PollTimeout {
    let Some(until) = until else { return PollTimeout::NONE };
    let left = until.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}

/// What the broker is told at once, if anything.
fn obey(settings: &Settings, children: &mut Children, order: Message<'_>) -> Option<SpawnerNews> {
    let Message { bytes, mut descriptors } = order;
    let order: Order = match decode(bytes) {
        Ok(order) => order,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a broken order is passed over");
            return None;
        }
    };
    let child = order.child;
    let answer = match (order.start, descriptors.pop()) {
        (Start::End { child }, None) => {
            children.end(child, Instant::now() + settings.end_patience);
            return None;
        }
        (Start::End { .. }, Some(_)) | (_, None) => Err(Refusal::Descriptor),
        (what, Some(descriptor)) => start(settings, children, child, what, descriptor),
    };
    Some(match answer {
        Ok(pid) => {
            tracing::debug!(child, %pid, "started");
            SpawnerNews::Started { child, pid: pid.as_raw().cast_unsigned() }
        }
        Err(refusal) => {
            let why = chain(&refusal);
            tracing::warn!(child, why, "refused to start a child");
            SpawnerNews::Refused { child, why }
        }
    })
}
