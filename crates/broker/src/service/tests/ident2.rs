//! Connections with the site's ident2 service.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, listen, recv, socket,
};
use portreeve_model::wire::broker::{Answer, Question};
use portreeve_sys::message;

use super::world::*;

/// A service at this path, which accepts what comes.
fn service(path: &Path) -> UnixListener {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listening = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    bind(listening.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&listening, Backlog::new(8).unwrap()).unwrap();
    listening.into()
}

fn accepted(service: &UnixListener) -> OwnedFd {
    service.accept().unwrap().0.into()
}

/// Asks for one, and takes it off the channel.
async fn line(portal: &Portal) -> (Answer, Option<OwnedFd>) {
    let (ours, theirs) = pair(SockType::SeqPacket);
    let answer = portal.ask_with(Question::Ident2, theirs).await;
    let mut buffer = [0; 64];
    let line = message::receive(&ours, &mut buffer, 1).ok().and_then(|mut message| message.descriptors.pop());
    (answer, line)
}

/// Whether the other end is closed; `false` while it merely says nothing.
fn is_over(socket: &OwnedFd) -> bool {
    recv(socket.as_raw_fd(), &mut [0; 8], MsgFlags::MSG_DONTWAIT) == Ok(0)
}

#[test]
fn a_portal_has_one_connection_with_the_configured_service() {
    run(async || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ident2.sock");
        let mut world = World::with(|settings| settings.policy.ident2 = Some(path.clone()));
        let portal = world.portal().await;
        let (answer, none) = line(&portal).await;
        let Answer::Failed { why } = answer else { panic!("{answer:?}") };
        assert!(why.contains("ident2.sock can't be reached") && none.is_none(), "{why}");

        let service = service(&path);
        let (answer, first) = line(&portal).await;
        let (first, at_service) = (first.unwrap(), accepted(&service));
        assert_eq!(answer, Answer::Done);
        message::send(&first, b"question", &[]).unwrap();
        assert_eq!(recv(at_service.as_raw_fd(), &mut [0; 16], MsgFlags::empty()), Ok(8));

        // The next one ends the one before, of which the portal has a copy still; another portal's stays.
        let other = world.portal().await;
        let (_, others) = line(&other).await;
        let (others, others_at_service) = (others.unwrap(), accepted(&service));
        let (_, second) = line(&portal).await;
        let (second, second_at_service) = (second.unwrap(), accepted(&service));
        assert!(is_over(&at_service) && is_over(&first));
        assert!(!is_over(&others_at_service) && !is_over(&others));
        assert!(!is_over(&second_at_service) && !is_over(&second));
        // And so does the portal's end.
        drop(portal);
        until(|| is_over(&second_at_service)).await;
        assert!(is_over(&second) && !is_over(&others_at_service));
        assert!(world.runs());
    });
}

#[test]
fn it_is_made_only_where_it_is_configured_and_given_only_to_a_channel() {
    run(async || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ident2.sock");
        let service = service(&path);
        let nobody = || service.accept().is_err();
        let mut world = World::new();
        let (answer, none) = line(&world.portal().await).await;
        assert!(matches!(answer, Answer::Failed { .. }) && none.is_none() && nobody(), "{answer:?}");

        let mut world = World::with(|settings| settings.policy.ident2 = Some(path.clone()));
        let portal = world.portal().await;
        let file = tempfile::tempfile().unwrap();
        for wrong in [
            pair(SockType::Stream).0,
            file.into(),
            std::net::TcpListener::bind("127.0.0.1:0").unwrap().into(),
        ] {
            let answer = portal.ask_with(Question::Ident2, wrong).await;
            assert!(matches!(answer, Answer::Failed { .. }) && nobody(), "{answer:?}");
        }
        // One that is full is not waited for, and the service is left again.
        let (_ours, theirs) = pair(SockType::SeqPacket);
        while message::send(&theirs, &[0; 1024], &[]).is_ok() {}
        let answer = portal.ask_with(Question::Ident2, theirs).await;
        assert!(matches!(answer, Answer::Failed { .. }), "{answer:?}");
        assert!(is_over(&accepted(&service)));
        // Without a channel that connection ends.
        portal.send(Question::Ident2, None).await;
        assert!(portal.ends_soon().await && world.runs());
    });
}
