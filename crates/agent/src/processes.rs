//! Processes of one uid, and the sockets they hold, from proc(5). Needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH for
//! processes of others.
//! Invariant: everything about one process is read through one descriptor of its directory, so that a pid that is
//! used again can't lend its answers to the process that had it before.

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, fstat};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

/// How many processes of one uid are looked at in one go.
const MAX_PROCESSES: usize = 32_768;
/// How many descriptors are looked at in one go, over all processes.
const MAX_DESCRIPTORS: usize = 262_144;
/// The same where others wait for the one who looks. To look at them takes a tenth of a millisecond; their list comes first,
/// and takes longer where a process has thousands.
const FEW_DESCRIPTORS: usize = 128;
/// The identities stand at the top of `status`, before the one line that can get long (`Groups:`).
const STATUS_BYTES: u64 = 2048;
/// With that line: some 6,000 groups.
const GROUPS_BYTES: u64 = 64 * 1024;
/// What a file in proc(5) mostly fits into.
const PAGE: usize = 4096;

/// One process, held by its directory under /proc.
pub(crate) struct Process {
    pub(crate) pid: u32,
    directory: OwnedFd,
}

/// Why something about a process could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It has ended.
    Gone,
    /// It may not be looked at, or looking failed, or there is too much to look at.
    Hidden,
}

impl From<Errno> for Unread {
    fn from(error: Errno) -> Self {
        match error {
            Errno::ENOENT | Errno::ESRCH => Self::Gone,
            _ => Self::Hidden,
        }
    }
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        if is_gone(&error) { Self::Gone } else { Self::Hidden }
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|number| Unread::from(Errno::from_raw(number)) == Unread::Gone)
}

/// What a process' `status` says at one moment.
pub(crate) struct Status(Vec<u8>);

/// Whose authority a process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) real_uid: u32,
    pub(crate) effective_uid: u32,
    pub(crate) real_gid: u32,
    pub(crate) effective_gid: u32,
}

/// What is left of the bound on descriptors.
pub(crate) struct Budget(usize);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(MAX_DESCRIPTORS)
    }

    pub(crate) fn small() -> Self {
        Self(FEW_DESCRIPTORS)
    }
}

/// Visits every process whose effective uid is `uid`. A process that may not be opened is told as `Err(Hidden)`;
/// one that ends meanwhile is passed over.
pub(crate) fn each_of_uid(
    uid: u32,
    mut visit: impl FnMut(Result<Process, Unread>) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut count = 0;
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // The directory's owner is the effective uid whether or not the process is dumpable (proc(5)).
        match entry.metadata() {
            Ok(metadata) if metadata.uid() != uid => continue,
            Ok(_) => {}
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        }
        count += 1;
        let found = if count > MAX_PROCESSES { Err(Unread::Hidden) } else { Process::open(pid, uid) };
        if matches!(found, Err(Unread::Gone)) {
            continue;
        }
        if visit(found).is_break() || count > MAX_PROCESSES {
            break;
        }
    }
    Ok(())
}

impl Process {
    /// The process that has this pid now, if its effective uid is `uid`; `Gone` if not.
    pub(crate) fn open(pid: u32, uid: u32) -> Result<Self, Unread> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(format!("/proc/{pid}").as_str(), flags, Mode::empty())?;
        if fstat(&directory)?.st_uid != uid {
            return Err(Unread::Gone);
        }
        Ok(Self { pid, directory })
    }

    /// Calls `held` with the inode of every socket the process has a descriptor of, until it breaks. The highest descriptor
    /// comes first: a new connection is mostly among those.
    pub(crate) fn each_socket(
        &self,
        budget: &mut Budget,
        mut held: impl FnMut(u32) -> ControlFlow<()>,
    ) -> Result<(), Unread> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let descriptors = openat(&self.directory, "fd", flags, Mode::empty())?;
        let mut numbers = Vec::new();
        for entry in Dir::from_fd(descriptors.try_clone()?)?.iter() {
            let entry = entry?;
            if !entry.file_name().to_bytes().starts_with(b".") {
                budget.0 = budget.0.checked_sub(1).ok_or(Unread::Hidden)?;
                numbers.push(entry.file_name().to_owned());
            }
        }
        for number in numbers.iter().rev() {
            let link = match readlinkat(&descriptors, number.as_c_str()) {
                Ok(link) => link,
                // This one descriptor was closed meanwhile.
                Err(Errno::ENOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            if let Some(inode) = socket_inode(link.as_bytes())
                && held(inode).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// Who the process is now.
    pub(crate) fn status(&self, with_groups: bool) -> Result<Status, Unread> {
        self.read("status", if with_groups { GROUPS_BYTES } else { STATUS_BYTES }).map(Status)
    }

    /// The program's name (at most 15 bytes, chosen by the process itself), made printable.
    pub(crate) fn command(&self) -> Option<String> {
        let bytes = self.read("comm", 64).ok()?;
        let name: String = String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control()).collect();
        (!name.is_empty()).then_some(name)
    }

    fn read(&self, name: &str, at_most: u64) -> Result<Vec<u8>, Unread> {
        let file = openat(&self.directory, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut bytes = Vec::with_capacity(PAGE.min(usize::try_from(at_most).unwrap_or(PAGE)));
        File::from(file).take(at_most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl Status {
    /// A status that can't be understood must not read as "no such process".
    pub(crate) fn credentials(&self) -> Result<Credentials, Unread> {
        parse_credentials(&self.0).ok_or(Unread::Hidden)
    }

    /// Supplementary groups. More than were read are `Hidden`, not cut.
    pub(crate) fn supplementary_groups(&self) -> Result<Vec<u32>, Unread> {
        parse_groups(&self.0).ok_or(Unread::Hidden)
    }
}

pub(crate) fn socket_inode(link: &[u8]) -> Option<u32> {
    let number = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// Reads `Uid:` and `Gid:` (real, effective, saved, file system). The kernel escapes line feeds in `Name:`, so a
/// process can't write such a line itself; were there two, there would be no answer.
pub(crate) fn parse_credentials(status: &[u8]) -> Option<Credentials> {
    let field = |name: &[u8]| -> Option<[u32; 4]> {
        let mut lines = status.split(|&byte| byte == b'\n').filter_map(|line| line.strip_prefix(name));
        let (line, None) = (lines.next()?, lines.next()) else { return None };
        let numbers: Option<Vec<u32>> =
            std::str::from_utf8(line).ok()?.split_ascii_whitespace().map(|word| word.parse().ok()).collect();
        numbers?.try_into().ok()
    };
    let [real_uid, effective_uid, ..] = field(b"Uid:")?;
    let [real_gid, effective_gid, ..] = field(b"Gid:")?;
    Some(Credentials { real_uid, effective_uid, real_gid, effective_gid })
}

/// Reads `Groups:`, if the whole line is there, once.
fn parse_groups(status: &[u8]) -> Option<Vec<u32>> {
    let whole_lines =
        status.split_inclusive(|&byte| byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    let mut lines = whole_lines.filter_map(|line| line.strip_prefix(b"Groups:"));
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn links_that_are_sockets() {
        for (link, inode) in [
            ("socket:[12345]", Some(12345)),
            ("socket:[4294967296]", None),
            ("socket:[]", None),
            ("socket:[12", None),
            ("pipe:[12345]", None),
            ("/tmp/socket:[12345]", None),
            ("socket:[12345] (deleted)", None),
        ] {
            assert_eq!(socket_inode(link.as_bytes()), inode, "{link}");
        }
    }

    #[test]
    fn the_effective_ids_are_the_second_numbers() {
        let some = |real_uid, effective_uid, effective_gid| {
            Some(Credentials { real_uid, effective_uid, real_gid: 5, effective_gid })
        };
        for (status, expected) in [
            ("Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9\n", some(1, 2, 6)),
            ("Name:\tUid:\t0\\nUid:\t0\nUid:\t1\t1\t1\t1\nGid:\t5\t5\t5\t5\n", some(1, 1, 5)),
            // Cut short, doubled or garbled: no answer rather than half of one.
            ("Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5", None),
            ("Name:\tx\nUid:\t1\t2\t3\t4\n", None),
            ("Uid:\t1\t1\t1\t1\nUid:\t2\t2\t2\t2\nGid:\t5\t5\t5\t5\n", None),
            ("Uid:\t1\t1\t1\t1\nGid:\t5\t-5\t5\t5\n", None),
            ("", None),
        ] {
            assert_eq!(parse_credentials(status.as_bytes()), expected, "{status:?}");
        }
    }

    #[test]
    fn the_groups_are_all_there_or_there_is_no_answer() {
        let many: String = (0..20_000).map(|gid| format!("{gid} ")).collect();
        for (status, expected) in [
            (
                "Name:\tx\nGid:\t5\t6\t7\t8\nGroups:\t9 4000000000 7 \nNStgid:\t1\n",
                Some(vec![9, 4_000_000_000, 7]),
            ),
            ("Groups:\t \n", Some(vec![])),
            ("Groups:\n", Some(vec![])),
            ("Name:\tGroups:\t1\\nGroups:\t1\nGroups:\t2 \n", Some(vec![2])),
            // Cut short, doubled or garbled.
            ("Groups:\t9 40", None),
            ("Groups:\t9 40 ", None),
            ("Groups:\t1 \nGroups:\t2 \n", None),
            ("Groups:\t1 -2 \n", None),
            ("Groups:\t4294967296 \n", None),
            ("Name:\tx\n", None),
            ("", None),
            (&many, None),
        ] {
            assert_eq!(parse_groups(status.as_bytes()), expected, "{:?}", status.get(..60));
        }
        let whole = format!("Groups:\t{many}\n");
        let cut = &whole.as_bytes()[..usize::try_from(GROUPS_BYTES).unwrap()];
        assert_eq!((parse_groups(whole.as_bytes()).unwrap().len(), parse_groups(cut)), (20_000, None));
    }

    #[test]
    fn our_own_groups() {
        let process = Process::open(std::process::id(), nix::unistd::geteuid().as_raw()).unwrap();
        let mut ours: Vec<u32> = nix::unistd::getgroups().unwrap().iter().map(|gid| gid.as_raw()).collect();
        let mut read = process.status(true).unwrap().supplementary_groups().unwrap();
        ours.sort_unstable();
        read.sort_unstable();
        assert_eq!(read, ours);
    }

    #[test]
    fn this_process_is_found_with_its_sockets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let inode = socket_inode(link.as_os_str().as_bytes()).unwrap();
        let me = nix::unistd::geteuid().as_raw();
        let mut found = false;
        each_of_uid(me, |process| {
            if let Ok(process) = process
                && process.pid == std::process::id()
            {
                process
                    .each_socket(&mut Budget::new(), |held| {
                        found |= held == inode;
                        ControlFlow::Continue(())
                    })
                    .unwrap();
                let credentials = process.status(false).unwrap().credentials().unwrap();
                assert_eq!(credentials.effective_gid, nix::unistd::getegid().as_raw());
                assert!(process.command().is_some());
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(found);
    }

    #[test]
    fn the_highest_descriptor_comes_first() {
        let mut sockets = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        sockets.sort_by_key(|socket| std::cmp::Reverse(socket.as_raw_fd()));
        let inode = |socket: &TcpListener| {
            let file = File::from(socket.as_fd().try_clone_to_owned().unwrap());
            u32::try_from(file.metadata().unwrap().ino()).unwrap()
        };
        let inodes = sockets.each_ref().map(inode);
        let process = Process::open(std::process::id(), nix::unistd::geteuid().as_raw()).unwrap();
        let mut seen = Vec::new();
        let see = |inode| {
            seen.push(inode);
            ControlFlow::Continue(())
        };
        process.each_socket(&mut Budget::new(), see).unwrap();
        seen.retain(|inode| inodes.contains(inode));
        assert_eq!(seen, inodes);
    }

    #[test]
    fn a_spent_budget_is_not_an_empty_process() {
        let _listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let process = Process::open(std::process::id(), nix::unistd::geteuid().as_raw()).unwrap();
        let looked = process.each_socket(&mut Budget(0), |_| ControlFlow::Continue(()));
        assert_eq!(looked, Err(Unread::Hidden));
    }

    #[test]
    fn a_process_of_another_uid_is_not_this_one() {
        let other = nix::unistd::geteuid().as_raw() ^ 1;
        assert!(matches!(Process::open(std::process::id(), other), Err(Unread::Gone)));
    }
}
