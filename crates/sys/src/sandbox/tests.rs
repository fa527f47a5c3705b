//! The rules twice: what the compiled program answers for a call, which can be asked for every call there is, and what the
//! kernel makes of it.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};
use nix::sys::wait::WaitStatus;

use super::*;
use crate::message;
use crate::process::tests::{alone, fork_here, in_child};

const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | 38;
const KILLED: u32 = libc::SECCOMP_RET_KILL_PROCESS;

#[cfg(target_arch = "x86_64")]
const OURS: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const OURS: u32 = 0xc000_00b7;

/// What the program answers for one call.
fn answer(sandbox: &Sandbox, processor: u32, number: i64, arguments: [u64; 6]) -> u32 {
    let mut words = vec![u32::try_from(number).unwrap(), processor, 0, 0];
    words.extend(arguments.iter().flat_map(|a| [*a as u32, (a >> 32) as u32]));
    let (mut at, mut held) = (0, 0u32);
    loop {
        let sock_filter { code, jt, jf, k } = sandbox.program[at];
        let jump = |holds| 1 + usize::from(if holds { jt } else { jf });
        at += match code {
            0x20 => {
                held = words[k as usize / 4];
                1
            }
            0x54 => {
                held &= k;
                1
            }
            0x05 => 1 + k as usize,
            0x15 => jump(held == k),
            0x25 => jump(held > k),
            0x35 => jump(held >= k),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        };
    }
}

const FAST_OPEN: u64 = libc::MSG_FASTOPEN as u64;
/// The kernel does not see the upper half of an `int`.
const UPPER: u64 = 0xdead_beef_0000_0000;

#[test]
fn what_a_process_of_ours_need_never_do_is_denied_to_portal_and_broker() {
    for sandbox in [Sandbox::portal().unwrap(), Sandbox::broker().unwrap()] {
        for number in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_bpf,
            libc::SYS_userfaultfd,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_fsmount,
            libc::SYS_mount_setattr,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_open_by_handle_at,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_perf_event_open,
            libc::SYS_reboot,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_fork,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_vfork,
        ] {
            for arguments in [[0; 6], [u64::MAX; 6]] {
                assert_eq!(answer(&sandbox, OURS, number, arguments), EPERM, "call {number}");
            }
        }
        let thread = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u64;
        for (flags, expected) in [
            (thread, ALLOWED),
            (libc::CLONE_VM as u64, EPERM),
            (libc::SIGCHLD as u64, EPERM),
            (libc::CLONE_NEWUSER as u64, EPERM),
        ] {
            assert_eq!(
                answer(&sandbox, OURS, libc::SYS_clone, [flags, 0, 0, 0, 0, 0]),
                expected,
                "{flags:x}"
            );
        }
        assert_eq!(answer(&sandbox, OURS, libc::SYS_clone3, [0; 6]), ENOSYS);
        let (dumpable, name) = (libc::PR_SET_DUMPABLE as u64, libc::PR_SET_NAME as u64);
        for (arguments, expected) in [
            ([dumpable, 1, 0, 0, 0, 0], EPERM),
            ([UPPER | dumpable, UPPER, 0, 0, 0, 0], EPERM),
            ([dumpable, 0, 0, 0, 0, 0], ALLOWED),
            ([name, 1, 0, 0, 0, 0], ALLOWED),
        ] {
            assert_eq!(answer(&sandbox, OURS, libc::SYS_prctl, arguments), expected, "{arguments:x?}");
        }
    }
}

#[test]
fn a_call_has_one_name_only() {
    for sandbox in [Sandbox::portal().unwrap(), Sandbox::broker().unwrap(), Sandbox::dialer().unwrap()] {
        let is_dialer = answer(&sandbox, OURS, libc::SYS_open_by_handle_at, [0; 6]) == KILLED;
        for number in 0..=600 {
            // x32: the same call, and another number.
            let other_name = answer(&sandbox, OURS, number | 0x4000_0000, [0; 6]);
            assert_eq!(other_name, if is_dialer { KILLED } else { ENOSYS }, "x32 call {number}");
            // i386, where numbers mean something else: 102 is socketcall.
            let other_processor = answer(&sandbox, 0x4000_0003, number, [0; 6]);
            assert!([KILLED, ENOSYS].contains(&other_processor), "i386 call {number}");
            if number > lists::LAST_KNOWN {
                let unknown = answer(&sandbox, OURS, number, [0; 6]);
                assert_eq!(unknown, if is_dialer { KILLED } else { ENOSYS }, "call {number}");
            }
        }
    }
}

#[test]
fn the_portal_has_no_way_to_an_address() {
    let (unix, inet) = (libc::AF_UNIX as u64, libc::AF_INET as u64);
    let (stream, datagram) = (libc::SOCK_STREAM as u64, libc::SOCK_DGRAM as u64);
    let more = (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u64;
    let no_signal = libc::MSG_NOSIGNAL as u64;
    let (tcp, level) = (libc::IPPROTO_TCP as u64, libc::SOL_SOCKET as u64);
    let option = |name: libc::c_int| [5, tcp, name as u64, 0, 0, 0];
    let sandbox = Sandbox::portal().unwrap();
    for (number, arguments, expected) in [
        (libc::SYS_socket, [unix, stream, 0, 0, 0, 0], EPERM),
        (libc::SYS_connect, [5, 1, 16, 0, 0, 0], EPERM),
        (libc::SYS_bind, [5, 1, 16, 0, 0, 0], EPERM),
        (libc::SYS_listen, [5, 128, 0, 0, 0, 0], EPERM),
        (libc::SYS_accept4, [5, 0, 0, 0, 0, 0], ALLOWED),
        (libc::SYS_accept, [5, 0, 0, 0, 0, 0], ALLOWED),
        (libc::SYS_socketpair, [unix, stream | more, 0, 1, 0, 0], ALLOWED),
        (libc::SYS_socketpair, [unix | UPPER, libc::SOCK_SEQPACKET as u64, 0, 1, 0, 0], ALLOWED),
        (libc::SYS_socketpair, [unix, datagram | more, 0, 1, 0, 0], EPERM),
        (libc::SYS_socketpair, [unix, UPPER | datagram, 0, 1, 0, 0], EPERM),
        (libc::SYS_socketpair, [unix, libc::SOCK_RAW as u64, 0, 1, 0, 0], EPERM),
        (libc::SYS_socketpair, [libc::AF_TIPC as u64, stream, 0, 1, 0, 0], EPERM),
        (libc::SYS_socketpair, [inet, stream, 0, 1, 0, 0], EPERM),
        (libc::SYS_sendto, [5, 1, 10, no_signal, 0, 0], ALLOWED),
        (libc::SYS_sendto, [5, 1, 10, no_signal, 0x7fff_0000_0000, 16], EPERM),
        (libc::SYS_sendto, [5, 1, 10, no_signal, 1, 16], EPERM),
        (libc::SYS_sendto, [5, 1, 10, FAST_OPEN | no_signal, 0, 0], EPERM),
        (libc::SYS_sendto, [5, 1, 10, FAST_OPEN | UPPER, 0, 0], EPERM),
        (libc::SYS_sendmsg, [5, 1, no_signal, 0, 0, 0], ALLOWED),
        (libc::SYS_sendmsg, [5, 1, FAST_OPEN | no_signal, 0, 0, 0], EPERM),
        (libc::SYS_sendmmsg, [5, 1, 1, no_signal, 0, 0], ALLOWED),
        (libc::SYS_sendmmsg, [5, 1, 1, FAST_OPEN | UPPER, 0, 0], EPERM),
        (libc::SYS_setsockopt, option(libc::TCP_NODELAY), ALLOWED),
        (libc::SYS_setsockopt, option(libc::TCP_FASTOPEN), EPERM),
        (libc::SYS_setsockopt, option(libc::TCP_FASTOPEN_CONNECT), EPERM),
        (libc::SYS_setsockopt, option(libc::TCP_FASTOPEN_KEY), EPERM),
        (libc::SYS_setsockopt, option(libc::TCP_FASTOPEN_NO_COOKIE), EPERM),
        (libc::SYS_setsockopt, option(libc::TCP_REPAIR), EPERM),
        (libc::SYS_setsockopt, [5, UPPER | tcp, UPPER | libc::TCP_FASTOPEN as u64, 0, 0, 0], EPERM),
        (libc::SYS_setsockopt, [5, UPPER | tcp, UPPER | libc::TCP_NODELAY as u64, 0, 0, 0], ALLOWED),
        (libc::SYS_setsockopt, option(libc::TCP_USER_TIMEOUT), ALLOWED),
        (libc::SYS_setsockopt, option(libc::TCP_ULP), EPERM),
        // The same number at another level is another option.
        (libc::SYS_setsockopt, [5, level, libc::TCP_NODELAY as u64, 0, 0, 0], EPERM),
        (libc::SYS_setsockopt, [5, level, libc::SO_ATTACH_FILTER as u64, 0, 0, 0], EPERM),
        (libc::SYS_setsockopt, [5, level, libc::SO_LOCK_FILTER as u64, 0, 0, 0], EPERM),
        (libc::SYS_setsockopt, [5, libc::IPPROTO_IPV6 as u64, libc::TCP_NODELAY as u64, 0, 0, 0], EPERM),
        (libc::SYS_shutdown, [5, libc::SHUT_WR as u64, 0, 0, 0, 0], ALLOWED),
        (libc::SYS_shutdown, [5, UPPER | libc::SHUT_WR as u64, 0, 0, 0, 0], ALLOWED),
        (libc::SYS_shutdown, [5, libc::SHUT_RD as u64, 0, 0, 0, 0], EPERM),
        (libc::SYS_shutdown, [5, libc::SHUT_RDWR as u64, 0, 0, 0, 0], EPERM),
        (libc::SYS_recvmsg, [5, 1, 0, 0, 0, 0], ALLOWED),
        (libc::SYS_openat, [0; 6], ALLOWED),
        (libc::SYS_splice, [0; 6], ALLOWED),
    ] {
        assert_eq!(answer(&sandbox, OURS, number, arguments), expected, "call {number} {arguments:x?}");
    }
}

#[test]
fn the_broker_has_sockets_of_this_machine_only() {
    let sandbox = Sandbox::broker().unwrap();
    for family in 0..=64 {
        let expected = if family == libc::AF_UNIX as u64 { ALLOWED } else { EPERM };
        for number in [libc::SYS_socket, libc::SYS_socketpair] {
            assert_eq!(answer(&sandbox, OURS, number, [family, 5, 0, 0, 0, 0]), expected, "{family}");
            assert_eq!(answer(&sandbox, OURS, number, [family | UPPER, 5, 0, 0, 0, 0]), expected, "{family}");
        }
    }
    for number in [libc::SYS_connect, libc::SYS_bind, libc::SYS_listen, libc::SYS_openat, libc::SYS_renameat]
    {
        assert_eq!(answer(&sandbox, OURS, number, [0; 6]), ALLOWED, "{number}");
    }
}

#[test]
fn the_dialer_can_connect_and_little_else() {
    let kind = (libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u64;
    let (v4, v6, tcp) = (libc::AF_INET as u64, libc::AF_INET6 as u64, libc::IPPROTO_TCP as u64);
    let sandbox = Sandbox::dialer().unwrap();
    let writable = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let mut allowed = 0;
    for (number, arguments, expected) in [
        (libc::SYS_socket, [v4, kind, tcp, 0, 0, 0], ALLOWED),
        (libc::SYS_socket, [v6, kind, tcp, 0, 0, 0], ALLOWED),
        (libc::SYS_socket, [libc::AF_UNIX as u64, kind, tcp, 0, 0, 0], KILLED),
        (libc::SYS_socket, [libc::AF_NETLINK as u64, kind, tcp, 0, 0, 0], KILLED),
        (libc::SYS_socket, [v4, libc::SOCK_DGRAM as u64, 0, 0, 0, 0], KILLED),
        (libc::SYS_socket, [v4, libc::SOCK_RAW as u64, tcp, 0, 0, 0], KILLED),
        (libc::SYS_socket, [v4, kind, libc::IPPROTO_MPTCP as u64, 0, 0, 0], KILLED),
        (libc::SYS_setsockopt, [5, tcp, libc::TCP_NODELAY as u64, 0, 0, 0], ALLOWED),
        (libc::SYS_setsockopt, [5, tcp, libc::TCP_FASTOPEN_CONNECT as u64, 0, 0, 0], KILLED),
        (libc::SYS_setsockopt, [5, libc::SOL_SOCKET as u64, libc::SO_LINGER as u64, 0, 0, 0], KILLED),
        (libc::SYS_getsockopt, [5, libc::SOL_SOCKET as u64, libc::SO_ERROR as u64, 0, 0, 0], ALLOWED),
        (libc::SYS_getsockopt, [5, libc::SOL_SOCKET as u64, libc::SO_PEERCRED as u64, 0, 0, 0], KILLED),
        (libc::SYS_mmap, [0, 4096, writable, 34, 0, 0], ALLOWED),
        (libc::SYS_mmap, [0, 4096, libc::PROT_EXEC as u64, 34, 0, 0], KILLED),
        (libc::SYS_write, [2, 1, 1, 0, 0, 0], ALLOWED),
        (libc::SYS_write, [3, 1, 1, 0, 0, 0], KILLED),
        (libc::SYS_fcntl, [3, libc::F_SETFL as u64, 0, 0, 0, 0], KILLED),
    ] {
        assert_eq!(answer(&sandbox, OURS, number, arguments), expected, "call {number} {arguments:x?}");
    }
    for number in 0..=lists::LAST_KNOWN {
        allowed += u32::from(answer(&sandbox, OURS, number, [0; 6]) == ALLOWED);
    }
    assert!(allowed <= 18, "{allowed} calls");
    for number in [
        libc::SYS_openat,
        libc::SYS_read,
        libc::SYS_bind,
        libc::SYS_listen,
        libc::SYS_accept4,
        libc::SYS_sendto,
        libc::SYS_execve,
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_kill,
        libc::SYS_prctl,
        libc::SYS_mprotect,
        libc::SYS_dup,
        libc::SYS_ioctl,
        libc::SYS_shutdown,
    ] {
        assert_eq!(answer(&sandbox, OURS, number, [0; 6]), KILLED, "{number}");
    }
}

/// Runs `inside` in a thread that alone is in the sandbox.
fn inside(sandbox: Sandbox, inside: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        sandbox.install(0).unwrap();
        inside();
    });
    thread.join().unwrap();
}

#[track_caller]
fn denied<T: std::fmt::Debug>(what: std::io::Result<T>) {
    assert_eq!(what.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

/// Sends on a listener that was shut down, so that the sending would connect it: returns what the kernel said.
fn reconnect(listener: &TcpListener, to: std::net::SocketAddr) -> Result<usize, Errno> {
    use nix::sys::socket::{MsgFlags, SockaddrStorage, sendto};
    let flags = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL);
    sendto(listener.as_raw_fd(), b"x", &SockaddrStorage::from(to), flags)
}

/// Whether somebody connects within so many milliseconds.
fn is_reached(listener: &TcpListener, patience: u16) -> bool {
    use nix::poll::{PollFd, PollFlags, poll};
    let reached = poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], patience).unwrap() == 1;
    if reached {
        listener.accept().unwrap();
    }
    reached
}

/// A call by its number, with arguments that make no sense.
fn raw(number: i64) -> std::io::Result<i64> {
    // SAFETY: only calls that fail on such arguments whatever the sandbox says are made with it.
    Ok(Errno::result(unsafe { libc::syscall(number, -1i64, -1i64, -1i64, -1i64, -1i64, -1i64) })?)
}

#[test]
fn the_kernel_keeps_the_portal_in_and_lets_it_work() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let victim = TcpListener::bind("127.0.0.1:0").unwrap();
    let (here, there) = (listener.local_addr().unwrap(), victim.local_addr().unwrap());
    let mut visitor = TcpStream::connect(here).unwrap();
    // The attack works where nothing denies it.
    let spares = [(); 2].map(|()| {
        let spare = TcpListener::bind("127.0.0.1:0").unwrap();
        shutdown(spare.as_raw_fd(), Shutdown::Both).unwrap();
        spare
    });
    let [spare, another] = spares;
    let reconnected = reconnect(&spare, there);
    assert!(matches!(reconnected, Ok(_) | Err(Errno::EINPROGRESS)), "{reconnected:?}");
    assert!(is_reached(&victim, 10_000));

    inside(Sandbox::portal().unwrap(), move || {
        denied(TcpStream::connect(there));
        denied(TcpListener::bind("127.0.0.1:0"));
        denied(UdpSocket::bind("127.0.0.1:0"));
        denied(UnixStream::connect("/nonexistent"));
        denied(UnixListener::bind("/nonexistent"));
        denied(UnixDatagram::unbound());
        denied(UnixDatagram::pair());
        denied(Command::new("/bin/true").spawn());
        for number in [libc::SYS_io_uring_setup, libc::SYS_bpf, libc::SYS_pidfd_getfd, libc::SYS_userfaultfd]
        {
            denied(raw(number));
        }
        // Its own work.
        let (mut accepted, _) = listener.accept().unwrap();
        accepted.set_nodelay(true).unwrap();
        accepted.write_all(b"hello").unwrap();
        let mut bytes = [0; 5];
        visitor.read_exact(&mut bytes).unwrap();
        let (mut one, mut other) = UnixStream::pair().unwrap();
        one.write_all(b"hello").unwrap();
        other.read_exact(&mut bytes).unwrap();
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        message::send(&one, b"x", &[accepted.as_fd()]).unwrap();
        assert_eq!(message::receive(&other, &mut bytes, 1).unwrap().descriptors.len(), 1);
        std::fs::read("/proc/self/status").unwrap();
        // Threads can be made, and are in it.
        std::thread::spawn(move || denied(TcpStream::connect(there))).join().unwrap();
        shutdown(accepted.as_raw_fd(), Shutdown::Write).unwrap();
        assert_eq!(visitor.read(&mut bytes).unwrap(), 0);
        // The same attack.
        assert_eq!(reconnect(&another, there), Err(Errno::EPERM));
        assert!(!is_reached(&victim, 0));
        // Its listeners stay listeners.
        for how in [Shutdown::Read, Shutdown::Both] {
            assert_eq!(shutdown(listener.as_raw_fd(), how), Err(Errno::EPERM));
        }
    });
}

#[test]
fn the_kernel_keeps_the_broker_in_and_lets_it_work() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    inside(Sandbox::broker().unwrap(), move || {
        denied(TcpStream::connect(listener.local_addr().unwrap()));
        denied(UdpSocket::bind("127.0.0.1:0"));
        denied(Command::new("/bin/true").spawn());
        denied(raw(libc::SYS_ptrace));
        denied(raw(libc::SYS_process_vm_readv));
        denied(raw(libc::SYS_mount));
        // Its own work.
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let mut one = UnixStream::connect(&path).unwrap();
        one.write_all(b"x").unwrap();
        assert_eq!(crate::peer_uid(&listener.accept().unwrap().0).unwrap(), nix::unistd::geteuid().as_raw());
        std::fs::write(dir.path().join("file.new"), "x").unwrap();
        std::fs::rename(dir.path().join("file.new"), dir.path().join("file")).unwrap();
        std::thread::spawn(|| ()).join().unwrap();
    });
}

#[test]
fn the_kernel_ends_a_dialer_that_does_anything_else() {
    alone(what_ends_a_dialer);
}

fn what_ends_a_dialer() {
    use nix::sys::socket::{Backlog, SockProtocol, connect, listen, socket};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nix::sys::socket::SockaddrStorage::from(listener.local_addr().unwrap());
    let (one, _other) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let tcp = || socket(AddressFamily::Inet, SockType::Stream, flags, SockProtocol::Tcp);
    in_child(|| {
        Sandbox::dialer().unwrap().enter().unwrap();
        let socket = tcp().unwrap();
        assert_eq!(connect(socket.as_raw_fd(), &address), Err(Errno::EINPROGRESS));
        message::send(&one, b"x", &[socket.as_fd()]).unwrap();
        assert!(matches!(message::receive(&one, &mut [0; 8], 1), Err(message::ReceiveError::Io(_))));
        drop((socket, vec![0u8; 1 << 20]));
    });
    let forbidden: [(&str, &dyn Fn()); 6] = [
        ("open", &|| drop(std::fs::File::open("/dev/null"))),
        ("datagram", &|| drop(UdpSocket::bind("127.0.0.1:0"))),
        ("unix", &|| drop(UnixStream::pair())),
        ("listen", &|| listen(&tcp().unwrap(), Backlog::MAXCONN).unwrap()),
        ("read", &|| assert!(nix::unistd::read(&one, &mut [0; 8]).is_err())),
        ("thread", &|| drop(std::thread::spawn(|| ()))),
    ];
    for (name, call) in forbidden {
        let ended = fork_here(|| {
            Sandbox::dialer().unwrap().enter().unwrap();
            call();
        });
        assert!(matches!(ended, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{name}: {ended:?}");
    }
}

#[test]
fn a_sandbox_holds_all_threads() {
    in_child(|| {
        let (go, waiting) = std::sync::mpsc::channel::<()>();
        let early = std::thread::spawn(move || {
            let _ = waiting.recv();
            denied(UdpSocket::bind("127.0.0.1:0"));
        });
        Sandbox::portal().unwrap().enter().unwrap();
        drop(go);
        early.join().unwrap();
    });
}
