use data_encoding::HEXLOWER;
use portreeve_model::Secret;

use super::*;
use crate::service::marks::Marks;

const HOME: &str = "192.0.2.1";

fn key(name: &str) -> NameKey {
    NameKey::of(&UserName::parse(name).unwrap())
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A genuine mark's id.
fn mark(dir: &tempfile::TempDir) -> MarkId {
    let marks = Marks::load(&dir.path().join("key")).unwrap();
    let made: Secret = marks.make(&key("alice"), 0).unwrap();
    marks.known(&made, &key("alice"), 0).unwrap()
}

/// The wait before `name` may try from `from`; the try itself is taken back.
fn wait(throttle: &Throttle, name: &str, mark: Option<MarkId>, from: &str, now: Instant) -> Duration {
    match throttle.begin(&key(name), mark, address(from), now) {
        Ok(begun) => {
            begun.take_back();
            Duration::ZERO
        }
        Err(wait) => wait,
    }
}

fn fail(throttle: &Throttle, name: &str, from: &str, now: Instant) {
    drop(throttle.begin(&key(name), None, address(from), now).ok().unwrap());
}

#[tokio::test(start_paused = true)]
async fn after_three_wrong_tries_from_anywhere_the_wait_grows_to_a_minute() {
    let throttle = Throttle::new(SlowDown::default());
    for n in 0..3 {
        fail(&throttle, "alice", &format!("192.0.2.{n}"), Instant::now());
    }
    for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(wait(&throttle, "alice", None, "198.51.100.1", Instant::now()), seconds(expected));
        assert_eq!(wait(&throttle, "ALICE@example.org", None, HOME, Instant::now()), seconds(expected));
        tokio::time::advance(seconds(expected) - Duration::from_millis(1)).await;
        assert_eq!(wait(&throttle, "alice", None, HOME, Instant::now()), Duration::from_millis(1));
        tokio::time::advance(Duration::from_millis(1)).await;
        fail(&throttle, "alice", HOME, Instant::now());
    }
    assert_eq!(wait(&throttle, "bob", None, HOME, Instant::now()), Duration::ZERO);
    tokio::time::advance(SlowDown::default().forgotten).await;
    assert_eq!(wait(&throttle, "alice", None, HOME, Instant::now()), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn tries_at_once_count_before_they_end() {
    let throttle = Throttle::new(SlowDown::default());
    let now = Instant::now();
    let begun: Vec<Try> =
        (0..3).map(|_| throttle.begin(&key("alice"), None, address(HOME), now).ok().unwrap()).collect();
    assert_eq!(wait(&throttle, "alice", None, HOME, now), seconds(1));
    // Whoever leaves before answering has not tried anything.
    begun.into_iter().for_each(Try::take_back);
    assert_eq!(wait(&throttle, "alice", None, HOME, now), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_tries_many_names_is_slowed_for_all() {
    let throttle = Throttle::new(SlowDown::default());
    let now = Instant::now();
    for n in 0..SlowDown::default().free_of_an_address {
        fail(&throttle, &format!("user{n}"), "2001:db8::1", now);
    }
    assert_eq!(wait(&throttle, "alice", None, "2001:db8::ffff", now), seconds(1), "the same network");
    assert_eq!(wait(&throttle, "alice", None, "2001:db8:0:1::1", now), Duration::ZERO);
    for n in 0..SlowDown::default().free_of_an_address {
        fail(&throttle, &format!("other{n}"), "192.0.2.9", now);
    }
    assert_eq!(wait(&throttle, "alice", None, "::ffff:192.0.2.9", now), seconds(1));
}

#[tokio::test(start_paused = true)]
async fn a_known_browser_is_not_slowed_by_others_but_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (throttle, known) = (Throttle::new(SlowDown::default()), mark(&dir));
    let now = Instant::now();
    for n in 0..10 {
        drop(throttle.begin(&key("alice"), None, address(HOME), now + n * seconds(60)));
        drop(throttle.begin(&key(&format!("u{n}")), None, address(HOME), now + n * seconds(60)));
    }
    let now = now + 9 * seconds(60);
    assert!(wait(&throttle, "alice", None, HOME, now) > Duration::ZERO);
    assert_eq!(wait(&throttle, "alice", Some(known), HOME, now), Duration::ZERO);
    // Guesses with a stolen mark are as slow as others, and at last it counts as none.
    let mut now = now;
    for n in 0..WORN_OUT {
        match throttle.begin(&key("alice"), Some(known), address(HOME), now) {
            Ok(begun) => assert!(n < 3 && begun.is_marked()),
            Err(wait) => {
                assert!(n >= 3);
                now += wait;
                drop(throttle.begin(&key("alice"), Some(known), address(HOME), now).ok().unwrap());
            }
        }
    }
    now += seconds(61);
    let begun = throttle.begin(&key("alice"), Some(known), address(HOME), now).ok().unwrap();
    assert!(!begun.is_marked());
}

#[test]
fn the_tables_are_bounded() {
    let throttle = Throttle::new(SlowDown::default());
    let now = Instant::now();
    for n in 0..(PLACES.get() as u32 + 1000) {
        let name = format!("u{}", HEXLOWER.encode(&n.to_be_bytes()));
        drop(throttle.begin(&key(&name), None, IpAddr::from(n.to_be_bytes()), now));
    }
    let tables = throttle.tables.borrow();
    assert_eq!((tables.names.len(), tables.networks.len()), (PLACES.get(), PLACES.get()));
}
