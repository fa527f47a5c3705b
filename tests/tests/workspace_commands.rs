//! The workspace from a terminal: an application is started, waited for, opened, listed, ended and found again; and manifests are
//! checked, by `portreeve` typed against `portreeve up`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portreeve_tests::world::{Finished, PlayedPortal, Portal, portreeve_at};
use tokio::io::AsyncWriteExt;

const SERVER: &str = "command=exec python3 -m http.server {port} --bind {host} --directory /usr/share/doc";

fn done(said: Finished) -> String {
    assert_eq!(said.status, 0, "{said:?}");
    said.out
}

/// What it complains of.
fn refused(said: Finished) -> String {
    assert_eq!((said.status, said.out.as_str()), (1, ""), "{said:?}");
    said.err
}

#[tokio::test]
async fn an_application_is_started_and_ended() {
    let portal = Portal::plain();
    let client = portal.sign_in().await;
    assert!(done(portal.command(&["jobs"])).is_empty(), "nothing runs");
    let address = done(portal.command(&[
        "launch-app",
        "command",
        "--set",
        SERVER,
        "--set",
        "path=base-files/",
        "--wait",
    ]));
    let path = address.trim().strip_prefix(portal.url().trim_end_matches('/')).unwrap().to_owned();
    let answer = client.clone().browser().get(&path).await;
    assert!(answer.status == 303 && answer.location().ends_with("/base-files/"), "{answer:?}");
    client.get(answer.location()).await.assert_status(200);
    let id = path.split('/').nth(2).unwrap().to_owned();
    let listed = done(portal.command(&["jobs"]));
    assert!(listed.contains(&id) && listed.contains("ready"), "{listed}");
    let json: serde_json::Value = serde_json::from_str(&done(portal.command(&["jobs", "--json"]))).unwrap();
    assert_eq!((json[0]["id"].as_str(), json[0]["state"].as_str()), (Some(id.as_str()), Some("ready")));
    assert!(listed.contains(address.trim()), "{listed}");
    assert_eq!(json[0]["address"].as_str(), Some(address.trim()));
    for other in ["zzz", "4711"] {
        let said = refused(portal.command(&["cancel", other]));
        assert!(said.contains("nothing of yours"), "{said}");
    }
    // As much of it as makes it clear.
    done(portal.command(&["cancel", &id[..20]]));
    let ended = || done(portal.command(&["history", &id])).contains(": ended, you ended it");
    portreeve_tests::world::spawner::eventually("it has ended", || ended().then_some(()));
    let whole = done(portal.command(&["history", &id]));
    assert!(
        whole.contains("path         base-files/") && whole.contains("--- script\n#!/bin/bash"),
        "{whole}"
    );
    assert_eq!(done(portal.command(&["history", &id[..20]])), whole, "by the beginning of its id");
    let said = refused(portal.command(&["history", "zzz"]));
    assert!(said.contains("nothing of yours is called zzz"), "{said}");
    let found = done(portal.command(&["history", "--find", "http.server", "--app", "command"]));
    assert!(found.contains(&id), "{found}");
    assert_eq!(done(portal.command(&["history", "--find", "nothing-of-this-kind"])), "");
}

#[tokio::test]
async fn what_ends_badly_or_does_not_fit_is_said() {
    let portal = Portal::plain();
    let said = portal.command(&["launch-app", "command", "--set", "command=echo no luck; exit 3", "--wait"]);
    assert_eq!(said.status, 1);
    assert!(said.err.contains("no luck") && said.err.contains("exit code 3"), "{said:?}");
    let said = refused(portal.command(&["launch-app", "command", "--set", "cores=many", "--set", "uid=0"]));
    assert!(said.contains("\n  cores: ") && said.contains("\n  uid: there is no such field"), "{said}");
    let said = refused(portal.command(&["launch-app", "nosuch"]));
    assert!(said.contains("portreeve apps"), "{said}");
    let shown = done(portal.command(&[
        "launch-app",
        "run",
        "--set",
        "program=/bin/true",
        "--set",
        "arguments=$(id)",
        "--preview",
    ]));
    assert!(shown.contains("APP_ARGUMENTS=$(id)") && shown.contains("script:\n#!/bin/bash"), "{shown}");
    assert!(!done(portal.command(&["history"])).contains("/bin/true"), "a preview starts nothing");
}

/// `launch-app --wait`, which goes on, and the id of what it started.
fn waits(portal: &Portal, command: &str) -> (Child, String) {
    let portreeve =
        std::path::Path::new(env!("CARGO_BIN_EXE_portreeve-test-app")).with_file_name("portreeve");
    let mut typed = Command::new(portreeve);
    typed.args(["launch-app", "command", "--wait", "--set", &format!("command={command}"), "--state"]);
    typed.arg(portal.state()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut waiting = typed.spawn().unwrap();
    let mut first = String::new();
    let mut said = BufReader::new(waiting.stderr.take().unwrap());
    said.read_line(&mut first).unwrap();
    // It writes on.
    std::thread::spawn(move || said.read_to_end(&mut Vec::new()));
    let id = first.strip_suffix(": started\n").unwrap_or_else(|| panic!("{first}")).to_owned();
    (waiting, id)
}

#[tokio::test]
async fn a_wait_outlives_a_restart_of_the_portal() {
    let mut portal = Portal::plain();
    let flag = portal.state().join("flag");
    let server = "exec python3 -m http.server {port} --bind {host}";
    let (mut waiting, id) =
        waits(&portal, &format!("until [ -e {} ]; do sleep 0.1; done; {server}", flag.display()));
    portal.restart();
    std::fs::write(&flag, "").unwrap();
    let status = waiting.wait().unwrap();
    let mut said = String::new();
    waiting.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((status.code(), said), (Some(0), format!("{}jobs/{id}/open\n", portal.url())));
    done(portal.command(&["cancel", &id]));
}

#[tokio::test]
async fn who_interrupts_a_wait_is_signed_out_and_the_job_goes_on() {
    let portal = Portal::plain();
    let (mut waiting, id) = waits(&portal, "exec sleep 300");
    assert!(!portal.stderr().contains("sign-out"), "it waits");
    kill(Pid::from_raw(waiting.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(1));
    portal.logged(&["event=\"sign-out\""]).await;
    assert!(done(portal.command(&["jobs"])).contains(&id));
    done(portal.command(&["cancel", &id]));
}

/// Plays a portal for one request: gives its address, and what was asked once it was answered. Its certificate is put there.
async fn plays_a_portal(
    answer: &'static str,
    certificate: &str,
) -> (String, tokio::task::JoinHandle<String>) {
    let portal = PlayedPortal::with_certificate_at(certificate).await;
    let url = portal.url.clone();
    let asked = tokio::spawn(async move {
        let (head, mut stream) = portal.asked().await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        head
    });
    (url, asked)
}

#[tokio::test]
async fn a_token_is_shown_and_nobody_signs_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (token, cacert) = (path("token"), path("ca.pem"));
    std::fs::write(&token, "ptr_abcdefghijklmnopqrstuvwxyz234567\n").unwrap();
    let jobs = async |url: &str, cacert: &str| {
        let typed = ["jobs", "--token-file", &token, "--portal", url, "--cacert", cacert].map(str::to_owned);
        let typed =
            tokio::task::spawn_blocking(move || portreeve_at(&[], &typed.each_ref().map(String::as_str)));
        typed.await.unwrap()
    };
    const SCOPE: &str = "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
        {\"error\":\"scope\",\"title\":\"This access token is not for that\",\"detail\":\"It was not made with --scope api.\",\
        \"remedy\":\"Make one that is: portreeve token create.\",\"request_id\":\"1-1\"}";
    let (url, asked) = plays_a_portal(SCOPE, &cacert).await;
    let said = refused(jobs(&url, &cacert).await);
    assert!(said.contains("not made with --scope api. Make one that is: portreeve token create."), "{said}");
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("get /api/v1/jobs?state=going"), "{asked}");
    assert!(asked.contains("\r\nauthorization: bearer ptr_abc"), "{asked}");
    assert!(!asked.contains("\r\ncookie:") && !asked.contains("\r\norigin:"), "{asked}");
    const NONE: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"jobs\":[],\"found\":0,\"trouble\":[]}";
    let (url, asked) = plays_a_portal(NONE, &cacert).await;
    assert_eq!(done(jobs(&url, &cacert).await), "");
    asked.await.unwrap();
    // A portal that nobody vouches for is not shown it.
    let (url, asked) = plays_a_portal(NONE, &path("other.pem")).await;
    let said = refused(jobs(&url, &cacert).await);
    assert!(said.contains("does not prove who it is"), "{said}");
    assert!(asked.await.is_err(), "nothing was asked");
    // A real one refuses what is no token of its own.
    let portal = Portal::plain();
    let own = portal.state().join("certificate.pem").display().to_string();
    let said = refused(jobs(portal.url(), &own).await);
    assert!(said.contains("access token is no good") && !said.contains("ptr_"), "{said}");
    std::fs::write(&token, "secret\n").unwrap();
    let said = refused(jobs(portal.url(), &own).await);
    assert!(said.contains("begins with ptr_") && !said.contains("secret"), "{said}");
}

#[test]
fn every_mistake_of_a_manifest_is_said_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let bad = write("bad.toml", "titel = \"x\"\nscript = \"true\"\n[[field]]\nname = \"X\"\nlabel = \"L\"\n");
    let shell = write("shell.toml", "title = \"x\"\nscript = '''#!/bin/bash\nif true\n'''\n");
    let both = write("both.toml", "titel = \"x\"\nscript = '''#!/bin/sh\nif true\n'''\n");
    let good = write("good.toml", "title = \"x\"\nscript = '''#!/bin/bash\ntrue\n'''\n");
    let said = portreeve_at(&[], &["apps", "check", &bad, &shell, &both, &good]);
    assert_eq!((said.status, said.out), (1, format!("{good}: no problems\n")));
    for part in [
        "bad.toml:1: titel: ",
        "bad.toml:2: script: ",
        "bad.toml:4: field.name: ",
        "shell.toml:4: script: bash says: syntax error",
        "both.toml:1: titel: ",
        "both.toml:4: script: bash says: syntax error",
    ] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    let home = dir.path().to_str().unwrap();
    std::fs::create_dir_all(dir.path().join(".config/portreeve/apps")).unwrap();
    std::fs::copy(&bad, dir.path().join(".config/portreeve/apps/mine.toml")).unwrap();
    let apps = dir.path().join("site");
    std::fs::create_dir(&apps).unwrap();
    std::fs::copy(&good, apps.join("jupyter.toml")).unwrap();
    std::fs::copy(&shell, apps.join("mine.toml")).unwrap();
    std::fs::write(apps.join("run.toml"), "disabled = true\n").unwrap();
    let config = write("config", &format!("[workspace]\napps = {apps:?}\n"));
    let said = portreeve_at(&[("HOME", home)], &["apps", "check", "--config", &config]);
    assert!(said.status == 1 && said.err.contains("apps/mine.toml:1: titel"), "{said:?}");
    assert!(
        said.err.contains("site/mine.toml:4: script: bash says"),
        "also of what does not count: {said:?}"
    );
    let site = |name: &str| format!("the site ({}/{name}.toml)", apps.display());
    for line in [
        format!("jupyter: from {}, in place of the one from portreeve: x\n", site("jupyter")),
        format!(
            "run: from {}, in place of the one from portreeve: not offered, it is switched off\n",
            site("run")
        ),
        format!(
            "mine: from yourself ({home}/.config/portreeve/apps/mine.toml), in place of the one from {}: not offered, its \
             manifest has problems\n",
            site("mine")
        ),
        "terminal: from portreeve: Terminal\n".to_owned(),
    ] {
        assert!(said.out.contains(&line), "{line}: {}", said.out);
    }
    let alone = write("alone", "[workspace]\napps = \"/nonexistent\"\nown_apps = false\n");
    let said = done(portreeve_at(&[("HOME", home)], &["apps", "check", "--config", &alone]));
    assert!(said.contains("/.config/portreeve/apps does not count") && !said.contains("mine"), "{said}");
    let said = portreeve_at(&[("HOME", home)], &["apps", "--config", &config]);
    assert!(said.status == 0 && said.out.contains("jupyter") && !said.out.contains("mine"), "{said:?}");
}
