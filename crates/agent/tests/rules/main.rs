//! `portreeve-agent rules` with the real packet filter and real packets, each test in a network namespace of its own,
//! which ends with it: nothing on the machine changes. Needs root; without, these tests say so and pass.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod installing;
mod packets;
mod queue;

use std::process::{Command, Stdio};

/// Tells a copy of this test program that it is in the namespace.
const INSIDE: &str = "PORTREEVE_TEST_INSIDE";

/// Says aloud that a test, or a part of it, does not run here.
fn skip(test: &str, why: &str) {
    println!("SKIPPED: {test}: {why}");
}

/// Runs the test again, alone, in a network and a mount namespace of its own, with the loopback interface up.
fn alone(name: &str, test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        shell("ip link set lo up");
        return test();
    }
    if !nix::unistd::geteuid().is_root() {
        return skip(name, "needs root");
    }
    if std::env::var_os("PORTREEVE_TESTS_FAST").is_some() {
        return skip(name, "left out by --fast");
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--propagation", "private"]).stdin(Stdio::null());
        command
    };
    let script = "ip link set lo up
        iptables -t mangle -A INPUT -p udp -m conntrack --ctstate NEW -j NFQUEUE --queue-num 0 &&
        ip6tables -t mangle -A INPUT -p udp -m multiport --dports 1:2 -j DROP";
    let able = unshare().args(["sh", "-c", script]).output();
    if !able.is_ok_and(|output| output.status.success()) {
        return skip(name, "needs iptables that can queue, in a network namespace");
    }
    let inside = unshare()
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inside.stdout);
    assert!(
        inside.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&inside.stderr)
    );
    for line in said.lines().filter(|line| line.starts_with("SKIPPED: ")) {
        println!("{line}");
    }
}

/// What a command says when it succeeds.
fn shell(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// What `portreeve-agent rules` said.
#[derive(Debug)]
struct Said {
    success: bool,
    out: String,
    error: String,
}

fn rules(arguments: &str) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portreeve-agent"));
    let output =
        command.arg("rules").args(arguments.split_ascii_whitespace()).stdin(Stdio::null()).output().unwrap();
    Said {
        success: output.status.success(),
        out: String::from_utf8(output.stdout).unwrap(),
        error: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Said {
    /// What it said, when it succeeded.
    fn well(self) -> String {
        assert!(self.success, "{self:?}");
        self.out
    }

    /// Why it failed.
    fn refused(self, why: &str) {
        assert!(!self.success && self.error.contains(why), "not {why}: {self:?}");
    }
}
