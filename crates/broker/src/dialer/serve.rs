//! The dialer's loop: waits for everything at once, in one place.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use portreeve_model::wire::dialer::MAX_MESSAGE;
use portreeve_sys::message::{self, ReceiveError};

use super::channel::Channel;
use super::{CONTROL_BROKEN, SYSTEM_FAILED};

/// Channels at once: one for each thread of each portal, and of those that drain.
const MAX_CHANNELS: usize = 512;

/// Serves until the control channel ends. Returns the exit status.
pub(super) fn serve(control: OwnedFd) -> u8 {
    let mut channels = Vec::new();
    let mut buffer = [0; MAX_MESSAGE];
    loop {
        let ready = match wait(&control, &channels) {
            Ok(ready) => ready,
            Err(_) => return SYSTEM_FAILED,
        };
        let now = Instant::now();
        let mut states = ready.channels.into_iter();
        channels.retain_mut(|channel: &mut Channel| {
            let (state, settled) = states.next().unwrap_or((PollFlags::empty(), Vec::new()));
            // Nobody waits for answers on a channel whose other end is closed.
            let closed = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
            let mut goes_on = || {
                channel.settle(&settled, now)?;
                if state.contains(PollFlags::POLLIN) { channel.read(&mut buffer, now) } else { Ok(()) }
            };
            !state.intersects(closed) && goes_on().is_ok()
        });
        if !ready.control.is_empty() {
            match take_channels(&control, &mut channels, &mut buffer) {
                Control::Open => {}
                Control::Closed => return 0,
                Control::Broken => return CONTROL_BROKEN,
            }
        }
    }
}

/// What happened: to the control channel, and for each channel to itself and to which of its attempts.
struct Ready {
    control: PollFlags,
    channels: Vec<(PollFlags, Vec<usize>)>,
}

fn wait(control: &OwnedFd, channels: &[Channel]) -> Result<Ready, Errno> {
    let mut waited = vec![PollFd::new(control.as_fd(), PollFlags::POLLIN)];
    for channel in channels {
        waited.push(PollFd::new(channel.socket.as_fd(), channel.wanted()));
        waited.extend(channel.attempts.iter().map(|one| PollFd::new(one.as_fd(), PollFlags::POLLOUT)));
    }
    let next = channels.iter().flat_map(|channel| &channel.attempts).map(|attempt| attempt.until).min();
    match poll(&mut waited, timeout(next)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(other) => return Err(other),
    }
    let mut states = waited.iter().map(|one| one.revents().unwrap_or(PollFlags::POLLNVAL));
    let control = states.next().unwrap_or(PollFlags::empty());
    let channels = channels
        .iter()
        .map(|channel| {
            let state = states.next().unwrap_or(PollFlags::empty());
            let attempts = states.by_ref().take(channel.attempts.len()).enumerate();
            (state, attempts.filter(|(_, state)| !state.is_empty()).map(|(place, _)| place).collect())
        })
        .collect();
    Ok(Ready { control, channels })
}

/// Until then, rounded up to a millisecond, so that the moment has come when the wait is over.
fn timeout(until: Option<Instant>) -> PollTimeout {
    let Some(until) = until else { return PollTimeout::NONE };
    let left = until.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}

enum Control {
    Open,
    Closed,
    Broken,
}

/// Each message brings one more channel; its bytes say nothing.
fn take_channels(control: &OwnedFd, channels: &mut Vec<Channel>, buffer: &mut [u8]) -> Control {
    loop {
        match message::receive(control, buffer, 1) {
            Ok(mut message) => match message.descriptors.pop() {
                Some(socket) if channels.len() < MAX_CHANNELS => channels.push(Channel::new(socket)),
                // Closed, which says it.
                Some(_) => {}
                None => return Control::Broken,
            },
            Err(ReceiveError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return Control::Open;
            }
            Err(ReceiveError::Closed) => return Control::Closed,
            Err(_) => return Control::Broken,
        }
    }
}
