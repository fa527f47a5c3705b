//! `portreeve launch`: what is ready and what is not, what the program is told, how it ends.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portreeve_tests::world::spawner::eventually;
use portreeve_tests::world::{Finished, portreeve_at};

const APP: &str = env!("CARGO_BIN_EXE_portreeve-test-app");
/// Has it, which ends with its input, go on; it is a child's child of `launch` then.
const ON: [&str; 3] = ["sh", "-c", "sleep 300 | \"$0\" \"$@\""];

fn launch(state: &Path, more: &[(&str, &str)], arguments: &[&str]) -> Finished {
    let directories = [&[("XDG_STATE_HOME", state.to_str().unwrap())], more].concat();
    portreeve_at(&directories, &[&["launch"], arguments].concat())
}

/// One that goes on.
fn start(state: &Path, arguments: &[&str]) -> Child {
    let portreeve = Path::new(APP).with_file_name("portreeve");
    let mut command = Command::new(portreeve);
    command.arg("launch").args(arguments).env("XDG_STATE_HOME", state).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The records of what was launched by hand.
fn records(state: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(state.join("portreeve/endpoints")).into_iter().flatten();
    found.map(|entry| entry.unwrap().path().join("endpoint.json")).filter(|path| path.exists()).collect()
}

fn record(state: &Path) -> Option<(PathBuf, serde_json::Value)> {
    let path = records(state).pop()?;
    let text = std::fs::read(&path).ok()?;
    Some((path, serde_json::from_slice(&text).unwrap()))
}

#[test]
fn what_was_started_and_answers_is_ready_and_its_record_is_its_owners() {
    let state = tempfile::tempdir().unwrap();
    let mut launched = start(
        state.path(),
        &[&["--open", "lab?token={token}", "--"], &ON[..], &[APP, "--listen", "{host}:{port}"]].concat(),
    );
    let (path, said) =
        eventually("it is ready", || record(state.path()).filter(|(_, said)| said["progress"] == "ready"));
    assert_eq!(said["node"], "localhost");
    let token = said["open"].as_str().unwrap().strip_prefix("lab?token=").unwrap();
    assert_eq!(token.len(), 32, "192 bits");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    kill(Pid::from_raw(launched.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    launched.wait().unwrap();
    assert_eq!(records(state.path()), [] as [PathBuf; 0], "it goes with what it was about");
    let app = said["pid"].as_u64().unwrap();
    assert!(!Path::new(&format!("/proc/{app}")).exists(), "so does the program");
}

#[test]
fn what_somebody_else_answers_is_not_ready() {
    let state = tempfile::tempdir().unwrap();
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || {
        for stream in stranger.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let said = launch(state.path(), &[], &["--port", &port, "--wait", "2s", "--", "sleep", "60"]);
    assert!(said.status > 0 && said.err.contains("did not answer within 2s"), "{said:?}");
    assert!(!said.err.contains("ready at"), "{said:?}");
}

#[test]
fn what_listens_and_does_not_answer_is_not_ready() {
    let state = tempfile::tempdir().unwrap();
    let app = [&["--wait", "1s", "--"], &ON[..], &[APP, "--mute", "--listen", "{host}:{port}"]].concat();
    let said = launch(state.path(), &[], &app);
    assert!(said.status > 0 && said.err.contains("did not answer within 1s"), "{said:?}");
    assert!(!said.err.contains("ready at"), "{said:?}");
}

#[test]
fn it_ends_as_the_program_did_and_leaves_word_in_the_jobs_directory() {
    let (state, entry) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let job = entry.path().to_str().unwrap();
    let script = "echo Oops >&2; exit 3";
    let said = launch(state.path(), &[("PORTREEVE_ENTRY", job)], &["--", "sh", "-c", script]);
    assert_eq!(said.status, 3, "{said:?}");
    assert!(said.err.contains("Oops\n") && said.err.contains("exit code 3 before it answered"), "{said:?}");
    let path = entry.path().join("endpoint.json");
    let noted: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!((&noted["progress"], &noted["last_words"]), (&"over".into(), &"Oops".into()));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let missing = launch(state.path(), &[], &["--", "/nonexistent"]);
    assert!(missing.status == 1 && missing.err.contains("can't be started"), "{missing:?}");
}

#[test]
fn the_port_that_slurm_reserved_is_taken_and_the_step_is_hidden() {
    let state = tempfile::tempdir().unwrap();
    let slurm =
        [("SLURM_STEP_RESV_PORTS", "12000,12002-12003"), ("SLURM_STEP_ID", "1"), ("SLURM_JOB_ID", "7")];
    let said = launch(state.path(), &slurm, &["--", "env"]);
    assert_eq!(said.status, 0, "{said:?}");
    let told: Vec<&str> = said.out.lines().collect();
    assert!(told.contains(&"PORTREEVE_PORT=12000") && told.contains(&"SLURM_JOB_ID=7"), "{said:?}");
    assert!(!said.out.contains("SLURM_STEP"), "{said:?}");
}
