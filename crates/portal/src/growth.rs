//! What somebody costs who is known already, as ever more are. `benches/growth` runs this, and the same of nodes
//! (`agents/tests/growth.rs`). What must hold is tested where it stands.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::COOKIE;
use nix::time::ClockId;
use portreeve_broker::{TicketKey, Verifier};
use portreeve_model::{Audience, Claims, SessionId, SignIn, UserName};

use crate::authenticate::{COOKIE_NAME, authenticate};
use crate::front::Connection;
use crate::portal::now;
use crate::site::Site;

const SESSIONS: [usize; 6] = [10, 100, 1_000, 4_000, 5_000, 10_000];
const QUESTIONS: usize = 40_000;

/// Each session is a user's own. All ask by turns on one connection: it never knows the ticket by heart.
#[tokio::test]
#[ignore = "is measured by benches/growth, and says nothing by itself"]
async fn of_sessions() {
    let (_state, room) = crate::room::tests::room();
    let (room, site) = (Rc::new(room), Site::localhost());
    let settings = room.portal.settings.load_full();
    let connection = Connection::new(Rc::clone(&room), ([127, 0, 0, 1], 40_000).into()).unwrap();
    let (key, _) = TicketKey::generate().unwrap();
    room.portal.verifier.store(Arc::new(Verifier::new([(key.id(), key.public())])));
    let people: Vec<_> = (0..SESSIONS[SESSIONS.len() - 1]).map(|number| person(number, &key)).collect();
    let mut known = 0;
    for count in SESSIONS {
        let before = resident();
        for (claims, ticket, headers) in &people[known..count] {
            room.portal
                .sessions
                .admit(claims, ticket, &[claims.uid], now(), settings.idle_seconds())
                .unwrap();
            authenticate(&connection, &settings, &site, headers).await.unwrap();
        }
        let grown = resident() - before;
        let begun = spent();
        for (claims, _, headers) in people[..count].iter().cycle().take(QUESTIONS) {
            let who = authenticate(&connection, &settings, &site, headers).await.unwrap();
            assert_eq!(who.session().id, claims.sid);
        }
        say(count, count - known, grown, (spent() - begun) / u32::try_from(QUESTIONS).unwrap(), &[]);
        known = count;
    }
}

fn person(number: usize, key: &TicketKey) -> (Claims, String, HeaderMap) {
    let claims = Claims {
        iss: "portreeve".into(),
        sub: UserName::parse(&format!("u{number}")).unwrap(),
        uid: 10_000 + u32::try_from(number).unwrap(),
        sid: SessionId::from_bytes((number as u128).to_be_bytes()),
        iat: now(),
        auth_time: now(),
        exp: now() + 3600,
        how: SignIn::Code,
        aud: Audience::Portal,
    };
    let ticket = key.sign(&claims).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(COOKIE, format!("{COOKIE_NAME}={ticket}").parse().unwrap());
    (claims, ticket, headers)
}

/// The time that this thread had a processor.
pub(crate) fn spent() -> Duration {
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap().into()
}

/// This process's memory, in KiB.
pub(crate) fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

/// One point of a curve: so many, of which `new` have made the memory grow by so much; what one question costs; of each of
/// these, how long it took.
pub(crate) fn say(count: usize, new: usize, grown_kib: f64, cpu: Duration, took: &[Duration]) {
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let mut took = took.to_vec();
    took.sort_unstable();
    let rank = |percent: usize| {
        took.get((took.len() * percent).div_ceil(100).saturating_sub(1)).map(|time| us(*time))
    };
    let point = serde_json::json!({
        "count": count,
        "cpu_us": us(cpu),
        "grown_mib": grown_kib / 1024.0,
        "kib_each": grown_kib / new as f64,
        "p50_us": rank(50),
        "p99_us": rank(99),
    });
    println!("\ngrown: {point}");
}
