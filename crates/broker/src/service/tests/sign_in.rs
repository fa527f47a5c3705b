//! Conversations with PAM, and how wrong tries are slowed.

use std::time::Duration;

use portreeve_model::wire::broker::{Answer, Question};
use portreeve_model::wire::pam::{MAX_TEXT, PamRefusal};
use portreeve_model::wire::spawner::Start;
use portreeve_model::{Audience, SignIn};
use tokio::time::sleep;

use super::world::*;
use crate::Verifier;
use crate::service::limits;

fn is_refused(answer: &Answer, because: PamRefusal) -> bool {
    matches!(answer, Answer::Refused { why, .. } if *why == because)
}

fn conversation(answer: Answer) -> portreeve_model::Secret {
    match answer {
        Answer::Prompts { conversation, .. } => conversation,
        other => panic!("{other:?}"),
    }
}

fn waits(answer: &Answer) -> Option<u32> {
    match answer {
        Answer::Wait { seconds } => Some(*seconds),
        _ => None,
    }
}

#[test]
fn whoever_pam_grants_gets_a_ticket_that_says_who_they_are() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let signed = portal.sign_in("alice").await;
        let claims = &signed.claims;
        assert_eq!((claims.sub.as_str(), claims.uid, claims.how), ("alice", 20001, SignIn::Pam));
        assert_eq!((claims.iat, claims.auth_time, claims.exp), (now(), now(), now() + 24 * 3600));
        assert_eq!((&claims.aud, signed.groups), (&Audience::Portal, vec![20001, 20100]));
        portal.until(|heard| !heard.keys.is_empty()).await;
        let verifier = Verifier::of_keys(&portal.heard.borrow().keys).unwrap();
        assert_eq!(verifier.verify(signed.ticket.reveal(), "portal", now()).as_ref(), Some(claims));
        assert_ne!(portal.sign_in("alice").await.claims.sid, claims.sid);
    });
}

#[test]
fn every_prompt_is_asked_and_all_answers_count() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let Answer::Prompts { conversation, prompts } = portal.begin("otp", None).await else { panic!() };
        assert_eq!(prompts.len(), 3);
        assert!(is_refused(&portal.reply(&conversation, &[RIGHT, "wrong"]).await, PamRefusal::Credentials));
        let again = conversation_of(&portal, "otp").await;
        assert_eq!(signed_in(portal.reply(&again, &[RIGHT, RIGHT]).await).claims.uid, 20004);
        // A sign-in that needs nothing typed.
        assert_eq!(signed_in(portal.begin("push", None).await).claims.uid, 20003);
    });
}

async fn conversation_of(portal: &Portal, user: &str) -> portreeve_model::Secret {
    conversation(portal.begin(user, None).await)
}

#[test]
fn answers_that_do_not_fit_end_the_conversation_and_count() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let long = "x".repeat(MAX_TEXT + 1);
        for answers in [&[][..], &["a", "b"], &["nul\0"], &[long.as_str()]] {
            let conversation = conversation_of(&portal, "alice").await;
            assert!(is_refused(&portal.reply(&conversation, answers).await, PamRefusal::Credentials));
            assert!(matches!(portal.reply(&conversation, &[RIGHT]).await, Answer::Failed { .. }));
            sleep(Duration::from_secs(60)).await;
        }
        assert!(is_refused(&portal.begin("silly", None).await, PamRefusal::System));
    });
}

#[test]
fn who_is_not_served_is_refused_as_with_a_wrong_password() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        for user in ["root", "daemon", "nobody", "stranger"] {
            let began = tokio::time::Instant::now();
            let answer = portal.try_password(user, RIGHT, None).await;
            assert!(is_refused(&answer, PamRefusal::Credentials), "{user}: {answer:?}");
            let Answer::Refused { said, .. } = answer else { panic!() };
            assert!(said.is_empty(), "what PAM told root would tell that the password was right");
            assert!(began.elapsed() >= limits::NOT_SERVED);
            assert!(is_refused(&portal.try_password(user, "wrong", None).await, PamRefusal::Credentials));
        }
    });
}

#[test]
fn the_user_databases_own_name_counts_and_must_be_sure() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        assert_eq!(portal.sign_in("ALICE").await.claims.sub.as_str(), "alice");
        // The name leads to somebody whose own name leads elsewhere.
        let mut other = world.spawner.users.borrow()["bob"].clone();
        other.name = name("alice");
        world.spawner.users.borrow_mut().insert("Bob".to_owned(), other);
        assert!(is_refused(&portal.try_password("Bob", RIGHT, None).await, PamRefusal::System));
        world.spawner.broken.set(true);
        assert!(is_refused(&portal.try_password("bob", RIGHT, None).await, PamRefusal::System));
    });
}

#[test]
fn a_name_is_slowed_from_anywhere_but_not_in_a_known_browser() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let mark = portal.sign_in("alice").await.mark;
        assert!(mark.is_some());
        for _ in 0..3 {
            assert!(is_refused(&portal.try_password("alice", "guess", None).await, PamRefusal::Credentials));
        }
        // Also with the right password, and PAM is not even asked.
        let asked = world.spawner.count(|order| matches!(order, Start::Conversation { .. }));
        assert_eq!(waits(&portal.try_password("alice", RIGHT, None).await), Some(1));
        let elsewhere = "203.0.113.9".parse().unwrap();
        let question = Question::Begin { user: name("alice"), from: elsewhere, mark: None };
        assert_eq!(waits(&portal.ask(question).await), Some(1));
        let forged = Some(secret("e30.e30.AAAA"));
        assert_eq!(waits(&portal.try_password("alice", RIGHT, forged).await), Some(1));
        assert_eq!(world.spawner.count(|order| matches!(order, Start::Conversation { .. })), asked);
        // The mark is alice's, and shown for alice.
        signed_in(portal.try_password("alice", RIGHT, mark.clone()).await);
        for _ in 0..3 {
            portal.try_password("bob", "guess", None).await;
        }
        assert!(waits(&portal.try_password("bob", RIGHT, mark.clone()).await).is_some());
        // However long strangers go on.
        for _ in 0..40 {
            if let Some(seconds) = waits(&portal.try_password("alice", "guess", None).await) {
                sleep(Duration::from_secs(seconds.into())).await;
            }
        }
        assert!(waits(&portal.try_password("alice", RIGHT, None).await) > Some(30));
        signed_in(portal.try_password("alice", RIGHT, mark).await);
    });
}

#[test]
fn a_mark_survives_a_restart() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let mark = portal.sign_in("alice").await.mark;
        world.restart().await;
        let portal = world.portal().await;
        for _ in 0..3 {
            portal.try_password("alice", "guess", None).await;
        }
        assert!(waits(&portal.try_password("alice", RIGHT, None).await).is_some());
        signed_in(portal.try_password("alice", RIGHT, mark).await);
    });
}

#[test]
fn many_guesses_at_once_are_no_way_around() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let mut begun = Vec::new();
        for _ in 0..10 {
            let question = Question::Begin { user: name("alice"), from: home(), mark: None };
            begun.push(portal.send(question, None).await);
        }
        let mut conversations = Vec::new();
        for id in begun {
            match portal.answer_to(id).await.unwrap() {
                Answer::Prompts { conversation, .. } => conversations.push(conversation),
                answer => assert!(waits(&answer).is_some(), "{answer:?}"),
            }
        }
        assert_eq!(conversations.len(), 3);
    });
}

#[test]
fn a_conversation_lives_three_minutes_and_what_was_not_answered_is_no_guess() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let idle = conversation_of(&portal, "alice").await;
        // One that always asks again is not given more time by answers.
        let mut endless = conversation_of(&portal, "endless").await;
        for _ in 0..17 {
            sleep(Duration::from_secs(10)).await;
            endless = conversation(portal.reply(&endless, &["more"]).await);
        }
        until(|| world.spawner.alive.borrow().len() == 2).await;
        sleep(Duration::from_secs(12)).await;
        assert!(world.spawner.alive.borrow().is_empty(), "both children ended");
        for over in [idle, endless] {
            assert!(matches!(portal.reply(&over, &[RIGHT]).await, Answer::Failed { .. }));
        }
        for _ in 0..5 {
            conversation_of(&portal, "alice").await;
            sleep(limits::CONVERSATION + Duration::from_secs(1)).await;
        }
        portal.sign_in("alice").await;
        // One that PAM never says anything in.
        assert!(is_refused(&portal.begin("mute", None).await, PamRefusal::System));
    });
}

#[test]
fn a_conversation_belongs_to_its_portal_and_ends_with_it() {
    run(async || {
        let mut world = World::new();
        let one = world.portal().await;
        let conversation = conversation_of(&one, "alice").await;
        let other = world.portal().await;
        assert!(matches!(other.reply(&conversation, &[RIGHT]).await, Answer::Failed { .. }));
        let last = conversation_of(&one, "bob").await;
        assert_eq!(world.spawner.alive.borrow().len(), 2);
        signed_in(one.reply(&conversation, &[RIGHT]).await);
        drop(one);
        until(|| world.spawner.alive.borrow().is_empty()).await;
        assert!(matches!(other.reply(&last, &[RIGHT]).await, Answer::Failed { .. }));
        other.sign_in("bob").await;
    });
}

#[test]
fn an_answer_is_taken_once() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let conversation = conversation_of(&portal, "alice").await;
        let reply = || Question::Reply { conversation: conversation.clone(), answers: vec![secret(RIGHT)] };
        let (first, second) = (portal.send(reply(), None).await, portal.send(reply(), None).await);
        signed_in(portal.answer_to(first).await.unwrap());
        assert!(matches!(portal.answer_to(second).await.unwrap(), Answer::Failed { .. }));
    });
}

/// Begins a conversation from elsewhere.
async fn begin_from(portal: &Portal, user: &str, from: &str) -> Answer {
    portal.ask(Question::Begin { user: name(user), from: from.parse().unwrap(), mark: None }).await
}

#[test]
fn strangers_who_hold_all_places_keep_nobody_out() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let mark = portal.sign_in("alice").await.mark;
        let mut theirs = Vec::new();
        for n in 0..limits::CONVERSATIONS {
            theirs
                .push(conversation(begin_from(&portal, &format!("u{n}"), &format!("198.51.100.{n}")).await));
        }
        assert_eq!(world.spawner.alive.borrow().len(), limits::CONVERSATIONS);
        // Neither a browser that is known, nor a new one.
        signed_in(portal.try_password("alice", RIGHT, mark).await);
        let new = conversation_of(&portal, "bob").await;
        until(|| world.spawner.alive.borrow().len() == limits::CONVERSATIONS).await;
        let over = portal.reply(&theirs[0], &[RIGHT]).await;
        assert_eq!(over, Answer::Failed { why: "this sign-in is over: begin again".to_owned() });
        // Who holds one place keeps it, however many others come.
        for n in 0..limits::CONVERSATIONS {
            begin_from(&portal, &format!("v{n}"), &format!("203.0.113.{}", n % 8)).await;
        }
        signed_in(portal.reply(&new, &[RIGHT]).await);
        assert!(world.spawner.alive.borrow().len() <= limits::CONVERSATIONS);
    });
}

#[test]
fn one_network_has_few_places_and_so_has_a_name() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        for n in 0..limits::CONVERSATIONS_OF_A_NETWORK + 3 {
            conversation(begin_from(&portal, &format!("u{n}"), &format!("2001:db8::{n:x}")).await);
        }
        until(|| world.spawner.alive.borrow().len() == limits::CONVERSATIONS_OF_A_NETWORK).await;
        let before = world.spawner.alive.borrow().len();
        for n in 0..limits::CONVERSATIONS_OF_A_NAME + 2 {
            begin_from(&portal, "bob", &format!("192.0.2.{n}")).await;
            sleep(Duration::from_secs(8)).await;
        }
        until(|| world.spawner.alive.borrow().len() == before + limits::CONVERSATIONS_OF_A_NAME).await;
    });
}

#[test]
fn known_browsers_hold_few_places_of_a_name_too() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let mut marks = Vec::new();
        for _ in 0..limits::CONVERSATIONS_OF_A_NAME {
            marks.push(portal.sign_in("alice").await.mark);
        }
        let first = conversation(portal.begin("alice", marks[0].clone()).await);
        let strangers = conversation_of(&portal, "alice").await;
        for mark in &marks {
            conversation(portal.begin("alice", mark.clone()).await);
        }
        assert!(matches!(portal.reply(&first, &[RIGHT]).await, Answer::Failed { .. }));
        signed_in(portal.reply(&strangers, &[RIGHT]).await);
        until(|| world.spawner.alive.borrow().len() == limits::CONVERSATIONS_OF_A_NAME).await;
    });
}

#[test]
fn what_makes_room_counts_as_a_try_and_so_does_what_pam_is_silent_about() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        // PAM sends a message to a telephone, say: a place all the same, and it makes room.
        let question = Question::Begin { user: name("mute"), from: "192.0.2.7".parse().unwrap(), mark: None };
        let silent = portal.send(question, None).await;
        until(|| world.spawner.alive.borrow().len() == 1).await;
        for n in 0..limits::CONVERSATIONS_OF_A_NETWORK {
            conversation(begin_from(&portal, &format!("u{n}"), "192.0.2.7").await);
        }
        let over = portal.answer_to(silent).await.unwrap();
        assert_eq!(over, Answer::Failed { why: "this sign-in is over: begin again".to_owned() });
        // Whoever goes on so is slowed for all names.
        let mut places = 0;
        while waits(&begin_from(&portal, &format!("v{places}"), "192.0.2.7").await).is_none() {
            places += 1;
        }
        assert_eq!(places, 19);
        portal.sign_in("alice").await;
    });
}

#[test]
fn a_spawner_that_refuses_is_a_failure_of_the_system() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        world.spawner.refuses.set(true);
        for _ in 0..5 {
            assert!(is_refused(&portal.begin("alice", None).await, PamRefusal::System));
        }
        world.spawner.refuses.set(false);
        portal.sign_in("alice").await;
    });
}
