//! `portreeve cp`: what it fetches is whole or not there, and for its owner alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portreeve_tests::world::{PATIENCE, PlayedPortal, Portal, built_if_possible};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// Where somebody types it, and what is there.
struct Desk {
    dir: tempfile::TempDir,
    portal: PlayedPortal,
}

impl Desk {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "ptr_abcdefghijklmnopqrstuvwxyz234567\n").unwrap();
        std::fs::create_dir(dir.path().join("here")).unwrap();
        let portal = PlayedPortal::with_certificate_at(dir.path().join("ca.pem")).await;
        Self { dir, portal }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `cp portal:/there/file here/`, which goes on.
    fn types(&self, more: &[&str]) -> Child {
        let mut typed = Command::new(built_if_possible("portreeve").unwrap());
        typed.args(["cp", "portal:/there/file"]).arg(self.at("here")).args(more);
        typed.arg("--token-file").arg(self.at("token")).arg("--cacert").arg(self.at("ca.pem"));
        typed.args(["--portal", &self.portal.url]);
        typed.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The next request is for what begins there, and is answered with this.
    async fn sends(&self, begin: usize, answer: &str) {
        let asked = timeout(PATIENCE, self.portal.asked()).await;
        let (head, mut stream) = asked.unwrap_or_else(|_| panic!("nobody asks for {begin}")).unwrap();
        assert!(head.starts_with("get /api/v1/files/there/file http/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nrange: bytes={begin}-")), "{head}");
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    }

    /// What is there, and what in it.
    fn files(&self) -> Vec<(String, String)> {
        let entries = std::fs::read_dir(self.at("here")).unwrap().map(Result::unwrap);
        let text = |path: PathBuf| std::fs::read_to_string(path).unwrap();
        let mut all: Vec<_> =
            entries.map(|entry| (entry.file_name().into_string().unwrap(), text(entry.path()))).collect();
        all.sort();
        all
    }
}

/// Of ten bytes, some.
fn part(begin: usize, bytes: &str, tag: &str) -> String {
    let end = begin + bytes.len() - 1;
    let length = bytes.len();
    format!(
        "HTTP/1.1 206 Partial Content\r\netag: \"{tag}\"\r\ncontent-range: bytes {begin}-{end}/10\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{bytes}"
    )
}

async fn ends(typed: Child) -> Output {
    let ended = tokio::task::spawn_blocking(move || typed.wait_with_output().unwrap());
    timeout(PATIENCE, ended).await.expect("it ends").unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn what_is_fetched_is_for_its_owner_alone_and_what_is_replaced_keeps_its_permissions() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("key"), "secret").unwrap();
    std::fs::create_dir(at("here")).unwrap();
    std::os::unix::fs::symlink("link-leads-here", at("here/link")).unwrap();
    let fetch = |to: &str, more: &[&str]| {
        let (from, to) = (format!("portal:{}", at("key").display()), at(to).display().to_string());
        let said = portal.command(&[&["cp", &from, &to], more].concat());
        assert_eq!(said.status, 0, "{said:?}");
    };
    for there in [0o600, 0o644] {
        std::fs::set_permissions(at("key"), std::fs::Permissions::from_mode(there)).unwrap();
        let to = format!("here/{there:o}");
        fetch(&to, &[]);
        assert_eq!((mode(&at(&to)), std::fs::read(at(&to)).unwrap()), (0o600, b"secret".to_vec()));
    }
    // What a link leads to is what is written, also where nothing is yet.
    fetch("here/link", &["--force"]);
    assert_eq!(mode(&at("here/link-leads-here")), 0o600);
    std::fs::write(at("here/old"), "old").unwrap();
    std::fs::set_permissions(at("here/old"), std::fs::Permissions::from_mode(0o640)).unwrap();
    fetch("here/old", &["--force"]);
    assert_eq!((mode(&at("here/old")), std::fs::read(at("here/old")).unwrap()), (0o640, b"secret".to_vec()));
}

/// However it ends, of the new file there is nothing, and the old one is as it was.
#[tokio::test]
async fn what_is_not_fetched_to_its_end_leaves_nothing() {
    const GONE: &str = "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
        {\"title\":\"There is no such file\",\"detail\":\"It is gone.\"}";
    for is_there in [false, true] {
        let desk = Desk::new().await;
        let (mut before, mut more) = (Vec::new(), Vec::new());
        if is_there {
            std::fs::write(desk.at("here/file"), "old").unwrap();
            before.push(("file".to_owned(), "old".to_owned()));
            more.push("--force");
        }
        let second = part(4, "456789", "2");
        for (answer, why) in [
            (Some(second.as_str()), "/there/file has changed meanwhile: try again"),
            (Some(GONE), "It is gone."),
            (None, "interrupted"),
        ] {
            let typed = desk.types(&more);
            desk.sends(0, &part(0, "0123", "1")).await;
            let held = match answer {
                Some(answer) => {
                    desk.sends(4, answer).await;
                    None
                }
                None => {
                    let asked = timeout(PATIENCE, desk.portal.asked()).await.unwrap().unwrap();
                    let part_of_it = desk.files().into_iter().find(|(name, _)| name == "file");
                    assert_eq!(part_of_it.as_ref(), before.first(), "not even now");
                    kill(Pid::from_raw(typed.id().cast_signed()), Signal::SIGINT).unwrap();
                    Some(asked)
                }
            };
            let ended = ends(typed).await;
            drop(held);
            assert_eq!((ended.status.code(), &*ended.stdout), (Some(1), &b""[..]), "{ended:?}");
            assert!(String::from_utf8_lossy(&ended.stderr).contains(why), "{ended:?}");
            assert_eq!(desk.files(), before, "{why}");
        }
    }
}

#[tokio::test]
async fn a_part_that_breaks_off_is_asked_for_again() {
    let desk = Desk::new().await;
    let typed = desk.types(&[]);
    desk.sends(0, &part(0, "0123", "1")).await;
    let whole = part(4, "456789", "1");
    desk.sends(4, &whole[..whole.len() - 3]).await;
    desk.sends(4, "HTTP/1.1 502 Bad Gateway\r\nconnection: close\r\n\r\n").await;
    desk.sends(4, &whole).await;
    let ended = ends(typed).await;
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(desk.files(), [("file".to_owned(), "0123456789".to_owned())]);
    assert_eq!(mode(&desk.at("here/file")), 0o600);
}
