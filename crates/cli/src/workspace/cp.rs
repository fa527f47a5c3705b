//! `portreeve cp`: one file to the portal's file system, or from there, for machines that can't mount it. A connection that breaks
//! off is taken up again where it was.
//!
//! Invariant: at neither end is there ever a part of a file under its name; nothing is replaced unless `--force` says so; what is
//! fetched anew is for its owner alone.

use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http::{Method, StatusCode};
use portreeve_files::address::segments;
use portreeve_files::{Finish, NewMode, Only, RelPath, Root, Within};
use serde::Deserialize;

use super::Portal;
use crate::http_client::Reply;
use crate::portal_client::Session;

/// What is sent or fetched in one request, in bytes.
const PART: u64 = 8 * 1024 * 1024;
/// So often a part is tried that does not come through, with a pause that doubles.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(500);
/// For so long a part may be coming still of which this side knows nothing more.
const ENDS: Duration = Duration::from_secs(60);
/// How often it is said how far it is.
const TOLD: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct Cp {
    /// A file here, or `portal:PATH` there; a path without a slash at its beginning is in your home directory
    from: String,
    /// The same. A directory takes the file under its own name
    to: String,
    /// Replace a file that is there
    #[arg(long, short)]
    force: bool,
    /// Say nothing of how far it is
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    portal: Portal,
}

#[derive(Deserialize)]
struct Whereabouts {
    home: String,
}

#[derive(Deserialize)]
struct Upload {
    id: String,
    offset: u64,
}

/// Copies.
///
/// # Errors
/// Whatever kept it from being done.
pub(crate) fn cp(cp: &Cp) -> anyhow::Result<()> {
    if cp.from == "-" || cp.to == "-" {
        bail!("files alone are copied: `-` is none");
    }
    if cp.from == "portal:" {
        bail!("portal: names no file; write portal:PATH");
    }
    match (cp.from.strip_prefix("portal:"), cp.to.strip_prefix("portal:")) {
        (None, Some(to)) => {
            let file = File::open(&cp.from).with_context(|| format!("{} can't be read", cp.from))?;
            let status = file.metadata()?;
            if !status.is_file() {
                bail!("{} is no file: one file is copied at a time", cp.from);
            }
            let name = Path::new(&cp.from).file_name().context("the file has no name")?;
            cp.portal.visit(async |session| {
                send(cp, session, &file, status.len(), name.to_string_lossy().as_ref(), to).await
            })
        }
        (Some(from), None) => cp.portal.visit(async |session| fetch(cp, session, from).await),
        (Some(_), Some(_)) => {
            bail!("both are at the portal; the page Files and `cp` there copy without the way back and forth")
        }
        (None, None) => bail!("neither is at the portal: write one of them as portal:PATH"),
    }
}

/// The whole path of what was written after `portal:`.
async fn whole(session: &Session<'_>, written: &str) -> anyhow::Result<String> {
    if written.starts_with('/') {
        return Ok(written.to_owned());
    }
    let said: Whereabouts = serde_json::from_str(&session.api(Method::GET, "files", None).await?)?;
    Ok(format!("{}/{written}", said.home.trim_end_matches('/')))
}

/// The address of a path; a slash at the end is a directory.
fn address(path: &str) -> anyhow::Result<String> {
    let path = path.trim_start_matches('/');
    let parsed = RelPath::parse(path.trim_end_matches('/').as_bytes())
        .with_context(|| format!("{path:?} is no path"))?;
    Ok(format!("files/{}", segments(&parsed)))
}

async fn send(
    cp: &Cp,
    session: &Session<'_>,
    file: &File,
    size: u64,
    name: &str,
    to: &str,
) -> anyhow::Result<()> {
    let mut path = whole(session, to).await?;
    let is_directory = path.ends_with('/') || {
        let listed = session.api(Method::GET, &format!("{}/?limit=0", address(&path)?), None).await;
        listed.is_ok()
    };
    if is_directory {
        path = format!("{}/{name}", path.trim_end_matches('/'));
    }
    let begin = serde_json::json!({ "path": path, "size": size, "replace": cp.force });
    let begun =
        session.reply_whatever(Method::POST, "uploads", Some(begin)).await.with_context(|| path.clone())?;
    if begun.status == StatusCode::PRECONDITION_FAILED && !cp.force {
        bail!("{path} is there already: --force replaces it");
    }
    if !begun.status.is_success() {
        return Err(session.refused(&begun).context(path));
    }
    let Upload { id, mut offset } = serde_json::from_slice(&begun.body)?;
    let mut told = Progress::of(cp, size);
    let at = format!("uploads/{id}");
    loop {
        let part = read(file, offset, size)?;
        let to = format!("{at}?offset={offset}");
        let reply = tried(session, async || session.part(&to, part.clone()).await).await?;
        match reply.status {
            StatusCode::CREATED => break,
            StatusCode::OK => {
                offset = serde_json::from_slice::<Upload>(&reply.body)?.offset;
            }
            // A part came through of which nobody heard, or half of one.
            StatusCode::CONFLICT => offset = there(session, &at).await?,
            _ => return Err(session.refused(&reply)),
        }
        told.tell(offset);
    }
    told.done(&format!("{path}: {size} bytes"));
    Ok(())
}

/// How much of it is there. What comes still, of a connection that is gone without anybody having been told, comes to its end.
async fn there(session: &Session<'_>, at: &str) -> anyhow::Result<u64> {
    let until = Instant::now() + ENDS;
    loop {
        tokio::time::sleep(PAUSE).await;
        let reply = tried(session, async || session.reply_whatever(Method::GET, at, None).await).await?;
        match reply.status {
            StatusCode::OK => return Ok(serde_json::from_slice::<Upload>(&reply.body)?.offset),
            StatusCode::CONFLICT if Instant::now() < until => {}
            _ => return Err(session.refused(&reply)),
        }
    }
}

fn read(file: &File, offset: u64, size: u64) -> anyhow::Result<Bytes> {
    let most = usize::try_from(PART.min(size.saturating_sub(offset)))?;
    let mut part = vec![0; most];
    file.read_exact_at(&mut part, offset).context("the file has become shorter")?;
    Ok(part.into())
}

async fn fetch(cp: &Cp, session: &Session<'_>, from: &str) -> anyhow::Result<()> {
    let path = whole(session, from).await?;
    let at = address(&path)?;
    let name = path.rsplit('/').next().unwrap_or_default();
    let to = PathBuf::from(&cp.to);
    let to = if to.is_dir() { to.join(name) } else { to };
    if !cp.force && to.symlink_metadata().is_ok() {
        bail!("{} is there already: --force replaces it", to.display());
    }
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cant = || format!("{} can't be written", to.display());
    let name = to.file_name().context("the file would have no name")?;
    let name = RelPath::parse(name.as_encoded_bytes()).with_context(cant)?;
    let mut put =
        Root::open(directory, Within::Anywhere).and_then(|root| root.put(&name)).with_context(cant)?;
    let (mut offset, mut size, mut tag) = (0_u64, None, None);
    let mut told = Progress::of(cp, 0);
    while size.is_none_or(|size| offset < size) {
        let reply = tried(session, async || session.range(&at, offset..=offset + PART - 1).await).await?;
        let header =
            |name: &str| reply.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        match reply.status {
            StatusCode::PARTIAL_CONTENT => {
                let total =
                    header("content-range").and_then(|text| text.rsplit('/').next()?.parse::<u64>().ok());
                size = Some(total.context("the portal does not say how long the file is")?);
            }
            // Of an empty file there is no part.
            StatusCode::RANGE_NOT_SATISFIABLE if offset == 0 => size = Some(0),
            _ => return Err(session.refused(&reply).context(path)),
        }
        if offset > 0 && tag != header("etag") {
            bail!("{path} has changed meanwhile: try again");
        }
        tag = header("etag");
        if size == Some(0) {
            break;
        }
        if reply.body.is_empty() {
            bail!("the portal sends nothing of {path}");
        }
        put.write(&reply.body).with_context(cant)?;
        offset += reply.body.len() as u64;
        told.size = size.unwrap_or(0);
        told.tell(offset);
    }
    let only = if cp.force { Only::Always } else { Only::IfAbsent };
    // What was for its owner alone there stays so here, where nobody knows its permissions. A file that is replaced keeps its own.
    let mode = if to.exists() { NewMode::Kept } else { NewMode::Exactly(0o600) };
    put.finish(Finish { mode, only }).with_context(cant)?;
    told.done(&format!("{}: {offset} bytes", to.display()));
    Ok(())
}

/// Tries again what does not come through, and what the portal could not do.
async fn tried(
    session: &Session<'_>,
    mut act: impl AsyncFnMut() -> anyhow::Result<Reply>,
) -> anyhow::Result<Reply> {
    let mut pauses = (1..TRIES).map(|tried| PAUSE * 2_u32.pow(tried - 1));
    let mut refused = None;
    loop {
        let error = match act().await {
            // What could not be written was given up: the reason why is the one from before.
            Ok(reply) if reply.status == StatusCode::NOT_FOUND && refused.is_some() => break,
            Ok(reply) if !is_passing(reply.status) => return Ok(reply),
            Ok(reply) => {
                refused = Some(session.refused(&reply));
                session.refused(&reply)
            }
            Err(error) => error,
        };
        let Some(pause) = pauses.next() else { return Err(error) };
        tracing::debug!(error = %format!("{error:#}"), "a part did not come through");
        tokio::time::sleep(pause).await;
    }
    Err(refused.context("nothing was refused")?)
}

/// Whether it may be otherwise in a moment. A full disk is not.
fn is_passing(status: StatusCode) -> bool {
    let is_late = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    is_late || status.is_server_error() && status != StatusCode::INSUFFICIENT_STORAGE
}

/// How far it is.
struct Progress {
    is_told: bool,
    size: u64,
    last: Option<Instant>,
}

impl Progress {
    fn of(cp: &Cp, size: u64) -> Self {
        Self { is_told: !cp.quiet && std::io::stderr().is_terminal(), size, last: None }
    }

    fn tell(&mut self, offset: u64) {
        if self.is_told && self.last.is_none_or(|last| last.elapsed() >= TOLD) {
            self.last = Some(Instant::now());
            let percent = offset.saturating_mul(100).checked_div(self.size).unwrap_or(100);
            eprint!("\r{percent:3} %");
        }
    }

    fn done(&self, text: &str) {
        if self.is_told {
            eprint!("\r");
        }
        println!("{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(address("/home/a b/c").unwrap(), "files/home/a%20b/c");
        assert_eq!(address("/home/").unwrap(), "files/home");
        assert!(address("/a/../b").is_err() && address("/").is_err());
    }
}
