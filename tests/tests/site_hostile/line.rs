//! Everything else that can be said to the broker.

use std::time::{Duration, Instant};

use nix::libc;
use portreeve_model::wire::ControlReply;
use portreeve_model::wire::broker::{AT_ONCE, Answer, BadCode, Question};
use portreeve_model::wire::pam::PamRefusal;
use portreeve_model::{Secret, UserName};
use portreeve_tests::hostile::{Order, Report};
use portreeve_tests::world::hostile::Taken;
use portreeve_tests::world::site::{Site, outside};

const CONFIG: &str = "/etc/portreeve/portreeve.toml";
/// More than the broker gives.
const LINES: usize = 12;

/// The broker with other settings, until it is dropped.
struct Reconfigured<'s>(&'s Site);

impl<'s> Reconfigured<'s> {
    fn without_login_nodes(site: &'s Site) -> Self {
        let guard = Self(site);
        // What a run that was killed has left.
        guard.put_back();
        site.root("login", &format!("cp -p {CONFIG} /root/hostile.toml && sed -i 's/^login_nodes = true/login_nodes = false/' {CONFIG}"));
        guard.reload();
        guard
    }

    fn reload(&self) {
        self.0.root("login", "systemctl reload portreeve-broker");
    }

    fn put_back(&self) {
        let _ = self.0.shell(
            "login",
            "root",
            &format!("test ! -e /root/hostile.toml || mv /root/hostile.toml {CONFIG}"),
        );
        let _ = self.0.shell("login", "root", "systemctl reload portreeve-broker");
    }
}

impl Drop for Reconfigured<'_> {
    fn drop(&mut self) {
        self.put_back();
    }
}

fn send(taken: &Taken<'_>, on: &str, text: &str, with: &[&str]) {
    let with = with.iter().map(|name| (*name).to_owned()).collect();
    taken.done(&Order::Send { on: on.to_owned(), text: text.to_owned(), with });
}

/// Whether the broker has ended a line: nothing comes any more but what had been said before.
fn is_over(taken: &Taken<'_>, line: &str) -> bool {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        match taken.try_to(&Order::Receive(line.to_owned())) {
            Ok(said) if said == "closed" => return true,
            Ok(said) if said.contains("\"answer\"") => return false,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

fn from() -> std::net::IpAddr {
    "192.0.2.99".parse().unwrap()
}

fn login_address(taken: &Taken<'_>, uid: u32) -> Answer {
    taken.ask(Question::LoginAddress { uid })
}

#[test]
fn the_line_with_the_broker_gives_no_more() {
    outside("the_line_with_the_broker_gives_no_more", |site| async {
        let bobs: u32 = site.root("login", "id -u bob").parse().unwrap();
        let taken = site.taken_over();
        taken.done(&Order::LockUp);
        taken.take_line("line");
        let (_, alice) = taken.sign_in("alice");

        // Codes have 128 random bits; a guess is answered, and of no use.
        for guess in ["", "x", "AAAAAAAAAAAAAAAAAAAAAA", "../../etc/passwd"] {
            let code = || Secret::new(guess.to_owned());
            assert_eq!(taken.ask(Question::Look { code: code() }), Answer::BadCode(BadCode::Unknown));
            assert_eq!(
                taken.ask(Question::Enter { code: code(), from: from() }),
                Answer::BadCode(BadCode::Unknown)
            );
        }
        // Root and system accounts don't sign in, with whatever password; a name is slowed, wherever the tries are said to come from.
        for name in ["root", "daemon"] {
            let begin = Question::Begin { user: UserName::parse(name).unwrap(), from: from(), mark: None };
            let answer = match taken.ask(begin) {
                Answer::Prompts { conversation, .. } => {
                    let answers = vec![Secret::new("wrong".to_owned())];
                    taken.ask(Question::Reply { conversation, answers })
                }
                other => other,
            };
            assert!(
                matches!(answer, Answer::Refused { why: PamRefusal::Credentials, .. } | Answer::Wait { .. }),
                "{name}: {answer:?}"
            );
        }
        let mut slowed = false;
        for number in 0..8 {
            let from = std::net::Ipv4Addr::new(203, 0, 113, number).into();
            match taken.ask(Question::Begin {
                user: UserName::parse("mallory").unwrap(),
                from,
                mark: Some(Secret::new("x.y.z".to_owned())),
            }) {
                Answer::Prompts { conversation, .. } => {
                    let answers = vec![Secret::new("wrong".to_owned())];
                    let answer = taken.ask(Question::Reply { conversation, answers });
                    assert!(matches!(answer, Answer::Refused { .. }), "{answer:?}");
                }
                Answer::Wait { .. } => slowed = true,
                other => panic!("{other:?}"),
            }
        }
        assert!(slowed, "guessing is not slowed");

        // A uid on a login node is believed only where the sysadmin said so: otherwise it is a way to be anybody.
        {
            let _reconfigured = Reconfigured::without_login_nodes(site);
            let refused = Instant::now();
            while !matches!(login_address(&taken, bobs), Answer::LoginAddress(ControlReply::Refused { .. })) {
                assert!(refused.elapsed() < Duration::from_secs(10));
            }
            for uid in [0, 1, bobs] {
                let answer = login_address(&taken, uid);
                assert!(matches!(answer, Answer::LoginAddress(ControlReply::Refused { .. })), "{answer:?}");
            }
        }
        let waited = Instant::now();
        let address = loop {
            assert!(waited.elapsed() < Duration::from_secs(10));
            if let Answer::LoginAddress(ControlReply::Address { url }) = login_address(&taken, bobs) {
                break url;
            }
        };
        let code = Secret::new(address.split_once("code=").unwrap().1.to_owned());
        let entered = taken.ask(Question::Enter { code, from: from() });
        assert!(
            matches!(&entered, Answer::SignedIn { claims, .. } if claims.uid == bobs),
            "as the documentation says: {entered:?}"
        );
        let Answer::SignedIn { ticket: bob, .. } = entered else { panic!() };
        taken.ask(Question::SignOut { ticket: bob, everywhere: false });
        // Not even there for root, or a system account.
        for uid in [0, 1] {
            let answer = login_address(&taken, uid);
            assert!(matches!(answer, Answer::LoginAddress(ControlReply::Refused { .. })), "{answer:?}");
        }

        // Only a socket pair of the right kind is handed over.
        taken.pair(libc::SOCK_STREAM, "stream");
        taken.pair(libc::SOCK_SEQPACKET, "packets");
        taken.done(&Order::Open { path: "/etc/passwd".to_owned(), into: "file".to_owned() });
        let visitor = std::net::TcpStream::connect((portreeve_tests::world::site::ADDRESS, 443)).unwrap();
        taken.done(&Order::Accept { listener: "https".to_owned(), into: "tcp".to_owned() });
        taken.take_line("second");
        for wrong in ["file", "tcp", "https", "agents", "broker", "stream-there", "second", "line"] {
            let answer = taken.ask_with("line", Question::Dialer { ticket: alice.clone() }, &[wrong]).0;
            assert!(matches!(answer, Some(Answer::Failed { .. })), "{wrong}: {answer:?}");
        }
        for wrong in ["file", "tcp", "https", "broker", "packets-there", "second"] {
            let answer = taken.ask_with("line", Question::Worker { ticket: alice.clone() }, &[wrong]).0;
            assert!(matches!(answer, Some(Answer::Failed { .. })), "{wrong}: {answer:?}");
        }
        drop(visitor);

        // A second line is one more, and no more: what was begun on the other is not known here, what is over is over on both.
        let begin = Question::Begin { user: UserName::parse("alice").unwrap(), from: from(), mark: None };
        let Answer::Prompts { conversation, .. } = taken.ask(begin) else { panic!() };
        let answers = || vec![Secret::new("alice-password".to_owned())];
        let reply = Question::Reply { conversation: conversation.clone(), answers: answers() };
        let stolen = taken.ask_with("second", reply, &[]).0;
        assert!(matches!(stolen, Some(Answer::Failed { .. })), "{stolen:?}");
        let own = taken.ask(Question::Reply { conversation, answers: answers() });
        let Answer::SignedIn { ticket, .. } = own else { panic!("{own:?}") };
        assert_eq!(taken.ask(Question::SignOut { ticket: ticket.clone(), everywhere: false }), Answer::Done);
        assert_eq!(taken.ask_with("second", Question::Groups { ticket }, &[]).0, Some(Answer::NoTicket));

        // What can't be understood ends the line that it came on, and no other.
        let too_long = format!(r#"{{"id":1,"question":{{"look":{{"code":"{}"}}}}}}"#, "x".repeat(70_000));
        let plain = r#"{"id":1,"question":{"look":{"code":"x"}}}"#;
        let with_ticket = format!(r#"{{"id":1,"question":{{"dialer":{{"ticket":"{}"}}}}}}"#, alice.reveal());
        let messages: [(&str, &str, &[&str]); 9] = [
            ("no JSON", "x", &[]),
            ("an unknown verb", r#"{"id":1,"question":{"sign":{"claims":{}}}}"#, &[]),
            ("an unknown field", r#"{"id":1,"question":{"look":{"code":"x","uid":0}}}"#, &[]),
            ("something behind it", r#"{"id":1,"question":{"look":{"code":"x"}}} {}"#, &[]),
            ("a path", r#"{"id":1,"question":{"forward":{"ticket":"x","name":"../../etc/passwd"}}}"#, &[]),
            ("too long", &too_long, &[]),
            ("a descriptor where none belongs", plain, &["stream-there"]),
            ("two of them", &with_ticket, &["packets", "packets-there"]),
            ("none where one belongs", &with_ticket, &[]),
        ];
        for (what, text, with) in messages {
            taken.take_line("wrong");
            let code = Secret::new("x".to_owned());
            assert!(taken.ask_with("wrong", Question::Look { code }, &[]).0.is_some());
            send(&taken, "wrong", text, with);
            assert!(is_over(&taken, "wrong"), "{what}");
            taken.done(&Order::Close("wrong".to_owned()));
        }
        assert!(matches!(taken.ask(Question::Groups { ticket: alice.clone() }), Answer::Groups(_)));

        // More at once than allowed: what is too much is answered so, and nobody else suffers.
        let count = u32::try_from(AT_ONCE).unwrap() + 200;
        let Report::Flooded { answered, busy } =
            taken.tell(&Order::Flood { line: "second".to_owned(), uid: 3_000_000, count })
        else {
            panic!()
        };
        assert_eq!(answered, count);
        println!("{busy} of {count} questions were too many");
        let sessions = site.run("login", "root", &["portreeve", "sessions"]);
        assert!(sessions.status == 0 && sessions.out.contains("alice"), "{sessions:?}");
        assert!(matches!(taken.ask(Question::Groups { ticket: alice.clone() }), Answer::Groups(_)));

        // All lines that there are: eight, and no more until one ends.
        let mut lines = 2;
        for number in 2..LINES {
            let order = Order::Accept { listener: "broker".to_owned(), into: format!("line-{number}") };
            if taken.try_to(&order).is_err() {
                break;
            }
            // Somebody has it: then the next one is made.
            let asked =
                taken.ask_with(&format!("line-{number}"), Question::Groups { ticket: alice.clone() }, &[]).0;
            assert!(matches!(asked, Some(Answer::Groups(_))), "{asked:?}");
            lines += 1;
        }
        assert_eq!(lines, 8);
        assert_eq!(site.run("login", "root", &["portreeve", "revoke", "alice"]).status, 0);
        for number in 2..lines {
            let asked =
                taken.ask_with(&format!("line-{number}"), Question::Groups { ticket: alice.clone() }, &[]).0;
            assert_eq!(asked, Some(Answer::NoTicket));
        }
    });
}
