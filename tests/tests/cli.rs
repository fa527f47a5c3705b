//! The command line: what it explains, and how it refuses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portreeve_tests::world::{Portal, portreeve, portreeve_at};

#[test]
fn help_explains_every_command() {
    let help = portreeve(&["--help"], None);
    assert_eq!(help.status, 0);
    for command in [
        "up",
        "login",
        "sign-out",
        "listening",
        "token",
        "forward",
        "jobs",
        "launch-app",
        "cancel",
        "history",
        "apps",
        "check",
        "launch",
        "keys",
        "nodes",
        "sessions",
        "revoke",
        "completions",
    ] {
        assert!(help.out.contains(&format!("\n  {command} ")), "{command}: {}", help.out);
        let of_command = portreeve(&[command, "--help"], None);
        assert!(of_command.status == 0 && of_command.out.contains("Usage: portreeve"), "{of_command:?}");
    }
    let up = portreeve(&["up", "--help"], None).out;
    for text in ["--listen", "--state", "--forwards", "--config", "127.0.0.1:8443", "XDG_STATE_HOME"] {
        assert!(up.contains(text), "{text}: {up}");
    }
    let forward = portreeve(&["forward", "--help"], None).out;
    for action in ["add", "list", "disable", "remove", "share"] {
        assert!(forward.contains(&format!("\n  {action} ")), "{action}: {forward}");
    }
    let bare = portreeve(&[], None);
    assert!(bare.status == 2 && bare.err.contains("Usage: portreeve"), "{bare:?}");
    assert!(portreeve(&["--version"], None).out.starts_with("portreeve "));
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    for (arguments, why) in [
        (&["nonsense"][..], "nonsense"),
        (&["up", "--nonsense"], "--nonsense"),
        (&["up", "--listen", "nonsense"], "nonsense"),
        (&["up", "--listen", "127.0.0.1"], "127.0.0.1"),
        (&["up", "--listen", "127.0.0.1:70000"], "70000"),
        (&["launch-app"], "<NAME>"),
        (&["launch-app", "command", "--set", "cores"], "FIELD=VALUE"),
        (&["launch-app", "command", "--idle", "never"], "never"),
        (&["launch-app", "command", "--preview", "--wait"], "--preview"),
        (&["cancel"], "<ID>"),
        (&["jobs", "--portal", "https://p/"], "--token-file"),
        (&["jobs", "--token-file", "t", "--state", "s"], "--state"),
        (&["forward"], "Usage"),
        (&["forward", "add", "tb"], "<TARGET>"),
        (&["forward", "add", "a/b", "8888"], "a/b"),
        (&["forward", "share", "tb"], "--group"),
    ] {
        let said = portreeve(arguments, None);
        assert!(said.status == 2 && said.out.is_empty() && said.err.contains(why), "{arguments:?}: {said:?}");
    }
}

#[test]
fn login_without_a_portal_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state").display().to_string();
    let said = portreeve(&["login", "--state", &state], None);
    assert!(said.status == 1 && said.out.is_empty(), "{said:?}");
    assert!(said.err.contains("no portal is running") && said.err.contains("portreeve up"), "{said:?}");
    assert!(!dir.path().join("state").exists(), "asking made a directory");
}

#[test]
fn login_prints_one_fresh_address() {
    let portal = Portal::plain();
    let (first, second) = (portal.login(), portal.login());
    assert!(first.starts_with(&format!("{}-/enter?code=", portal.url())) && !first.contains('\n'), "{first}");
    assert_ne!(first, second);
}

#[test]
fn check_reports_every_problem_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("portreeve.toml");
    let path = file.display().to_string();
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        portreeve(&["check", "--config", &path], None)
    };
    let good = check("threads = 2\n[session]\nidle = \"1h\"\n");
    assert!(good.status == 0 && good.out.contains("no problems"), "{good:?}");
    let bad = check(
        "threads = 100\nnonsense = 1\n[session]\nidle = \"never\"\nlifetime = 5\n[limits]\nconnections = 0\n[what]\nx = 1\n",
    );
    assert_eq!(bad.status, 1);
    for text in
        ["threads", "nonsense", "idle", "lifetime", "connections", "what", ":1:", ":2:", ":4:", ":5:", ":7:"]
    {
        assert!(bad.err.contains(text), "{text} is missing: {}", bad.err);
    }
    let broken = check("[session\n");
    assert!(broken.status == 1 && broken.err.contains(":1:"), "{broken:?}");
    let missing = portreeve(&["check", "--config", "/nonexistent/portreeve.toml"], None);
    assert!(missing.status == 1 && missing.err.contains("/nonexistent/portreeve.toml"), "{missing:?}");
    // `up` refuses the same file for the same reasons, before it makes or opens anything.
    std::fs::write(&file, "threads = 100\nnonsense = 1\n").unwrap();
    let state = dir.path().join("state").display().to_string();
    let up = portreeve(&["up", "--listen", "127.0.0.1:0", "--state", &state, "--config", &path], None);
    assert!(up.status == 1 && up.err.contains("threads") && up.err.contains("nonsense"), "{up:?}");
    assert!(!dir.path().join("state").exists(), "it made a directory");
}

#[test]
fn up_without_a_place_for_its_state_says_what_to_do_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (dir_name, file) = (dir.path().display().to_string(), file.display().to_string());
    for directories in [
        &[][..],
        &[("HOME", "relative")],
        &[("HOME", ""), ("XDG_STATE_HOME", "relative")],
        &[("HOME", &file)],
        &[("HOME", &dir_name), ("XDG_STATE_HOME", &file)],
        &[("HOME", "/proc/nowhere")],
    ] {
        let said = portreeve_at(directories, &["up", "--listen", "127.0.0.1:0"]);
        assert!(said.status == 1 && said.out.is_empty(), "{directories:?}: {said:?}");
        assert!(said.err.contains("--state DIR"), "{directories:?}: {said:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "there is more than the file");
}

/// The XDG base directory specification: a relative path there is as good as none.
#[test]
fn the_state_is_below_the_home_directory_unless_an_absolute_path_says_otherwise() {
    for (directories, place) in [
        (&[("HOME", "/nonexistent")][..], "/nonexistent/.local/state/portreeve"),
        (&[("HOME", "/nonexistent"), ("XDG_STATE_HOME", "")], "/nonexistent/.local/state/portreeve"),
        (&[("HOME", "/nonexistent"), ("XDG_STATE_HOME", "state")], "/nonexistent/.local/state/portreeve"),
        (
            &[("HOME", "/nonexistent"), ("XDG_STATE_HOME", "/nonexistent/state")],
            "/nonexistent/state/portreeve",
        ),
        (&[("XDG_STATE_HOME", "/nonexistent/state")], "/nonexistent/state/portreeve"),
    ] {
        let said = portreeve_at(directories, &["login"]);
        assert!(said.status == 1 && said.err.contains(&format!(" {place}: ")), "{directories:?}: {said:?}");
    }
}

#[test]
fn the_shipped_configuration_has_no_problems() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../proxy-config/portreeve.toml");
    let said = portreeve(&["check", "--config", shipped], None);
    assert_eq!(said.status, 0, "{said:?}");
    // What stands there behind '#' is the default, so it must be readable too.
    let text = std::fs::read_to_string(shipped).unwrap();
    let uncommented: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.contains(" = ") && !rest.starts_with(' ') => rest,
            _ => line,
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.toml");
    std::fs::write(&file, uncommented.join("\n")).unwrap();
    let said = portreeve(&["check", "--config", &file.display().to_string()], None);
    assert_eq!(said.status, 0, "{said:?}");
}
