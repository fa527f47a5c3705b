//! The files in which an agent's processes are told what to do: configurations, and the node's key.
//! Invariant: every problem of a file is told at once, and a key that others can read is not used.

use std::fs::File;
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
    match File::open(file).and_then(read_all) {
        Ok(text) => parse(&text, &file.display().to_string()).map_err(|found| told("configuration", &found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && file == Path::new(usual) => Ok(T::default()),
        Err(error) => Err(error).with_context(|| format!("{} can't be read", file.display())),
    }
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
    let file = File::open(path).context("can't be read")?;
    let meta = file.metadata().context("can't be looked at")?;
    let owner_is_right = meta.uid() == 0 || meta.uid() == Uid::effective().as_raw();
    let group = if meta.gid() == 0 { 0o020 } else { 0o070 };
    if !meta.is_file() || !owner_is_right || meta.mode() & (0o007 | group) != 0 {
        bail!("must be root's and closed to everybody else (chown root, chmod 600); it was not used");
    }
    Ok(Secret::new(read_all(file).context("can't be read")?))
}

fn read_all(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}
