//! Kernels and file systems that lack a call: an error that says so, or another way that promises the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::libc;
use portreeve_files::{Error, Over, Root, Within};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use crate::room::{Room, path};

/// Runs it in a thread that has `call` answered with `errno`.
fn without(call: libc::c_long, errno: i32, run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        let rules = BTreeMap::from([(call, Vec::new())]);
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let answer = SeccompAction::Errno(errno.cast_unsigned());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).unwrap();
        let program: BpfProgram = filter.try_into().unwrap();
        apply_filter(&program).unwrap();
        run();
    });
    thread.join().unwrap();
}

#[test]
fn without_openat2_it_says_so() {
    for errno in [libc::ENOSYS, libc::EPERM] {
        let room = Room::new();
        fs::write(room.at("f"), "x").unwrap();
        without(libc::SYS_openat2, errno, move || {
            for within in [Within::Root, Within::Anywhere] {
                let error = Root::open(Path::new("/"), within).unwrap_err();
                assert!(matches!(error, Error::Unsupported(why) if why.contains("openat2")), "{error:?}");
            }
            let error = room.root.read(&path("f")).unwrap_err();
            assert!(matches!(error, Error::Unsupported(_) | Error::Denied), "{error:?}");
        });
    }
}

#[test]
fn where_no_rename_refuses_nothing_is_replaced_either() {
    let room = Room::new();
    for dir in ["dir", "empty"] {
        fs::create_dir(room.at(dir)).unwrap();
    }
    fs::write(room.at("f"), "f").unwrap();
    fs::write(room.at("g"), "g").unwrap();
    without(libc::SYS_renameat2, libc::EINVAL, move || {
        for (from, to, expected) in [
            ("f", "g", "Err(Exists)"),
            ("f", "dir", "Err(Exists)"),
            ("dir", "empty", "Err(Exists)"),
            ("dir", "g", "Err(Exists)"),
            ("none", "h", "Err(NotFound)"),
            ("f", "h", "Ok(())"),
            ("dir", "moved", "Ok(())"),
        ] {
            let answer = room.root.rename(&path(from), &path(to), Over::Refuse);
            assert_eq!(format!("{answer:?}"), expected, "{from} {to}");
        }
        assert_eq!(fs::read_to_string(room.at("g")).unwrap(), "g");
        assert_eq!(fs::read_to_string(room.at("h")).unwrap(), "f");
        assert!(!room.at("f").exists() && !room.at("dir").exists() && room.at("moved").is_dir());
    });
}
