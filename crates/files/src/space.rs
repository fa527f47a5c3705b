//! How much room there is. Invariant: what the file system does not say is not guessed.

use nix::fcntl::OFlag;
use portreeve_sys::user_quota;
use rustix::fs::fstatvfs;

use crate::error::{Error, failed};
use crate::rel_path::RelPath;
use crate::root::Root;
use crate::status::errno;

pub use portreeve_sys::Quota;

/// Of a file system, as a user without privileges has it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What can still be written.
    pub free: u64,
    /// What is taken, by anybody.
    pub used: u64,
    /// This user's own part, where users are counted.
    pub quota: Option<Quota>,
}

impl Space {
    /// What this user can still write: what is free, and not more than is left to them.
    #[must_use]
    pub fn available(&self) -> u64 {
        let left = self.quota.and_then(|quota| Some(quota.limit?.saturating_sub(quota.used)));
        left.map_or(self.free, |left| left.min(self.free))
    }

    /// What this user takes, or where users are not counted what all take.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.quota.map_or(self.used, |quota| quota.used)
    }
}

impl Root {
    /// Of the file system that the path is on.
    ///
    /// # Errors
    /// When there is nothing at the path, or nothing is said.
    pub fn space(&self, path: Option<&RelPath>) -> Result<Space, Error> {
        let file = self.resolve(path.map_or(&b"."[..], RelPath::as_bytes), OFlag::O_PATH)?;
        let said = fstatvfs(&file).map_err(|error| failed("ask for its space")(errno(error)))?;
        let bytes = |blocks: u64| blocks.saturating_mul(said.f_frsize);
        // Without an answer it is not told: that is no reason to tell nothing.
        let quota = user_quota(&file, nix::unistd::geteuid().as_raw()).unwrap_or(None);
        Ok(Space {
            free: bytes(said.f_bavail),
            used: bytes(said.f_blocks.saturating_sub(said.f_bfree)),
            quota,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_counts_where_there_is_one() {
        let of = |quota| {
            let space = Space { free: 100, used: 50, quota };
            (space.available(), space.taken())
        };
        assert_eq!(of(None), (100, 50));
        assert_eq!(of(Some(Quota { used: 7, limit: Some(27) })), (20, 7));
        assert_eq!(of(Some(Quota { used: 7, limit: Some(1000) })), (100, 7));
        assert_eq!(of(Some(Quota { used: 30, limit: Some(27) })), (0, 30));
        assert_eq!(of(Some(Quota { used: 7, limit: None })), (100, 7));
    }
}
