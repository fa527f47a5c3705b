//! A job's application lent to a group: a forward that lasts as long as the job. Each is noted in the job's directory, as `share.NAME`,
//! so that whoever sees the end, `portreeve batch` on the node or else the worker, can take it away: the port may next be that of
//! something that nobody meant to share.
//!
//! Invariants: it is noted before it is made. Only a forward that leads where it led is taken away. No other forward is changed.

use std::io;
use std::path::Path;

use portreeve_broker::Forwards;
use portreeve_broker::forward_edit::EditError;
use portreeve_model::{ForwardName, ForwardTarget};
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::records::{self, Links};

const PREFIX: &str = "share.";

#[derive(Serialize, Deserialize)]
struct Share {
    /// The directory of forward files.
    forwards: std::path::PathBuf,
    /// As the forward's file has it.
    target: String,
}

fn file_of(name: &ForwardName) -> String {
    format!("{PREFIX}{name}")
}

/// Makes one for the job of this directory. One that the job has already is given to this group instead. Blocks, as [`end`].
///
/// # Errors
/// When the name is taken, the group is none of one's own, or a file can't be written: then nothing is shared that was not before.
pub fn begin(
    job: &Path,
    forwards: &Forwards,
    name: &ForwardName,
    target: &ForwardTarget,
    group: &str,
) -> Result<(), EditError> {
    let file = file_of(name);
    let path = job.join(&file);
    let failed = |source| EditError::Io { doing: "write", path: path.clone(), source };
    let is_new = match read(&path) {
        Ok(_) => !forwards.leads_to(name, target),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(failed(error)),
    };
    if is_new {
        let share = Share { forwards: forwards.dir().to_owned(), target: target.to_line() };
        let text = serde_json::to_vec(&share).map_err(|error| failed(error.into()))?;
        records::write_file(job, &file, &text).map_err(failed)?;
        if let Err(error) = forwards.add_new(name, target) {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
    }
    forwards.share(name, group).inspect_err(|_| {
        // Nobody else was meant.
        if is_new && forwards.remove(name).is_ok() {
            let _ = std::fs::remove_file(&path);
        }
    })
}

/// Takes all away that the job of this directory has.
///
/// # Errors
/// When the system refuses: the rest is gone, and it can be tried again.
pub fn end(job: &Path) -> io::Result<()> {
    let mut refused = None;
    for entry in std::fs::read_dir(job)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        let Ok(name) = ForwardName::parse(name) else { continue };
        if let Err(error) = end_one(&entry.path(), &name) {
            refused = Some(error);
        }
    }
    refused.map_or(Ok(()), Err)
}

fn end_one(path: &Path, name: &ForwardName) -> io::Result<()> {
    let share = read(path)?;
    if let Ok(target) = ForwardTarget::parse(&share.target) {
        Forwards::in_dir(share.forwards).remove_leading_to(name, &target).map_err(io::Error::other)?;
    }
    std::fs::remove_file(path)
}

fn read(path: &Path) -> io::Result<Share> {
    let file = records::open_file(path, Links::Refused)?;
    Ok(serde_json::from_slice(&records::read_whole(file, limits::RECORD)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_as_long_as_the_job() {
        let (job, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let forwards = Forwards::in_dir(dir.path().to_owned());
        let target = |text| ForwardTarget::parse(text).unwrap();
        let name = |text: &str| ForwardName::parse(text).unwrap();
        let (here, there) = (target("http://c1:8888/"), target("http://c1:9999/"));
        let group = nix::unistd::Group::from_gid(nix::unistd::getgid()).unwrap().unwrap().name;
        let files = |dir: &tempfile::TempDir| {
            let mut names: Vec<_> =
                std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };

        // What is there already is neither lent nor changed.
        forwards.add(&name("mine"), &there).unwrap();
        let begin = |text: &str, group: &str| begin(job.path(), &forwards, &name(text), &here, group);
        assert!(matches!(begin("mine", &group), Err(EditError::Exists(_))));
        assert!(matches!(begin("lent", "no-such-group"), Err(EditError::NoSuchGroup(_))));
        assert_eq!((files(&dir), files(&job)), (vec!["mine".into()], vec![]));

        for shared in ["lent", "lent", "moved", "gone"] {
            begin(shared, &group).unwrap();
        }
        assert!(matches!(begin("lent", "no-such-group"), Err(EditError::NoSuchGroup(_))));
        assert!(forwards.leads_to(&name("lent"), &here), "it is as it was");
        forwards.add(&name("moved"), &there).unwrap();
        forwards.remove(&name("gone")).unwrap();
        begin("gone", &group).unwrap();
        end(job.path()).unwrap();
        assert_eq!(files(&dir), ["mine", "moved"]);
        assert_eq!(files(&job), [""; 0]);
        end(job.path()).unwrap();
        std::fs::write(job.path().join("share.lent"), "{").unwrap();
        assert!(end(job.path()).is_err(), "it is not passed over");
    }
}
