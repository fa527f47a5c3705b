use std::net::IpAddr;

use portreeve_model::UserName;

use super::*;

fn take(places: &Rc<Places>, name: &str, from: &str) -> Option<Place> {
    let from: IpAddr = from.parse().unwrap();
    places.take(NameKey::of(&UserName::parse(name).unwrap()), Network::of(from))
}

fn lost(places: &[Place]) -> Vec<usize> {
    (0..places.len()).filter(|n| places[*n].is_lost()).collect()
}

#[test]
fn a_names_oldest_makes_room() {
    let places = Rc::default();
    let most = limits::CONVERSATIONS_OF_A_NAME;
    let mut held: Vec<Place> =
        (0..most).map(|n| take(&places, "alice", &format!("192.0.2.{n}")).unwrap()).collect();
    held[0].is_at(Stage::AskedAgain);
    held.push(take(&places, "ALICE@example.org", "198.51.100.1").unwrap());
    assert_eq!(lost(&held), [1], "what was answered goes last");
    for place in &held[2..] {
        place.is_at(Stage::UnderWay);
    }
    held.push(take(&places, "alice", "198.51.100.2").unwrap());
    assert_eq!(lost(&held), [0, 1]);
    held[most + 1].is_at(Stage::UnderWay);
    assert!(take(&places, "alice", "198.51.100.3").is_none(), "PAM is busy with all of them");
    assert!(take(&places, "bob", "198.51.100.3").is_some());
    drop(held);
    assert!(places.held.borrow().is_empty());
}

#[test]
fn a_network_is_what_one_customer_has() {
    let places = Rc::default();
    let most = limits::CONVERSATIONS_OF_A_NETWORK;
    let mut held: Vec<Place> =
        (0..=most).map(|n| take(&places, &format!("u{n}"), &format!("2001:db8::{n:x}")).unwrap()).collect();
    assert_eq!(lost(&held), [0]);
    held.push(take(&places, "other", "2001:db8:0:1::1").unwrap());
    assert_eq!(lost(&held), [0], "another network's");
}

#[test]
fn whoever_holds_most_makes_room_first() {
    let places = Rc::default();
    let alone = take(&places, "alice", "203.0.113.1").unwrap();
    let held: Vec<Place> = (0..limits::CONVERSATIONS)
        .map(|n| take(&places, &format!("u{n}"), &format!("192.0.2.{}", n / 16)).unwrap())
        .collect();
    assert!(!alone.is_lost(), "the oldest of all, and the only one of its network");
    assert_eq!(lost(&held), [0]);
    for place in &held {
        place.is_at(Stage::UnderWay);
    }
    let next = take(&places, "bob", "203.0.113.2").unwrap();
    assert!(alone.is_lost(), "nothing else waits for a person");
    next.is_at(Stage::UnderWay);
    assert!(take(&places, "carol", "203.0.113.3").is_none());
}
