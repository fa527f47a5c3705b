//! Other processes, and code.

use std::io::{Error, Result};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use portreeve_sys::attempts;
use portreeve_tests::hostile::Outcome;

use crate::{outcome, report};

pub(crate) fn attempt(name: &str) -> Outcome {
    let found = attempts::all().chain(attempts::fatal()).find(|attempt| attempt.name == name);
    let made = match found {
        Some(attempt) => attempt.make(),
        None => Err(Error::other("there is no such attempt")),
    };
    outcome(name, made.map(|()| ""))
}

pub(crate) fn attempts() -> Vec<Outcome> {
    attempts::all().map(|attempt| outcome(attempt.name, attempt.make().map(|()| ""))).collect()
}

/// By its number, and by what `/proc` shows of it.
pub(crate) fn on_processes(pids: &[u32]) -> Vec<Outcome> {
    let mut all = Vec::new();
    for pid in pids {
        for (name, made) in attempts::on_process() {
            all.push(outcome(format!("{name} {pid}"), made(*pid as usize).map(|()| "")));
        }
        for file in ["environ", "maps", "mem", "fd", "root/etc", "cwd", "cmdline"] {
            let path = format!("/proc/{pid}/{file}");
            all.push(outcome(
                format!("{file} {pid}"),
                crate::files::use_path(portreeve_tests::hostile::Use::Read, &path),
            ));
        }
    }
    all
}

pub(crate) fn on_peer(socket: &OwnedFd) -> Result<()> {
    attempts::peer_process(socket)
}

/// Each attempt in a process of its own, since some change the one that makes them.
pub(crate) fn each_alone(pids: &[&str]) -> Result<()> {
    let program = std::env::current_exe()?;
    for attempt in attempts::all().chain(attempts::fatal()) {
        let done = Command::new(&program).args(["attempt", attempt.name]).stderr(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&done.stdout);
        match said.trim() {
            "" => report(&outcome(attempt.name, Err::<&str, _>(Error::other(done.status.to_string())))),
            line => println!("{line}"),
        }
    }
    let pids: Vec<u32> = pids.iter().filter_map(|pid| pid.parse().ok()).collect();
    on_processes(&pids).iter().for_each(report);
    Ok(())
}
