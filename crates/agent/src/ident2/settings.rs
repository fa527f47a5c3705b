//! What the ident2 service is told. Before: the file. After: `run`.

use std::path::Path;

use anyhow::Context;
use nix::unistd::{Gid, Group};
use portreeve_model::{Ident2Config, ident2_config};

use super::CONFIG;
use crate::files;

/// All that was told, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) config: Ident2Config,
    /// `config.socket_group`, looked up.
    pub(super) group: Option<Gid>,
}

impl Settings {
    /// Reads the file. The one that nobody named need not be there.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let config = files::config(file, CONFIG, ident2_config::parse)?;
        let group = match &config.socket_group {
            Some(name) => {
                let group = Group::from_name(name).with_context(|| format!("the group {name}"))?;
                Some(group.with_context(|| format!("socket_group: there is no group {name}"))?.gid)
            }
            None => None,
        };
        Ok(Self { config, group })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_looked_up() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ident2.toml");
        std::fs::write(&file, "socket_group = 'root'").unwrap();
        assert_eq!(Settings::read(&file).unwrap().group, Some(Gid::from_raw(0)));
        std::fs::write(&file, "socket_group = 'no such group'\n").unwrap();
        let error = Settings::read(&file).unwrap_err().to_string();
        assert!(error.contains("there is no group no such group"), "{error}");
        std::fs::write(&file, "port = 0\nprot = 1").unwrap();
        let error = Settings::read(&file).unwrap_err().to_string();
        assert!(error.contains("2 problem(s)"), "{error}");
        Settings::read(&dir.path().join("none")).unwrap_err();
    }
}
