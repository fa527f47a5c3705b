//! One message, and the descriptors that come with it, over a `SOCK_SEQPACKET` channel between two processes.
//! Invariants: a descriptor that was received is either handed to the caller or closed; a message is whole or an error;
//! nothing here waits (`MSG_DONTWAIT`), whatever the other end made of the descriptor's flags.
//!
//! Receiving is done with recvmsg(2) itself: the libraries drop the numbers of the descriptors of a cut control
//! message, which then stay open for ever.

use std::io::{self, IoSlice};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    self, AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket,
};

/// As many as one message can have (SCM_MAX_FD, unix(7)): room for all, so that a cut is never for lack of it.
const MOST_POSSIBLE: usize = 253;

/// Bytes for the control messages: the descriptors, and what a peer can switch on for a socket that it made (credentials,
/// a pidfd, a security label). In u64 for `cmsghdr`'s alignment.
type Control = [u64; (MOST_POSSIBLE * size_of::<libc::c_int>() + 1024) / 8];

/// SCM_PIDFD of linux/socket.h: since Linux 6.5, and not in the libc crate.
const SCM_PIDFD: libc::c_int = 0x04;

/// A message.
#[derive(Debug)]
pub struct Message<'b> {
    /// Its bytes, at least one.
    pub bytes: &'b [u8],
    /// What came with it, close-on-exec, as many as were allowed or fewer.
    pub descriptors: Vec<OwnedFd>,
}

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The other end is closed, or sent a message without a byte, which looks the same.
    #[error("the other end of the channel is closed")]
    Closed,
    /// It was longer than the buffer; what came with it was closed.
    #[error("a message is longer than allowed")]
    TooLong,
    /// More descriptors than allowed. They were closed.
    #[error("a message came with more descriptors than allowed")]
    Descriptors,
    /// It brought descriptors, and this process may open nothing more.
    #[error("no room for a descriptor that came")]
    NoRoom,
    /// What the system says; `WouldBlock` when no message waits.
    #[error("the channel can't be read")]
    Io(#[source] io::Error),
}

/// Connects with whoever listens there (`SOCK_SEQPACKET`). Does not wait: a connection to a socket of this machine is made
/// at once, or not.
///
/// # Errors
/// What the system says; `WouldBlock` when others wait to be accepted.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// Sends one message.
///
/// # Errors
/// `WouldBlock` when the channel is full, `BrokenPipe` when the other end is closed, `InvalidInput` for a message without
/// a byte.
pub fn send(channel: impl AsFd, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if message.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty message looks like the end"));
    }
    let numbers: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    loop {
        match sendmsg::<()>(channel.as_fd().as_raw_fd(), &[IoSlice::new(message)], control, flags, None) {
            Ok(sent) if sent == message.len() => return Ok(()),
            // Only a channel of another kind takes a part.
            Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the channel cuts messages")),
            Err(Errno::EINTR) => {}
            Err(other) => return Err(other.into()),
        }
    }
}

/// Whether the other end has not taken all that was sent to it.
///
/// # Errors
/// What the system says.
pub fn is_unread(channel: impl AsFd) -> io::Result<bool> {
    let mut waiting: libc::c_int = 0;
    // SAFETY: SIOCOUTQ writes one int, which lives until after the call.
    let answer = unsafe { libc::ioctl(channel.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut waiting) };
    Errno::result(answer)?;
    Ok(waiting > 0)
}

/// Receives one message of at most `buffer.len()` bytes with at most `most` descriptors.
///
/// # Errors
/// See [`ReceiveError`]. After `TooLong`, `Descriptors` and `NoRoom` the channel is at its next message.
pub fn receive<'b>(
    channel: impl AsFd,
    buffer: &'b mut [u8],
    most: usize,
) -> Result<Message<'b>, ReceiveError> {
    let mut control: Control = [0; _];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is a valid `msghdr`: no name, no parts, no control, no flags.
    let mut head: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    head.msg_iov = &raw mut part;
    head.msg_iovlen = 1;
    head.msg_control = control.as_mut_ptr().cast();
    head.msg_controllen = size_of::<Control>() as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let length = loop {
        // SAFETY: `head` points to one part, which is `buffer`, and to `control`, with their true lengths; both live
        // until after the call.
        let received = unsafe { libc::recvmsg(channel.as_fd().as_raw_fd(), &raw mut head, flags) };
        match Errno::result(received) {
            Ok(length) => break length.cast_unsigned(),
            Err(Errno::EINTR) => {}
            Err(Errno::ECONNRESET) => return Err(ReceiveError::Closed),
            Err(other) => return Err(ReceiveError::Io(other.into())),
        }
    };
    // First of all: from here on every descriptor has an owner, who closes it.
    let descriptors = take_descriptors(&head);
    if length == 0 {
        return Err(ReceiveError::Closed);
    }
    if head.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(ReceiveError::TooLong);
    }
    if descriptors.len() > most {
        return Err(ReceiveError::Descriptors);
    }
    // The buffer has room for all that a message can bring.
    if head.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(ReceiveError::NoRoom);
    }
    Ok(Message { bytes: &buffer[..length], descriptors })
}

/// The descriptors of a message that the kernel just wrote. A pidfd is closed: nobody here asks for one.
fn take_descriptors(head: &libc::msghdr) -> Vec<OwnedFd> {
    let mut found = Vec::new();
    // SAFETY: `head` is as recvmsg(2) left it, so its control buffer holds whole control messages and `msg_controllen`
    // counts them; the CMSG macros go from one to the next within that length.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(head) };
    while !at.is_null() {
        // SAFETY: not null, so a control message inside the buffer, which is aligned for it.
        let message = unsafe { &*at };
        let carries = matches!(message.cmsg_type, libc::SCM_RIGHTS | SCM_PIDFD);
        if message.cmsg_level == libc::SOL_SOCKET && carries {
            // SAFETY: the data of this control message begins there.
            let data = unsafe { libc::CMSG_DATA(at) };
            let length = (at as usize + message.cmsg_len as usize).saturating_sub(data as usize);
            for place in 0..length / size_of::<libc::c_int>() {
                // SAFETY: within the data. Each number is a descriptor that the kernel opened for this process just
                // now, and nobody else knows of it.
                let owned = unsafe {
                    let number = ptr::read_unaligned(data.cast::<libc::c_int>().add(place));
                    // A pidfd that could not be made is an error number.
                    (number >= 0).then(|| OwnedFd::from_raw_fd(number))
                };
                found.extend(owned.filter(|_| message.cmsg_type == libc::SCM_RIGHTS));
            }
        }
        // SAFETY: as for the first one.
        at = unsafe { libc::CMSG_NXTHDR(head, at) };
    }
    found
}

const _: () = assert!(mem::align_of::<Control>() >= mem::align_of::<libc::cmsghdr>());

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use nix::sys::socket::{setsockopt, socketpair, sockopt};

    use super::*;
    use crate::process::tests::in_child;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    /// Whether the last copy of a pipe's other end is closed soon: another test that starts a program has one for a moment.
    fn is_closed(writer: &OwnedFd) -> bool {
        use nix::poll::{PollFd, PollFlags, poll};
        poll(&mut [PollFd::new(writer.as_fd(), PollFlags::empty())], 5000u16).unwrap() == 1
    }

    #[test]
    fn a_message_comes_whole_with_what_it_brought() {
        let (one, other) = pair();
        let file = tempfile::tempfile().unwrap();
        send(&one, b"first", &[]).unwrap();
        send(&one, b"second", &[file.as_fd(), one.as_fd()]).unwrap();
        let mut buffer = [0; 16];
        let first = receive(&other, &mut buffer, 0).unwrap();
        assert_eq!((first.bytes, first.descriptors.len()), (&b"first"[..], 0));
        let second = receive(&other, &mut buffer, 2).unwrap();
        assert_eq!((second.bytes, second.descriptors.len()), (&b"second"[..], 2));
        for got in &second.descriptors {
            let flags = fcntl(got, FcntlArg::F_GETFD).unwrap();
            assert!(FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC));
        }
        let [got, _] = <[OwnedFd; 2]>::try_from(second.descriptors).unwrap();
        assert_eq!(File::from(got).metadata().unwrap().ino(), file.metadata().unwrap().ino());
    }

    #[test]
    fn it_shows_whether_the_other_end_has_taken_everything() {
        let (one, other) = pair();
        assert!(!is_unread(&one).unwrap());
        send(&one, b"first", &[one.as_fd()]).unwrap();
        send(&one, b"second", &[]).unwrap();
        assert!(is_unread(&one).unwrap() && !is_unread(&other).unwrap());
        let mut buffer = [0; 16];
        receive(&other, &mut buffer, 1).unwrap();
        assert!(is_unread(&one).unwrap());
        receive(&other, &mut buffer, 1).unwrap();
        assert!(!is_unread(&one).unwrap());
    }

    #[test]
    fn what_is_too_much_is_refused_and_closed_and_the_next_one_comes() {
        let (one, other) = pair();
        for (bytes, copies) in [(&b"long message"[..], 1), (b"many", 2), (b"many", MOST_POSSIBLE)] {
            let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
            send(&one, bytes, &vec![reader.as_fd(); copies]).unwrap();
            send(&one, b"next", &[]).unwrap();
            drop(reader);
            let mut buffer = [0; 8];
            match (receive(&other, &mut buffer, 1).unwrap_err(), copies) {
                (ReceiveError::TooLong, 1) => {}
                (ReceiveError::Descriptors, 2..) => {}
                (error, _) => panic!("{copies}: {error:?}"),
            }
            assert!(is_closed(&writer), "{copies} copies were left open");
            assert_eq!(receive(&other, &mut buffer, 1).unwrap().bytes, b"next");
        }
    }

    #[test]
    fn what_the_peer_switches_on_does_not_get_in_the_way() {
        let (one, other) = pair();
        // Who made the pair can do that to our end as well.
        setsockopt(&other, sockopt::PassCred, &true).unwrap();
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        send(&one, b"x", &vec![reader.as_fd(); MOST_POSSIBLE]).unwrap();
        drop(reader);
        let got = receive(&other, &mut [0; 8], MOST_POSSIBLE).unwrap().descriptors;
        assert_eq!(got.len(), MOST_POSSIBLE);
        drop(got);
        assert!(is_closed(&writer));
    }

    #[test]
    fn a_descriptor_for_which_there_is_no_room_costs_its_message_alone() {
        // Other tests open something meanwhile: so in a process of its own.
        in_child(|| {
            let (one, other) = pair();
            let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
            send(&one, b"x", &[reader.as_fd()]).unwrap();
            send(&one, b"next", &[]).unwrap();
            drop(reader);
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
            let mut buffer = [0; 8];
            assert!(matches!(receive(&other, &mut buffer, 1), Err(ReceiveError::NoRoom)));
            assert_eq!(receive(&other, &mut buffer, 1).unwrap().bytes, b"next");
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
            assert!(is_closed(&writer));
        });
    }

    #[test]
    fn nothing_waits() {
        let (one, other) = pair();
        let mut buffer = [0; 8];
        let nothing = receive(&other, &mut buffer, 0).unwrap_err();
        assert!(matches!(nothing, ReceiveError::Io(error) if error.kind() == io::ErrorKind::WouldBlock));
        let full = (0..100_000).find_map(|_| send(&one, &[0; 1024], &[]).err()).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn the_end_is_the_end() {
        let (one, other) = pair();
        assert_eq!(send(&one, b"", &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        drop(one);
        assert!(matches!(receive(&other, &mut [0; 8], 0), Err(ReceiveError::Closed)));
        assert_eq!(send(&other, b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(matches!(receive(tempfile::tempfile().unwrap(), &mut [0; 8], 0), Err(ReceiveError::Io(_))));
    }
}
