//! Single-use codes: for signing in, and for an application's own origin.

use data_encoding::BASE64URL_NOPAD;
use portreeve_model::wire::broker::{Answer, BadCode, Question};
use portreeve_model::wire::pam::PamRefusal;
use portreeve_model::wire::{ControlReply, ControlRequest};
use portreeve_model::{Audience, Secret, SignIn};

use super::world::*;
use crate::service::limits;

const APP: &str = "c1-8888.apps.example.org";

fn code(reply: ControlReply) -> Secret {
    match reply {
        ControlReply::Address { url } => {
            let code = url.strip_prefix("https://portal.example.org/-/enter?code=").unwrap();
            assert_eq!(code.len(), 22, "128 bits");
            secret(code)
        }
        other => panic!("{other:?}"),
    }
}

/// A code for somebody, asked for on a login node.
async fn relayed(portal: &Portal, uid: u32) -> Secret {
    match portal.ask(Question::LoginAddress { uid }).await {
        Answer::LoginAddress(reply) => code(reply),
        other => panic!("{other:?}"),
    }
}

fn relaying() -> World {
    World::with(|settings| settings.policy.relays_logins = true)
}

async fn enter(portal: &Portal, code: &Secret) -> Answer {
    portal.ask(Question::Enter { code: code.clone(), from: home() }).await
}

#[test]
fn a_code_shows_whom_it_signs_in_and_works_once() {
    run(async || {
        let mut world = relaying();
        let portal = world.portal().await;
        let code = relayed(&portal, 20001).await;
        for _ in 0..2 {
            let shown = portal.ask(Question::Look { code: code.clone() }).await;
            assert_eq!(shown, Answer::Code { user: name("alice") });
        }
        let signed = signed_in(enter(&portal, &code).await);
        assert_eq!((signed.claims.uid, signed.claims.how), (20001, SignIn::Code));
        assert!(signed.mark.is_some());
        assert_eq!(enter(&portal, &code).await, Answer::BadCode(BadCode::Used));
        assert_eq!(portal.ask(Question::Look { code }).await, Answer::BadCode(BadCode::Used));
        assert_eq!(enter(&portal, &secret("nonsense")).await, Answer::BadCode(BadCode::Unknown));
    });
}

#[test]
fn two_who_come_at_once_do_not_both_get_in() {
    run(async || {
        let mut world = relaying();
        let (one, other) = (world.portal().await, world.portal().await);
        let code = relayed(&one, 20001).await;
        let question = || Question::Enter { code: code.clone(), from: home() };
        let (first, second) = (one.send(question(), None).await, other.send(question(), None).await);
        signed_in(one.answer_to(first).await.unwrap());
        assert_eq!(other.answer_to(second).await.unwrap(), Answer::BadCode(BadCode::Used));
    });
}

#[test]
fn a_code_expires() {
    run(async || {
        let mut world = relaying();
        let portal = world.portal().await;
        let code = relayed(&portal, 20001).await;
        set_clock(now() + 300);
        assert_eq!(enter(&portal, &code).await, Answer::BadCode(BadCode::Expired));
    });
}

#[test]
fn the_account_is_checked_also_with_a_code() {
    run(async || {
        let mut world = relaying();
        let portal = world.portal().await;
        for why in [PamRefusal::Account, PamRefusal::PasswordExpired, PamRefusal::System] {
            let code = relayed(&portal, 20001).await;
            world.spawner.closed.borrow_mut().insert("alice".to_owned(), why);
            assert_eq!(enter(&portal, &code).await, Answer::Refused { why, said: vec![] });
        }
        world.spawner.closed.borrow_mut().clear();
        // Gone, or somebody else's by now.
        let code = relayed(&portal, 20001).await;
        world.spawner.users.borrow_mut().get_mut("alice").unwrap().uid = 20009;
        let refused = Answer::Refused { why: PamRefusal::Account, said: vec![] };
        assert_eq!(enter(&portal, &code).await, refused);
        let code = relayed(&portal, 20002).await;
        world.spawner.users.borrow_mut().remove("bob");
        assert_eq!(enter(&portal, &code).await, refused);
    });
}

#[test]
fn who_is_not_served_gets_no_address() {
    run(async || {
        let mut world = relaying();
        let portal = world.portal().await;
        for uid in [0, 999, 65534, 65535, u32::MAX, 54321] {
            let answer = portal.ask(Question::LoginAddress { uid }).await;
            assert!(
                matches!(answer, Answer::LoginAddress(ControlReply::Refused { .. })),
                "{uid}: {answer:?}"
            );
        }
    });
}

#[test]
fn a_portal_asks_for_others_addresses_only_where_the_sysadmin_allows_it() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let answer = portal.ask(Question::LoginAddress { uid: 20001 }).await;
        assert!(matches!(answer, Answer::LoginAddress(ControlReply::Refused { .. })));
    });
}

#[test]
fn one_user_does_not_use_up_the_codes() {
    run(async || {
        let mut world = relaying();
        let portal = world.portal().await;
        let mut codes = Vec::new();
        for _ in 0..limits::CODES_OF_A_USER {
            codes.push(relayed(&portal, 20001).await);
        }
        let answer = portal.ask(Question::LoginAddress { uid: 20001 }).await;
        assert!(matches!(answer, Answer::LoginAddress(ControlReply::Refused { .. })));
        signed_in(enter(&portal, &codes[0]).await);
        relayed(&portal, 20001).await;
        relayed(&portal, 20002).await;
    });
}

fn browser() -> String {
    BASE64URL_NOPAD.encode(&[7; 32])
}

async fn entry(portal: &Portal, ticket: &Secret) -> Secret {
    let question = Question::Entry { ticket: ticket.clone(), host: APP.to_owned(), browser: browser() };
    match portal.ask(question).await {
        Answer::Entry { code } => code,
        other => panic!("{other:?}"),
    }
}

async fn take(portal: &Portal, code: &Secret, host: &str, browser: String) -> Answer {
    portal.ask(Question::TakeEntry { code: code.clone(), host: host.to_owned(), browser }).await
}

#[test]
fn a_session_enters_an_applications_origin_once_a_code() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let session = portal.sign_in("alice").await;
        let code = entry(&portal, &session.ticket).await;
        let entered = signed_in(take(&portal, &code, APP, browser()).await);
        assert_eq!(entered.claims.sid, session.claims.sid);
        assert_eq!(
            (entered.claims.exp, entered.claims.auth_time),
            (session.claims.exp, session.claims.auth_time)
        );
        assert_eq!(entered.claims.aud, Audience::parse(APP).unwrap());
        assert!(entered.mark.is_none());
        assert_eq!(take(&portal, &code, APP, browser()).await, Answer::BadCode(BadCode::Used));
        // That ticket enters no further.
        let question =
            Question::Entry { ticket: entered.ticket.clone(), host: APP.to_owned(), browser: browser() };
        assert!(matches!(portal.ask(question).await, Answer::Failed { .. }));
        // It renews for its own origin.
        let renewed = signed_in(portal.ask(Question::Renew { ticket: entered.ticket }).await);
        assert_eq!(renewed.claims.aud, Audience::parse(APP).unwrap());
    });
}

#[test]
fn a_code_shown_by_another_browser_or_elsewhere_is_used_up() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let session = portal.sign_in("alice").await;
        let others = BASE64URL_NOPAD.encode(&[8; 32]);
        for (host, shown) in [(APP, others), ("d1-1.apps.example.org", browser()), ("portal", browser())] {
            let code = entry(&portal, &session.ticket).await;
            assert_eq!(take(&portal, &code, host, shown).await, Answer::BadCode(BadCode::Unknown), "{host}");
            assert_eq!(take(&portal, &code, APP, browser()).await, Answer::BadCode(BadCode::Used));
        }
        for (host, shown) in [("portal", browser()), ("Host.Example", browser()), (APP, "short".to_owned())] {
            let question =
                Question::Entry { ticket: session.ticket.clone(), host: host.to_owned(), browser: shown };
            assert!(matches!(portal.ask(question).await, Answer::Failed { .. }), "{host}");
        }
    });
}

#[test]
fn a_session_that_ended_enters_nothing() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let session = portal.sign_in("alice").await;
        let code = entry(&portal, &session.ticket).await;
        let ended = Question::SignOut { ticket: session.ticket.clone(), everywhere: false };
        assert_eq!(portal.ask(ended).await, Answer::Done);
        assert_eq!(take(&portal, &code, APP, browser()).await, Answer::NoTicket);
        let question = Question::Entry { ticket: session.ticket, host: APP.to_owned(), browser: browser() };
        assert_eq!(portal.ask(question).await, Answer::NoTicket);
    });
}

#[test]
fn the_codes_of_one_purpose_are_none_for_the_other() {
    run(async || {
        let mut world = relaying();
        let portal = world.portal().await;
        let session = portal.sign_in("alice").await;
        let entry = entry(&portal, &session.ticket).await;
        assert_eq!(enter(&portal, &entry).await, Answer::BadCode(BadCode::Unknown));
        let sign_in = relayed(&portal, 20001).await;
        assert_eq!(take(&portal, &sign_in, APP, browser()).await, Answer::BadCode(BadCode::Unknown));
    });
}

#[test]
fn the_login_socket_knows_who_asks() {
    run(async || {
        let mut world = World::new();
        let uid = nix::unistd::geteuid().as_raw();
        let reply = world.control(ControlRequest::Where).await;
        let expected = "https://portal.example.org/".to_owned();
        assert_eq!(reply, ControlReply::Portal { url: expected, pid: std::process::id() });
        let portal = world.portal().await;
        portal.sign_in("alice").await;
        let list = ControlRequest::Sessions { user: None, after: None };
        if uid == 0 {
            // Root is no user of the portal.
            for request in [ControlRequest::Login, ControlRequest::SignOutEverywhere] {
                assert!(matches!(world.control(request).await, ControlReply::Refused { .. }));
            }
            let ControlReply::Sessions { rows, more: false } = world.control(list).await else { panic!() };
            assert_eq!((rows.len(), rows[0].user.as_str(), rows[0].from), (1, "alice", Some(home())));
        } else {
            let revoke = ControlRequest::Revoke { user: name("alice") };
            for request in [list, revoke] {
                assert!(matches!(world.control(request).await, ControlReply::Refused { .. }));
            }
        }
    });
}
