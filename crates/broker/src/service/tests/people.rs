//! Dialers and workers: one for each user, for as long as it may be.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use portreeve_model::wire::ControlReply;
use portreeve_model::wire::broker::{Answer, Question};
use portreeve_model::wire::spawner::{Missing, Start};
use portreeve_model::{ControlRequest, ForwardName, Secret, SessionId};
use tokio::time::sleep;

use super::spawner::Handed;
use super::world::*;
use crate::service::limits;

async fn dialer(portal: &Portal, ticket: &Secret) -> (Answer, OwnedFd) {
    let (ours, theirs) = pair(SockType::SeqPacket);
    (portal.ask_with(Question::Dialer { ticket: ticket.clone() }, theirs).await, ours)
}

async fn worker(portal: &Portal, ticket: &Secret) -> (Answer, OwnedFd) {
    let (ours, theirs) = pair(SockType::Stream);
    (portal.ask_with(Question::Worker { ticket: ticket.clone() }, theirs).await, ours)
}

fn workers(world: &World) -> usize {
    world.spawner.count(|order| matches!(order, Start::Worker { .. }))
}

/// Children that were handed something and run.
fn running(world: &World) -> usize {
    let alive = world.spawner.alive.borrow();
    let mut children: Vec<u64> = world
        .spawner
        .handed
        .borrow()
        .iter()
        .map(|(child, _)| *child)
        .filter(|child| alive.contains(child))
        .collect();
    children.sort_unstable();
    children.dedup();
    children.len()
}

#[test]
fn however_many_ask_at_once_one_dialer_is_started_and_gets_every_channel() {
    run(async || {
        let mut world = World::new();
        let (one, other) = (world.portal().await, world.portal().await);
        let (first, second) = (one.sign_in("alice").await, other.sign_in("alice").await);
        world.spawner.slow.set(Duration::from_secs(3));
        let (mut ends, mut asked) = (Vec::new(), Vec::new());
        for n in 0..20 {
            let (ours, theirs) = pair(SockType::SeqPacket);
            let (portal, session) = if n % 2 == 0 { (&one, &first) } else { (&other, &second) };
            let question = Question::Dialer { ticket: session.ticket.clone() };
            asked.push((portal, portal.send(question, Some(theirs)).await));
            ends.push(ours);
        }
        for (portal, id) in asked {
            assert_eq!(portal.answer_to(id).await, Some(Answer::Done));
        }
        assert_eq!(world.spawner.dialers(), 1);
        until(|| world.spawner.handed.borrow().len() == 20).await;
        // What was handed over is the other end of what the portal holds.
        let (_, Handed::Channel(got)) = world.spawner.handed.borrow_mut().remove(0) else { panic!() };
        nix::unistd::write(&got, b"hello").unwrap();
        let mut bytes = [0; 8];
        assert_eq!(nix::unistd::read(&ends[0], &mut bytes).unwrap(), 5);
        let order = world.spawner.orders.borrow().iter().find_map(|order| match order {
            Start::Dialer(identity) => Some(identity.clone()),
            _ => None,
        });
        let identity = order.unwrap();
        assert_eq!((identity.uid, identity.gid, identity.groups), (20001, 20001, vec![20100]));
        // Another user has another one.
        let bob = one.sign_in("bob").await;
        assert_eq!(dialer(&one, &bob.ticket).await.0, Answer::Done);
        assert_eq!(world.spawner.dialers(), 2);
    });
}

#[test]
fn a_dialer_ends_with_the_users_last_session() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let (one, other) = (portal.sign_in("alice").await, portal.sign_in("alice").await);
        let bob = portal.sign_in("bob").await;
        for session in [&one, &bob] {
            assert_eq!(dialer(&portal, &session.ticket).await.0, Answer::Done);
        }
        until(|| running(&world) == 2).await;
        portal.ask(Question::SignOut { ticket: one.ticket, everywhere: false }).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(running(&world), 2, "there is another session");
        portal.ask(Question::SignOut { ticket: other.ticket.clone(), everywhere: false }).await;
        until(|| running(&world) == 1).await;
        assert_eq!(dialer(&portal, &other.ticket).await.0, Answer::NoTicket);
        assert_eq!(world.spawner.dialers(), 2);
        // Expiry.
        set_clock(bob.claims.exp);
        until(|| running(&world) == 0).await;
    });
}

#[test]
fn a_session_that_nobody_shows_any_more_keeps_no_dialer() {
    run(async || {
        let mut world = World::with(|settings| settings.policy.idle = 600);
        let portal = world.portal().await;
        let session = portal.sign_in("alice").await;
        dialer(&portal, &session.ticket).await;
        set_clock(now() + 500);
        portal.ask(Question::Groups { ticket: session.ticket.clone() }).await;
        set_clock(now() + 500);
        sleep(Duration::from_secs(5)).await;
        assert_eq!(running(&world), 1);
        set_clock(now() + 200);
        until(|| running(&world) == 0).await;
        // It is not over for that.
        assert_eq!(dialer(&portal, &session.ticket).await.0, Answer::Done);
    });
}

#[test]
fn revocation_ends_what_runs_also_what_is_being_started() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let (alice, bob) = (portal.sign_in("alice").await, portal.sign_in("bob").await);
        dialer(&portal, &alice.ticket).await;
        worker(&portal, &alice.ticket).await;
        until(|| running(&world) == 2).await;
        portal.ask(Question::SignOut { ticket: alice.ticket, everywhere: true }).await;
        until(|| running(&world) == 0).await;
        world.spawner.slow.set(Duration::from_secs(2));
        let (_ours, theirs) = pair(SockType::Stream);
        let id = portal.send(Question::Worker { ticket: bob.ticket.clone() }, Some(theirs)).await;
        until(|| workers(&world) == 2).await;
        let out = portal.send(Question::SignOut { ticket: bob.ticket, everywhere: true }, None).await;
        assert_eq!(portal.answer_to(out).await, Some(Answer::Done));
        assert_eq!(portal.answer_to(id).await, Some(Answer::NoTicket));
        until(|| world.spawner.alive.borrow().is_empty()).await;
        let connections = world
            .spawner
            .handed
            .borrow()
            .iter()
            .filter(|(_, handed)| matches!(handed, Handed::Connection))
            .count();
        assert_eq!(connections, 1, "alice's; bob's worker got none");
    });
}

#[test]
fn one_that_does_not_leave_is_ended_by_force() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let session = portal.sign_in("alice").await;
        world.spawner.stays.set(true);
        dialer(&portal, &session.ticket).await;
        portal.ask(Question::SignOut { ticket: session.ticket, everywhere: false }).await;
        let ends = || world.spawner.count(|order| matches!(order, Start::End { .. }));
        sleep(limits::CHILD_ENDS - Duration::from_secs(1)).await;
        assert_eq!(ends(), 0, "it is given time");
        until(|| ends() == 1).await;
        until(|| world.spawner.alive.borrow().is_empty()).await;
        sleep(limits::CHILD_ENDS * 3).await;
        assert_eq!(ends(), 1);
    });
}

#[test]
fn one_that_takes_nothing_any_more_is_let_go_and_another_is_started() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let session = portal.sign_in("alice").await;
        let asked = async || assert_eq!(worker(&portal, &session.ticket).await.0, Answer::Done);
        asked().await;
        sleep(Duration::from_secs(2)).await;
        world.spawner.hangs.set(true);
        // The one that it was waiting for just then, and one that it does not take.
        asked().await;
        asked().await;
        sleep(limits::HAND_OVER - Duration::from_secs(1)).await;
        asked().await;
        assert_eq!(workers(&world), 1, "it is given time");
        sleep(Duration::from_secs(3)).await;
        world.spawner.hangs.set(false);
        asked().await;
        assert_eq!(workers(&world), 2);
        // It is ended by force, since it does not see that it was let go.
        until(|| world.spawner.count(|order| matches!(order, Start::End { .. })) == 1).await;
    });
}

#[test]
fn one_that_has_not_begun_is_given_more_time() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let session = portal.sign_in("alice").await;
        // PAM opens its session.
        world.spawner.hangs.set(true);
        assert_eq!(worker(&portal, &session.ticket).await.0, Answer::Done);
        sleep(limits::BEGINS - Duration::from_secs(2)).await;
        assert_eq!(worker(&portal, &session.ticket).await.0, Answer::Done);
        assert_eq!(workers(&world), 1);
        sleep(Duration::from_secs(4)).await;
        assert_eq!(worker(&portal, &session.ticket).await.0, Answer::Done);
        assert_eq!(workers(&world), 2);
    });
}

#[test]
fn one_that_left_is_started_again_and_one_that_dies_at_once_is_given_time() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let session = portal.sign_in("alice").await;
        assert_eq!(worker(&portal, &session.ticket).await.0, Answer::Done);
        sleep(limits::LIVES).await;
        world.spawner.all_leave();
        until(|| running(&world) == 0).await;
        assert_eq!(worker(&portal, &session.ticket).await.0, Answer::Done);
        assert_eq!(workers(&world), 2);
        sleep(limits::LIVES).await;
        world.spawner.all_leave();
        until(|| running(&world) == 0).await;
        world.spawner.dies.set(true);
        let mut tries = 0;
        for _ in 0..120 {
            tries += usize::from(matches!(worker(&portal, &session.ticket).await.0, Answer::Failed { .. }));
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(tries, 120);
        let started = workers(&world) - 2;
        assert!((5..=9).contains(&started), "{started} starts in two minutes");
        world.spawner.dies.set(false);
        sleep(limits::RESTART_MOST).await;
        assert_eq!(worker(&portal, &session.ticket).await.0, Answer::Done);
    });
}

/// A worker that nobody needs takes nothing more before it ends: what it does not get its successor gets.
#[test]
fn one_that_is_about_to_leave_is_followed_by_another_without_a_failure() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let session = portal.sign_in("alice").await;
        assert_eq!(worker(&portal, &session.ticket).await.0, Answer::Done);
        sleep(limits::LIVES).await;
        world.spawner.all_shut();
        sleep(Duration::from_millis(10)).await;
        assert_eq!(running(&world), 1, "it runs still");
        assert_eq!(worker(&portal, &session.ticket).await.0, Answer::Done);
        assert_eq!(workers(&world), 2);
        let connections = || {
            world.spawner.handed.borrow().iter().filter(|(_, it)| matches!(it, Handed::Connection)).count()
        };
        until(|| connections() == 2).await;
    });
}

#[test]
fn new_groups_mean_a_new_dialer() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let session = portal.sign_in("alice").await;
        dialer(&portal, &session.ticket).await;
        world.spawner.users.borrow_mut().get_mut("alice").unwrap().groups = vec![20400, 20100, 20100];
        sleep(limits::GROUPS).await;
        assert_eq!(dialer(&portal, &session.ticket).await.0, Answer::Done);
        until(|| running(&world) == 1).await;
        assert_eq!(world.spawner.dialers(), 2);
        // The same groups in another order are the same.
        world.spawner.users.borrow_mut().get_mut("alice").unwrap().groups = vec![20100, 20400];
        sleep(limits::GROUPS).await;
        dialer(&portal, &session.ticket).await;
        assert_eq!(world.spawner.dialers(), 2);
    });
}

#[test]
fn groups_are_as_fresh_as_the_configuration_says() {
    run(async || {
        let mut world = World::with(|settings| {
            settings.policy.groups_refresh = Duration::from_secs(2);
            settings.reload = Some(std::rc::Rc::new(|| {
                Some(crate::service::Policy::new("https://reloaded.example.org".to_owned()))
            }));
        });
        let portal = world.portal().await;
        let ticket = portal.sign_in("alice").await.ticket;
        let groups = async || match portal.ask(Question::Groups { ticket: ticket.clone() }).await {
            Answer::Groups(groups) => groups,
            other => panic!("{other:?}"),
        };
        let become_those = |groups: &[u32]| {
            world.spawner.users.borrow_mut().get_mut("alice").unwrap().groups = groups.to_vec();
        };
        sleep(Duration::from_secs(2)).await;
        assert_eq!(groups().await, [20001, 20100]);
        become_those(&[]);
        assert_eq!(groups().await, [20001, 20100], "remembered");
        sleep(Duration::from_secs(2)).await;
        assert_eq!(groups().await, [20001]);
        // The default is five minutes; a broker never remembers for so long.
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).unwrap();
        let is_reloaded =
            |reply| matches!(reply, ControlReply::Portal { url, .. } if url.contains("reloaded"));
        while !is_reloaded(world.control(ControlRequest::Where).await) {
            sleep(Duration::from_millis(10)).await;
        }
        groups().await;
        become_those(&[20100]);
        sleep(limits::GROUPS - Duration::from_secs(5)).await;
        assert_eq!(groups().await, [20001], "remembered for longer now");
        sleep(Duration::from_secs(5)).await;
        assert_eq!(groups().await, [20001, 20100]);
    });
}

#[test]
fn a_worker_knows_site_keys_and_ends_before_its_first_connection() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let session = portal.sign_in("alice").await;
        let over = portal.sign_in("alice").await;
        let out = |ticket: &Secret| Question::SignOut { ticket: ticket.clone(), everywhere: false };
        portal.ask(out(&over.ticket)).await;
        worker(&portal, &session.ticket).await;
        until(|| world.spawner.handed.borrow().len() == 4).await;
        portal.until(|heard| !heard.keys.is_empty()).await;
        {
            let handed = world.spawner.handed.borrow();
            assert!(
                matches!(&handed[0].1, Handed::Site(forwards) if *forwards == world.dir.path().join("forwards"))
            );
            let (Handed::Keys(keys), Handed::Ended(ended, until)) = (&handed[1].1, &handed[2].1) else {
                panic!()
            };
            assert_eq!(*keys, portal.heard.borrow().keys);
            assert_eq!((&ended[..], *until), (&[over.claims.sid][..], i64::MIN));
            assert!(matches!(handed[3].1, Handed::Connection));
        }
        // And when one more ends, with the last session too: the worker goes on.
        let sid = session.claims.sid.clone();
        portal.ask(out(&session.ticket)).await;
        until(|| world.spawner.handed.borrow().len() == 5).await;
        let told = |ended: &[SessionId]| ended.len() == 2 && ended.contains(&sid);
        assert!(matches!(&world.spawner.handed.borrow()[4].1, Handed::Ended(ended, _) if told(ended)));
        // And when keys change.
        set_clock(now() + 31 * 24 * 3600);
        until(|| world.spawner.handed.borrow().len() == 6).await;
        assert!(matches!(&world.spawner.handed.borrow()[5].1, Handed::Keys(keys) if keys.len() == 1));
    });
}

#[test]
fn only_a_socket_of_the_right_kind_is_handed_over() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let ticket = portal.sign_in("alice").await.ticket;
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let file = tempfile::tempfile().unwrap();
        // A connection with an address: the line with a portal is one.
        let path = world.dir.path().join("named");
        let named = |kind| {
            let _ = std::fs::remove_file(&path);
            let flags = SockFlag::SOCK_CLOEXEC;
            let [listener, ours] = [(); 2].map(|()| socket(AddressFamily::Unix, kind, flags, None).unwrap());
            let address = UnixAddr::new(&path).unwrap();
            bind(listener.as_raw_fd(), &address).unwrap();
            listen(&listener, Backlog::new(1).unwrap()).unwrap();
            connect(ours.as_raw_fd(), &address).unwrap();
            (ours, listener)
        };
        let (packets, _listener) = named(SockType::SeqPacket);
        let (bytes, _listener) = named(SockType::Stream);
        for wrong in [pair(SockType::Stream).0, file.into(), tcp.into(), packets] {
            let answer = portal.ask_with(Question::Dialer { ticket: ticket.clone() }, wrong).await;
            assert!(matches!(answer, Answer::Failed { .. }), "{answer:?}");
        }
        for wrong in [pair(SockType::SeqPacket).0, stream.into(), bytes] {
            let answer = portal.ask_with(Question::Worker { ticket: ticket.clone() }, wrong).await;
            assert!(matches!(answer, Answer::Failed { .. }), "{answer:?}");
        }
        assert_eq!((world.spawner.dialers(), workers(&world)), (0, 0));
    });
}

#[test]
fn forwards_are_read_and_login_groups_found() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let ticket = portal.sign_in("alice").await.ticket;
        let forward = |name: &str| Question::Forward {
            ticket: ticket.clone(),
            name: ForwardName::parse(name).unwrap(),
        };
        let Answer::Forward(Ok(found)) = portal.ask(forward("tb")).await else { panic!() };
        assert_eq!((found.line.as_str(), found.stat.uid), ("http://c1:12001/", 20002));
        let missing = portal.ask(forward("secret")).await;
        assert_eq!(missing, Answer::Forward(Err(Missing::NotExecutable)));
        let login = portal.ask(Question::Login { uid: 20002 }).await;
        assert!(matches!(login, Answer::Login(Some(login)) if login.group.gid == 20002));
        assert_eq!(portal.ask(Question::Login { uid: 20003 }).await, Answer::Login(None));
        world.spawner.broken.set(true);
        let failed = portal.ask(Question::Login { uid: 1 }).await;
        assert!(matches!(failed, Answer::Failed { .. }), "a failure is no answer");
    });
}

#[test]
fn forwards_that_hang_leave_look_ups_to_signing_in() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let ticket = portal.sign_in("alice").await.ticket;
        let forward = |name: &str| Question::Forward {
            ticket: ticket.clone(),
            name: ForwardName::parse(name).unwrap(),
        };
        for _ in 0..2 * limits::LOOK_UPS {
            portal.send(forward("hanging"), None).await;
        }
        let reads = || world.spawner.count(|order| matches!(order, Start::Forward { .. }));
        until(|| reads() == limits::FORWARD_READS).await;
        let began = tokio::time::Instant::now();
        portal.sign_in("bob").await;
        assert_eq!(reads(), limits::FORWARD_READS, "the others wait");
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        // Nothing hangs for ever.
        sleep(3 * limits::LOOK_UP).await;
        assert!(matches!(portal.ask(forward("tb")).await, Answer::Forward(Ok(_))));
    });
}

#[test]
fn dialers_and_workers_leave_room_for_signing_in() {
    run(async || {
        let children = crate::service::children::Children::new(pair(SockType::SeqPacket).0).unwrap();
        let room = portreeve_model::wire::spawner::AT_ONCE - limits::PASSING_CHILDREN;
        children.pretend(room - 1);
        assert!(children.has_room_for_lasting());
        children.pretend(1);
        assert!(!children.has_room_for_lasting());
        let posts = crate::service::posts::Posts::new(std::rc::Rc::new(children));
        let order = Start::Worker { user: name("alice") };
        let handed = posts.hand_over(20001, order, Vec::<()>::new, &(), pair(SockType::Stream).0).await;
        assert!(matches!(handed, Err(crate::service::posts::PostError::Full)), "{handed:?}");
    });
}
