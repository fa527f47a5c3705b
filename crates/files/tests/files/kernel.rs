//! A kernel without openat2(2), or a sandbox that forbids it: an error that says so, and nothing is opened otherwise.

use std::collections::BTreeMap;
use std::path::Path;

use nix::libc;
use portreeve_files::{Error, Root, Within};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use crate::room::{Room, path};

#[test]
fn without_openat2_it_says_so() {
    for errno in [libc::ENOSYS, libc::EPERM] {
        let room = Room::new();
        std::fs::write(room.at("f"), "x").unwrap();
        let errno = u32::try_from(errno).unwrap();
        // The filter is this thread's alone.
        std::thread::spawn(move || {
            let rules = BTreeMap::from([(libc::SYS_openat2, Vec::new())]);
            let arch = std::env::consts::ARCH.try_into().unwrap();
            let filter =
                SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), arch).unwrap();
            let program: BpfProgram = filter.try_into().unwrap();
            apply_filter(&program).unwrap();
            for within in [Within::Root, Within::Anywhere] {
                let error = Root::open(Path::new("/"), within).unwrap_err();
                assert!(matches!(error, Error::Unsupported(why) if why.contains("openat2")), "{error:?}");
            }
            let error = room.root.read(&path("f")).unwrap_err();
            assert!(matches!(error, Error::Unsupported(_) | Error::Denied), "{error:?}");
        })
        .join()
        .unwrap();
    }
}
