//! A child of root's process that reads one forward file for a visitor, answers once and ends.
//! Invariants: the file is looked for, opened and checked for execute permission *as the visitor*; the content of that very
//! file is read *as its owner*, never as root, so that a file the visitor may use but not read (0710) works, and so
//! that an export on which root is nobody works. The visitor can't get at this process: see `portreeve_sys::privileges`.

use std::error::Error;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use portreeve_model::ForwardName;
use portreeve_model::forward_file::CountingLine;
use portreeve_model::wire::spawner::{Found, Identity, Missing};
use portreeve_sys::privileges::{act_as, become_user};
use portreeve_sys::process::die_with;

use super::chain;
use super::look_up::answer;
use crate::forwards::{Opened, ReadError};

/// The group of the process that reads as the file's owner: nobody's. The owner's own permissions decide.
const NO_GROUP: u32 = 65534;

/// Answers, and returns the exit status.
pub(super) fn run(channel: OwnedFd, dir: &Path, visitor: &Identity, name: &ForwardName, parent: Pid) -> u8 {
    answer(&channel, &find(dir, visitor, name, parent).unwrap_or_else(Found::Nothing))
}

fn find(dir: &Path, visitor: &Identity, name: &ForwardName, parent: Pid) -> Result<Found, Missing> {
    // Undone by each change of user.
    let with_parent = || die_with(parent, Signal::SIGKILL).map_err(failed);
    let acting = act_as(visitor.uid, visitor.gid, &visitor.groups).map_err(failed)?;
    with_parent()?;
    let checked = Opened::below(dir, name).and_then(|opened| opened.check_executable().map(|()| opened));
    acting.stop().map_err(failed)?;
    let opened = checked?;
    // An administrator's forward is root's own.
    if opened.stat.uid != 0 {
        become_user(opened.stat.uid, NO_GROUP, &[]).map_err(failed)?;
    }
    with_parent()?;
    let bytes = opened.content()?;
    let line = CountingLine::find(&bytes).map_err(ReadError::Invalid)?;
    // What is no target does not leave this process: a line of any file could stand there.
    line.parse().map_err(ReadError::Invalid)?;
    Ok(Found::Forward { stat: opened.stat, line: line.text.to_owned(), lines_differ: line.lines_differ })
}

impl From<ReadError> for Missing {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound => Self::NoForward,
            ReadError::NotExecutable => Self::NotExecutable,
            ReadError::NotPlain(what) => Self::NotPlain(what.into_owned()),
            ReadError::Unreadable | ReadError::UnreadableByAnybody => Self::Unreadable,
            ReadError::Invalid(error) => Self::Invalid(chain(&error)),
            ReadError::NotUnderstood(why) => Self::Invalid(why),
            error @ ReadError::Io(_) => failed(error),
        }
    }
}

fn failed(error: impl Error) -> Missing {
    Missing::Failed(chain(&error))
}
