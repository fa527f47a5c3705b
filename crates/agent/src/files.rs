//! The files in which an agent's processes are told what to do: configurations, and the node's key.
//! Invariant: every problem of a file is told at once, and a key that others can read is not used.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use nix::unistd::Uid;
use portreeve_model::{KeyFile, Problem, Secret};

use crate::channel::Identity;

/// No file that is read here is larger, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// A configuration. It need not be there where it is if nobody says otherwise, which is `usual`.
///
/// # Errors
/// Every problem of it.
pub(crate) fn config<T: Default>(
    file: &Path,
    usual: &str,
    parse: fn(&str, &str) -> Result<T, Vec<Problem>>,
) -> anyhow::Result<T> {
    let opened = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && file == Path::new(usual) => {
            return Ok(T::default());
        }
        opened => opened,
    };
    let named = || format!("the configuration {}", file.display());
    let text = read_decisive(opened, MAX_FILE).with_context(named)?;
    parse(&text, &file.display().to_string()).map_err(|found| told("configuration", &found))
}

/// A file that decides over others, no longer than `most` bytes: it must be root's or our own, and nobody else may write it.
pub(crate) fn read_decisive(opened: io::Result<File>, most: u64) -> anyhow::Result<String> {
    let closed = |_: &Metadata| 0o022;
    read_ours(opened, most, closed, "nobody else may write it (chown root, chmod 644)")
}

/// The node's key file, and who that makes it.
///
/// # Errors
/// Every problem of it. None of them shows the private key.
pub(crate) fn key(path: &Path) -> anyhow::Result<(KeyFile, Identity)> {
    let named = || format!("the key file {}", path.display());
    let text = read_secret(path).with_context(named)?;
    let keys = KeyFile::parse(text.reveal(), &path.display().to_string())
        .map_err(|found| told("key file", &found))?;
    let own = Identity::from_pem(&keys.private_key).with_context(named)?;
    Ok((keys, own))
}

/// All problems of a file, as one error.
pub(crate) fn told(what: &str, problems: &[Problem]) -> anyhow::Error {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    anyhow!("the {what} has {} problem(s):\n{}", lines.len(), lines.join("\n"))
}

/// The file must be root's or our own, and closed to others. Root's group may read it: so does systemd's copy of a
/// credential.
pub(crate) fn read_secret(path: &Path) -> anyhow::Result<Secret> {
    let closed = |meta: &Metadata| if meta.gid() == 0 { 0o027 } else { 0o077 };
    let must = "closed to everybody else (chown root, chmod 600)";
    read_ours(File::open(path), MAX_FILE, closed, must).map(Secret::new)
}

/// `closed`: of its mode, what nobody may have.
fn read_ours(
    opened: io::Result<File>,
    most: u64,
    closed: impl Fn(&Metadata) -> u32,
    must: &str,
) -> anyhow::Result<String> {
    let file = opened.context("can't be read")?;
    let meta = file.metadata().context("can't be looked at")?;
    let owner_is_right = meta.uid() == 0 || meta.uid() == Uid::effective().as_raw();
    if !meta.is_file() || !owner_is_right || meta.mode() & closed(&meta) != 0 {
        bail!("must be root's and {must}; it was not used");
    }
    let mut text = String::new();
    file.take(most).read_to_string(&mut text).context("can't be read")?;
    Ok(text)
}
