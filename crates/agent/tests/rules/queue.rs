//! In the place of the firewall: accepts all that comes into a queue (linux/netfilter/nfnetlink_queue.h), and counts it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{JoinHandle, spawn};

use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket,
};
use nix::sys::time::TimeVal;

const VERDICT: u8 = 1;
const CONFIG: u8 = 2;

pub(super) struct AcceptsAll {
    accepted: Arc<AtomicU32>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A netlink message for the queue, with one attribute.
fn message(kind: u8, queue: u16, attribute: u16, value: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend(queue.to_be_bytes());
    body.extend((4 + u16::try_from(value.len()).unwrap()).to_ne_bytes());
    body.extend(attribute.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
    let mut message = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
    // NFNL_SUBSYS_QUEUE, NLM_F_REQUEST
    message.extend([kind, 3, 1, 0]);
    message.extend([0; 8]);
    message.extend(body);
    message
}

impl AcceptsAll {
    pub(super) fn of(queue: u16) -> Self {
        let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkNetFilter);
        let link: OwnedFd = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
        bind(link.as_raw_fd(), &NetlinkAddr::new(0, 0)).unwrap();
        setsockopt(&link, ReceiveTimeout, &TimeVal::new(0, 20_000)).unwrap();
        // Bind; no more of a packet than its number.
        for (attribute, value) in [(1, &[1, 0, 0, 0][..]), (2, &[0, 0, 0, 0, 1])] {
            let config = message(CONFIG, queue, attribute, value);
            send(link.as_raw_fd(), &config, MsgFlags::empty()).unwrap();
        }
        let (accepted, ends) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, end) = (Arc::clone(&accepted), Arc::clone(&ends));
        let thread = spawn(move || {
            let mut buffer = [0; 4096];
            while !end.load(Ordering::Relaxed) {
                let Ok(read) = recv(link.as_raw_fd(), &mut buffer, MsgFlags::empty()) else { continue };
                // NFQNL_MSG_PACKET, whose first attribute is its header.
                if buffer[..read].get(4..6) != Some(&[0, 3]) {
                    continue;
                }
                counter.fetch_add(1, Ordering::Relaxed);
                let verdict = [&1_u32.to_be_bytes()[..], &buffer[24..28]].concat();
                send(link.as_raw_fd(), &message(VERDICT, queue, 2, &verdict), MsgFlags::empty()).unwrap();
            }
        });
        Self { accepted, ends, thread: Some(thread) }
    }

    /// Packets so far.
    pub(super) fn accepted(&self) -> u32 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for AcceptsAll {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}
