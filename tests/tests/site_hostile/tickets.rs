//! A ticket of their own, or a longer one. Those that are forged are made as well as they can be: signed with the broker's own key, which only
//! root can read, the very same claims are a ticket.

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD as BASE64URL;
use nix::libc;
use portreeve_broker::TicketKey;
use portreeve_model::wire::broker::{Answer, PublicKey, Question};
use portreeve_model::{
    Audience, Claims, ForwardName, Scope, Scopes, Secret, SessionId, SignIn, TICKET_TYP, UserName,
};
use portreeve_tests::world::hostile::Taken;
use portreeve_tests::world::site::{Site, outside};

/// All that takes a ticket, with what must come along.
fn uses(ticket: &Secret) -> Vec<(Question, Option<&'static str>)> {
    let ticket = || ticket.clone();
    vec![
        (Question::Renew { ticket: ticket() }, None),
        (
            Question::Entry {
                ticket: ticket(),
                host: "x.example.org".to_owned(),
                browser: BASE64URL.encode(&[0; 32]),
            },
            None,
        ),
        (Question::Groups { ticket: ticket() }, None),
        (Question::Forward { ticket: ticket(), name: ForwardName::parse("x").unwrap() }, None),
        (Question::Dialer { ticket: ticket() }, Some("dialer-there")),
        (Question::Worker { ticket: ticket() }, Some("worker-there")),
    ]
}

/// That it is good for nothing.
#[track_caller]
fn assert_none(taken: &Taken<'_>, what: &str, ticket: &str) {
    for (question, with) in uses(&Secret::new(ticket.to_owned())) {
        let shown = format!("{what}: {question:?}");
        let with: Vec<&str> = with.into_iter().collect();
        assert_eq!(taken.ask_with("line", question, &with).0, Some(Answer::NoTicket), "{shown}");
    }
}

fn encoded(text: &str) -> String {
    BASE64URL.encode(text.as_bytes())
}

fn header(algorithm: &str, key: &str, typ: &str) -> String {
    encoded(&format!(r#"{{"typ":"{typ}","alg":"{algorithm}","kid":"{key}"}}"#))
}

/// Claims with another header, and nothing as a signature.
fn unsigned(algorithm: &str, key: &str, claims: &Claims) -> String {
    format!("{}.{}.", header(algorithm, key, TICKET_TYP), encoded(&serde_json::to_string(claims).unwrap()))
}

/// With the public key as if it were a secret that both know.
fn with_public_key(known: &PublicKey, claims: &Claims) -> String {
    let head = format!(
        "{}.{}",
        header("HS256", &known.id, TICKET_TYP),
        encoded(&serde_json::to_string(claims).unwrap())
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64URL.decode(known.key.as_bytes()).unwrap());
    format!("{head}.{}", BASE64URL.encode(hmac::sign(&key, head.as_bytes()).as_ref()))
}

/// Other claims under the signature of a good ticket.
fn altered(ticket: &str, claims: &Claims) -> String {
    let [head, _, signature] = ticket.split('.').collect::<Vec<_>>()[..] else { panic!() };
    format!("{head}.{}.{signature}", encoded(&serde_json::to_string(claims).unwrap()))
}

/// The key that the broker signs with.
fn brokers_key(site: &Site) -> TicketKey {
    let file = site.read("login", "/var/lib/portreeve/broker/ticket-keys.json");
    let kept: serde_json::Value = serde_json::from_slice(&file).unwrap();
    let pkcs8 = data_encoding::BASE64.decode(kept["signs"]["key"].as_str().unwrap().as_bytes()).unwrap();
    TicketKey::from_pkcs8(&pkcs8).unwrap()
}

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

#[test]
fn a_ticket_is_neither_made_nor_altered_nor_prolonged() {
    outside("a_ticket_is_neither_made_nor_altered_nor_prolonged", |site| async {
        let (bobs_uid, genuine) = (site.root("login", "id -u bob").parse().unwrap(), brokers_key(site));
        let taken = site.taken_over();
        taken.done(&portreeve_tests::hostile::Order::LockUp);
        taken.take_line("line");
        taken.pair(libc::SOCK_SEQPACKET, "dialer");
        taken.pair(libc::SOCK_STREAM, "worker");
        let (claims, ticket) = taken.sign_in("alice");
        let (_, keys) = taken.ask_with("line", Question::Groups { ticket: ticket.clone() }, &[]);
        let known = keys.iter().find(|key| key.id == genuine.id()).unwrap();
        let own = TicketKey::generate().unwrap().0;

        let bob = Claims { sub: user("bob"), uid: bobs_uid, ..claims.clone() };
        let anew = Claims { sid: SessionId::from_bytes([9; 16]), ..bob.clone() };
        // What is missing is the signature alone.
        let genuinely = genuine.sign(&anew).unwrap();
        let answer = taken.ask(Question::Groups { ticket: Secret::new(genuinely.clone()) });
        assert!(matches!(answer, Answer::Groups(_)), "{answer:?}");
        // That session never was.
        taken.ask(Question::SignOut { ticket: Secret::new(genuinely), everywhere: false });

        for target in [&bob, &anew, &claims] {
            for algorithm in ["none", "None", "HS256", "EdDSA", "RS256"] {
                assert_none(&taken, algorithm, &unsigned(algorithm, &known.id, target));
            }
            assert_none(&taken, "HS256 with the public key", &with_public_key(known, target));
            assert_none(&taken, "a key of one's own", &own.sign(target).unwrap());
            // That key under the name of the broker's.
            let signed = own.sign(target).unwrap();
            let (_, rest) = signed.split_once('.').unwrap();
            assert_none(
                &taken,
                "a key of one's own, renamed",
                &format!("{}.{rest}", header("EdDSA", &known.id, TICKET_TYP)),
            );
        }
        let (_, rest) = ticket.reveal().split_once('.').unwrap();
        for (what, key, typ) in [
            ("another key", own.id(), TICKET_TYP),
            ("no key", "", TICKET_TYP),
            ("another typ", known.id.as_str(), "JWT"),
        ] {
            assert_none(&taken, what, &format!("{}.{rest}", header("EdDSA", key, typ)));
        }
        let now = claims.iat;
        for (what, altered_claims) in [
            ("a later end", Claims { exp: claims.exp + 1, ..claims.clone() }),
            ("another uid", Claims { uid: bobs_uid, ..claims.clone() }),
            ("root", Claims { uid: 0, sub: user("root"), ..claims.clone() }),
            ("another name", Claims { sub: user("bob"), ..claims.clone() }),
            ("another session", Claims { sid: SessionId::from_bytes([7; 16]), ..claims.clone() }),
            ("another origin", Claims { aud: Audience::parse("x.example.org").unwrap(), ..claims.clone() }),
            ("younger", Claims { auth_time: now + 50, ..claims.clone() }),
        ] {
            assert_none(&taken, what, &altered(ticket.reveal(), &altered_claims));
        }
        assert_none(&taken, "half of one", &ticket.reveal()[..ticket.reveal().len() / 2]);
        assert_none(&taken, "nothing", "");
        // Genuine, and none nevertheless.
        for (what, claims) in [
            ("expired", Claims { exp: now - 1, ..claims.clone() }),
            ("of tomorrow", Claims { iat: now + 86_400, ..claims.clone() }),
            ("root's", Claims { uid: 0, sub: user("root"), ..anew.clone() }),
            ("a system account's", Claims { uid: 1, sub: user("daemon"), ..anew.clone() }),
            ("another's issuer", Claims { iss: "somebody".to_owned(), ..anew.clone() }),
        ] {
            assert_none(&taken, what, &genuine.sign(&claims).unwrap());
        }

        // A younger ticket never lasts longer, however often.
        let mut youngest = ticket.clone();
        for _ in 0..3 {
            let Answer::SignedIn { claims: renewed, ticket, .. } =
                taken.ask(Question::Renew { ticket: youngest })
            else {
                panic!()
            };
            let same = Claims { iat: claims.iat, ..(*renewed).clone() };
            assert_eq!(same, claims, "a renewed ticket says something else");
            youngest = ticket;
        }
        // Nor does that of an application's origin, which opens that and nothing else.
        let (host, browser) = ("x.example.org".to_owned(), BASE64URL.encode(&[0; 32]));
        let entry =
            Question::Entry { ticket: youngest.clone(), host: host.clone(), browser: browser.clone() };
        let Answer::Entry { code } = taken.ask(entry) else { panic!() };
        let Answer::SignedIn { claims: entered, ticket: of_origin, .. } =
            taken.ask(Question::TakeEntry { code, host, browser })
        else {
            panic!()
        };
        assert_eq!((entered.exp, entered.uid, &entered.sid), (claims.exp, claims.uid, &claims.sid));
        for (question, with) in uses(&of_origin) {
            let with: Vec<&str> = with.into_iter().collect();
            let closed = matches!(question, Question::Entry { .. } | Question::Worker { .. });
            let answer = taken.ask_with("line", question, &with).0.unwrap();
            assert_eq!(matches!(answer, Answer::Failed { .. }), closed, "{answer:?}");
        }

        // An access token's ticket is good for what the token is.
        let _ = site.run("login", "alice", &["portreeve", "token", "revoke", "hostile"]);
        let made = site.run(
            "login",
            "alice",
            &["portreeve", "token", "create", "--name", "hostile", "--scope", "api"],
        );
        assert_eq!(made.status, 0, "{made:?}");
        let token = Question::Token {
            token: Secret::new(made.out.trim().to_owned()),
            from: "192.0.2.1".parse().unwrap(),
        };
        let Answer::SignedIn { claims: of_token, ticket: token_ticket, .. } = taken.ask(token) else {
            panic!()
        };
        assert_eq!(of_token.how, SignIn::Token(Scopes::new(&[Scope::Api]).unwrap()));
        let ask = |question, with: &[&str]| taken.ask_with("line", question, with).0.unwrap();
        let dialer = Question::Dialer { ticket: token_ticket.clone() };
        assert!(matches!(ask(dialer, &["dialer-there"]), Answer::Failed { .. }));
        let everywhere = Question::SignOut { ticket: token_ticket.clone(), everywhere: true };
        assert!(matches!(ask(everywhere, &[]), Answer::Failed { .. }));
        let Answer::SignedIn { claims: renewed, .. } =
            ask(Question::Renew { ticket: token_ticket.clone() }, &[])
        else {
            panic!()
        };
        assert_eq!((renewed.exp, renewed.how), (of_token.exp, of_token.how));
        // The token's end is its tickets'.
        assert_eq!(site.run("login", "alice", &["portreeve", "token", "revoke", "hostile"]).status, 0);
        assert_none(&taken, "of a token that was revoked", token_ticket.reveal());

        // And with the session's end all of them are over.
        assert_eq!(taken.ask(Question::SignOut { ticket, everywhere: false }), Answer::Done);
        for over in [&youngest, &of_origin] {
            assert_none(&taken, "of a session that was signed out", over.reveal());
        }
    });
}
