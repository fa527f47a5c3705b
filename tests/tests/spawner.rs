//! Root's process: what it starts, what it refuses, and what its children have of it. A test plays the broker.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::Permissions;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use portreeve_model::forward_file::CountingLine;
use portreeve_model::wire::pam::{PamNews, PamRefusal};
use portreeve_model::wire::spawner::{Found, Identity, LookUp, Missing, Order, SpawnerNews, Start};
use portreeve_model::wire::{MAX_FRAME, encode_bare};
use portreeve_model::{ForwardFile, ForwardName, Login, LoginGroup, UserName};
use portreeve_sys::message;
use portreeve_tests::world::skip;
use portreeve_tests::world::spawner::{
    Spawner, SpawnerOptions, channel_pair, children_of, descriptors_of, eventually, hear, helper, identity,
    is_alive, is_closed, portreeve_broker, push, signal, status_of, tell,
};

fn alice() -> Identity {
    identity("alice", 20001, 20001, &[20001, 20100, 20200])
}

fn name(text: &str) -> UserName {
    UserName::parse(text).unwrap()
}

/// Starts it, or says why the test does not run here.
macro_rules! start {
    ($test:literal, $options:expr) => {
        match Spawner::start(&$options) {
            Ok(spawner) => spawner,
            Err(why) => return skip($test, &why),
        }
    };
    ($test:literal) => {
        start!($test, SpawnerOptions::default())
    };
}

/// Still obeys: a look-up is answered.
fn assert_obeys(spawner: &mut Spawner) {
    let found = spawner.find(Start::LookUp(LookUp::Uid(20001)));
    assert_eq!(found, Found::Account(alice()));
}

#[test]
fn nobody_starts_anything_for_root_or_a_system_account() {
    let mut spawner = start!("nobody_starts_anything_for_root_or_a_system_account");
    let forward = ForwardName::parse("app").unwrap();
    for (uid, gid) in
        [(0, 0), (0, 20001), (999, 20001), (1, 1), (20001, 0), (u32::MAX, 20001), (20001, u32::MAX)]
    {
        let who = identity("alice", uid, gid, &[20001]);
        for start in [Start::Dialer(who.clone()), Start::Forward { visitor: who, name: forward.clone() }] {
            let (ours, theirs) = channel_pair();
            let child = spawner.order(start, &[theirs.as_fd()]);
            drop(theirs);
            match spawner.news() {
                SpawnerNews::Refused { child: refused, why } if refused == child => {
                    assert!(why.contains("not served"), "{why}");
                }
                other => panic!("uid {uid} gid {gid}: {other:?}"),
            }
            assert!(is_closed(&ours), "nobody kept the descriptor");
        }
    }
    assert_obeys(&mut spawner);
}

#[test]
fn broken_orders_are_passed_over() {
    let mut spawner = start!("broken_orders_are_passed_over");
    let dialer = |child| encode_bare(&Order { child, start: Start::Dialer(alice()) }).unwrap();
    let (ours, theirs) = channel_pair();
    let end = encode_bare(&Order { child: 90, start: Start::End { child: 1 } }).unwrap();
    let text = String::from_utf8(dialer(91)).unwrap();
    // Nothing that names a child: nobody is told.
    for frame in [
        b"\0".to_vec(),
        vec![0xff; 1000],
        b"{}".to_vec(),
        b"[[[[[[[[[[".repeat(100),
        text.replace("\"start\"", "\"begin\"").into_bytes(),
        text.replace("dialer", "shell").into_bytes(),
        text.replace("{\"name\"", "{\"command\":\"sh\",\"name\"").into_bytes(),
        format!("{text}{text}").into_bytes(),
        text.replace("91", "-1").into_bytes(),
        text.replace("20001", "4294967296").into_bytes(),
        text.replace("alice", "../root").into_bytes(),
        vec![b' '; MAX_FRAME],
        vec![b' '; MAX_FRAME + 1],
        [text.as_bytes(), &vec![b' '; MAX_FRAME]].concat(),
    ] {
        push(spawner.channel(), &frame, &[theirs.as_fd()]);
    }
    push(spawner.channel(), &dialer(92), &[theirs.as_fd(), theirs.as_fd()]);
    push(spawner.channel(), &dialer(93), &vec![theirs.as_fd(); 250]);
    // Whoever is named is told.
    push(spawner.channel(), &dialer(94), &[]);
    push(spawner.channel(), &end, &[theirs.as_fd()]);
    drop(theirs);
    for child in [94, 90] {
        let expected = "the order came with a wrong number of descriptors".to_owned();
        assert_eq!(spawner.news(), SpawnerNews::Refused { child, why: expected });
    }
    assert!(is_closed(&ours), "no descriptor was kept");
    let before = descriptors_of(spawner.pid()).len();
    assert_obeys(&mut spawner);
    assert_eq!(descriptors_of(spawner.pid()).len(), before);
    // An end for nobody is nothing.
    tell(spawner.channel(), &Order { child: 1, start: Start::End { child: 12345 } }, &[]);
    assert_obeys(&mut spawner);
}

#[test]
fn a_number_names_one_child() {
    let mut spawner = start!("a_number_names_one_child");
    let (child, pid, _channel) = spawner.begin(Start::Dialer(alice()));
    let (_ours, theirs) = channel_pair();
    tell(spawner.channel(), &Order { child, start: Start::Dialer(alice()) }, &[theirs.as_fd()]);
    let why = "there is a child of this number".to_owned();
    assert_eq!(spawner.news(), SpawnerNews::Refused { child, why });
    assert!(is_alive(pid));
    spawner.order(Start::End { child }, &[]);
    assert_eq!(spawner.news(), SpawnerNews::Ended { child, status: None });
    assert!(!is_alive(pid));
}

#[test]
fn a_broker_that_does_not_listen_loses_nothing() {
    let mut spawner = start!("a_broker_that_does_not_listen_loses_nothing");
    let (_ours, theirs) = channel_pair();
    let root = identity("alice", 0, 0, &[]);
    // More than its own buffers hold: then orders wait, too.
    let mut sent = 0u64;
    let order = |child| encode_bare(&Order { child, start: Start::Dialer(root.clone()) }).unwrap();
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < Duration::from_millis(300) && sent < 20_000 {
        if message::send(spawner.channel(), &order(sent), &[theirs.as_fd()]).is_ok() {
            sent += 1;
            quiet_since = Instant::now();
        }
    }
    assert!((100..20_000).contains(&sent), "{sent}");
    for child in 0..sent {
        assert!(matches!(spawner.news(), SpawnerNews::Refused { child: refused, .. } if refused == child));
    }
    assert_obeys(&mut spawner);
}

#[test]
fn the_user_database_is_asked() {
    let mut spawner = start!("the_user_database_is_asked");
    let account = |name, uid, gid, groups: &[u32]| Found::Account(identity(name, uid, gid, groups));
    let nothing = Found::Nothing;
    let login = |user: &str, group| Login { user: user.to_owned(), group };
    for (question, expected) in [
        (LookUp::Name(name("alice")), Found::Account(alice())),
        (LookUp::Uid(20003), account("carol", 20003, 20200, &[20200])),
        (LookUp::Name(name("nobody-here")), nothing(Missing::NoAccount)),
        (LookUp::Uid(12345), nothing(Missing::NoAccount)),
        (LookUp::Name(name("root")), nothing(Missing::NotServed)),
        (LookUp::Uid(0), nothing(Missing::NotServed)),
        (LookUp::Name(name("daemon")), nothing(Missing::NotServed)),
        (LookUp::Name(name("admin")), nothing(Missing::NotServed)),
        (LookUp::Login(20001), Found::Login(login("alice", LoginGroup { gid: 20001, private: true }))),
        (LookUp::Login(20003), Found::Login(login("carol", LoginGroup { gid: 20200, private: false }))),
        (LookUp::Login(12345), nothing(Missing::NoAccount)),
    ] {
        assert_eq!(spawner.find(Start::LookUp(question.clone())), expected, "{question:?}");
    }
    let unusable = spawner.find(Start::LookUp(LookUp::Uid(20010)));
    assert!(
        matches!(&unusable, Found::Nothing(Missing::Failed(why)) if why.contains("20010")),
        "{unusable:?}"
    );
}

#[test]
fn a_look_up_that_hangs_is_killed_and_holds_nobody_up() {
    let patience = Duration::from_millis(700);
    let options =
        SpawnerOptions { database_hangs: true, look_up_patience: patience, ..SpawnerOptions::default() };
    let mut spawner = start!("a_look_up_that_hangs_is_killed_and_holds_nobody_up", options);
    let start = Instant::now();
    let (hanging, pid, channel) = spawner.begin(Start::LookUp(LookUp::Uid(20001)));
    // Others are served meanwhile.
    let (dialer, _, _control) = spawner.begin(Start::Dialer(alice()));
    spawner.order(Start::End { child: dialer }, &[]);
    assert_eq!(spawner.news(), SpawnerNews::Ended { child: dialer, status: None });
    assert!(start.elapsed() < patience && is_alive(pid));
    assert_eq!(spawner.news(), SpawnerNews::Ended { child: hanging, status: None });
    assert!(start.elapsed() >= patience && start.elapsed() < patience * 4, "{:?}", start.elapsed());
    assert!(is_closed(&channel));
}

#[test]
fn nobody_waits_for_a_program_whose_users_name_can_not_be_looked_up() {
    let options = SpawnerOptions {
        database_hangs: true,
        look_up_patience: Duration::from_secs(1),
        ..SpawnerOptions::default()
    };
    let mut spawner = start!("nobody_waits_for_a_program_whose_users_name_can_not_be_looked_up", options);
    let from = "192.0.2.1".parse().unwrap();
    for start in [
        Start::Conversation { user: Some(name("alice")), from },
        Start::AccountCheck { user: name("alice") },
        Start::Worker { user: name("alice") },
    ] {
        let began = Instant::now();
        let (child, _, channel) = spawner.begin(start);
        assert_eq!(spawner.news(), SpawnerNews::Ended { child, status: None });
        assert!((1..4).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        assert!(is_closed(&channel));
    }
}

/// Says what it was given, and stays as another program, which opens nothing.
const TELLING: &str = r#"#!/bin/sh
{ echo "$@"; echo "user $(id -u)"; /usr/bin/env | sort; } >"${0%/*}/told"
mv "${0%/*}/told" "${0%/*}/told-all"
exec /bin/sleep 60
"#;

/// Standard input and output lead nowhere, standard error is inherited, number 3 is its own, and there is no other.
fn assert_one_descriptor(pid: u32) {
    // Its libraries are open for a moment.
    let found = eventually("there are four descriptors", || {
        let found = descriptors_of(pid);
        found.keys().copied().eq(0..4).then_some(found)
    });
    assert_eq!((found[&0].as_str(), found[&1].as_str()), ("/dev/null", "/dev/null"));
    assert!(found[&3].starts_with("socket:"), "{found:?}");
}

fn told(dir: &Path) -> Vec<String> {
    let text = eventually("the program says what it was given", || {
        std::fs::read_to_string(dir.join("told-all")).ok()
    });
    std::fs::remove_file(dir.join("told-all")).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_programs_get_their_words_one_descriptor_and_nothing_else() {
    let options = SpawnerOptions { pam: TELLING.to_owned(), ..SpawnerOptions::default() };
    let mut spawner = start!("the_programs_get_their_words_one_descriptor_and_nothing_else", options);
    // Something to leak.
    let (_dialer, _, _control) = spawner.begin(Start::Dialer(alice()));
    let from = "2001:db8::1".parse().unwrap();
    for (start, words) in [
        (Start::Worker { user: name("alice") }, "session alice"),
        (Start::AccountCheck { user: name("alice") }, "account alice"),
        (Start::Conversation { user: Some(name("bob")), from }, "converse 2001:db8::1 bob"),
        (Start::Conversation { user: None, from }, "converse 2001:db8::1"),
        (Start::Conversation { user: Some(name("nobody-here")), from }, "converse 2001:db8::1 nobody-here"),
        // Nobody is asked for root's password, and nobody sees that.
        (
            Start::Conversation { user: Some(name("root")), from },
            "converse 2001:db8::1 portreeve-no-such-user",
        ),
        (
            Start::Conversation { user: Some(name("admin")), from },
            "converse 2001:db8::1 portreeve-no-such-user",
        ),
    ] {
        let (child, pid, channel) = spawner.begin(start);
        let told = told(&spawner.dir());
        assert_eq!(told[..2], [words.to_owned(), "user 0".to_owned()]);
        // The shell adds its own.
        let its_own = ["PWD=", "OLDPWD=", "SHLVL=", "_="];
        let environment = told.iter().filter(|line| line.contains('='));
        let ours: Vec<&str> = environment
            .filter(|line| !its_own.iter().any(|own| line.starts_with(own)))
            .map(String::as_str)
            .collect();
        assert_eq!(ours, ["LANG=C.UTF-8", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        eventually("the program stays", || (status_of(pid).get("Name")? == "sleep").then_some(()));
        assert_one_descriptor(pid);
        let status = status_of(pid);
        assert_eq!(status["SigBlk"], "0000000000000000");
        let ignored = u64::from_str_radix(&status["SigIgn"], 16).unwrap();
        assert_eq!(ignored & (1 << (Signal::SIGPIPE as u32 - 1)), 0);
        spawner.order(Start::End { child }, &[]);
        assert_eq!(spawner.news(), SpawnerNews::Ended { child, status: None });
        assert!(is_closed(&channel));
    }
}

#[test]
fn no_program_runs_for_root_or_a_system_account() {
    let options = SpawnerOptions { pam: TELLING.to_owned(), ..SpawnerOptions::default() };
    let mut spawner = start!("no_program_runs_for_root_or_a_system_account", options);
    for user in ["root", "daemon", "admin"] {
        let (child, _, channel) = spawner.begin(Start::Worker { user: name(user) });
        assert_eq!(spawner.news(), SpawnerNews::Ended { child, status: Some(77) }, "{user}");
        assert!(is_closed(&channel));
        let (child, _, channel) = spawner.begin(Start::AccountCheck { user: name(user) });
        let refused = PamNews::Refused { why: PamRefusal::Account, said: Vec::new() };
        assert_eq!(hear::<PamNews>(&channel).0, refused, "{user}");
        assert_eq!(spawner.news(), SpawnerNews::Ended { child, status: Some(77) }, "{user}");
    }
    assert!(!spawner.dir().join("told-all").exists() && !spawner.dir().join("told").exists());
}

#[test]
fn a_program_that_does_not_end_is_killed() {
    let pam = "#!/bin/sh\ntrap '' TERM\necho ready >&3\nread line <&3\nread line <&3\n".to_owned();
    let end_patience = Duration::from_millis(400);
    let options = SpawnerOptions { pam, end_patience, ..SpawnerOptions::default() };
    let mut spawner = start!("a_program_that_does_not_end_is_killed", options);
    let (child, pid, channel) = spawner.begin(Start::Worker { user: name("alice") });
    let mut buffer = [0; 64];
    eventually("the program is ready", || message::receive(&channel, &mut buffer, 0).ok().map(|_| ()));
    let start = Instant::now();
    spawner.order(Start::End { child }, &[]);
    // A second order does not put it off.
    spawner.order(Start::End { child }, &[]);
    assert_obeys(&mut spawner);
    assert!(is_alive(pid));
    assert_eq!(spawner.news(), SpawnerNews::Ended { child, status: None });
    assert!(start.elapsed() >= end_patience && start.elapsed() < end_patience * 4, "{:?}", start.elapsed());
}

#[test]
fn everything_ends_with_the_broker_with_a_signal_and_with_roots_process() {
    // Takes its time to tidy up.
    let pam = "#!/bin/sh\ntrap 'sleep 0.2; echo >\"${0%/*}/tidy\"; exit' TERM\necho >\"${0%/*}/ready\"\nread line <&3\n".to_owned();
    let options = SpawnerOptions { pam, ..SpawnerOptions::default() };
    for how in ["broker", "term", "kill"] {
        let mut spawner =
            start!("everything_ends_with_the_broker_with_a_signal_and_with_roots_process", options);
        let (_, dialer, _control) = spawner.begin(Start::Dialer(alice()));
        let (_, program, _channel) = spawner.begin(Start::Worker { user: name("alice") });
        eventually("the dialer is confined", || (status_of(dialer).get("Seccomp")? == "2").then_some(()));
        eventually("the program is ready", || spawner.dir().join("ready").exists().then_some(()));
        match how {
            "broker" => spawner.close(),
            "term" => signal(spawner.pid(), Signal::SIGTERM),
            _ => signal(spawner.pid(), Signal::SIGKILL),
        }
        let expected = match how {
            "broker" => Some(1),
            "term" => Some(0),
            _ => None,
        };
        assert_eq!(spawner.wait().code(), expected, "{how}");
        if expected.is_some() {
            assert!(spawner.dir().join("tidy").exists(), "{how}: the program was given its time");
        }
        for pid in [dialer, program] {
            eventually("the children end", || (!is_alive(pid)).then_some(()));
        }
    }
}

/// A forward file as a test makes it: name, mode, owner, group, content, and what a visitor gets of it who is bob.
struct Case {
    name: &'static str,
    mode: u32,
    owner: (u32, u32),
    text: Vec<u8>,
    expected: Expected,
}

enum Expected {
    /// This line, and whether others differ.
    Line(&'static str, bool),
    Missing(Missing),
    /// An error whose text depends on the system or the grammar.
    Invalid,
    /// `up` says that it can't be read, and root's child reads it.
    OnlyByOwner(&'static str),
}

#[test]
fn a_forward_is_read_as_up_reads_it() {
    use Expected::{Invalid, Line, OnlyByOwner};
    let mut spawner = start!("a_forward_is_read_as_up_reads_it");
    let dir = spawner.dir().join("forwards");
    let case =
        |name, mode, owner, text: &[u8], expected| Case { name, mode, owner, text: text.to_vec(), expected };
    let (alices, projects, bobs, roots) = ((20001, 20001), (20001, 20100), (20002, 20002), (0, 0));
    let line = b"http://c1:8888/\n";
    let url = "http://c1:8888/";
    let no = || Expected::Missing(Missing::NotExecutable);
    let cases = [
        case("own", 0o700, bobs, line, Line(url, false)),
        case("own-no-x", 0o600, bobs, line, no()),
        case("open", 0o755, alices, line, Line(url, false)),
        case("private", 0o700, alices, line, no()),
        case("group-x", 0o750, projects, line, Line(url, false)),
        case("group-x-only", 0o710, projects, line, OnlyByOwner(url)),
        case("other-x-only", 0o711, alices, line, OnlyByOwner(url)),
        case("group-not-his", 0o710, alices, line, no()),
        // The owner's and the group's bits come before the others': bob is in the group.
        case("group-shut-out", 0o705, projects, line, no()),
        case("roots", 0o1755, roots, line, Line(url, false)),
        case("roots-closed", 0o700, roots, line, no()),
        case("owner-unreadable", 0o311, alices, line, Expected::Missing(Missing::Unreadable)),
        case("nobody-reads", 0o111, bobs, line, Expected::Missing(Missing::Unreadable)),
        case("blank", 0o755, alices, b" \n\n", Line("", false)),
        case("empty", 0o755, alices, b"", Line("", false)),
        case("lines", 0o755, alices, b"http://a:1/\nhttp://b:2/\n\n", Line("http://b:2/", true)),
        case("no-newline", 0o755, alices, b"  http://b:2/", Line("http://b:2/", false)),
        case("secret", 0o755, alices, b"http://u:p@c1:8888/x\n", Line("http://u:p@c1:8888/x", false)),
        case("odd", 0o755, alices, b"ftp://c1/\n", Invalid),
        case("binary", 0o755, alices, b"http://c1:8888/\xff\n", Invalid),
        case("long", 0o755, alices, &vec![b'\n'; 64 * 1024 + 1], Invalid),
        case("password-file", 0o711, alices, b"root:$6$secret:1::::::\n", OnlyByOwner("invalid")),
    ];
    for case in &cases {
        let path = dir.join(case.name);
        std::fs::write(&path, &case.text).unwrap();
        chown(&path, Some(case.owner.0), Some(case.owner.1)).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(case.mode)).unwrap();
    }
    for case in &cases {
        let (found, by_up) = both(&mut spawner, &dir, case.name);
        let by_spawner = shown(&found);
        match &case.expected {
            Expected::Line(text, differ) => {
                let mode = case.mode;
                let (uid, gid) = case.owner;
                let expected =
                    format!("ForwardStat {{ uid: {uid}, gid: {gid}, mode: {mode} }} {text} {differ}");
                assert_eq!((&by_spawner, &by_up), (&expected, &expected), "{}", case.name);
            }
            Expected::Missing(missing) => {
                let expected = format!("{missing:?}");
                assert_eq!((&by_spawner, &by_up), (&expected, &expected), "{}", case.name);
            }
            Expected::Invalid => {
                assert!(matches!(found, Found::Nothing(Missing::Invalid(_))), "{}: {found:?}", case.name);
                assert_eq!(by_spawner, by_up, "{}", case.name);
            }
            Expected::OnlyByOwner(text) => {
                assert_eq!(by_up, "Unreadable", "{}", case.name);
                match &found {
                    Found::Forward { line, .. } => assert_eq!(line, text, "{}", case.name),
                    Found::Nothing(Missing::Invalid(why)) => {
                        assert!(*text == "invalid" && !why.contains("secret"), "{why}");
                    }
                    other => panic!("{}: {other:?}", case.name),
                }
            }
        }
    }
    // What is no plain file with one name, and what is not there.
    symlink("open", dir.join("link")).unwrap();
    std::fs::create_dir(dir.join("dir")).unwrap();
    nix::unistd::mkfifo(&dir.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::hard_link(dir.join("lines"), dir.join("second")).unwrap();
    symlink("/etc/shadow", dir.join("shadow")).unwrap();
    for (name, expected) in [
        ("link", "NotPlain"),
        ("shadow", "NotPlain"),
        ("dir", "NotPlain"),
        ("fifo", "NotPlain"),
        ("second", "NotPlain"),
        ("lines", "NotPlain"),
        ("not-there", "NoForward"),
    ] {
        let (found, by_up) = both(&mut spawner, &dir, name);
        assert!(by_up.starts_with(expected), "{name}: {by_up}");
        assert_eq!(shown(&found), by_up, "{name}");
    }
    // Somebody else's directory: not even whether the file is there.
    std::fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
    let (found, by_up) = both(&mut spawner, &dir, "open");
    assert_eq!(shown(&found), by_up);
    assert!(by_up.starts_with("Failed") && by_up.contains("ermission denied"), "{by_up}");
}

/// What bob gets of a forward by root's child, and what `portreeve up` says that he runs.
fn both(spawner: &mut Spawner, dir: &Path, name: &str) -> (Found, String) {
    let visitor = identity("bob", 20002, 20002, &[20002, 20100]);
    let found = spawner.find(Start::Forward { visitor, name: ForwardName::parse(name).unwrap() });
    let by_up = helper(&["read", "20002", dir.to_str().unwrap(), name]).unwrap();
    (found, by_up.trim_end_matches('\n').to_owned())
}

/// As the helper shows it.
fn shown(found: &Found) -> String {
    match found {
        Found::Forward { stat, line, lines_differ } => {
            let line = match (CountingLine { text: line, lines_differ: *lines_differ }).parse().unwrap() {
                ForwardFile::Disabled => String::new(),
                ForwardFile::Target { target, .. } => target.to_line(),
            };
            format!("{stat:?} {line} {lines_differ}")
        }
        Found::Nothing(missing) => format!("{missing:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_broker_is_confined_and_they_end_together() {
    if !nix::unistd::Uid::effective().is_root() {
        return skip("the_broker_is_confined_and_they_end_together", "needs root");
    }
    for how in ["broker", "term", "kill"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("state")).unwrap();
        let mut command = portreeve_broker();
        let config = dir.path().join("portreeve.toml");
        std::fs::write(&config, "portal.url = 'https://p.example'\nforwards.directory = '/nonexistent'\n")
            .unwrap();
        command.args(["--pam", "/nonexistent"]).arg("--config").arg(config);
        for (option, name) in [("--state", "state"), ("--portal", "portal.sock"), ("--login", "login.sock")] {
            command.arg(option).arg(dir.path().join(name));
        }
        let mut program = command.spawn().unwrap();
        let root = program.id();
        let broker = eventually("the broker is in its sandbox", || {
            let [broker] = children_of(root)[..] else { return None };
            (status_of(broker).get("Seccomp")? == "2").then_some(broker)
        });
        let status = status_of(broker);
        for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "SigBlk"] {
            assert_eq!(status[field], "0000000000000000", "{field}");
        }
        assert_eq!((status["NoNewPrivs"].as_str(), status["Uid"].as_str()), ("1", "0\t0\t0\t0"));
        let theirs = descriptors_of(broker);
        // The broker may be quicker than the process that forked it.
        let roots = eventually("root's process waits", || {
            let roots = descriptors_of(root);
            roots.values().any(|file| file.contains("signalfd")).then_some(roots)
        });
        // Neither the other end of its channel nor what root's process reads signals from.
        let is_roots = |file: &&String| {
            file.contains("signalfd")
                || (file.starts_with("socket:") && roots.values().any(|own| own == *file))
        };
        assert_eq!((theirs[&0].as_str(), theirs.values().find(is_roots)), ("/dev/null", None), "{theirs:?}");
        // Root's own process is as it was, and waits.
        assert_eq!((status_of(root)["Seccomp"].as_str(), roots[&0].as_str()), ("0", "/dev/null"));
        eventually("it listens for people", || dir.path().join("login.sock").exists().then_some(()));
        match how {
            "broker" => signal(broker, Signal::SIGKILL),
            "term" => signal(root, Signal::SIGTERM),
            _ => signal(root, Signal::SIGKILL),
        }
        let ended = eventually("root's process ends", || program.try_wait().unwrap());
        let expected = match how {
            "broker" => Some(1),
            "term" => Some(0),
            _ => None,
        };
        assert_eq!(ended.code(), expected, "{how}");
        eventually("the broker ends", || (!is_alive(broker)).then_some(()));
    }
}

#[test]
fn the_broker_says_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("portreeve.toml");
    let file = file.to_str().unwrap();
    std::fs::write(file, "[users]\nfirst_uid = 0\n").unwrap();
    let root = nix::unistd::Uid::effective().is_root();
    for (arguments, needs_root, expected) in [
        (&["--config"][..], false, &["--config lacks a value"][..]),
        (&["--config", "relative.toml"], false, &["relative.toml is not an absolute path"]),
        (&["--shell", "/bin/sh"], false, &["there is no option --shell"]),
        (&["--config", "/nonexistent"], true, &["/nonexistent can't be read"]),
        (
            &["--config", file],
            true,
            &[
                "portreeve.toml:2: users.first_uid: 0 is out of range; write a number from 1 to",
                "portreeve.toml: portal.url: it is missing",
                "portreeve.toml: forwards.directory: it is missing",
            ],
        ),
    ] {
        if needs_root && !root {
            skip("the_broker_says_what_it_lacks", "needs root");
            continue;
        }
        let refused = portreeve_broker().args(arguments).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(expected.iter().all(|part| said.contains(part)), "{arguments:?}: {said}");
    }
}
