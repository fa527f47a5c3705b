//! Files between the browser and home: who may, what is kept, what is said.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;
use portreeve_terminal::Terminal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::{PATIENCE, Server, TOKEN, asked, settings};

const NEW: &str = "if-none-match: *\r\n";
/// Needs no escaping in a path, and many in a header field.
const STRANGE: &str = "a \"b\"\nc;ä'%😀.txt";
const STRANGE_AT: &str = "a%20%22b%22%0Ac%3B%C3%A4%27%25%F0%9F%98%80.txt";

/// What our own page says besides.
fn ours(port: u16) -> String {
    format!(
        "host: c1:9\r\norigin: http://c1:9\r\ncookie: portreeve-terminal-{port}={TOKEN}\r\nconnection: close\r\n"
    )
}

async fn get(port: u16, address: &str, fields: &str) -> String {
    asked(port, format!("GET /{address} HTTP/1.1\r\n{}{fields}\r\n", ours(port))).await
}

fn put_request(address: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("PUT /{address} HTTP/1.1\r\n{fields}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

async fn put(port: u16, address: &str, fields: &str, body: &[u8]) -> String {
    asked(port, put_request(address, &format!("{}{fields}", ours(port)), body)).await
}

async fn listing(port: u16, query: &str) -> Value {
    let answer = get(port, &format!("files{query}"), "").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn entry<'l>(listing: &'l Value, name: &str) -> &'l Value {
    listing["entries"].as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[track_caller]
fn is(answer: &str, status: u16, text: &str) {
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(text),
        "{status} {text}: {answer}"
    );
}

/// A terminal whose user has a home of their own, and in it a file.
fn at_home() -> (tempfile::TempDir, Server, u16) {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("old"), "old").unwrap();
    let mut settings = settings("cat");
    settings.home = home.path().to_owned();
    let server = Server::with(settings);
    let port = server.port;
    (home, server, port)
}

#[tokio::test]
async fn what_is_sent_comes_back() {
    let (home, _server, port) = at_home();
    for (name, at, content) in [
        ("empty", "~/empty", Vec::new()),
        (STRANGE, STRANGE_AT, b"one\0two\r\n".to_vec()),
        ("large", "./large", (0..3_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect()),
    ] {
        is(&put(port, &format!("file?path={at}"), NEW, &content).await, 201, "etag: \"");
        assert!(fs::read(home.path().join(name)).unwrap() == content, "{name}");
        let answer = get(port, &format!("file?path={at}"), "").await;
        is(&answer, 200, &format!("content-length: {}\r\n", content.len()));
        assert!(answer.as_bytes().ends_with(String::from_utf8_lossy(&content).as_bytes()));
        for field in [
            "content-type: application/octet-stream\r\n",
            "x-content-type-options: nosniff\r\n",
            "cross-origin-resource-policy: same-origin\r\n",
            "content-security-policy: default-src 'none'; sandbox\r\n",
            "cache-control: no-store\r\n",
        ] {
            assert!(answer.contains(field), "{field}");
        }
    }
    let answer = get(port, &format!("file?path={STRANGE_AT}"), "").await;
    assert!(
        answer.contains(
            "content-disposition: attachment; filename=\"a _b__c_____.txt\"; \
             filename*=UTF-8''a%20%22b%22%0Ac%3B%C3%A4%27%25%F0%9F%98%80.txt\r\n"
        ),
        "{answer}"
    );
    let listing = listing(port, "?path=").await;
    assert_eq!(listing["path"], home.path().to_str().unwrap());
    assert_eq!((&listing["outside"], &listing["more"]), (&Value::from(false), &Value::from(false)));
    let strange = entry(&listing, STRANGE);
    assert_eq!((&strange["is"], &strange["size"]), (&Value::from("file"), &Value::from(9)));
    is(&get(port, &format!("file?path={}", strange["at"].as_str().unwrap()), "").await, 200, "one\0two");
    assert_eq!(names(home.path()).len(), 4);
}

#[tokio::test]
async fn a_file_is_replaced_only_on_purpose() {
    let (home, _server, port) = at_home();
    let content = || fs::read_to_string(home.path().join("old")).unwrap();
    is(&put(port, "file?path=old", "", b"new").await, 428, "If-None-Match");
    is(&put(port, "file?path=old", "if-match: *\r\n", b"new").await, 428, "If-None-Match");
    // The refusal is read although much is still to be sent.
    is(&put(port, "file?path=old", NEW, &vec![b'x'; 8_000_000]).await, 412, "already");
    assert_eq!(content(), "old");
    let listed = listing(port, "?path=~").await;
    let replace = format!("if-match: {}\r\n", entry(&listed, "old")["etag"].as_str().unwrap());
    is(&put(port, "file?path=old", &replace, b"new").await, 204, "etag: \"");
    assert_eq!(content(), "new");
    is(&put(port, "file?path=old", &replace, b"newer").await, 412, "changed");
    is(&put(port, "file?path=other", &replace, b"newer").await, 412, "changed");
    assert_eq!((content().as_str(), names(home.path())), ("new", vec!["old".to_owned()]));
}

#[tokio::test]
async fn who_may_not_type_has_no_files() {
    let (home, _server, port) = at_home();
    let bob = "x-forwarded-user: bob\r\n";
    for address in ["files", "files?path=~", "file?path=old", "file?path=none"] {
        is(&get(port, address, bob).await, 403, "not shared");
    }
    is(&put(port, "file?path=new", &format!("{NEW}{bob}"), b"x").await, 403, "not shared");
    let alice = "x-forwarded-user: alice\r\n";
    is(&get(port, "file?path=old", alice).await, 200, "old");

    for fields in ["", "cookie: portreeve-terminal-1=0123456789abcdef0123456789abcdef\r\n"] {
        let fields = format!("host: c1:9\r\norigin: http://c1:9\r\nconnection: close\r\n{fields}");
        for address in ["files", "file?path=old", "file?path=none"] {
            is(&asked(port, format!("GET /{address} HTTP/1.1\r\n{fields}\r\n")).await, 403, "your workspace");
        }
        let request = put_request("file?path=new", &format!("{NEW}{fields}"), b"x");
        is(&asked(port, request).await, 403, "your workspace");
    }
    // A token in the address opens the page, and nothing else.
    let request =
        format!("GET /file?path=old&token={TOKEN} HTTP/1.1\r\nhost: c1:9\r\nconnection: close\r\n\r\n");
    is(&asked(port, request).await, 403, "your workspace");

    let cookie =
        format!("cookie: portreeve-terminal-{port}={TOKEN}\r\nconnection: close\r\nhost: c1:9\r\n{NEW}");
    for origin in ["origin: http://evil.example\r\n", "origin: null\r\n", "origin: http://c1:8\r\n", ""] {
        let request = put_request("file?path=new", &format!("{cookie}{origin}"), b"x");
        is(&asked(port, request).await, 403, "not the terminal's");
    }
    for method in ["POST", "DELETE", "PATCH"] {
        let request = format!("{method} /file?path=old HTTP/1.1\r\n{}content-length: 0\r\n\r\n", ours(port));
        is(&asked(port, request).await, 405, "allow: GET, HEAD, PUT\r\n");
    }
    assert_eq!(names(home.path()), ["old"]);
}

#[tokio::test]
async fn others_who_may_type_have_files() {
    let mut settings = settings("cat");
    settings.others_may_type = true;
    let server = Server::with(settings);
    is(&get(server.port, "files?path=/", "x-forwarded-user: bob\r\n").await, 200, "\"outside\":true");
}

#[tokio::test]
async fn what_can_not_be_done_is_said() {
    let (home, _server, port) = at_home();
    fs::create_dir(home.path().join("dir")).unwrap();
    nix::unistd::mkfifo(&home.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("nowhere", home.path().join("broken")).unwrap();
    std::os::unix::fs::symlink("/", home.path().join("away")).unwrap();
    for (address, status, text) in [
        ("file?path=../x", 400, "without \"..\""),
        ("file?path=a%2f%2e%2e/x", 400, "without \"..\""),
        ("files?path=dir/..", 400, "without \"..\""),
        ("file?path=a%00b", 400, "zero byte"),
        ("file?path=/", 409, "directory"),
        ("file?path=dir", 409, "directory"),
        ("file?path=fifo", 409, "FIFO"),
        ("file?path=broken", 404, "no such file"),
        ("file?path=old/x", 409, "not a directory"),
        ("file?path=/proc/self/root/etc/passwd", 409, "not followed"),
        ("files?path=none", 404, "no such file"),
        ("files?path=old", 409, "not a directory"),
        ("file", 404, "no such path"),
        ("file/x?path=old", 404, "no such path"),
    ] {
        is(&get(port, address, "").await, status, text);
    }
    for (address, status, text) in [
        ("file?path=none/x", 404, "no such file"),
        ("file?path=dir", 412, "already"),
        ("file?path=old/x", 409, "not a"),
    ] {
        is(&put(port, address, NEW, b"x").await, status, text);
    }
    let all = listing(port, "?path=~").await;
    let kinds: Vec<_> =
        ["away", "broken", "dir", "fifo", "old"].map(|name| entry(&all, name)["is"].clone()).to_vec();
    assert_eq!(kinds, ["directory", "other", "directory", "other", "file"]);
    assert_eq!(listing(port, "?path=away").await["outside"], true);
    assert_eq!(listing(port, "?path=dir").await["outside"], false);
}

#[tokio::test]
async fn half_an_upload_leaves_nothing() {
    let (home, _server, port) = at_home();
    let request = put_request("file?path=half", &format!("{}{NEW}", ours(port)), &vec![b'x'; 1_000_000]);
    // The browser goes without a word; it stops sending; it makes no sense from the middle on.
    for end in ["drop", "shutdown"] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(&request[..request.len() / 2]).await.unwrap();
        if end == "shutdown" {
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("no end");
            assert!(!String::from_utf8_lossy(&answer).contains(" 201 "));
        }
    }
    let head =
        format!("PUT /file?path=half HTTP/1.1\r\n{}{NEW}transfer-encoding: chunked\r\n\r\n", ours(port));
    let answer = asked(port, format!("{head}5\r\nhello\r\nnonsense\r\n")).await;
    assert!(!answer.contains(" 201 "), "{answer}");
    // What has no name yet, or a hidden one, goes a moment later.
    let gone = async {
        while names(home.path()) != ["old"] {
            assert!(!home.path().join("half").exists());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("something is left");
    is(&asked(port, format!("{head}5\r\nhello\r\n0\r\n\r\n")).await, 201, "");
    assert_eq!(fs::read_to_string(home.path().join("half")).unwrap(), "hello");
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_full() {
    let home = tempfile::tempdir().unwrap();
    let mut settings = settings("cat");
    settings.home = home.path().to_owned();
    let terminal = Terminal::bind(settings).unwrap();
    let (port, stop, at) = (terminal.address().port(), terminal.stopper(), home.path().to_owned());
    // Seen by the server's threads alone.
    let (mounted, small) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let nothing: Option<&str> = None;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        let small = Uid::effective().is_root()
            && unshare(CloneFlags::CLONE_NEWNS).is_ok()
            && mount(nothing, "/", nothing, private, nothing).is_ok()
            && mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some("size=256k,mode=700")).is_ok();
        mounted.send(small).unwrap();
        if small {
            terminal.run().unwrap();
        }
    });
    if small.recv().unwrap() {
        let answer = put(port, "file?path=large", NEW, &vec![b'x'; 8_000_000]).await;
        is(&answer, 507, "Your disk is full. Nothing was stored.");
        is(&put(port, "file?path=small", NEW, b"x").await, 201, "");
        let listing = listing(port, "?path=~").await;
        assert_eq!(listing["entries"].as_array().unwrap().len(), 1, "{listing}");
        stop.stop();
    } else {
        println!("SKIPPED: a full disk: needs root, and mounts");
    }
}

#[tokio::test]
async fn the_directory_is_the_programs() {
    let home = tempfile::tempdir().unwrap();
    let real = home.path().canonicalize().unwrap();
    for name in ["began", "shell", "job"] {
        fs::create_dir(real.join(name)).unwrap();
    }
    // With job control, what runs in the foreground is a group of its own.
    let mut settings = settings(
        "set -m; cd ../shell; echo ready; read go; sh -c 'cd ../job; echo working; read go'; echo back; read go",
    );
    settings.home = real.clone();
    settings.directory = Some(real.join("began"));
    (settings.linger, settings.fetch) = (Duration::from_millis(100), Duration::from_millis(500));
    let server = Server::with(settings);
    let mut browser = server.browser().await;
    let shown = |name: &str, why: &str| (real.join(name).to_str().unwrap().into(), Value::from(why));
    let mut found = Vec::new();
    for word in ["ready", "working", "back"] {
        browser.until_shown(word).await;
        let listing = listing(server.port, "").await;
        found.push((listing["path"].clone(), listing["why"].clone()));
        browser.type_in("\n").await;
    }
    assert_eq!(found, [shown("shell", "program"), shown("job", "program"), shown("shell", "program")]);
    browser.until_exited().await;
    // The server stays for whoever may fetch what was written, but not for ever.
    let listing = listing(server.port, "").await;
    assert_eq!((listing["path"].clone(), listing["why"].clone()), shown("began", "began"));
    assert!(server.ended().await.success());
}
