//! Tries to lead a socket that is held to somewhere else, where no library has a name for the call.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

/// Takes a socket's connection away, so that it could be connected anew: connect(2) with AF_UNSPEC.
///
/// # Errors
/// What the kernel says.
pub fn disconnect(socket: impl AsFd) -> io::Result<()> {
    let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the kernel reads an address of that length.
    let answer = unsafe { libc::connect(socket.as_fd().as_raw_fd(), &raw const nowhere, length) };
    Ok(Errno::result(answer).map(drop)?)
}

/// Sets an option whose value is a number.
///
/// # Errors
/// What the kernel says.
pub fn set_int(
    socket: impl AsFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads one number of that length.
    let answer = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, (&raw const value).cast(), length)
    };
    Ok(Errno::result(answer).map(drop)?)
}

/// Opens the network namespace that a socket belongs to (`SIOCGSKNS`).
///
/// # Errors
/// What the kernel says.
pub fn namespace_of(socket: impl AsFd) -> io::Result<OwnedFd> {
    const SIOCGSKNS: libc::c_ulong = 0x894c;
    // SAFETY: numbers only.
    let made = Errno::result(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSKNS as _) })?;
    // SAFETY: just made, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// socket(2).
///
/// # Errors
/// What the kernel says.
pub fn new_socket(family: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    own(Errno::result(unsafe { libc::socket(family, kind, 0) })?)
}

/// socketpair(2).
///
/// # Errors
/// What the kernel says.
pub fn new_pair(family: libc::c_int, kind: libc::c_int) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut pair = [-1; 2];
    // SAFETY: the kernel writes two numbers.
    Errno::result(unsafe { libc::socketpair(family, kind, 0, pair.as_mut_ptr()) })?;
    // SAFETY: both were just made, for us alone.
    Ok(unsafe { (OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1])) })
}

/// accept4(2), for a connection that does not block.
///
/// # Errors
/// What the kernel says.
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let listener = listener.as_fd().as_raw_fd();
    // SAFETY: no address is asked for.
    own(Errno::result(unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags) })?)
}

fn own(made: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: just made, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// Puts the kernel's TLS on top of TCP (`TCP_ULP`).
///
/// # Errors
/// What the kernel says.
pub fn set_upper_protocol(socket: impl AsFd) -> io::Result<()> {
    let name = c"tls";
    let length = name.to_bytes_with_nul().len() as libc::socklen_t;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads a string of that length.
    let answer =
        unsafe { libc::setsockopt(socket, libc::IPPROTO_TCP, libc::TCP_ULP, name.as_ptr().cast(), length) };
    Ok(Errno::result(answer).map(drop)?)
}

/// Makes a process the owner of one of a pair of sockets (`F_SETOWN`), and has the kernel tell it of input there with SIGKILL
/// (`F_SETSIG`). That nothing is denied says nothing: the kernel looks at who is to be told when it tells.
///
/// # Errors
/// What the kernel says to one of the calls.
pub fn signal_on_input(pid: u32) -> io::Result<()> {
    /// F_SETSIG of asm-generic/fcntl.h.
    const F_SETSIG: libc::c_int = 10;
    let (told, other) = new_pair(libc::AF_UNIX, libc::SOCK_STREAM)?;
    let number = told.as_raw_fd();
    // SAFETY: numbers only; the descriptor is open.
    unsafe {
        Errno::result(libc::fcntl(number, libc::F_SETOWN, pid))?;
        Errno::result(libc::fcntl(number, F_SETSIG, libc::SIGKILL))?;
        Errno::result(libc::fcntl(number, libc::F_SETFL, libc::O_ASYNC))?;
    }
    nix::unistd::write(&other, b"x")?;
    Ok(())
}
