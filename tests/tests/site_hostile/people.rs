//! What a live ticket gives, to whom, and for how long.

use std::net::SocketAddr;

use nix::libc;
use portreeve_model::Secret;
use portreeve_model::wire::broker::{Answer, Question};
use portreeve_model::wire::dialer::Dial;
use portreeve_model::wire::encode_bare;
use portreeve_tests::hostile::Order;
use portreeve_tests::world::hostile::Taken;
use portreeve_tests::world::site::outside;

fn dial(
    taken: &Taken<'_>,
    channel: &str,
    to: SocketAddr,
) -> Result<String, portreeve_tests::hostile::Denied> {
    let into = format!("{channel}-{}", to.port());
    taken.try_to(&Order::Dial { channel: channel.to_owned(), to, into })
}

/// A channel of the user's dialer, called so.
fn dialer(taken: &Taken<'_>, ticket: &Secret, name: &str) {
    taken.pair(libc::SOCK_SEQPACKET, name);
    let asked = Question::Dialer { ticket: ticket.clone() };
    assert_eq!(taken.ask_with("line", asked, &[&format!("{name}-there")]).0, Some(Answer::Done));
    taken.done(&Order::Close(format!("{name}-there")));
}

fn worker(taken: &Taken<'_>, ticket: &Secret, name: &str) {
    taken.pair(libc::SOCK_STREAM, name);
    let asked = Question::Worker { ticket: ticket.clone() };
    assert_eq!(taken.ask_with("line", asked, &[&format!("{name}-there")]).0, Some(Answer::Done));
    taken.done(&Order::Close(format!("{name}-there")));
}

fn workspace(taken: &Taken<'_>, connection: &str, user: &str, ticket: &Secret) -> String {
    let ticket = ticket.reveal().to_owned();
    let order = Order::Workspace { connection: connection.to_owned(), user: user.to_owned(), ticket };
    taken.try_to(&order).unwrap_or_else(|denied| denied.why)
}

fn receive(taken: &Taken<'_>, name: &str) -> String {
    taken.try_to(&Order::Receive(name.to_owned())).unwrap_or_else(|denied| denied.why)
}

#[test]
fn a_live_ticket_gives_what_it_says_until_it_ends() {
    outside("a_live_ticket_gives_what_it_says_until_it_ends", |site| async {
        let at = |address: &str, port: u16| SocketAddr::new(address.parse().unwrap(), port);
        let app = site.app("c1", "alice", None, "0.0.0.0:0");
        let other = site.app("c2", "bob", None, "0.0.0.0:0");
        let uid = |name: &str| -> u32 { site.root("login", &format!("id -u {name}")).parse().unwrap() };
        let (alices, bobs) = (uid("alice"), uid("bob"));
        let taken = site.taken_over();
        taken.done(&Order::LockUp);
        taken.take_line("line");

        // Nobody has signed in: nothing runs for anybody, and nothing is started.
        let running = "pgrep -c -f 'portreeve-(broker|worker)' -u alice,bob,carol || true";
        site.until("login", running, "0");
        let (_, alice) = taken.sign_in("alice");
        let (_, bob) = taken.sign_in("bob");

        // As alice, to wherever she could connect herself: as her, by the kernel's word.
        dialer(&taken, &alice, "alice");
        for to in [
            at("10.77.0.11", app.port()),
            at("10.77.0.12", other.port()),
            at("127.0.0.1", 1),
            at("10.77.0.1", 443),
        ] {
            let result = dial(&taken, "alice", to);
            assert!(result.is_ok() || to.port() == 1, "{to}: {result:?}");
        }
        let owner =
            format!("ss -Htne state established dst 10.77.0.11:{} | grep -o 'uid:[0-9]*'", app.port());
        assert_eq!(site.root("login", &owner), format!("uid:{alices}"));
        // The dialer keeps nothing of what it made (standard error, its control channel, this channel), and answers nothing but what it
        // was made for.
        let sockets = "ls -l /proc/$(pgrep -u alice -f portreeve-broker)/fd | grep -c socket: || true";
        site.until("login", sockets, "3");
        for garbage in [
            "x",
            "{}",
            r#"{"id":1,"to":"10.77.0.11:22"}"#,
            r#"{"id":1,"to":"/run/portreeve/login.sock","patience":1}"#,
            r#"{"id":1,"to":"10.77.0.11:22","patience":1,"uid":0}"#,
        ] {
            dialer(&taken, &alice, "garbage");
            taken.done(&Order::Send { on: "garbage".to_owned(), text: garbage.to_owned(), with: vec![] });
            assert_eq!(receive(&taken, "garbage"), "closed", "{garbage}");
        }
        let frame = Dial { id: 1, to: at("10.77.0.11", app.port()), patience: 1000 };
        let frame = String::from_utf8(encode_bare(&frame).unwrap()).unwrap();
        dialer(&taken, &alice, "rights");
        taken.pair(libc::SOCK_STREAM, "gift");
        taken.done(&Order::Send {
            on: "rights".to_owned(),
            text: frame,
            with: vec!["gift-there".to_owned()],
        });
        assert_eq!(receive(&taken, "rights"), "closed", "a descriptor is not taken");
        taken.done(&Order::Close("gift-there".to_owned()));
        assert_eq!(receive(&taken, "gift"), "closed", "and not kept");
        assert!(dial(&taken, "alice", at("10.77.0.11", app.port())).is_ok(), "her other channel goes on");

        // Each one's worker, with that one's ticket alone.
        worker(&taken, &alice, "alices");
        worker(&taken, &bob, "bobs");
        assert_eq!(
            (workspace(&taken, "alices", "alice", &alice), workspace(&taken, "bobs", "bob", &bob)),
            ("200".to_owned(), "200".to_owned())
        );
        assert_eq!(
            (workspace(&taken, "alices", "alice", &bob), workspace(&taken, "bobs", "bob", &alice)),
            ("401".to_owned(), "401".to_owned())
        );
        let owners = "pgrep -x portreeve-worke | xargs -I@ stat -c %u /proc/@ | sort -n | tr '\\n' ' '";
        assert_eq!(site.root("login", owners), format!("{} {}", alices.min(bobs), alices.max(bobs)));

        // Bob signs out: his last session. His dialer ends; his worker goes on, and takes his old ticket no more.
        dialer(&taken, &bob, "bob");
        assert!(dial(&taken, "bob", at("10.77.0.12", other.port())).is_ok());
        assert_eq!(taken.ask(Question::SignOut { ticket: bob.clone(), everywhere: false }), Answer::Done);
        assert_eq!(receive(&taken, "bob"), "closed");
        site.until("login", "pgrep -c -u bob -f portreeve-broker || true", "0");
        let refused = std::time::Instant::now();
        while workspace(&taken, "bobs", "bob", &bob) == "200" {
            assert!(
                refused.elapsed() < std::time::Duration::from_secs(5),
                "a session that is over still has its worker"
            );
        }
        assert_eq!(workspace(&taken, "bobs", "bob", &bob), "401");

        // Root ends alice's, elsewhere: channel and worker are dead at once, and the ticket with them.
        assert_eq!(workspace(&taken, "alices", "alice", &alice), "200");
        let revoked = site.run("login", "root", &["portreeve", "revoke", "alice"]);
        assert_eq!(revoked.status, 0, "{revoked:?}");
        assert_eq!(receive(&taken, "alice"), "closed");
        let gone = workspace(&taken, "alices", "alice", &alice);
        assert!(gone != "200", "{gone}");
        site.until("login", "pgrep -c -u alice -f 'portreeve-(broker|worker)' || true", "0");
        for question in
            [Question::Groups { ticket: alice.clone() }, Question::Renew { ticket: alice.clone() }]
        {
            assert_eq!(taken.ask(question), Answer::NoTicket);
        }
        taken.pair(libc::SOCK_SEQPACKET, "late");
        let late = taken.ask_with("line", Question::Dialer { ticket: alice }, &["late-there"]).0;
        assert_eq!(late, Some(Answer::NoTicket));
        // What was connected before stays so, as long as the application keeps it, or until the portal is replaced: nobody can take a
        // socket back.
        let port = app.port();
        let held = format!("ss -Htn state established dst 10.77.0.11:{port} | wc -l");
        assert_ne!(site.root("login", &held), "0");
        drop(taken);
        site.until("login", &held, "0");
    });
}
