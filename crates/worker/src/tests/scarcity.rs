//! A process that may open nothing more.

use std::io::Write;
use std::sync::{Arc, Mutex};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use portreeve_model::wire::worker::WORKSPACE;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::world::*;

/// Runs the calling test in a process of its own: the limit is the whole process's.
fn alone(test: impl FnOnce()) {
    const ALONE: &str = "PORTREEVE_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    let thread = std::thread::current();
    let name = thread.name().expect("a test's thread has its name");
    let mut program = std::process::Command::new(std::env::current_exe().unwrap());
    let output = program.args(["--exact", name, "--nocapture"]).env(ALONE, "").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// The log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn without_descriptors_it_answers_and_says_so_and_goes_on_afterwards() {
    alone(|| {
        let log = Log::default();
        let writer = log.clone();
        let said = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(said, || run(async || out_of_descriptors(&log).await));
    });
}

async fn out_of_descriptors(log: &Log) {
    let worker = Worker::new();
    let ticket = format!("portreeve-ticket: {}", worker.ticket(|_| ()));
    let mut connection = worker.connect();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "text").unwrap();
    let here = dir.path().display();
    let files = [
        ("GET", format!("/api/v1/files{here}/f")),
        ("GET", format!("/api/v1/files{here}/")),
        ("GET", format!("/files{here}/")),
        ("GET", format!("/dav{here}/f")),
        ("PROPFIND", format!("/dav{here}/")),
        ("PUT", format!("/api/v1/files{here}/new")),
        ("MKCOL", format!("/dav{here}/new")),
    ];
    let body = json(&view());
    assert_eq!(ask(&mut connection, "POST", WORKSPACE, &[&ticket], &body).await.status, 200);
    assert_eq!(ask(&mut connection, "GET", &files[0].1, &[&ticket], b"").await.body, "text");

    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let (mut one_more, theirs) = prepared();
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
    // Whoever is connected is told, of files and of what needs none.
    for (method, path) in &files {
        let said = ask(&mut connection, method, path, &[&ticket, "depth: 0"], b"").await;
        assert!(matches!(said.status, 500 | 502), "{method} {path}: {said:?}");
        assert!(said.body.contains("Too many open files"), "{method} {path}: {said:?}");
    }
    assert_eq!(ask(&mut connection, "POST", WORKSPACE, &[&ticket], &body).await.status, 200);
    // Whom nobody can answer is not left waiting, and the log has why.
    worker.hand_over(theirs).unwrap();
    let read = timeout(PATIENCE, one_more.read(&mut [0; 64])).await.expect("it ends");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert!(log.text().contains("a connection could not be taken: too much is open"), "{}", log.text());
    assert!(!worker.has_ended());

    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    for connection in [&mut connection, &mut worker.connect()] {
        assert_eq!(ask(connection, "GET", &files[0].1, &[&ticket], b"").await.body, "text");
        assert_eq!(ask(connection, "POST", WORKSPACE, &[&ticket], &body).await.status, 200);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was made by half");
}
