//! The steps of a request one by one, as they are when nothing is new. `benches/micro` runs this under callgrind, which counts
//! the instructions in [`counted`] and nowhere else. What must hold of a step is tested where it stands.

use std::future::Future;
use std::hint::black_box;
use std::os::unix::fs::OpenOptionsExt;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use portreeve_agent::Lookup;
use portreeve_model::{SignIn, Tuple};
use tokio::time::Instant;

use crate::authenticate::{COOKIE_NAME, authenticate};
use crate::front::Connection;
use crate::headers::{Visit, remove_hop_by_hop, towards_application};
use crate::pool::Pool;
use crate::portal::now;
use crate::resolve::resolve;
use crate::rewrite::{Destination, Mode, Rewriting, Step, appearance, towards_browser};
use crate::rewrite::{cookies_towards_application, narrow_accept_encoding};
use crate::route::{Place, Route, route};
use crate::site::Site;

const TIMES: usize = 1000;
/// Of a page with many links; it has some hundred KiB, so that a few are enough.
const PAGES: usize = 4;

#[tokio::test]
#[ignore = "is counted by benches/micro, and says nothing by itself"]
async fn steps() {
    let (state, room) = crate::room::tests::room();
    room.tickets.borrow_mut().resize(std::num::NonZeroUsize::MIN);
    let (room, site) = (Rc::new(room), Site::localhost());
    let place_of = |path: &str| -> Rc<Place> {
        let Ok(Route::Application { place, .. }) = route(&room, &site, path) else { panic!("{path}") };
        place
    };
    for (name, path) in
        [("route-direct", "/fw2/localhost:8888/lab?reset"), ("route-forward", "/fw/tb/lab?reset")]
    {
        cost(name, vec![(); TIMES], |()| place_of(path));
    }

    let settings = room.portal.settings.load_full();
    let connection = Connection::new(Rc::clone(&room), ([127, 0, 0, 1], 40_000).into()).unwrap();
    let people = [1, 2].map(|_| {
        let (_, ticket) = room.portal.service.embedded().broker().start_session(SignIn::Code, now()).unwrap();
        asking(&ticket)
    });
    let mut who = Vec::new();
    for headers in &people {
        who.push(authenticate(&connection, &settings, &site, headers).await.unwrap());
    }
    let authenticated =
        |headers: &mut &HeaderMap| at_once(authenticate(&connection, &settings, &site, headers)).unwrap();
    cost("ticket-known", vec![&people[1]; TIMES], authenticated);
    // The connection and its thread remember one ticket: whoever comes in turn is checked from the start.
    cost("ticket-check", people.iter().cycle().take(TIMES).collect(), authenticated);

    let mut file = std::fs::OpenOptions::new();
    file.write(true).create_new(true).mode(0o700);
    std::io::Write::write_all(&mut file.open(state.path().join("tb")).unwrap(), b"http://localhost:8888/\n")
        .unwrap();
    let session = who[0].session();
    for (name, path) in [("resolve-direct", "/fw2/localhost:8888/"), ("resolve-forward", "/fw/tb/")] {
        let place = place_of(path);
        resolve(&room, session, &place).await.unwrap();
        cost(name, vec![(); TIMES], |()| at_once(resolve(&room, session, &place)).unwrap());
    }

    let place = place_of("/fw2/localhost:8888/");
    let target = resolve(&room, session, &place).await.unwrap();
    let appears = appearance(&place, &target, Mode::Strip, &site, target.addresses[0], None).unwrap();
    let visit = Visit {
        peer: &connection.peer_header,
        user: &session.user_header,
        host: &site.authority_header,
        prefix: &place.prefix_header,
    };
    cost("fields-to-application", vec![people[0].clone(); TIMES], |headers| {
        remove_hop_by_hop(headers);
        towards_application(headers, &visit);
        narrow_accept_encoding(headers);
        cookies_towards_application(headers, &appears, COOKIE_NAME);
    });
    let answer = |kind| {
        fields(&[
            ("content-type", kind),
            ("content-length", "1024"),
            ("date", "Fri, 27 Nov 2026 12:00:00 GMT"),
            ("server", "TornadoServer/6.5"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "frame-ancestors 'self'; report-uri /api/security/csp-report"),
            ("set-cookie", "_xsrf=2|7586b241|47c876d965112a2f547c63c95cbc44b1|1763140000; Path=/"),
            ("vary", "Accept-Encoding"),
        ])
    };
    let (method, destination) = (Method::GET, Destination::Document);
    let back =
        |headers: &mut _| towards_browser(headers, &appears, &method, destination, StatusCode::OK).unwrap();
    cost("fields-to-browser", vec![answer("application/json"); TIMES], |headers| back(headers).is_some());

    let links: String =
        (0..2400).map(|at| format!("<li><a href=\"/item/{at:05}/\">Item {at:05}</a></li>\n")).collect();
    let page: Bytes =
        format!("<!doctype html><html><head><title>x</title></head><body>{links}</body></html>").into();
    let pages = (0..PAGES).map(|_| Rewriting::new(back(&mut answer("text/html")).unwrap())).collect();
    cost_per(page.len() as f64 / 1024.0, "page-kib", pages, |rewriting| {
        page.chunks(16 << 10).map(|piece| written(rewriting, Some(page.slice_ref(piece)))).sum::<usize>()
            + written(rewriting, None)
    });

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let _accepted = listener.accept().unwrap();
    let tuple = Tuple { client: client.local_addr().unwrap(), server: client.peer_addr().unwrap() };
    let lookup = Lookup::open().unwrap();
    cost("owner", vec![(); TIMES], |()| lookup.owner(&tuple).unwrap());

    let (links, _held) = crate::pool::tests::links(8888, 2).await;
    let (pool, key) = (Pool::default(), links[0].key.clone());
    links.into_iter().for_each(|link| pool.put(link, Instant::now()));
    cost("pool", vec![(); TIMES], |()| pool.put(pool.take(&key, Instant::now()).unwrap(), Instant::now()));
}

/// What is done in here is counted.
#[inline(never)]
fn counted<T, R>(on: &mut [T], step: &mut impl FnMut(&mut T) -> R) {
    for one in on {
        black_box(step(one));
    }
}

fn cost<T, R>(name: &str, on: Vec<T>, step: impl FnMut(&mut T) -> R) {
    cost_per(1.0, name, on, step);
}

/// Says which step comes and how many units it counts for: the counts themselves are callgrind's, in the same order.
fn cost_per<T, R>(units: f64, name: &str, mut on: Vec<T>, mut step: impl FnMut(&mut T) -> R) {
    let (first, rest) = on.split_first_mut().unwrap();
    // It fills what is filled once.
    black_box(step(first));
    println!("counted: {name} {}", units * rest.len() as f64);
    counted(rest, &mut step);
}

/// None of these steps waits for anything when nothing is new.
fn at_once<T>(step: impl Future<Output = T>) -> T {
    match pin!(step).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits"),
    }
}

/// How much of a body goes on, after one more piece or at its end.
fn written(rewriting: &mut Rewriting, piece: Option<Bytes>) -> usize {
    match piece {
        Some(piece) => rewriting.take(piece),
        None => rewriting.end(None),
    }
    let mut count = 0;
    while let Step::Data(data) = rewriting.step().unwrap() {
        count += black_box(data).len();
    }
    count
}

/// What a browser asks with.
fn asking(ticket: &str) -> HeaderMap {
    let mut headers = fields(&[
        ("host", "localhost"),
        ("sec-ch-ua", "\"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\""),
        ("sec-ch-ua-mobile", "?0"),
        ("sec-ch-ua-platform", "\"Linux\""),
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
        ),
        ("accept", "*/*"),
        ("sec-fetch-site", "same-origin"),
        ("sec-fetch-mode", "cors"),
        ("sec-fetch-dest", "empty"),
        ("referer", "https://localhost/fw2/localhost:8888/lab"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("accept-language", "en-US,en;q=0.9"),
    ]);
    let cookie = format!("_xsrf=2|7586b241|47c876d965112a2f547c63c95cbc44b1; {COOKIE_NAME}={ticket}");
    headers.insert(COOKIE, cookie.parse().unwrap());
    headers
}

fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    fields.iter().map(pair).collect()
}
