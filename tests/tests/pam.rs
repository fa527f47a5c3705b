//! `portreeve-pam` with real modules: sign-ins of any number of questions, account checks, sessions.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use portreeve_model::wire::pam::{MAX_TEXT, PamNews, PamRefusal, PamReply, Prompt, PromptKind};
use portreeve_model::{Secret, UserName};
use portreeve_tests::world::etc::{Etc, PASSWORD, has_module};
use portreeve_tests::world::spawner::{channel_pair, eventually, hear, is_closed, push, signal, tell};
use portreeve_tests::world::{Skip, built_if_possible, skip, system};

/// Fails at once, so that the tests need not wait.
const UNIX: &str = "auth required pam_unix.so nodelay\naccount required pam_unix.so\n\
    password required pam_unix.so sha512 minlen=4\n";

/// One process.
struct Pam {
    child: Child,
    channel: OwnedFd,
}

impl Pam {
    fn start(etc: &Etc, arguments: &[&str]) -> Result<Self, Skip> {
        let program = built_if_possible("portreeve-pam")?;
        let (channel, theirs) = channel_pair();
        let mut command = etc.command(&program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("SECRET", "root's");
        let child = command.stdin(Stdio::from(theirs)).stderr(Stdio::piped()).spawn().unwrap();
        Ok(Self { child, channel })
    }

    fn hear(&self) -> PamNews {
        hear(&self.channel).0
    }

    fn prompts(&self) -> Vec<Prompt> {
        match self.hear() {
            PamNews::Prompts(prompts) => prompts,
            other => panic!("{other:?}"),
        }
    }

    fn answer(&self, answer: &str) {
        tell(&self.channel, &PamReply { answers: vec![Secret::new(answer.to_owned())] }, &[]);
    }

    /// Answers one question after the other.
    fn answer_all(&self, answers: &[&str]) -> PamNews {
        for answer in answers {
            self.prompts();
            self.answer(answer);
        }
        self.hear()
    }

    fn wait(&mut self) -> ExitStatus {
        eventually("portreeve-pam ends", || self.child.try_wait().unwrap())
    }

    fn log(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Pam {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn converse(etc: &Etc, user: &str) -> Result<Pam, Skip> {
    Pam::start(etc, &["converse", "192.0.2.7", user])
}

fn granted(news: &PamNews) -> Option<&UserName> {
    match news {
        PamNews::Granted { user, .. } => Some(user),
        _ => None,
    }
}

fn refused(news: &PamNews) -> Option<PamRefusal> {
    match news {
        PamNews::Refused { why, .. } => Some(*why),
        _ => None,
    }
}

/// Runs a test, or says why not.
fn check(name: &str, test: impl FnOnce() -> Result<(), Skip>) {
    if let Err(why) = test() {
        skip(name, &why);
    }
}

#[test]
fn a_password() {
    check("a_password", || {
        let etc = Etc::new(UNIX)?;
        let mut pam = converse(&etc, "alice")?;
        let prompts = pam.prompts();
        assert_eq!(prompts, [Prompt { kind: PromptKind::Hidden, text: "Password:".to_owned() }]);
        pam.answer(PASSWORD);
        let news = pam.hear();
        assert_eq!(granted(&news).map(UserName::as_str), Some("alice"));
        assert!(is_closed(&pam.channel));
        assert_eq!(pam.wait().code(), Some(0));
        for (user, password, why) in [
            ("alice", "wrong", PamRefusal::Credentials),
            ("alice", "", PamRefusal::Credentials),
            ("nobody-of-this-name", PASSWORD, PamRefusal::Credentials),
            ("erin", PASSWORD, PamRefusal::Credentials),
            // That the account is over is told only to whoever knows the password.
            ("bob", "wrong", PamRefusal::Credentials),
            ("bob", PASSWORD, PamRefusal::Account),
        ] {
            let pam = converse(&etc, user)?;
            let prompts = pam.prompts();
            assert_eq!(
                prompts,
                [Prompt { kind: PromptKind::Hidden, text: "Password:".to_owned() }],
                "{user}"
            );
            pam.answer(password);
            assert_eq!(refused(&pam.hear()), Some(why), "{user} {password}");
        }
        Ok(())
    });
}

#[test]
fn whoever_has_no_password_is_not_let_in_whatever_the_options_say() {
    check("whoever_has_no_password_is_not_let_in_whatever_the_options_say", || {
        let etc = Etc::new("auth required pam_unix.so nodelay nullok\naccount required pam_unix.so\n")?;
        let pam = converse(&etc, "dave")?;
        pam.prompts();
        pam.answer("");
        assert_eq!(refused(&pam.hear()), Some(PamRefusal::Credentials));
        Ok(())
    });
}

#[test]
fn the_modules_name_for_the_user_counts() {
    check("the_modules_name_for_the_user_counts", || {
        let etc = Etc::new(UNIX)?;
        // Without a name the modules ask for it.
        let pam = Pam::start(&etc, &["converse", "192.0.2.7"])?;
        let asked = pam.prompts();
        assert_eq!(asked.last().unwrap().kind, PromptKind::Visible);
        pam.answer("alice");
        assert_eq!(granted(&pam.answer_all(&[PASSWORD])).map(UserName::as_str), Some("alice"));
        Ok(())
    });
}

#[test]
fn a_one_time_code_beside_the_password() {
    check("a_one_time_code_beside_the_password", || {
        let tool = "oathtool";
        if !has_module("pam_oath.so") || system(tool, &["--version"]).is_none() {
            return Err("needs libpam-oath and oathtool".into());
        }
        let service = "auth required pam_oath.so usersfile=DIR/users.oath digits=6\n".to_owned() + UNIX;
        let etc = Etc::new(&service)?;
        let key = "00112233445566778899aabbccddeeff";
        etc.write("users.oath", &format!("HOTP alice - {key}\n"));
        let code = |counter: &str| {
            let output = system(tool, &["-c", counter, key]).unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let pam = converse(&etc, "alice")?;
        let first = pam.prompts();
        assert!(first.iter().any(|prompt| prompt.kind.asks() && prompt.text.contains("One-time password")));
        pam.answer(&code("0"));
        let second = pam.prompts();
        assert_eq!(second.last().unwrap().text, "Password:");
        pam.answer(PASSWORD);
        assert!(granted(&pam.hear()).is_some());
        // The same code again, and the next one.
        for (code, good) in [(code("0"), false), (code("1"), true)] {
            let news = converse(&etc, "alice")?.answer_all(&[&code, PASSWORD]);
            assert_eq!(granted(&news).is_some(), good, "{news:?}");
        }
        Ok(())
    });
}

#[test]
fn an_expired_password_is_changed_in_the_same_conversation() {
    check("an_expired_password_is_changed_in_the_same_conversation", || {
        let etc = Etc::new(UNIX)?;
        let before = etc.read("etc/shadow");
        // Not done: not let in.
        let pam = converse(&etc, "carol")?;
        let news = pam.answer_all(&[PASSWORD, "not the old one"]);
        assert_eq!(refused(&news), Some(PamRefusal::PasswordExpired));
        assert_eq!(etc.read("etc/shadow"), before);
        let pam = converse(&etc, "carol")?;
        pam.prompts();
        pam.answer(PASSWORD);
        let asked = pam.prompts();
        assert!(
            asked.iter().any(|prompt| !prompt.kind.asks() && prompt.text.contains("change your password")),
            "{asked:?}"
        );
        pam.answer(PASSWORD);
        let news = pam.answer_all(&["Tr0ub4dor&3", "Tr0ub4dor&3"]);
        assert_eq!(granted(&news).map(UserName::as_str), Some("carol"), "{news:?}");
        assert_ne!(etc.read("etc/shadow"), before);
        assert!(granted(&converse(&etc, "carol")?.answer_all(&["Tr0ub4dor&3"])).is_some());
        assert_eq!(refused(&converse(&etc, "carol")?.answer_all(&[PASSWORD])), Some(PamRefusal::Credentials));
        Ok(())
    });
}

#[test]
fn modules_know_where_from_and_what_they_say_is_shown_clean() {
    check("modules_know_where_from_and_what_they_say_is_shown_clean", || {
        let service = "auth optional pam_exec.so DIR/note\nauth optional pam_echo.so file=DIR/greeting\n"
            .to_owned()
            + UNIX
            + "account optional pam_echo.so Goodbye %u from %H\n";
        let etc = Etc::new(&service)?;
        etc.program("note", "#!/bin/sh\necho \"$PAM_RHOST $PAM_TTY $PAM_SERVICE $PAM_USER\" >DIR/out/note\nls /proc/self/fd >DIR/out/fds\n");
        etc.write("greeting", &format!("Hello\u{1b}[2J \u{202e}evil\u{7}{}\n", "x".repeat(2 * MAX_TEXT)));
        let pam = converse(&etc, "alice")?;
        let prompts = pam.prompts();
        let [greeting, question] = &prompts[..] else { panic!("{prompts:?}") };
        assert_eq!((greeting.kind, question.kind), (PromptKind::Info, PromptKind::Hidden));
        // A message of PAM's has 512 bytes at most.
        assert!(
            greeting.text.starts_with("Hello[2J evilxxx") && greeting.text.len() <= MAX_TEXT,
            "{greeting:?}"
        );
        pam.answer(PASSWORD);
        let PamNews::Granted { said, .. } = pam.hear() else { panic!() };
        assert_eq!(
            said,
            [Prompt { kind: PromptKind::Info, text: "Goodbye alice from 192.0.2.7".to_owned() }]
        );
        assert_eq!(etc.read("out/note").trim(), "192.0.2.7 portreeve portreeve alice");
        assert!(!etc.read("out/fds").lines().any(|fd| fd == "4"), "{}", etc.read("out/fds"));
        Ok(())
    });
}

#[test]
fn a_conversation_whose_other_end_leaves_is_over() {
    check("a_conversation_whose_other_end_leaves_is_over", || {
        let etc = Etc::new(UNIX)?;
        let mut pam = converse(&etc, "alice")?;
        pam.prompts();
        // Ours is closed when it is replaced.
        pam.channel = channel_pair().0;
        assert_eq!(pam.wait().code(), Some(0));
        // Nonsense is no answer.
        for nonsense in [&b"nonsense"[..], b"{}", br#"{"answers":[]}"#, br#"{"answers":["right","right"]}"#] {
            let pam = converse(&etc, "alice")?;
            pam.prompts();
            push(&pam.channel, nonsense, &[]);
            assert!(refused(&pam.hear()).is_some(), "{nonsense:?}");
        }
        Ok(())
    });
}

#[test]
fn wrong_guesses_of_known_and_unknown_names_take_as_long() {
    check("wrong_guesses_of_known_and_unknown_names_take_as_long", || {
        let service = "auth optional pam_faildelay.so delay=600000\n".to_owned() + UNIX;
        let etc = Etc::new(&service)?;
        for user in ["alice", "nobody-of-this-name"] {
            let pam = converse(&etc, user)?;
            pam.prompts();
            let began = Instant::now();
            pam.answer("wrong");
            assert_eq!(refused(&pam.hear()), Some(PamRefusal::Credentials));
            // libpam varies it by half.
            assert!(began.elapsed() > Duration::from_millis(250), "{user}: {:?}", began.elapsed());
        }
        Ok(())
    });
}

#[test]
fn a_service_that_does_not_work_is_nobodys_fault() {
    check("a_service_that_does_not_work_is_nobodys_fault", || {
        let etc = Etc::new("auth required pam_no_such_module.so\naccount required pam_unix.so\n")?;
        assert_eq!(refused(&converse(&etc, "alice")?.hear()), Some(PamRefusal::System));
        // Another service is another file.
        etc.service("portreeve", UNIX);
        let pam = Pam::start(&etc, &["--service", "other", "converse", "192.0.2.7", "alice"])?;
        assert!(refused(&pam.hear()).is_some());
        assert!(granted(&converse(&etc, "alice")?.answer_all(&[PASSWORD])).is_some());
        Ok(())
    });
}

#[test]
fn account_checks_ask_nobody() {
    check("account_checks_ask_nobody", || {
        let etc = Etc::new(&(UNIX.to_owned() + "account required pam_access.so accessfile=DIR/access\n"))?;
        etc.write("access", "- : dave : ALL\n");
        for (user, expected) in [
            ("alice", None),
            ("bob", Some(PamRefusal::Account)),
            ("carol", Some(PamRefusal::PasswordExpired)),
            ("dave", Some(PamRefusal::Account)),
            ("nobody-of-this-name", Some(PamRefusal::Account)),
        ] {
            let mut pam = Pam::start(&etc, &["account", user])?;
            let news = pam.hear();
            assert_eq!(refused(&news), expected, "{user}: {news:?}");
            assert_eq!(granted(&news).map(UserName::as_str), expected.is_none().then_some(user));
            assert_eq!(pam.wait().code(), Some(0));
        }
        // A module that wants to ask is told that nobody is there.
        etc.service(
            "portreeve",
            "account required pam_unix.so\naccount required pam_exec.so expose_authtok /bin/true\n",
        );
        let pam = Pam::start(&etc, &["account", "alice"])?;
        assert!(!matches!(pam.hear(), PamNews::Prompts(_)));
        Ok(())
    });
}

#[test]
fn without_its_channel_or_root_it_does_nothing() {
    check("without_its_channel_or_root_it_does_nothing", || {
        let etc = Etc::new(UNIX)?;
        let program = built_if_possible("portreeve-pam")?;
        let output = std::process::Command::new(&program).args(["account", "alice"]).output().unwrap();
        assert_eq!(output.status.code(), Some(71), "{output:?}");
        for user in ["root", "nobody-of-this-name"] {
            let mut pam = Pam::start(&etc, &["session", user])?;
            assert_eq!(pam.wait().code(), Some(71));
        }
        Ok(())
    });
}

const SESSION: &str = "auth optional pam_group.so\nauth required pam_permit.so\naccount required pam_unix.so\n\
    session required pam_exec.so DIR/note\nsession required pam_env.so envfile=DIR/environment conffile=/dev/null\n\
    session optional pam_umask.so umask=027\n";

/// What a worker finds, told line by line over its channel.
const WORKER: &str = r#"#!/bin/sh
say() { echo "$1" >&3; }
say "id $(id -u) $(id -ru) $(id -g) $(id -G | tr ' ' '\n' | sort -n | tr '\n' ' ')"
say "pwd $(pwd)"
say "fds $(ls /proc/self/fd | tr '\n' ' ')"
say "umask $(umask)"
say "zero $(readlink /proc/$$/fd/0)"
say "nnp $(grep NoNewPrivs /proc/$$/status | tr -d '\t')"
say "caps $(grep -E 'Cap(Prm|Eff|Amb)' /proc/$$/status | tr -d '\t\n')"
say "signals $(grep -E '^Sig(Blk|Ign)' /proc/$$/status | tr -d '\t\n')"
say "environment $(env | grep -v -E '^(_|PWD|OLDPWD|SHLVL)=' | sort | tr '\n' ' ')"
say "log $(cat DIR/out/log)"
trap 'say "asked to end"; exit 9' TERM
say ready
dd bs=64 count=1 <&3 >/dev/null 2>&1 &
wait $!
exit 7
"#;

fn sessions() -> Result<Etc, Skip> {
    let etc = Etc::new(SESSION)?;
    etc.program(
        "note",
        "#!/bin/sh\necho \"$PAM_TYPE $PAM_USER $(id -u)\" >>DIR/out/log\nchmod 666 DIR/out/log\n",
    );
    etc.program("worker", WORKER);
    etc.write("environment", "SITE=hpc\nHOME=/nowhere\nLD_PRELOAD=\n");
    etc.write("etc/security/group.conf", "portreeve;*;alice;Al0000-2400;extra\n");
    Ok(etc)
}

fn session(etc: &Etc, user: &str) -> Result<Pam, Skip> {
    let worker = etc.path("worker").display().to_string();
    Pam::start(etc, &["--worker", &worker, "session", user])
}

/// What the worker says until it is ready, by its first word.
fn told(pam: &Pam) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    loop {
        let line = words(pam);
        if line == "ready" {
            return told;
        }
        let (key, value) = line.split_once(' ').unwrap();
        told.insert(key.to_owned(), value.trim().to_owned());
    }
}

fn words(pam: &Pam) -> String {
    use portreeve_sys::message::{ReceiveError, receive};
    let mut buffer = [0; 4096];
    eventually("the worker speaks", || match receive(&pam.channel, &mut buffer, 0) {
        Ok(message) => Some(String::from_utf8(message.bytes.to_vec()).unwrap().trim().to_owned()),
        Err(ReceiveError::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => None,
        Err(ReceiveError::Closed) => Some("closed".to_owned()),
        Err(error) => panic!("{error}"),
    })
}

#[test]
fn a_worker_is_the_user_in_a_session_of_theirs() {
    check("a_worker_is_the_user_in_a_session_of_theirs", || {
        let etc = sessions()?;
        let mut pam = session(&etc, "alice")?;
        let told = told(&pam);
        // pam_group's group is there, too.
        assert_eq!(told["id"], "20001 20001 20001 20001 20100 20300");
        assert_eq!(told["pwd"], etc.path("home/alice").display().to_string());
        // Number 4 reads the list. What this program was started with, or a module left open, does not come this far.
        let expected = BTreeSet::from(["0", "1", "2", "3", "4"].map(str::to_owned));
        assert_eq!(told["fds"].split(' ').map(str::to_owned).collect::<BTreeSet<_>>(), expected);
        assert_eq!((told["zero"].as_str(), told["umask"].as_str()), ("/dev/null", "0027"));
        // The user's own session: sudo and newgrp must work in it.
        assert_eq!(told["nnp"], "NoNewPrivs:0");
        assert_eq!(told["caps"].replace('0', ""), "CapPrm:CapEff:CapAmb:");
        let (blocked, ignored) = told["signals"].split_once("SigIgn:").unwrap();
        assert_eq!(blocked.replace('0', ""), "SigBlk:");
        // Rust's run time ignores SIGPIPE; shells and their tools don't expect that.
        assert_eq!(u64::from_str_radix(ignored, 16).unwrap() >> (Signal::SIGPIPE as u32 - 1) & 1, 0);
        let home = etc.path("home/alice").display().to_string();
        let expected = format!(
            "HOME={home} LD_PRELOAD= LOGNAME=alice PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games \
             SHELL=/bin/bash SITE=hpc USER=alice"
        );
        assert_eq!(told["environment"].replace("LD_PRELOAD= ", ""), expected.replace("LD_PRELOAD= ", ""));
        assert_eq!(told["log"], "open_session alice 0");
        // Its end is the session's; its status ours.
        push(&pam.channel, b"go\n", &[]);
        assert_eq!(pam.wait().code(), Some(7));
        assert_eq!(etc.read("out/log"), "open_session alice 0\nclose_session alice 0\n");
        assert!(is_closed(&pam.channel));
        Ok(())
    });
}

#[test]
fn who_has_no_home_begins_in_the_root_directory() {
    check("who_has_no_home_begins_in_the_root_directory", || {
        let etc = sessions()?;
        let mut pam = session(&etc, "dave")?;
        let told = told(&pam);
        assert_eq!((told["pwd"].as_str(), told["id"].as_str()), ("/", "20004 20004 20004 20004"));
        push(&pam.channel, b"go\n", &[]);
        assert_eq!(pam.wait().code(), Some(7));
        assert!(pam.log().contains("home directory"));
        Ok(())
    });
}

#[test]
fn signals_are_passed_on_and_the_session_is_closed() {
    check("signals_are_passed_on_and_the_session_is_closed", || {
        let etc = sessions()?;
        let mut pam = session(&etc, "alice")?;
        told(&pam);
        // sh has become portreeve-pam, so the number is its.
        signal(pam.child.id(), Signal::SIGTERM);
        assert_eq!(words(&pam), "asked to end");
        assert_eq!(pam.wait().code(), Some(9));
        assert!(etc.read("out/log").ends_with("close_session alice 0\n"));
        // One that dies of a signal.
        etc.program("worker", "#!/bin/sh\necho $$ >&3\nkill -KILL $$\n");
        let mut pam = session(&etc, "alice")?;
        assert_eq!(pam.wait().code(), Some(128 + 9));
        // One that can't be run.
        std::fs::remove_file(etc.path("worker")).unwrap();
        let mut pam = session(&etc, "alice")?;
        assert_eq!(pam.wait().code(), Some(71));
        assert_eq!(etc.read("out/log").matches("open_session").count(), 3);
        assert_eq!(etc.read("out/log").matches("close_session").count(), 3);
        Ok(())
    });
}

#[test]
fn a_worker_that_hangs_is_killed_and_the_session_is_closed() {
    check("a_worker_that_hangs_is_killed", || {
        let etc = sessions()?;
        etc.program("worker", "#!/bin/sh\ntrap '' TERM\necho $$ >&3\nkill -STOP $$\n");
        let mut pam = session(&etc, "alice")?;
        words(&pam);
        signal(pam.child.id(), Signal::SIGTERM);
        assert_eq!(pam.wait().code(), Some(128 + 9));
        assert!(etc.read("out/log").ends_with("close_session alice 0\n"));
        Ok(())
    });
}

#[test]
fn a_worker_does_not_outlive_its_session() {
    check("a_worker_does_not_outlive_its_session", || {
        let etc = sessions()?;
        let mut pam = session(&etc, "alice")?;
        told(&pam);
        signal(pam.child.id(), Signal::SIGKILL);
        assert_eq!(pam.wait().signal(), Some(Signal::SIGKILL as i32));
        assert_eq!(words(&pam), "asked to end");
        Ok(())
    });
}

#[test]
fn a_closed_account_gets_no_worker() {
    check("a_closed_account_gets_no_worker", || {
        let etc = sessions()?;
        for user in ["bob", "carol"] {
            let mut pam = session(&etc, user)?;
            assert_eq!(pam.wait().code(), Some(77), "{user}");
            assert!(is_closed(&pam.channel));
        }
        assert_eq!(etc.read("out/log"), "");
        Ok(())
    });
}

/// Root's process reads the plan with nothing of the user's in its environment.
#[test]
fn what_pam_puts_into_the_environment_reaches_no_process_of_roots() {
    check("what_pam_puts_into_the_environment_reaches_no_process_of_roots", || {
        let etc = sessions()?;
        // The loader says so of each program that it can't preload this into.
        etc.write("environment", "LD_PRELOAD=/nonexistent/user.so\n");
        etc.program("worker", "#!/bin/sh\nexit 3\n");
        let mut pam = session(&etc, "alice")?;
        assert_eq!(pam.wait().code(), Some(3));
        let log = pam.log();
        assert!(!log.contains("/nonexistent/user.so"), "{log}");
        Ok(())
    });
}

/// What it writes is its user's word.
#[test]
fn a_worker_writes_nothing_into_the_brokers_log() {
    check("a_worker_writes_nothing_into_the_brokers_log", || {
        let etc = sessions()?;
        etc.program(
            "worker",
            "#!/bin/sh\necho 'INFO audit: forged verdict=\"allow\"' >&2\necho '<0>forged' >&2\nexit 3\n",
        );
        let mut pam = session(&etc, "alice")?;
        assert_eq!(pam.wait().code(), Some(3));
        let log = pam.log();
        assert!(!log.contains("forged"), "{log}");
        Ok(())
    });
}
