//! What access tokens are good for, and their tickets.

use nix::sys::socket::SockType;
use portreeve_model::wire::broker::{Answer, Question};
use portreeve_model::{ForwardName, Scope, Secret};

use super::tokens::{ALICE, make, renew, scopes, show};
use super::world::*;

/// Asks everything that a ticket opens; which of it was not refused.
async fn opened(portal: &Portal, ticket: &Secret) -> Vec<&'static str> {
    let ticket = || ticket.clone();
    let browser = data_encoding::BASE64URL_NOPAD.encode(&[7; 32]);
    let entry = Question::Entry { ticket: ticket(), host: "c1-1.apps.example.org".to_owned(), browser };
    let forward = Question::Forward { ticket: ticket(), name: ForwardName::parse("tb").unwrap() };
    let dialer = Question::Dialer { ticket: ticket() };
    let worker = Question::Worker { ticket: ticket() };
    let answers = [
        ("entry", portal.ask(entry).await),
        ("forward", portal.ask(forward).await),
        ("dialer", portal.ask_with(dialer, pair(SockType::SeqPacket).1).await),
        ("worker", portal.ask_with(worker, pair(SockType::Stream).1).await),
    ];
    let is_open = |answer: &Answer| match answer {
        Answer::Failed { why } if why.contains("not good for that") => false,
        Answer::Entry { .. } | Answer::Forward(Ok(_)) | Answer::Done => true,
        other => panic!("{other:?}"),
    };
    answers.into_iter().filter(|(_, answer)| is_open(answer)).map(|(what, _)| what).collect()
}

#[test]
fn a_token_opens_what_it_is_good_for_and_its_younger_tickets_no_more() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let person = portal.sign_in("alice").await;
        assert_eq!(opened(&portal, &person.ticket).await, ["entry", "forward", "dialer", "worker"]);
        for (good_for, opens) in [
            (&[Scope::Apps][..], &["entry", "forward", "dialer"][..]),
            (&[Scope::Files], &["worker"]),
            (&[Scope::Api], &["worker"]),
            (&[Scope::Files, Scope::Apps], &["entry", "forward", "dialer", "worker"]),
        ] {
            let token = make(&world, ALICE, &scopes(good_for).to_string().replace(',', "."), good_for).await;
            let session = signed_in(show(&portal, &token).await);
            assert_eq!(opened(&portal, &session.ticket).await, opens, "{good_for:?}");
            let renewed = signed_in(renew(&portal, &session.ticket).await);
            assert_eq!(opened(&portal, &renewed.ticket).await, opens, "{good_for:?}");
        }
    });
}

#[test]
fn a_ticket_for_an_applications_origin_keeps_the_scopes() {
    run(async || {
        let mut world = World::new();
        let portal = world.portal().await;
        let token = make(&world, ALICE, "ci", &[Scope::Apps]).await;
        let session = signed_in(show(&portal, &token).await);
        let (host, browser) =
            ("c1-1.apps.example.org".to_owned(), data_encoding::BASE64URL_NOPAD.encode(&[7; 32]));
        let (ticket, there) = (session.ticket.clone(), host.clone());
        let entry = portal.ask(Question::Entry { ticket, host: there, browser: browser.clone() }).await;
        let Answer::Entry { code } = entry else { panic!("{entry:?}") };
        let entered = signed_in(portal.ask(Question::TakeEntry { code, host, browser }).await);
        assert_eq!((entered.claims.how, &entered.claims.sid), (session.claims.how, &session.claims.sid));
    });
}
