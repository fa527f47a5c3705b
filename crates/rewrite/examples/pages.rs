//! How long one page takes: 113 KB with 2,400 links, in pieces as they come from the network.
//!
//!     cargo run --release -p portreeve-rewrite --example pages

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use portreeve_rewrite::{Destination, Exchange, Injection, Mode, Place, towards_browser};

const ROUNDS: usize = 400;

fn main() {
    let links: String =
        (0..2400).map(|at| format!("<li><a href=\"/item/{at:05}/\">Item {at:05}</a></li>\n")).collect();
    let style: String = (0..2400).map(|at| format!(".i{at:05}{{background:url(/i/{at}.png)}}\n")).collect();
    let plain = links.replace("href=\"/", "href=\"");
    let page = |body: &str| {
        format!("<!doctype html><html><head><title>x</title></head><body><ul>{body}</ul></body></html>")
    };
    measure("HTML, 2,400 links from the root", "text/html; charset=utf-8", page(&links).as_bytes());
    measure("HTML, 2,400 relative links", "text/html; charset=utf-8", page(&plain).as_bytes());
    measure(
        "HTML, text alone",
        "text/html; charset=utf-8",
        page(&"some words of text ".repeat(6200)).as_bytes(),
    );
    measure("CSS, 2,400 URLs", "text/css", style.as_bytes());
}

fn measure(what: &str, kind: &'static str, body: &[u8]) {
    let place = Place::new("/fw2/c1:12001", "", "portal.example", Mode::Strip);
    let Ok(place) = place.map(|place| Arc::new(place.with_origins(["c1:12001"]))) else { return };
    let injection =
        Rc::new(Injection { src: "/-/rewrite.js".into(), integrity: None, nonce: "cmFuZG9t".into() });
    let mut best = f64::INFINITY;
    let mut written = 0;
    for _ in 0..std::env::args().nth(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS) {
        let begun = Instant::now();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let exchange = Exchange {
            place: &place,
            method: &Method::GET,
            destination: Destination::Document,
            status: StatusCode::OK,
            injection: Some(&injection),
            our_cookie: "__Host-portreeve",
        };
        let Some(mut rewriter) = towards_browser(&mut headers, &exchange) else { return };
        written = 0;
        for piece in body.chunks(16 << 10) {
            let mut out = Vec::with_capacity(20 << 10);
            if rewriter.push(piece, &mut out).is_err() {
                return;
            }
            written += out.len();
        }
        let mut out = Vec::new();
        rewriter.finish(&mut out);
        written += out.len();
        best = best.min(begun.elapsed().as_secs_f64());
    }
    let megabytes = body.len() as f64 / 1e6;
    println!(
        "{what}: {} B in, {written} B out, {:.0} us, {:.0} MB/s",
        body.len(),
        best * 1e6,
        megabytes / best
    );
}
