//! Plays parts of root's process for the tests.
//!
//!   portreeve-test-spawner serve FIRST-UID FORWARDS PAM LOOK-UP-MS END-MS   orders come on standard input
//!   portreeve-test-spawner read UID DIR NAME       reads a forward file as `portreeve up` of that user would
//!   portreeve-test-spawner spy UID PID             tries to get at another process, and says what worked

use std::io::{Error, ErrorKind, IoSliceMut, Result, stdin};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use portreeve_broker::Forwards;
use portreeve_broker::spawner::{Settings, serve};
use portreeve_model::wire::spawner::Missing;
use portreeve_model::{ForwardFile, ForwardName};
use portreeve_sys::{privileges, process};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve", first_uid, forwards, pam, look_up, end] => {
            let channel = stdin().as_fd().try_clone_to_owned()?;
            process::silence()?;
            let milliseconds = |text| number(text).map(|number| Duration::from_millis(number.into()));
            let settings = Settings {
                first_uid: number(first_uid)?,
                pam: pam.into(),
                forwards: forwards.into(),
                look_up_patience: milliseconds(look_up)?,
                end_patience: milliseconds(end)?,
            };
            serve(&settings, channel).map_err(Error::other)
        }
        ["read", uid, dir, name] => {
            become_user(uid)?;
            read(dir.into(), name)
        }
        ["spy", uid, pid] => {
            become_user(uid)?;
            spy(Pid::from_raw(number(pid)?.cast_signed()))
        }
        _ => Err(Error::new(ErrorKind::InvalidInput, "unknown arguments")),
    }
}

fn number(text: &str) -> Result<u32> {
    text.parse().map_err(Error::other)
}

/// Nobody has to be able to execute this program but root.
fn become_user(uid: &str) -> Result<()> {
    let uid = number(uid)?;
    // alice and bob have a project; see tests/run.
    let groups = if uid < 20003 { vec![uid, 20100] } else { vec![20200] };
    privileges::become_user(uid, groups[0], &groups).map_err(Error::other)
}

fn read(dir: PathBuf, name: &str) -> Result<()> {
    let name = ForwardName::parse(name).map_err(Error::other)?;
    match Forwards::in_dir(dir).read(&name) {
        Ok(read) => {
            let (line, differ) = match read.file {
                ForwardFile::Disabled => (String::new(), false),
                ForwardFile::Target { target, lines_differ } => (target.to_line(), lines_differ),
            };
            println!("{:?} {line} {differ}", read.stat);
        }
        Err(error) => println!("{:?}", Missing::from(error)),
    }
    Ok(())
}

/// One line for each thing that worked.
fn spy(pid: Pid) -> Result<()> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    if ptrace::attach(pid).is_ok() {
        println!("attach");
        waitpid(pid, None)?;
        ptrace::detach(pid, None)?;
    }
    if ptrace::seize(pid, ptrace::Options::empty()).is_ok() {
        println!("seize");
    }
    for link in ["fd/0", "cwd", "exe", "root"] {
        if std::fs::read_link(proc.join(link)).is_ok() {
            println!("{link}");
        }
    }
    for file in ["maps", "environ", "auxv", "syscall", "stack"] {
        if std::fs::read(proc.join(file)).is_ok_and(|bytes| !bytes.is_empty()) {
            println!("{file}");
        }
    }
    if std::fs::read_dir(proc.join("fd")).is_ok() {
        println!("fd");
    }
    // Its code is where ours is, or nowhere; that the kernel looks at the address at all is what counts.
    let address = spy as *const () as usize;
    let memory = std::fs::File::open(proc.join("mem"));
    if memory.is_ok_and(|memory| !denied(memory.read_at(&mut [0; 8], address as u64))) {
        println!("mem");
    }
    let mut bytes = [0; 8];
    let remote = RemoteIoVec { base: address, len: bytes.len() };
    let copied = process_vm_readv(pid, &mut [IoSliceMut::new(&mut bytes)], &[remote]);
    if !denied(copied.map_err(Error::from)) {
        println!("process_vm_readv");
    }
    println!("done");
    Ok(())
}

fn denied<T>(result: Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}
