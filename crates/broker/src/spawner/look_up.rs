//! A child of root's process that asks the user database, answers once and ends. The database may be a directory server, and
//! may hang: then this process is killed, and nobody else waits.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use nix::sys::signal::Signal;
use nix::unistd::{Gid, Pid, Uid, User, getgrouplist};
use portreeve_model::UserName;
use portreeve_model::wire::encode_bare;
use portreeve_model::wire::spawner::{Found, Identity, LookUp, Missing};
use portreeve_sys::message;
use portreeve_sys::process::die_with;

use crate::account::{is_served, login};

/// Answers, and returns the exit status.
pub(super) fn run(channel: OwnedFd, question: &LookUp, first_uid: u32, parent: Pid) -> u8 {
    if die_with(parent, Signal::SIGKILL).is_err() {
        return 1;
    }
    answer(&channel, &find(question, first_uid))
}

/// Sends the answer, and returns the exit status.
pub(super) fn answer(channel: &OwnedFd, found: &Found) -> u8 {
    let frame = encode_bare(found).or_else(|error| {
        // A user with more groups than a frame holds.
        encode_bare(&Found::Nothing(Missing::Failed(error.to_string())))
    });
    // That nobody waits for it any more is no failure.
    u8::from(!frame.is_ok_and(|frame| {
        let _ = message::send(channel, &frame, &[]);
        true
    }))
}

fn find(question: &LookUp, first_uid: u32) -> Found {
    let account = match question {
        LookUp::Name(name) => User::from_name(name.as_str()),
        LookUp::Uid(uid) => User::from_uid(Uid::from_raw(*uid)),
        LookUp::Login(uid) => {
            return login(*uid).map_or(Found::Nothing(Missing::NoAccount), Found::Login);
        }
    };
    match account {
        Ok(Some(user)) => identity(&user, first_uid).map_or_else(Found::Nothing, Found::Account),
        Ok(None) => Found::Nothing(Missing::NoAccount),
        Err(errno) => Found::Nothing(Missing::Failed(errno.desc().to_owned())),
    }
}

/// Whether nothing at all is done for the user of this name. A name that the database does not have, or can't tell, is not
/// such a one.
pub(super) fn is_refused(name: &UserName, first_uid: u32) -> bool {
    let found = User::from_name(name.as_str()).ok().flatten();
    found.is_some_and(|user| !is_served(first_uid, user.uid.as_raw(), user.gid.as_raw()))
}

fn identity(user: &User, first_uid: u32) -> Result<Identity, Missing> {
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    if !is_served(first_uid, uid, gid) {
        return Err(Missing::NotServed);
    }
    let failed = |why: String| Missing::Failed(why);
    let name = UserName::parse(&user.name)
        .map_err(|error| failed(format!("the user database's name for uid {uid} can't be used: {error}")))?;
    let c_name = CString::new(name.as_str()).map_err(|error| failed(error.to_string()))?;
    let groups = getgrouplist(&c_name, user.gid)
        .map_err(|errno| failed(format!("the groups can't be read: {}", errno.desc())))?;
    let mut groups: Vec<u32> = groups.into_iter().map(Gid::as_raw).collect();
    groups.sort_unstable();
    groups.dedup();
    Ok(Identity { name, uid, gid, groups })
}
