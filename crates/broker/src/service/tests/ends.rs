//! How sessions end, and who hears of it.

use std::time::Duration;

use portreeve_model::wire::broker::{Answer, Question, UserEnded};
use portreeve_model::wire::pam::PamRefusal;
use portreeve_model::wire::{ControlReply, ControlRequest};
use portreeve_model::{Claims, Secret};
use tokio::time::sleep;

use super::world::*;
use crate::Verifier;
use crate::service::limits;

const DAY: i64 = 24 * 3600;

async fn renew(portal: &Portal, ticket: &Secret) -> Answer {
    portal.ask(Question::Renew { ticket: ticket.clone() }).await
}

async fn sign_out(portal: &Portal, ticket: &Secret, everywhere: bool) {
    let question = Question::SignOut { ticket: ticket.clone(), everywhere };
    assert_eq!(portal.ask(question).await, Answer::Done);
}

async fn groups(portal: &Portal, ticket: &Secret) -> Answer {
    portal.ask(Question::Groups { ticket: ticket.clone() }).await
}

#[test]
fn a_younger_ticket_ends_when_the_first_one_does() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let first = portal.sign_in("alice").await;
        set_clock(now() + 3600);
        let second = signed_in(renew(&portal, &first.ticket).await);
        assert_eq!(second.claims, Claims { iat: now(), ..first.claims.clone() });
        assert_eq!(second.groups, first.groups);
        set_clock(first.claims.exp - 1);
        let last = signed_in(renew(&portal, &second.ticket).await);
        assert_eq!(last.claims.exp, first.claims.exp);
        set_clock(first.claims.exp);
        for ticket in [&first.ticket, &last.ticket] {
            assert_eq!(renew(&portal, ticket).await, Answer::NoTicket);
        }
    });
}

#[test]
fn what_is_no_ticket_is_good_for_nothing() {
    run(async || {
        let mut world = World::new();
        let mut others = World::new();
        let portal = world.portal().await;
        let theirs = others.portal().await.sign_in("alice").await.ticket;
        let mark = portal.sign_in("alice").await.mark.unwrap();
        for ticket in [theirs, mark, secret(""), secret("a.b.c"), secret(&"A".repeat(9999))] {
            let host = "a.example.org".to_owned();
            for question in [
                Question::Renew { ticket: ticket.clone() },
                Question::Groups { ticket: ticket.clone() },
                Question::Entry { ticket: ticket.clone(), host, browser: "A".repeat(43) },
                Question::Forward {
                    ticket: ticket.clone(),
                    name: portreeve_model::ForwardName::parse("x").unwrap(),
                },
            ] {
                assert_eq!(portal.ask(question).await, Answer::NoTicket);
            }
        }
    });
}

#[test]
fn a_sign_out_is_in_force_everywhere_at_once_and_after_a_restart() {
    run(async || {
        let mut world = World::new();
        let (one, other) = (world.portal().await, world.portal().await);
        let (ended, lives) = (one.sign_in("alice").await, one.sign_in("alice").await);
        let before = other.heard.borrow().times;
        sign_out(&one, &ended.ticket, false).await;
        for portal in [&one, &other] {
            portal.until(|heard| heard.sessions.contains(&ended.claims.sid)).await;
            assert!(!portal.heard.borrow().sessions.contains(&lives.claims.sid));
            assert_eq!(renew(portal, &ended.ticket).await, Answer::NoTicket);
        }
        assert!(other.heard.borrow().times > before);
        // Twice is no error.
        sign_out(&one, &ended.ticket, false).await;
        world.restart().await;
        let portal = world.portal().await;
        portal.until(|heard| heard.times > 0).await;
        assert_eq!(portal.heard.borrow().sessions, std::slice::from_ref(&ended.claims.sid));
        assert_eq!(portal.heard.borrow().first, Some("keys"));
        assert_eq!(renew(&portal, &ended.ticket).await, Answer::NoTicket);
        signed_in(renew(&portal, &lives.ticket).await);
    });
}

#[test]
fn the_news_comes_every_second() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        portal.until(|heard| heard.times == 1).await;
        let before = portal.heard.borrow().times;
        sleep(Duration::from_secs(60)).await;
        let times = portal.heard.borrow().times - before;
        assert!((58..=62).contains(&times), "{times}");
    });
}

#[test]
fn everywhere_means_also_what_the_broker_has_not_seen_since_its_restart() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let (seen, unseen) = (portal.sign_in("alice").await, portal.sign_in("alice").await);
        let bob = portal.sign_in("bob").await;
        world.restart().await;
        let portal = world.portal().await;
        signed_in(renew(&portal, &seen.ticket).await);
        sign_out(&portal, &seen.ticket, true).await;
        let until = now();
        portal.until(|heard| heard.users == [UserEnded { uid: 20001, until }]).await;
        // Begun in the same second, but afterwards.
        let new = portal.sign_in("alice").await;
        world.restart().await;
        let portal = world.portal().await;
        portal.until(|heard| heard.users == [UserEnded { uid: 20001, until }]).await;
        for over in [&seen, &unseen] {
            assert_eq!(renew(&portal, &over.ticket).await, Answer::NoTicket);
        }
        for live in [&new, &bob] {
            signed_in(renew(&portal, &live.ticket).await);
        }
        assert!(new.claims.auth_time > until);
    });
}

#[test]
fn root_revokes_a_user_whose_sessions_were_never_seen() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: root_revokes_a_user_whose_sessions_were_never_seen: needs root");
        return;
    }
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let (alice, bob) = (portal.sign_in("alice").await, portal.sign_in("bob").await);
        world.restart().await;
        let revoke = |user: &str| ControlRequest::Revoke { user: name(user) };
        assert_eq!(world.control(revoke("alice")).await, ControlReply::Ended { known: 0, tokens: 0 });
        let portal = world.portal().await;
        assert_eq!(renew(&portal, &alice.ticket).await, Answer::NoTicket);
        signed_in(renew(&portal, &bob.ticket).await);
        assert_eq!(world.control(revoke("bob")).await, ControlReply::Ended { known: 1, tokens: 0 });
        assert_eq!(renew(&portal, &bob.ticket).await, Answer::NoTicket);
        assert!(matches!(world.control(revoke("stranger")).await, ControlReply::Refused { .. }));
        // One whose account is gone, but not the sessions.
        let mut gone = world.spawner.users.borrow()["push"].clone();
        (gone.name, gone.uid) = (name("otp2"), 20010);
        world.spawner.users.borrow_mut().insert("otp2".to_owned(), gone);
        let left = portal.sign_in("otp2").await;
        world.spawner.users.borrow_mut().remove("otp2");
        assert_eq!(world.control(revoke("otp2")).await, ControlReply::Ended { known: 1, tokens: 0 });
        assert_eq!(renew(&portal, &left.ticket).await, Answer::NoTicket);
    });
}

#[test]
fn an_account_that_pam_closes_loses_its_sessions_within_minutes() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let (one, other) = (portal.sign_in("alice").await, portal.sign_in("alice").await);
        world.spawner.closed.borrow_mut().insert("alice".to_owned(), PamRefusal::Account);
        // What was granted just now is good for five minutes.
        signed_in(renew(&portal, &one.ticket).await);
        sleep(limits::CHECKED).await;
        assert_eq!(renew(&portal, &one.ticket).await, Answer::NoTicket);
        portal.until(|heard| heard.users.iter().any(|ended| ended.uid == 20001)).await;
        assert_eq!(groups(&portal, &other.ticket).await, Answer::NoTicket);
    });
}

#[test]
fn a_pam_that_does_not_work_ends_nobodys_session() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let session = portal.sign_in("alice").await;
        sleep(limits::CHECKED).await;
        world.spawner.closed.borrow_mut().insert("alice".to_owned(), PamRefusal::System);
        assert!(matches!(renew(&portal, &session.ticket).await, Answer::Failed { .. }));
        world.spawner.closed.borrow_mut().insert("alice".to_owned(), PamRefusal::PasswordExpired);
        signed_in(renew(&portal, &session.ticket).await);
    });
}

#[test]
fn groups_are_todays() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let session = portal.sign_in("alice").await;
        assert_eq!(groups(&portal, &session.ticket).await, Answer::Groups(vec![20001, 20100]));
        world.spawner.users.borrow_mut().get_mut("alice").unwrap().groups = vec![20300, 20001];
        let asked = world.spawner.orders.borrow().len();
        groups(&portal, &session.ticket).await;
        assert_eq!(world.spawner.orders.borrow().len(), asked, "remembered for a moment");
        sleep(limits::GROUPS).await;
        assert_eq!(groups(&portal, &session.ticket).await, Answer::Groups(vec![20001, 20300]));
    });
}

#[test]
fn a_session_that_ends_while_its_question_is_answered_gets_no_answer() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let name = portreeve_model::ForwardName::parse("tb").unwrap();
        for forward in [false, true] {
            let ticket = portal.sign_in("alice").await.ticket;
            if !forward {
                sleep(limits::GROUPS).await;
            }
            world.spawner.slow.set(Duration::from_secs(2));
            let question = match forward {
                true => Question::Forward { ticket: ticket.clone(), name: name.clone() },
                false => Question::Groups { ticket: ticket.clone() },
            };
            let id = portal.send(question, None).await;
            sign_out(&portal, &ticket, false).await;
            assert_eq!(portal.answer_to(id).await, Some(Answer::NoTicket), "{forward}");
            world.spawner.slow.set(Duration::ZERO);
        }
    });
}

#[test]
fn an_account_that_is_gone_loses_its_sessions_and_one_that_is_back_does_not() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let (alice, bob) = (portal.sign_in("alice").await, portal.sign_in("bob").await);
        sleep(limits::GROUPS).await;
        let bobs = world.spawner.users.borrow_mut().remove("bob").unwrap();
        world.spawner.users.borrow_mut().get_mut("alice").unwrap().uid = 20077;
        // Nothing is done for either from the first moment on.
        for session in [&alice, &bob] {
            assert!(matches!(groups(&portal, &session.ticket).await, Answer::Failed { .. }));
        }
        world.spawner.users.borrow_mut().insert("bob".to_owned(), bobs);
        sleep(limits::GONE + Duration::from_secs(1)).await;
        assert_eq!(groups(&portal, &alice.ticket).await, Answer::NoTicket);
        assert!(matches!(groups(&portal, &bob.ticket).await, Answer::Groups(_)));
        portal.until(|heard| heard.users.iter().any(|ended| ended.uid == 20001)).await;
        // A database that does not work proves nothing.
        sleep(limits::GROUPS).await;
        world.spawner.broken.set(true);
        assert!(matches!(groups(&portal, &bob.ticket).await, Answer::Failed { .. }));
        sleep(limits::GONE * 3).await;
        world.spawner.broken.set(false);
        assert!(matches!(groups(&portal, &bob.ticket).await, Answer::Groups(_)));
    });
}

#[test]
fn a_key_that_is_due_is_followed_by_another_and_its_tickets_live_on() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let old = portal.sign_in("alice").await;
        portal.until(|heard| !heard.keys.is_empty()).await;
        let first = portal.heard.borrow().keys.clone();
        set_clock(now() + 30 * DAY);
        // The period has passed in the broker's eyes only for the key: a session that began just now lives.
        set_clock(now() - 30 * DAY + 3600);
        assert_eq!(portal.heard.borrow().keys, first);
        let (mut clock, mut young) = (now(), old.clone());
        while portal.heard.borrow().keys.len() < 2 {
            clock += DAY / 2;
            set_clock(clock);
            young = portal.sign_in("alice").await;
            sleep(Duration::from_secs(61)).await;
        }
        let keys = portal.heard.borrow().keys.clone();
        assert_eq!(keys[1], first[0]);
        assert!(clock >= 1_000_000_000 + 30 * DAY);
        let new = portal.sign_in("alice").await;
        let only_old = Verifier::of_keys(&first).unwrap();
        assert!(only_old.verify(young.ticket.reveal(), "portal", now()).is_some());
        assert!(only_old.verify(new.ticket.reveal(), "portal", now()).is_none());
        for session in [&young, &new] {
            signed_in(renew(&portal, &session.ticket).await);
        }
        // When the last ticket of the old key has ended, so has the key.
        set_clock(now() + 3 * DAY);
        sleep(Duration::from_secs(61)).await;
        portal.until(|heard| heard.keys == keys[..1]).await;
    });
}

#[test]
fn a_clock_that_was_far_ahead_leaves_no_session_of_that_time() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let before = portal.sign_in("alice").await;
        set_clock(now() + 1000 * DAY);
        let ahead = portal.sign_in("alice").await;
        set_clock(now() - 1000 * DAY);
        sleep(Duration::from_secs(61)).await;
        portal.until(|heard| heard.sessions.contains(&ahead.claims.sid)).await;
        set_clock(ahead.claims.auth_time);
        assert_eq!(renew(&portal, &ahead.ticket).await, Answer::NoTicket);
        set_clock(before.claims.auth_time);
        assert_eq!(renew(&portal, &before.ticket).await, Answer::NoTicket);
        signed_in(renew(&portal, &portal.sign_in("alice").await.ticket).await);
    });
}

#[test]
fn what_ended_before_the_clock_went_back_stays_over() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let session = portal.sign_in("alice").await;
        sign_out(&portal, &session.ticket, true).await;
        set_clock(now() - 3600);
        let new = portal.sign_in("alice").await;
        signed_in(renew(&portal, &new.ticket).await);
        assert_eq!(renew(&portal, &session.ticket).await, Answer::NoTicket);
        // And everywhere ends those that began in the future as well.
        sign_out(&portal, &new.ticket, true).await;
        assert_eq!(renew(&portal, &new.ticket).await, Answer::NoTicket);
        set_clock(now() + 3600);
        for over in [&session, &new] {
            assert_eq!(renew(&portal, &over.ticket).await, Answer::NoTicket);
        }
    });
}

#[test]
fn a_sign_out_that_can_not_be_written_down_is_in_force_and_says_so() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let session = portal.sign_in("alice").await;
        let list = world.dir.path().join("ended-sessions.json");
        std::fs::create_dir_all(list.join("in the way")).unwrap();
        let question = Question::SignOut { ticket: session.ticket.clone(), everywhere: false };
        assert!(matches!(portal.ask(question).await, Answer::Failed { .. }));
        assert_eq!(renew(&portal, &session.ticket).await, Answer::NoTicket);
        portal.until(|heard| heard.sessions.contains(&session.claims.sid)).await;
        // As soon as there is room it is written, without anybody doing anything, and stays over.
        std::fs::remove_dir_all(&list).unwrap();
        until(|| list.exists()).await;
        world.restart().await;
        let portal = world.portal().await;
        assert_eq!(renew(&portal, &session.ticket).await, Answer::NoTicket);
    });
}

#[test]
fn a_reload_changes_what_comes_and_not_what_was_handed_out() {
    run(async || {
        let mut world = World::with(|settings| {
            settings.reload = Some(std::rc::Rc::new(|| {
                let mut policy = crate::service::Policy::new("https://other.example.org".to_owned());
                policy.lifetimes.session = 60;
                Some(policy)
            }));
        });
        let portal = world.portal().await;
        let before = portal.sign_in("alice").await;
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).unwrap();
        let where_is = async || world.control(ControlRequest::Where).await;
        let moved = |reply: &ControlReply| matches!(reply, ControlReply::Portal { url, .. } if url == "https://other.example.org/");
        while !moved(&where_is().await) {
            sleep(Duration::from_millis(10)).await;
        }
        let after = portal.sign_in("alice").await;
        assert_eq!((before.claims.exp, after.claims.exp), (now() + DAY, now() + 60));
        signed_in(renew(&portal, &before.ticket).await);
    });
}

#[test]
fn all_end_also_those_whose_beginning_lies_ahead_of_the_clock_unseen() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let mut over = vec![portal.sign_in("alice").await];
        for _ in 0..3 {
            let revoke = ControlRequest::Revoke { user: name("alice") };
            assert!(matches!(world.control_as(0, revoke).await, ControlReply::Ended { .. }));
            let portal = world.portal().await;
            for session in &over {
                assert_eq!(renew(&portal, &session.ticket).await, Answer::NoTicket);
            }
            // In the very same second.
            let new = portal.sign_in("alice").await;
            assert!(new.claims.auth_time > now());
            over.push(new);
            // Nobody has seen it since.
            world.restart().await;
        }
    });
}
