//! How a terminal ends.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portreeve_terminal::{ProgramError, Settings, Terminal, TerminalError, Token};
use serde_json::json;

use crate::world::{Browser, Process, Server, TOKEN, settings};

#[tokio::test]
async fn the_programs_code_is_told_after_all_output() {
    let server = Server::of("head -c 300000 /dev/zero | tr '\\0' x; echo done; exit 7");
    let mut browser = server.browser().await;
    browser.until_exited().await;
    assert_eq!(*browser.last("exited").unwrap(), json!({"type": "exited", "code": 7}));
    assert!(browser.shows("done"));
    // One who comes now sees the same.
    let mut late = server.browser().await;
    late.until_exited().await;
    assert!(late.shows("done"));
    drop((browser, late));
    assert_eq!(server.ended().await.code(), Some(7));
}

#[tokio::test]
async fn it_stays_for_browsers_and_no_longer_than_it_is_to() {
    let mut settings = settings("exit 3");
    settings.linger = Duration::from_millis(300);
    let began = Instant::now();
    let server = Server::with(settings);
    assert_eq!(server.ended().await.code(), Some(3));
    assert!(began.elapsed() >= Duration::from_millis(300));

    let server = Server::of("exit 3");
    let mut browser = server.browser().await;
    browser.until_exited().await;
    drop(browser);
    // Nobody is left: it does not wait the 10 seconds.
    let left = Instant::now();
    server.ended().await;
    assert!(left.elapsed() < Duration::from_secs(9));
}

#[tokio::test]
async fn a_child_that_keeps_the_terminal_does_not_keep_the_server() {
    let server = Server::of("trap '' HUP; (sleep 1000 &) ; echo done; exit 4");
    let mut browser = server.browser().await;
    browser.until_exited().await;
    assert!(browser.shows("done"));
    drop(browser);
    assert_eq!(server.ended().await.code(), Some(4));
}

#[tokio::test]
async fn sigterm_hangs_up_on_the_program() {
    for (signal, script, code) in [
        (Signal::SIGTERM, "echo ready; exec sleep 1000", 128 + 1),
        (Signal::SIGHUP, "trap 'echo saved; exit 5' HUP; echo ready; while :; do sleep 0.05; done", 5),
    ] {
        let process = Process::of(script).await;
        let mut browser = Browser::attach(process.port, &[], json!({"cols": 80, "rows": 24})).await;
        browser.until_shown("ready").await;
        kill(Pid::from_raw(process.child.id().unwrap().cast_signed()), signal).unwrap();
        browser.until_exited().await;
        assert_eq!(browser.shows("saved"), code == 5);
        drop(browser);
        assert_eq!(process.code().await, code);
    }
}

#[tokio::test]
async fn a_program_that_hears_nothing_is_killed() {
    let server = Server::of("trap '' HUP TERM; echo ready; while :; do sleep 1; done");
    let mut browser = server.browser().await;
    browser.until_shown("ready").await;
    let asked = Instant::now();
    server.stop.stop();
    browser.until_exited().await;
    assert!(asked.elapsed() >= Duration::from_secs(10));
    assert_eq!(browser.last("exited").unwrap()["signal"], 9);
    drop(browser);
    assert_eq!(server.ended().await.signal(), Some(9));
}

#[test]
fn what_can_not_begin_says_why() {
    let settings = |program: &[&str]| {
        let program = program.iter().map(Into::into).collect();
        Settings::new(program, ([127, 0, 0, 1], 0).into(), Token::parse(TOKEN).unwrap())
    };
    let failed = portreeve_terminal::run(settings(&["/nonexistent/program"])).unwrap_err();
    assert_eq!(failed.to_string(), "/nonexistent/program can't be started");
    let failed = portreeve_terminal::run(settings(&[])).unwrap_err();
    assert!(matches!(failed, TerminalError::Program(ProgramError::None)));
    let first = Terminal::bind(settings(&["true"])).unwrap();
    let taken = Settings { listen: first.address(), ..settings(&["true"]) };
    assert!(matches!(Terminal::bind(taken), Err(TerminalError::Listen { .. })));
}
