//! Access tokens of programs.

use std::net::IpAddr;

use portreeve_model::wire::broker::{Answer, BadToken, Question, UserEnded};
use portreeve_model::wire::control::{MAX_TOKEN_LIFETIME, MIN_TOKEN_LIFETIME};
use portreeve_model::wire::pam::PamRefusal;
use portreeve_model::wire::{ControlReply, ControlRequest, TokenRow};
use portreeve_model::{Audience, Scope, Scopes, Secret, SignIn, TokenName};
use tokio::time::sleep;

use super::world::*;
use crate::service::limits;

const DAY: i64 = 24 * 3600;
pub(super) const ALICE: u32 = 20001;
const BOB: u32 = 20002;

pub(super) fn called(text: &str) -> TokenName {
    TokenName::parse(text).unwrap()
}

pub(super) fn scopes(scopes: &[Scope]) -> Scopes {
    Scopes::new(scopes).unwrap()
}

async fn try_make(world: &World, uid: u32, name: &str, good_for: &[Scope]) -> ControlReply {
    let request = ControlRequest::MakeToken { name: called(name), scopes: scopes(good_for), lifetime: 7200 };
    world.control_as(uid, request).await
}

pub(super) async fn make(world: &World, uid: u32, name: &str, good_for: &[Scope]) -> Secret {
    match try_make(world, uid, name, good_for).await {
        ControlReply::Token { token, expires } => {
            assert_eq!(expires, now() + 7200);
            token
        }
        other => panic!("{other:?}"),
    }
}

async fn list(world: &World, uid: u32, user: Option<&str>) -> Vec<TokenRow> {
    match world.control_as(uid, ControlRequest::Tokens { user: user.map(name), after: None }).await {
        ControlReply::Tokens { rows, more: false } => rows,
        other => panic!("{other:?}"),
    }
}

async fn revoke(world: &World, uid: u32, user: Option<&str>, token: &str) -> ControlReply {
    let request = ControlRequest::RevokeToken { user: user.map(name), name: called(token) };
    world.control_as(uid, request).await
}

pub(super) async fn show(portal: &Portal, token: &Secret) -> Answer {
    portal.ask(Question::Token { token: token.clone(), from: home() }).await
}

pub(super) async fn renew(portal: &Portal, ticket: &Secret) -> Answer {
    portal.ask(Question::Renew { ticket: ticket.clone() }).await
}

const ENDED: ControlReply = ControlReply::Ended { known: 0, tokens: 1 };

fn is_refused(reply: &ControlReply) -> bool {
    matches!(reply, ControlReply::Refused { .. })
}

#[test]
fn a_token_is_always_the_same_session_of_its_owner() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let token = make(&world, ALICE, "ci", &[Scope::Apps, Scope::Api]).await;
        let first = signed_in(show(&portal, &token).await);
        let made = now();
        set_clock(made + 60);
        let second = signed_in(show(&portal, &token).await);
        assert_eq!(first.claims.sid, second.claims.sid);
        assert_eq!((second.claims.iat, second.claims.exp), (made + 60, made + 7200));
        assert_eq!((second.claims.uid, second.claims.sub.as_str()), (ALICE, "alice"));
        assert_eq!(second.claims.how, SignIn::Token(scopes(&[Scope::Apps, Scope::Api])));
        assert_eq!((&second.claims.aud, second.groups), (&Audience::Portal, vec![20001, 20100]));
        assert!(second.mark.is_none(), "a program is no browser");
        let other = make(&world, ALICE, "other", &[Scope::Apps]).await;
        assert_ne!(signed_in(show(&portal, &other).await).claims.sid, first.claims.sid);
        // Younger tickets are good for the same, for as long.
        let renewed = signed_in(renew(&portal, &second.ticket).await);
        assert_eq!((renewed.claims.how, renewed.claims.exp), (second.claims.how, second.claims.exp));
        let rows = list(&world, ALICE, None).await;
        let row = rows.iter().find(|row| row.name == called("ci")).unwrap();
        assert_eq!((row.id.clone(), row.created, row.expires), (first.claims.sid, made, made + 7200));
        assert_eq!(row.used, Some((made + 60) / DAY * DAY));
    });
}

#[test]
fn what_is_no_token_is_refused_and_its_address_slowed_and_nobody_elses() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let token = make(&world, ALICE, "ci", &[Scope::Apps]).await;
        let ticket = signed_in(show(&portal, &token).await).ticket;
        let mut tried = 0;
        let wrong = ["", "ptr_", "alice", &token.reveal()[..20], ticket.reveal(), RIGHT];
        let waits = loop {
            match show(&portal, &secret(wrong[tried % wrong.len()])).await {
                Answer::BadToken(BadToken::Unknown) => tried += 1,
                Answer::Wait { seconds } => break seconds,
                other => panic!("{other:?}"),
            }
            assert!(tried < 100);
        };
        assert_eq!((tried, waits), (20, 1));
        // The genuine one does not wait for the wrong ones; nor does a person behind the same address, nor another address.
        signed_in(show(&portal, &token).await);
        portal.sign_in("alice").await;
        let from: IpAddr = "198.51.100.7".parse().unwrap();
        let elsewhere = portal.ask(Question::Token { token: secret("wrong"), from }).await;
        assert_eq!(elsewhere, Answer::BadToken(BadToken::Unknown));
        sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(show(&portal, &secret("wrong")).await, Answer::BadToken(BadToken::Unknown));
        assert_eq!(show(&portal, &secret("wrong")).await, Answer::Wait { seconds: 2 });
    });
}

#[test]
fn a_token_expires_with_its_tickets() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let token = make(&world, ALICE, "ci", &[Scope::Apps]).await;
        let session = signed_in(show(&portal, &token).await);
        set_clock(now() + 7199);
        signed_in(show(&portal, &token).await);
        set_clock(now() + 1);
        assert_eq!(show(&portal, &token).await, Answer::BadToken(BadToken::Expired));
        assert_eq!(renew(&portal, &session.ticket).await, Answer::NoTicket);
        assert_eq!(list(&world, ALICE, None).await.len(), 1, "it is shown for a while");
        world.restart().await;
        let portal = world.portal().await;
        assert_eq!(show(&portal, &token).await, Answer::BadToken(BadToken::Expired));
    });
}

#[test]
fn lifetimes_are_bounded() {
    run(async || {
        let world = World::new();
        let request = |lifetime| ControlRequest::MakeToken {
            name: called("ci"),
            scopes: scopes(&[Scope::Apps]),
            lifetime,
        };
        for lifetime in [0, MIN_TOKEN_LIFETIME - 1, MAX_TOKEN_LIFETIME + 1, u32::MAX] {
            assert!(is_refused(&world.control_as(ALICE, request(lifetime)).await), "{lifetime}");
        }
        assert!(list(&world, ALICE, None).await.is_empty());
        let longest = world.control_as(ALICE, request(MAX_TOKEN_LIFETIME)).await;
        assert!(matches!(longest, ControlReply::Token { expires, .. } if expires == now() + 400 * DAY));
    });
}

#[test]
fn a_revoked_token_is_over_at_once_everywhere_and_after_a_restart() {
    run(async || {
        let mut world = World::new();
        let (one, other) = (world.portal().await, world.portal().await);
        let (over, lives) = (
            make(&world, ALICE, "over", &[Scope::Apps]).await,
            make(&world, ALICE, "lives", &[Scope::Apps]).await,
        );
        let ended = signed_in(show(&one, &over).await);
        let browser = one.sign_in("alice").await;
        assert_eq!(revoke(&world, ALICE, None, "over").await, ENDED);
        for portal in [&one, &other] {
            portal.until(|heard| heard.sessions.contains(&ended.claims.sid)).await;
            assert_eq!(show(portal, &over).await, Answer::BadToken(BadToken::Unknown));
            assert_eq!(renew(portal, &ended.ticket).await, Answer::NoTicket);
        }
        assert!(is_refused(&revoke(&world, ALICE, None, "over").await), "twice");
        world.restart().await;
        let portal = world.portal().await;
        portal.until(|heard| heard.sessions.contains(&ended.claims.sid)).await;
        assert_eq!(show(&portal, &over).await, Answer::BadToken(BadToken::Unknown));
        assert_eq!(renew(&portal, &ended.ticket).await, Answer::NoTicket);
        // Nothing else ended.
        signed_in(show(&portal, &lives).await);
        signed_in(renew(&portal, &browser.ticket).await);
        assert_eq!(list(&world, ALICE, None).await.len(), 1);
        // The name is free for another one, which is another session.
        let new = make(&world, ALICE, "over", &[Scope::Apps]).await;
        assert_ne!(signed_in(show(&portal, &new).await).claims.sid, ended.claims.sid);
    });
}

#[test]
fn a_ticket_without_its_token_is_over_even_if_the_list_of_ends_is_lost() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let token = make(&world, ALICE, "ci", &[Scope::Apps]).await;
        let session = signed_in(show(&portal, &token).await);
        assert_eq!(revoke(&world, ALICE, None, "ci").await, ENDED);
        std::fs::remove_file(world.dir.path().join("ended-sessions.json")).unwrap();
        world.restart().await;
        let portal = world.portal().await;
        assert_eq!(renew(&portal, &session.ticket).await, Answer::NoTicket);
    });
}

#[test]
fn who_is_not_served_has_no_tokens() {
    run(async || {
        let world = World::new();
        for uid in [0, 999, 65534, 65535, u32::MAX, 54321] {
            let reply = try_make(&world, uid, "ci", &[Scope::Apps]).await;
            assert!(is_refused(&reply), "{uid}: {reply:?}");
        }
        assert!(list(&world, 0, None).await.is_empty());
    });
}

#[test]
fn nobody_sees_or_ends_anothers_tokens_but_root() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let alices = make(&world, ALICE, "ci", &[Scope::Apps]).await;
        let bobs = make(&world, BOB, "ci", &[Scope::Files]).await;
        let owners = |rows: Vec<TokenRow>| {
            let mut uids: Vec<u32> = rows.iter().map(|row| row.uid).collect();
            uids.sort_unstable();
            uids
        };
        assert_eq!(owners(list(&world, BOB, None).await), [BOB]);
        for user in ["alice", "bob"] {
            let request = ControlRequest::Tokens { user: Some(name(user)), after: None };
            assert!(is_refused(&world.control_as(BOB, request).await), "{user}");
            assert!(is_refused(&revoke(&world, BOB, Some(user), "ci").await), "{user}");
        }
        // One's own of that name ends, and not another's.
        assert_eq!(revoke(&world, BOB, None, "ci").await, ENDED);
        assert_eq!(show(&portal, &bobs).await, Answer::BadToken(BadToken::Unknown));
        signed_in(show(&portal, &alices).await);
        assert!(is_refused(&revoke(&world, BOB, None, "ci").await));
        // Root.
        make(&world, BOB, "two", &[Scope::Files]).await;
        assert_eq!(owners(list(&world, 0, None).await), [ALICE, BOB]);
        assert_eq!(owners(list(&world, 0, Some("alice")).await), [ALICE]);
        assert!(is_refused(&revoke(&world, 0, None, "ci").await), "whose?");
        assert!(is_refused(&revoke(&world, 0, Some("bob"), "ci").await));
        assert_eq!(revoke(&world, 0, Some("alice"), "ci").await, ENDED);
        assert_eq!(show(&portal, &alices).await, Answer::BadToken(BadToken::Unknown));
        assert_eq!(owners(list(&world, 0, None).await), [BOB]);
    });
}

#[test]
fn one_user_does_not_use_up_the_tokens() {
    run(async || {
        let world = World::new();
        for n in 0..limits::TOKENS_OF_A_USER {
            make(&world, ALICE, &format!("t{n}"), &[Scope::Apps]).await;
        }
        assert!(is_refused(&try_make(&world, ALICE, "more", &[Scope::Apps]).await));
        make(&world, BOB, "more", &[Scope::Apps]).await;
        assert!(is_refused(&try_make(&world, BOB, "more", &[Scope::Apps]).await), "the name is taken");
        assert_eq!(revoke(&world, ALICE, None, "t0").await, ENDED);
        make(&world, ALICE, "more", &[Scope::Apps]).await;
    });
}

#[test]
fn the_account_is_checked_at_every_use_and_a_closed_one_has_its_tokens_again_when_it_is_open() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let token = make(&world, ALICE, "ci", &[Scope::Apps]).await;
        let session = signed_in(show(&portal, &token).await);
        for why in [PamRefusal::Account, PamRefusal::PasswordExpired, PamRefusal::System] {
            sleep(limits::CHECKED).await;
            world.spawner.closed.borrow_mut().insert("alice".to_owned(), why);
            assert_eq!(show(&portal, &token).await, Answer::Refused { why, said: vec![] });
            world.spawner.closed.borrow_mut().clear();
            signed_in(show(&portal, &token).await);
        }
        // A renewal finds the account closed: all that is open ends, and the token waits.
        sleep(limits::CHECKED).await;
        world.spawner.closed.borrow_mut().insert("alice".to_owned(), PamRefusal::Account);
        assert_eq!(renew(&portal, &session.ticket).await, Answer::NoTicket);
        portal.until(|heard| heard.users == [UserEnded { uid: ALICE, until: now() }]).await;
        world.spawner.closed.borrow_mut().clear();
        let again = signed_in(show(&portal, &token).await);
        assert_eq!(again.claims.sid, session.claims.sid);
        assert!(again.claims.auth_time > now(), "it began after the end");
        signed_in(renew(&portal, &again.ticket).await);
        assert_eq!(renew(&portal, &session.ticket).await, Answer::NoTicket);
    });
}

#[test]
fn a_token_of_an_account_that_is_gone_or_anothers_by_now_is_refused_and_removed() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let alices = make(&world, ALICE, "ci", &[Scope::Apps]).await;
        let bobs = make(&world, BOB, "ci", &[Scope::Apps]).await;
        sleep(limits::GROUPS).await;
        let before = world.spawner.users.borrow_mut().remove("bob").unwrap();
        world.spawner.users.borrow_mut().get_mut("alice").unwrap().uid = 20077;
        let refused = Answer::Refused { why: PamRefusal::Account, said: vec![] };
        for token in [&alices, &bobs] {
            assert_eq!(show(&portal, token).await, refused);
        }
        sleep(limits::GONE + limits::NO_ACCOUNT).await;
        assert!(list(&world, 0, None).await.is_empty());
        world.spawner.users.borrow_mut().insert("bob".to_owned(), before);
        assert_eq!(show(&portal, &bobs).await, Answer::BadToken(BadToken::Unknown));
    });
}

#[test]
fn what_ends_all_sessions_ends_all_tokens_and_says_how_many() {
    run(async || {
        let mut world = World::new();
        for by in ["owner", "root", "browser"] {
            let portal = world.portal().await;
            let (one, other) = (
                make(&world, ALICE, "one", &[Scope::Apps]).await,
                make(&world, ALICE, "other", &[Scope::Apps]).await,
            );
            let bobs = make(&world, BOB, by, &[Scope::Apps]).await;
            let session = signed_in(show(&portal, &one).await);
            let browser = portal.sign_in("alice").await;
            let both = ControlReply::Ended { known: 2, tokens: 2 };
            match by {
                "owner" => {
                    assert_eq!(world.control_as(ALICE, ControlRequest::SignOutEverywhere).await, both)
                }
                "root" => {
                    let revoke = ControlRequest::Revoke { user: name("alice") };
                    assert_eq!(world.control_as(0, revoke).await, both);
                }
                _ => {
                    let ticket = browser.ticket.clone();
                    let out = Question::SignOut { ticket, everywhere: true };
                    assert_eq!(portal.ask(out).await, Answer::Done);
                }
            }
            for token in [&one, &other] {
                assert_eq!(show(&portal, token).await, Answer::BadToken(BadToken::Unknown), "{by}");
            }
            for ticket in [&session.ticket, &browser.ticket] {
                assert_eq!(renew(&portal, ticket).await, Answer::NoTicket, "{by}");
            }
            signed_in(show(&portal, &bobs).await);
            world.restart().await;
        }
    });
}

#[test]
fn signing_out_in_a_browser_ends_no_token() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let token = make(&world, ALICE, "ci", &[Scope::Apps]).await;
        let session = signed_in(show(&portal, &token).await);
        let browser = portal.sign_in("alice").await;
        let out = Question::SignOut { ticket: browser.ticket, everywhere: false };
        assert_eq!(portal.ask(out).await, Answer::Done);
        signed_in(renew(&portal, &session.ticket).await);
    });
}

#[test]
fn root_revokes_somebody_who_is_gone_and_has_nothing_but_tokens() {
    run(async || {
        let mut world = World::new();
        let token = make(&world, ALICE, "ci", &[Scope::Apps]).await;
        world.spawner.users.borrow_mut().remove("alice");
        world.spawner.users.borrow_mut().remove("ALICE");
        let revoke = ControlRequest::Revoke { user: name("alice") };
        let ended = world.control_as(0, revoke.clone()).await;
        assert_eq!(ended, ControlReply::Ended { known: 0, tokens: 1 });
        assert!(is_refused(&world.control_as(0, revoke).await), "nothing is left");
        let portal = world.portal().await;
        assert_eq!(show(&portal, &token).await, Answer::BadToken(BadToken::Unknown));
    });
}

#[test]
fn who_holds_a_token_ends_that_token_and_nothing_else() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let token = make(&world, ALICE, "ci", &[Scope::Files]).await;
        let other = make(&world, ALICE, "other", &[Scope::Files]).await;
        let session = signed_in(show(&portal, &token).await);
        let browser = portal.sign_in("alice").await;
        let out = |everywhere| Question::SignOut { ticket: session.ticket.clone(), everywhere };
        assert!(matches!(portal.ask(out(true)).await, Answer::Failed { .. }));
        signed_in(renew(&portal, &session.ticket).await);
        signed_in(renew(&portal, &browser.ticket).await);
        assert_eq!(portal.ask(out(false)).await, Answer::Done);
        assert_eq!(show(&portal, &token).await, Answer::BadToken(BadToken::Unknown));
        signed_in(show(&portal, &other).await);
        signed_in(renew(&portal, &browser.ticket).await);
    });
}

#[test]
fn a_token_that_ends_while_it_is_looked_at_gives_no_ticket() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let token = make(&world, ALICE, "ci", &[Scope::Apps]).await;
        world.spawner.slow.set(std::time::Duration::from_secs(2));
        let question = Question::Token { token: token.clone(), from: home() };
        let id = portal.send(question, None).await;
        sleep(std::time::Duration::from_millis(500)).await;
        assert_eq!(revoke(&world, ALICE, None, "ci").await, ENDED);
        assert_eq!(portal.answer_to(id).await, Some(Answer::BadToken(BadToken::Unknown)));
    });
}

#[test]
fn a_token_that_can_not_be_kept_is_not_made() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let token = make(&world, ALICE, "ci", &[Scope::Apps]).await;
        let file = world.dir.path().join("tokens.json");
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir_all(file.join("in the way")).unwrap();
        assert!(is_refused(&try_make(&world, ALICE, "new", &[Scope::Apps]).await));
        assert_eq!(list(&world, ALICE, None).await.len(), 1);
        // The end of one is in force, and it is said that it is not kept.
        assert!(is_refused(&revoke(&world, ALICE, None, "ci").await));
        assert_eq!(show(&portal, &token).await, Answer::BadToken(BadToken::Unknown));
        std::fs::remove_dir_all(&file).unwrap();
        sleep(std::time::Duration::from_secs(61)).await;
        world.restart().await;
        let portal = world.portal().await;
        assert_eq!(show(&portal, &token).await, Answer::BadToken(BadToken::Unknown));
    });
}

#[test]
fn a_token_outlives_the_keys_of_its_tickets() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let request = ControlRequest::MakeToken {
            name: called("ci"),
            scopes: scopes(&[Scope::Apps]),
            lifetime: MAX_TOKEN_LIFETIME,
        };
        let ControlReply::Token { token, .. } = world.control_as(ALICE, request).await else { panic!() };
        let old = signed_in(show(&portal, &token).await);
        for _ in 0..3 {
            set_clock(now() + 31 * DAY);
            sleep(std::time::Duration::from_secs(61)).await;
            signed_in(show(&portal, &token).await);
        }
        // The ticket lasts as long as the token does, and so does its key.
        signed_in(renew(&portal, &old.ticket).await);
        portal.until(|heard| heard.keys.len() == 4).await;
    });
}

#[test]
fn what_a_token_opened_ends_with_its_account() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let token = make(&world, ALICE, "ci", &[Scope::Apps]).await;
        for why in [PamRefusal::PasswordExpired, PamRefusal::Account] {
            let opened = signed_in(show(&portal, &token).await);
            // What a portal asks from time to time.
            signed_in(renew(&portal, &opened.ticket).await);
            world.spawner.closed.borrow_mut().insert("alice".to_owned(), why);
            sleep(limits::CHECKED + std::time::Duration::from_secs(1)).await;
            assert_eq!(renew(&portal, &opened.ticket).await, Answer::NoTicket, "{why:?}");
            world.spawner.closed.borrow_mut().clear();
        }
        signed_in(show(&portal, &token).await);
    });
}
