//! A child of root's process that becomes `portreeve-pam`, which alone speaks with PAM.
//!
//! | order | command line |
//! | --- | --- |
//! | worker | `portreeve-pam session USER` |
//! | account check | `portreeve-pam account USER` |
//! | conversation | `portreeve-pam converse FROM [USER]` |
//!
//! The order's descriptor is number 3. A name has passed `UserName::parse`, so it is no option.
//! Invariant: the program is not run for the name of root or of a system account; a conversation goes on about a name that nobody
//! has. The name is looked up here, in the child: the user database may hang, and then the child ends.

use std::ffi::{CStr, CString};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use nix::sys::signal::Signal;
use nix::unistd::{Pid, alarm};
use portreeve_model::UserName;
use portreeve_model::wire::encode_bare;
use portreeve_model::wire::pam::{PamNews, PamRefusal};
use portreeve_sys::message;
use portreeve_sys::process::{die_with, exec};

use super::Settings;
use super::look_up::is_refused;

/// All that the program finds in its environment.
const ENVIRONMENT: [&CStr; 2] = [c"PATH=/usr/sbin:/usr/bin:/sbin:/bin", c"LANG=C.UTF-8"];

/// Whom PAM is asked about instead of root or a system account: their password is not tried out here, nor are they locked by too
/// many tries, and whoever asks is told what they are told about a name that nobody has, after the same time.
const STRANGER: &str = "portreeve-no-such-user";

/// Exit statuses of sysexits.h, for a program that was not run.
const NOT_PERMITTED: u8 = 77;
const NO_PROGRAM: u8 = 69;
const FAILED: u8 = 71;

pub(super) fn session(settings: &Settings, user: &UserName, channel: OwnedFd, parent: Pid) -> u8 {
    if is_refused_in_time(user, settings) {
        return NOT_PERMITTED;
    }
    become_program(settings, &["session", user.as_str()], channel, parent)
}

pub(super) fn account(settings: &Settings, user: &UserName, channel: OwnedFd, parent: Pid) -> u8 {
    if is_refused_in_time(user, settings) {
        return refuse(&channel);
    }
    become_program(settings, &["account", user.as_str()], channel, parent)
}

pub(super) fn converse(
    settings: &Settings,
    user: Option<&UserName>,
    from: IpAddr,
    channel: OwnedFd,
    parent: Pid,
) -> u8 {
    let from = from.to_string();
    let mut arguments = vec!["converse", &from];
    arguments
        .extend(user.map(|user| if is_refused_in_time(user, settings) { STRANGER } else { user.as_str() }));
    become_program(settings, &arguments, channel, parent)
}

/// Asks the user database, and ends this process when it does not answer: nobody is to wait for it as long as one may take to
/// answer PAM.
fn is_refused_in_time(user: &UserName, settings: &Settings) -> bool {
    let patience = u32::try_from(settings.look_up_patience.as_secs()).unwrap_or(u32::MAX);
    alarm::set(patience.max(1));
    let refused = is_refused(user, settings.first_uid);
    alarm::cancel();
    refused
}

/// Says what the program would say.
fn refuse(channel: &OwnedFd) -> u8 {
    let refused = PamNews::Refused { why: PamRefusal::Account, said: Vec::new() };
    if let Ok(frame) = encode_bare(&refused) {
        let _ = message::send(channel, &frame, &[]);
    }
    NOT_PERMITTED
}

fn become_program(settings: &Settings, arguments: &[&str], channel: OwnedFd, parent: Pid) -> u8 {
    let program = CString::new(settings.pam.as_os_str().as_bytes());
    let arguments: Result<Vec<CString>, _> =
        arguments.iter().map(|argument| CString::new(*argument)).collect();
    let (Ok(program), Ok(arguments)) = (program, arguments) else { return FAILED };
    // Root's process ends its children itself; this is for the case that it was killed. The program closes its session.
    if die_with(parent, Signal::SIGTERM).is_err() {
        return FAILED;
    }
    let line: Vec<&CStr> =
        std::iter::once(program.as_c_str()).chain(arguments.iter().map(CString::as_c_str)).collect();
    let error = exec(&program, &line, &ENVIRONMENT, channel);
    tracing::error!(program = %settings.pam.display(), %error, "the program can't be run");
    NO_PROGRAM
}
