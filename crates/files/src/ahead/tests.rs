use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::listing::name_of;
use crate::root::Within;

fn root(dir: &Path) -> Root {
    Root::open(dir, Within::Root).unwrap()
}

fn make(dir: &Path, count: usize) {
    for number in 0..count {
        File::create(dir.join(format!("{number:04}"))).unwrap();
    }
}

/// All that it tells, with so many threads for every batch.
fn all(overview: &mut Overview, root: &Root, helpers: usize) -> Vec<Entry> {
    let mut all = Vec::new();
    loop {
        if overview.at == overview.batch.told.len() {
            overview.refill();
            overview.start(helpers);
        }
        match overview.next(root) {
            Some(entry) => all.push(entry.unwrap()),
            None => return all,
        }
    }
}

/// Descriptors of this process that are this directory.
fn descriptors(dir: &Path) -> usize {
    let fds = fs::read_dir("/proc/self/fd").unwrap();
    fds.filter(|fd| fs::read_link(fd.as_ref().unwrap().path()).is_ok_and(|path| path == dir)).count()
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn five_thousand_entries_come_as_the_directory_gives_them() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), 4_990);
    for name in [&b"\xff\xfe"[..], b"a\nb", b"%2f<&>", b" ", b"-", &[b'n'; 255]] {
        fs::write(dir.path().join(OsStr::from_bytes(name)), "x").unwrap();
    }
    fs::create_dir(dir.path().join("sub")).unwrap();
    for (name, target) in [("in", "sub"), ("out", "/etc"), ("nowhere", "none")] {
        symlink(target, dir.path().join(name)).unwrap();
    }
    let root = root(dir.path());
    let mut expected = Vec::new();
    let mut entries = root.entries(None).unwrap();
    while let Some(entry) = entries.next_itself() {
        let mut entry = entry.unwrap();
        if entry.name == "in" {
            entry.link_to = Some(root.status(&RelPath::parse(b"sub").unwrap()).unwrap());
        }
        expected.push(entry);
    }
    assert_eq!(expected.len(), 5_000);
    assert!(expected.iter().all(|entry| entry.status.is_some()));
    for helpers in [0, 1, limits::HELPERS_EACH] {
        let told = all(&mut root.overview(None).unwrap(), &root, helpers);
        assert!(told == expected, "with {helpers} threads");
    }
}

#[test]
fn what_is_removed_before_a_look_is_passed_over() {
    for helpers in [0, limits::HELPERS_EACH] {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), limits::BATCH - 10);
        let root = root(dir.path());
        let mut overview = root.overview(None).unwrap();
        overview.refill();
        overview.start(0);
        let names: Vec<_> = overview.batch.told.iter().map(|told| name_of(told).to_owned()).collect();
        let inside = overview.entries.inside().unwrap();
        assert!((0..8).all(|at| overview.batch.found(at, inside).is_ok()));
        for name in &names {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        overview.start(helpers);
        let told = all(&mut overview, &root, helpers);
        assert_eq!(
            told.iter().map(|entry| &entry.name).collect::<Vec<_>>(),
            names[..8].iter().collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_small_directory_starts_no_thread() {
    for count in [0, 3, limits::FEW - 1] {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), count);
        let root = root(dir.path());
        let mut overview = root.overview(None).unwrap();
        assert_eq!(overview.next(&root).is_some(), count > 0);
        assert_eq!(Arc::strong_count(&overview.batch), 1);
        assert!(overview.batch.found.is_empty(), "nothing is looked at before its turn");
    }
    let (quick, slow) = (Duration::from_micros(1), limits::WAITS);
    let one_waits = [slow, quick, quick, quick, quick, quick, quick, quick];
    assert_eq!(helpers(limits::BATCH - 1, [quick; 8]), 0);
    assert!(helpers(limits::BATCH, [quick; 8]) <= 1);
    assert!(helpers(limits::BATCH, one_waits) <= 1);
    assert_eq!(helpers(limits::FEW, [slow; 8]), limits::HELPERS_EACH);
}

#[test]
fn who_drops_it_half_way_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), 5_000);
    let root = root(dir.path());
    let before = descriptors(dir.path());
    // Together more threads than there may be at once.
    for _ in 0..=limits::HELPERS / limits::HELPERS_EACH {
        let mut overview = root.overview(None).unwrap();
        for _ in 0..2_500 {
            overview.next(&root).unwrap().unwrap();
        }
        overview.start(limits::HELPERS_EACH);
        let batch = Arc::downgrade(&overview.batch);
        drop(overview);
        until("no thread", || batch.strong_count() == 0);
        until("no descriptor", || descriptors(dir.path()) == before);
        until("a place for the next thread", || Helper::new().is_some());
    }
}

#[test]
fn after_the_drop_nothing_is_begun() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), limits::FEW);
    let mut overview = root(dir.path()).overview(None).unwrap();
    overview.refill();
    overview.start(0);
    let batch = Arc::clone(&overview.batch);
    drop(overview);
    batch.look_ahead(File::open(dir.path()).unwrap().as_fd());
    assert!(batch.found.len() == limits::FEW && batch.found.iter().all(|found| found.get().is_none()));
}

#[test]
fn no_more_threads_than_that() {
    let all: Vec<_> = std::iter::from_fn(Helper::new).take(limits::HELPERS + 1).collect();
    assert!(all.len() <= limits::HELPERS);
}

/// A file whose file system does not answer: FUSE, with nobody behind it.
fn hang(file: &Path) -> Option<File> {
    let nothing = None::<&str>;
    let fuse = File::options().read(true).write(true).open("/dev/fuse").ok()?;
    let options = format!("fd={},rootmode=100000,user_id=0,group_id=0", fuse.as_raw_fd());
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    let done = unshare(CloneFlags::CLONE_NEWNS).is_ok()
        && mount(nothing, "/", nothing, private, nothing).is_ok()
        && mount(Some("none"), file, Some("fuse"), MsFlags::empty(), Some(&*options)).is_ok();
    done.then_some(fuse)
}

#[test]
fn a_thread_that_hangs_holds_up_nobody_who_does_not_need_it() {
    let run = || {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), limits::BATCH);
        let last = fs::read_dir(dir.path()).unwrap().last().unwrap().unwrap().path();
        let Some(fuse) = hang(&last) else {
            return println!("SKIPPED: no file system that hangs can be had");
        };
        let root = root(dir.path());
        let before = descriptors(dir.path());
        let mut overview = root.overview(None).unwrap();
        overview.refill();
        until("a thread that hangs", || {
            overview.start(2);
            let found = &overview.batch.found[..limits::BATCH - 1];
            Arc::strong_count(&overview.batch) > 1 && found.iter().all(|found| found.get().is_some())
        });
        for _ in 1..limits::BATCH {
            overview.next(&root).unwrap().unwrap();
        }
        let batch = Arc::downgrade(&overview.batch);
        drop(overview);
        assert!(batch.strong_count() > 0 && descriptors(dir.path()) > before, "it hangs still");
        let others: Vec<_> = std::iter::from_fn(Helper::new).take(limits::HELPERS).collect();
        assert!(others.len() < limits::HELPERS, "it is counted");
        drop(others);
        drop(fuse);
        until("no thread", || batch.strong_count() == 0);
        until("no descriptor", || descriptors(dir.path()) == before);
        umount2(&last, MntFlags::MNT_DETACH).unwrap();
    };
    let (done, wait) = std::sync::mpsc::channel();
    thread::spawn(move || {
        run();
        done.send(())
    });
    wait.recv_timeout(Duration::from_secs(20)).expect("it hangs, or it panicked");
}
