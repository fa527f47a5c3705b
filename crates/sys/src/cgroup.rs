//! The control groups (cgroup v2) by their ids, as socket diagnosis shows them (`INET_DIAG_CGROUP_ID`, Linux 5.9). For
//! show: which job a socket belongs to.

use nix::libc;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// `FILEID_KERNFS` of the kernel's `exportfs.h`: the handle is the 64-bit id alone.
const FILEID_KERNFS: libc::c_int = 0xfe;

/// The place where the groups are mounted.
#[derive(Debug)]
pub struct ControlGroups {
    mount: File,
}

/// `struct file_handle` with room for one id.
#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    // The kernel reads it bytewise; kernfs takes it in the machine's own order.
    id: [u8; 8],
}

impl ControlGroups {
    /// Finds the mount.
    ///
    /// # Errors
    /// `NotFound` on a machine without cgroup v2.
    pub fn open() -> io::Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let at = mounts.lines().find_map(mounted_at).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { mount: File::open(at)? })
    }

    /// The group's directory. Needs `CAP_DAC_READ_SEARCH` on most kernels (open_by_handle_at(2)).
    ///
    /// # Errors
    /// `PermissionDenied` without that; `ESTALE` when there is no such group any more.
    pub fn path(&self, id: u64) -> io::Result<PathBuf> {
        let mut handle = Handle { bytes: 8, kind: FILEID_KERNFS, id: id.to_ne_bytes() };
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: `Handle` has the layout of `struct file_handle` (both begin with two 32-bit numbers, the bytes follow
        // without padding), and `bytes` says how many there are. It lives until the call returns, and nothing else
        // refers to it; the kernel keeps no pointer to it.
        let opened =
            unsafe { libc::open_by_handle_at(self.mount.as_raw_fd(), (&raw mut handle).cast(), flags) };
        if opened < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor for us, and nobody else has it.
        let opened = unsafe { OwnedFd::from_raw_fd(opened) };
        std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd()))
    }
}

/// The mount point in a line of mountinfo (proc_pid_mountinfo(5)) if it is cgroup v2's.
fn mounted_at(line: &str) -> Option<&Path> {
    let (mount, rest) = line.split_once(" - ")?;
    (rest.split(' ').next() == Some("cgroup2")).then_some(())?;
    mount.split(' ').nth(4).map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_mount_is_found() {
        for (line, at) in [
            ("30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw", Some("/sys/fs/cgroup")),
            ("30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 none rw", Some("/sys/fs/cgroup/unified")),
            ("31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu", None),
            ("cgroup2", None),
            ("", None),
        ] {
            assert_eq!(mounted_at(line), at.map(Path::new), "{line}");
        }
    }

    #[test]
    fn an_id_is_the_directory_s_inode() {
        let Ok(groups) = ControlGroups::open() else { return println!("SKIPPED: needs cgroup v2") };
        let id = groups.mount.metadata().unwrap().ino();
        match groups.path(id) {
            Ok(path) => assert_eq!(std::fs::metadata(path).unwrap().ino(), id),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => println!("SKIPPED: needs root"),
            Err(error) => panic!("{error}"),
        }
        assert!(groups.path(u64::MAX).is_err());
    }
}
