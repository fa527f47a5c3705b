use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::root::Within;

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

/// Copies `from` to `copy`, with this done after it was opened. What has the name by then, and whether anything else is beside it.
fn copied(dir: &Path, root: &Root, meanwhile: impl FnOnce()) -> (Result<(), Error>, Vec<u8>) {
    let source = Source::behind(root, &path("from")).unwrap();
    meanwhile();
    let done = source.copy_to(&root.place(&path("copy")).unwrap(), Deep::All, Over::Replace);
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["copy", "from"], "nothing of ours is left");
    (done, fs::read(dir.join("copy")).unwrap())
}

/// A copy of it would be neither what it was nor what it is.
#[test]
fn what_gets_shorter_while_it_is_copied_is_not_copied() {
    for (before, after) in [(&b"some text"[..], 4), (b"some text", 0), (b"", 0)] {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path(), Within::Root).unwrap();
        let from = dir.path().join("from");
        fs::write(&from, before).unwrap();
        fs::write(dir.path().join("copy"), "old").unwrap();
        let (done, copy) = copied(dir.path(), &root, || {
            File::options().write(true).open(&from).unwrap().set_len(after).unwrap()
        });
        if after < before.len() as u64 {
            assert!(matches!(done, Err(Error::Changed)), "{before:?} to {after}: {done:?}");
            assert_eq!(copy, b"old", "{before:?} to {after}");
        } else {
            done.unwrap();
            assert_eq!(copy, before);
        }
    }
}

/// What is added meanwhile is not waited for: a log that grows has copies, too.
#[test]
fn what_gets_longer_while_it_is_copied_is_copied_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path(), Within::Root).unwrap();
    let from = dir.path().join("from");
    fs::write(&from, "some text").unwrap();
    fs::write(dir.path().join("copy"), "old").unwrap();
    let (done, copy) = copied(dir.path(), &root, || fs::write(&from, "some text and more").unwrap());
    done.unwrap();
    assert_eq!(copy, b"some text");
}

/// Files of sysfs(5) have fewer bytes than they say, in a file system that knows nothing of holes: the same as one that is cut off
/// between the look and the read.
#[test]
fn what_has_less_than_it_says_is_not_filled_up() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path(), Within::Anywhere).unwrap();
    let says_more = Path::new("/sys/kernel/fscaps");
    if !fs::metadata(says_more).is_ok_and(|metadata| metadata.len() > 1000) {
        return println!("SKIPPED: a file of sysfs: there is none");
    }
    symlink(says_more, dir.path().join("from")).unwrap();
    fs::write(dir.path().join("copy"), "old").unwrap();
    let (done, copy) = copied(dir.path(), &root, || ());
    assert!(matches!(done, Err(Error::Changed)), "{done:?}");
    assert_eq!(copy, b"old");
}
