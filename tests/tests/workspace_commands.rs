//! The workspace from a terminal: an application is started, waited for, opened, listed, ended and found again; and manifests are
//! checked, by `portreeve` typed against `portreeve up`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portreeve_tests::world::{Finished, Portal, portreeve_at};

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
    let good = write("good.toml", "title = \"x\"\nscript = '''#!/bin/bash\ntrue\n'''\n");
    let said = portreeve_at(&[], &["apps", "check", &bad, &shell, &good]);
    assert_eq!((said.status, said.out), (1, format!("{good}: no problems\n")));
    for part in [
        "bad.toml:1: titel: ",
        "bad.toml:2: script: ",
        "bad.toml:4: field.name: ",
        "shell.toml:4: script: the shell says",
    ] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    let home = dir.path().to_str().unwrap();
    std::fs::create_dir_all(dir.path().join(".config/portreeve/apps")).unwrap();
    std::fs::copy(&bad, dir.path().join(".config/portreeve/apps/mine.toml")).unwrap();
    let config = write("config", "[workspace]\napps = \"/nonexistent\"\n");
    let said = portreeve_at(&[("HOME", home)], &["apps", "check", "--config", &config]);
    assert!(said.status == 1 && said.err.contains("mine.toml:1: titel"), "{said:?}");
    let said = portreeve_at(&[("HOME", home)], &["apps", "--config", &config]);
    assert!(said.status == 0 && said.out.contains("jupyter") && !said.out.contains("mine"), "{said:?}");
}
