//! `portreeve batch`, which the workspace has jobs run: runs the job's script and notes how that went, so that the history knows
//! it when Slurm has forgotten the job. Its directory stands in `PORTREEVE_ENTRY`.
//!
//! Invariant: the script runs as if it had been called itself: its input, output, signals and exit code are its own.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use portreeve_jobs::history::SCRIPT;
use portreeve_jobs::limits::FILES_MADE;
use portreeve_jobs::records::{self, Endpoint, Record, Run, Usage};
use portreeve_jobs::shares;
use portreeve_portal::now;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::launch::exit_code;

/// Between SIGTERM and SIGKILL, where nobody else counts: Slurm has its own `KillWait`.
const GRACE: Duration = Duration::from_secs(25);
/// Directories that are looked through for new files.
const DIRECTORIES: usize = 200;
/// Files that are looked at.
const LOOKED_AT: usize = 20_000;

pub(crate) fn batch() -> anyhow::Result<ExitCode> {
    let dir = std::env::var_os("PORTREEVE_ENTRY").map(PathBuf::from).context("PORTREEVE_ENTRY is not set")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(&dir))
}

async fn run(dir: &Path) -> anyhow::Result<ExitCode> {
    // Of a run before this one, which Slurm ended and began anew.
    let _ = std::fs::remove_file(dir.join(Endpoint::FILE));
    end_shares(dir);
    let node = std::env::var("SLURM_JOB_NODELIST").ok().or_else(|| portreeve_sys::host_name().ok());
    let mut record = Run { node: node.unwrap_or_default(), started: now(), ..Run::default() };
    records::write(dir, &record).with_context(|| format!("{} can't be written", dir.display()))?;
    let script = dir.join(SCRIPT);
    let line = interpreter(&script)?;
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]).arg(&script).process_group(0);
    // Where Slurm's configuration was for whoever handed the job over need be none here.
    if std::env::var_os("SLURM_CONF").is_some_and(|conf| !Path::new(&conf).exists()) {
        command.env_remove("SLURM_CONF");
    }
    let mut child = command.spawn().with_context(|| format!("{} can't be run", line[0]))?;
    let group = Pid::from_raw(i32::try_from(child.id().unwrap_or_default())?);
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut kill_at: Option<Instant> = None;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            _ = term.recv() => {}
            _ = int.recv() => {}
            () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                let _ = killpg(group, Signal::SIGKILL);
                kill_at = Some(Instant::now() + GRACE);
                continue;
            }
        }
        let _ = killpg(group, Signal::SIGTERM);
        kill_at.get_or_insert(Instant::now() + GRACE);
        if record.told_to_stop.is_none() {
            record.told_to_stop = Some(now());
            let _ = records::write(dir, &record);
        }
    };
    let _ = killpg(group, Signal::SIGKILL);
    end_shares(dir);
    record.ended = Some(now());
    (record.exit_code, record.signal) = (status.code(), status.signal());
    record.usage = usage();
    record.files = files_since(record.started);
    if let Err(error) = records::write(dir, &record) {
        eprintln!("portreeve: how the job ended can't be noted in {}: {error}", dir.display());
    }
    Ok(exit_code(status).into())
}

/// The port may next be that of something which is meant for nobody else.
fn end_shares(dir: &Path) {
    if let Err(error) = shares::end(dir) {
        eprintln!("portreeve: with whom it is shared can't be undone: {}: {error}", dir.display());
    }
}

/// What the script's first line says: the program, and at most one argument (execve(2)). So that it runs where home is mounted
/// noexec.
fn interpreter(script: &Path) -> anyhow::Result<Vec<String>> {
    let mut head = Vec::new();
    let file = std::fs::File::open(script).with_context(|| format!("{} can't be read", script.display()))?;
    file.take(256).read_to_end(&mut head)?;
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix("#!")).map(str::trim);
    let line = line.with_context(|| format!("{} does not begin with #!", script.display()))?;
    let (program, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    ensure!(program.starts_with('/'), "{} names no whole path of a program", script.display());
    let argument = Some(argument.trim().to_owned()).filter(|argument| !argument.is_empty());
    Ok([program.to_owned()].into_iter().chain(argument).collect())
}

/// Of all that was run.
fn usage() -> Option<Usage> {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).ok()?;
    #[expect(clippy::cast_precision_loss, reason = "microseconds of years fit")]
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Some(Usage {
        cpu_seconds: seconds(used.user_time()) + seconds(used.system_time()),
        max_rss_kib: used.max_rss().unsigned_abs(),
    })
}

/// Files below the working directory that were written since then, by their names from there on. What is hidden is passed over.
fn files_since(started: i64) -> Vec<String> {
    let (mut files, mut left) = (Vec::new(), LOOKED_AT);
    let mut dirs = vec![PathBuf::from(".")];
    let mut at = 0;
    while let Some(dir) = dirs.get(at).cloned() {
        at += 1;
        let Ok(found) = std::fs::read_dir(&dir) else { continue };
        for entry in found.filter_map(Result::ok) {
            left = left.saturating_sub(1);
            if left == 0 || files.len() >= FILES_MADE {
                files.sort();
                return files;
            }
            let name = entry.file_name();
            let (Some(name), Ok(meta)) = (name.to_str(), entry.metadata()) else { continue };
            if name.starts_with('.') {
                continue;
            }
            let path = dir.join(name);
            let since = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let is_new = since.is_some_and(|since| since.as_secs() >= started.unsigned_abs());
            if meta.is_dir() && dirs.len() < DIRECTORIES && meta.uid() == nix::unistd::getuid().as_raw() {
                dirs.push(path);
            } else if meta.is_file() && is_new {
                files.extend(path.strip_prefix(".").ok().and_then(Path::to_str).map(str::to_owned));
            }
        }
    }
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_of_scripts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("script");
        for (text, expected) in [
            ("#!/bin/sh\n", Some(&["/bin/sh"][..])),
            ("#!/bin/bash -l\necho\n", Some(&["/bin/bash", "-l"])),
            ("#! /usr/bin/env  -S python3 -u\n", Some(&["/usr/bin/env", "-S python3 -u"])),
            ("#!/bin/sh", Some(&["/bin/sh"])),
            ("#!sh\n", None),
            ("echo\n", None),
            ("", None),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(
                interpreter(&path).ok().as_deref(),
                expected
                    .map(|parts| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>())
                    .as_deref(),
                "{text:?}"
            );
        }
    }
}
