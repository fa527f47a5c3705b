//! Connections: who reaches whom, and what ends a connection.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::SockType;
use portreeve_model::wire::broker::{AT_ONCE, Answer, Question};
use portreeve_model::wire::{ControlRequest, MAX_FRAME};
use tokio::time::{sleep, timeout};

use super::world::*;
use crate::service::channel::{Buffer, ChannelError};
use crate::service::limits;

#[test]
fn a_frame_that_can_not_be_understood_ends_its_connection_and_no_other() {
    run(async || {
        let mut world = World::new();
        let good = world.portal().await;
        let session = good.sign_in("alice").await;
        let too_long = [vec![b' '; MAX_FRAME], b"{}".to_vec()].concat();
        for bytes in [
            &b"nonsense"[..],
            b"{}",
            br#"{"id":1,"question":"shutdown"}"#,
            br#"{"id":1,"question":{"groups":{"ticket":"x","uid":0}}}"#,
            br#"{"id":1,"question":{"groups":{"ticket":"x"}}} "x""#,
            br#"{"id":-1,"question":{"groups":{"ticket":"x"}}}"#,
            &too_long,
        ] {
            let bad = world.portal().await;
            bad.send_bytes(bytes).await;
            assert!(bad.ends_soon().await, "{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(80)]));
        }
        assert!(matches!(good.ask(Question::Groups { ticket: session.ticket }).await, Answer::Groups(_)));
        assert!(world.runs());
    });
}

#[test]
fn a_descriptor_comes_where_it_belongs_and_alone() {
    run(async || {
        let mut world = World::new();
        let good = world.portal().await;
        let ticket = good.sign_in("alice").await.ticket;
        let (one, _two) = pair(SockType::SeqPacket);
        let bad = world.portal().await;
        bad.send(Question::Groups { ticket: ticket.clone() }, Some(one)).await;
        assert!(bad.ends_soon().await);
        let bad = world.portal().await;
        bad.send(Question::Dialer { ticket: ticket.clone() }, None).await;
        assert!(bad.ends_soon().await);
        // Several in one message: none of them stays open.
        for copies in [2, 20, 200] {
            let socket = world.accept().await;
            let (reader, writer) = nix::unistd::pipe().unwrap();
            let ask = portreeve_model::wire::broker::Ask {
                id: 1,
                question: Question::Dialer { ticket: ticket.clone() },
            };
            let frame = portreeve_model::wire::encode_bare(&ask).unwrap();
            let mut control = vec![0; 2048];
            let mut control = tokio_seqpacket::ancillary::AncillaryMessageWriter::new(&mut control);
            control.add_fds(std::iter::repeat_n(reader.as_fd(), copies)).unwrap();
            socket.send_with_ancillary(&frame, &mut control).await.unwrap();
            drop(reader);
            assert!(Portal::new(socket).ends_soon().await, "{copies}");
            until(|| nix::unistd::write(&writer, b"x").is_err()).await;
        }
        assert!(matches!(good.ask(Question::Groups { ticket }).await, Answer::Groups(_)));
    });
}

#[test]
fn one_connection_always_waits_for_the_next_portal() {
    run(async || {
        let mut world = World::new();
        let old = world.portal().await;
        let session = old.sign_in("alice").await;
        // Taken without a word: noticed by the news that are read.
        let new = world.portal().await;
        new.until(|heard| heard.times > 1).await;
        let third = world.portal().await;
        for portal in [&old, &new, &third] {
            let answer = portal.ask(Question::Groups { ticket: session.ticket.clone() }).await;
            assert!(matches!(answer, Answer::Groups(_)));
        }
        drop(old);
        assert!(matches!(new.ask(Question::Renew { ticket: session.ticket }).await, Answer::SignedIn { .. }));
    });
}

#[test]
fn the_first_answer_on_a_connection_that_waited_may_be_long() {
    run(async || {
        let mut world = World::new();
        let many: Vec<u32> = (100_000..106_000).collect();
        world.spawner.users.borrow_mut().get_mut("alice").unwrap().groups = many;
        let portal = world.portal().await;
        let session = portal.sign_in("alice").await;
        assert_eq!(session.groups.len(), 6001);
        for _ in 0..limits::PORTALS - 2 {
            sleep(Duration::from_secs(20)).await;
            let next = world.portal().await;
            let asked = next.send(Question::Groups { ticket: session.ticket.clone() }, None).await;
            let answer = timeout(Duration::from_secs(5), next.answer_to(asked)).await;
            assert!(matches!(answer, Ok(Some(Answer::Groups(groups))) if groups.len() == 6001));
        }
    });
}

#[test]
fn what_waited_for_hours_brings_everything_that_ended_meanwhile() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let mut ended = Vec::new();
        for _ in 0..200 {
            let session = portal.sign_in("alice").await;
            let out = Question::SignOut { ticket: session.ticket, everywhere: false };
            assert_eq!(portal.ask(out).await, Answer::Done);
            ended.push(session.claims.sid);
            sleep(Duration::from_secs(60)).await;
        }
        let late = world.portal().await;
        // What is needed before anything is answered comes without waiting for the next second.
        let all = timeout(
            Duration::from_millis(900),
            late.until(|heard| ended.iter().all(|id| heard.sessions.contains(id))),
        );
        assert!(all.await.is_ok());
        assert_eq!(late.heard.borrow().first, Some("keys"));
    });
}

/// What a portal believes of a connection that waited, it believes when this answer has come.
#[test]
fn before_the_first_answer_comes_all_that_was_news() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let mut ended = Vec::new();
        for round in 0..3 {
            for _ in 0..100 {
                let session = portal.sign_in("alice").await;
                let out = Question::SignOut { ticket: session.ticket, everywhere: false };
                assert_eq!(portal.ask(out).await, Answer::Done);
                ended.push(session.claims.sid);
                sleep(Duration::from_secs(round)).await;
            }
            let late = world.portal().await;
            assert_eq!(late.ask(Question::Groups { ticket: secret("") }).await, Answer::NoTicket);
            let heard = late.heard.borrow();
            let all = |id: &&portreeve_model::SessionId| {
                heard.sessions.contains(id) || heard.users.iter().any(|all| all.uid == 20001)
            };
            assert_eq!(ended.iter().filter(all).count(), ended.len());
        }
    });
}

#[test]
fn whoever_takes_every_connection_gets_a_few() {
    run(async || {
        let mut world = World::new();
        let mut taken = Vec::new();
        while taken.len() < limits::PORTALS {
            taken.push(world.portal().await);
        }
        assert!(world.nobody_waits().await);
        taken[0].sign_in("alice").await;
        drop(taken.pop());
        world.portal().await.sign_in("bob").await;
    });
}

#[test]
fn a_portal_that_ends_at_once_is_reached_ever_more_slowly() {
    run(async || {
        let mut world = World::new();
        let began = tokio::time::Instant::now();
        for _ in 0..10 {
            drop(world.accept().await);
        }
        assert!(began.elapsed() > Duration::from_secs(10), "{:?}", began.elapsed());
        // And the first that stays is served.
        world.portal().await.sign_in("alice").await;
    });
}

#[test]
fn more_questions_than_allowed_are_answered_busy() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let session = portal.sign_in("alice").await;
        world.spawner.slow.set(Duration::from_secs(5));
        sleep(limits::GROUPS).await;
        let mut asked = Vec::new();
        for _ in 0..AT_ONCE + 10 {
            asked.push(portal.send(Question::Groups { ticket: session.ticket.clone() }, None).await);
        }
        let mut busy = 0;
        for id in asked {
            match portal.answer_to(id).await.unwrap() {
                Answer::Groups(_) => {}
                Answer::Failed { why } => busy += usize::from(why.contains("busy")),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(busy, 10);
        assert!(matches!(portal.ask(Question::Groups { ticket: session.ticket }).await, Answer::Groups(_)));
    });
}

#[test]
fn who_reads_no_answers_is_not_heard_and_holds_nobody_up() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        portal.until(|heard| heard.times > 1).await;
        let deaf = world.accept().await;
        let ask =
            portreeve_model::wire::broker::Ask { id: 1, question: Question::Look { code: secret("x") } };
        let frame = portreeve_model::wire::encode_bare(&ask).unwrap();
        let mut sent = 0;
        while let Ok(Ok(_)) = timeout(Duration::from_secs(1), deaf.send(&frame)).await {
            sent += 1;
            assert!(sent < 10 * AT_ONCE);
        }
        portal.sign_in("alice").await;
    });
}

#[test]
fn the_login_socket_holds_out_against_callers_who_say_nothing_or_nonsense() {
    run(async || {
        let world = World::new();
        let mut silent = Vec::new();
        for _ in 0..limits::CALLERS_OF_A_USER {
            silent.push(world.caller().await);
        }
        let one_too_many = world.caller().await;
        let mut buffer = Buffer::new();
        let closed = one_too_many.receive_plain::<String>(&mut buffer);
        assert!(matches!(timeout(Duration::from_secs(1), closed).await, Ok(Err(ChannelError::Closed))));
        // They don't stay for ever.
        sleep(limits::CALLER + Duration::from_secs(1)).await;
        let nonsense = world.caller().await;
        nonsense.send(&"open sesame").await.unwrap();
        let closed = nonsense.receive_plain::<String>(&mut Buffer::new()).await;
        assert!(matches!(closed, Err(ChannelError::Closed)));
        world.control(ControlRequest::Where).await;
    });
}

#[test]
fn the_state_belongs_to_one_broker() {
    run(async || {
        let world = World::new();
        sleep(Duration::from_millis(10)).await;
        let settings = crate::service::ServiceSettings::new(
            world.dir.path().to_owned(),
            world.dir.path().join("portal.sock"),
            world.dir.path().join("other.sock"),
            world.dir.path().join("forwards"),
            String::new(),
        );
        let (_spawner, brokers) = crate::service::channel::Channel::pair().unwrap();
        let error = crate::service::serve(settings, brokers).await;
        assert!(matches!(error, crate::service::ServiceError::InUse(_)), "{error:?}");
        assert!(world.runs());
    });
}

#[test]
fn the_broker_ends_with_its_spawner() {
    run(async || {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let state = dir.path().to_owned();
        let settings = crate::service::ServiceSettings::new(state, at("p"), at("l"), at("f"), String::new());
        let (spawner, brokers) = crate::service::channel::Channel::pair().unwrap();
        drop(spawner);
        let error = crate::service::serve(settings, brokers).await;
        assert!(matches!(error, crate::service::ServiceError::Spawner(_)), "{error:?}");
    });
}

#[test]
fn however_many_uids_somebody_has_without_an_account_they_have_one_share() {
    use crate::service::shares::{Of, Share, Shares};
    run(async || {
        let world = World::new();
        let service = world.service();
        let shares = std::rc::Rc::<Shares>::default();
        let settle = async |uid: u32| {
            let share = shares.take(shares.of(uid)).unwrap();
            shares.settled(share, uid, &service).await
        };
        // As they have who may map uids of their own (user_namespaces(7)).
        let mut held: Vec<Share> = Vec::new();
        for uid in 100_000..100_000 + u32::try_from(limits::CALLERS_OF_A_USER).unwrap() {
            held.push(settle(uid).await.unwrap());
        }
        assert!(settle(200_000).await.is_none() && settle(999).await.is_none());
        assert!(settle(20001).await.is_some(), "who is served has their own");
        assert_eq!((shares.of(20001), shares.of(100_000)), (Of::User(20001), Of::LookedUp));
        drop(held);
        assert!(settle(200_000).await.is_some());
    });
}
