//! What the ident2 service is told. Before: the file. After: `run`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, anyhow};
use nix::unistd::{Gid, Group};
use portreeve_model::{Ident2Config, ident2_config};

use super::CONFIG;

/// The file is not larger, in bytes.
const MAX_FILE: u64 = 256 * 1024;

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
        let config = match text(file) {
            Ok(text) => ident2_config::parse(&text, &file.display().to_string()).map_err(|problems| {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                anyhow!("the configuration has {} problem(s):\n{}", lines.len(), lines.join("\n"))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && file == Path::new(CONFIG) => {
                Ident2Config::default()
            }
            Err(error) => return Err(error).with_context(|| format!("{} can't be read", file.display())),
        };
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

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
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
