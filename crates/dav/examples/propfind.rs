//! How long a directory's listing takes: PROPFIND, `Depth: 1`, of the five properties that a mount asks for, without a network.
//!
//!     cargo run --release -p portreeve-dav --example propfind -- DIRECTORY [ROUNDS]
//!
//! Prints the median and the best of the rounds (100), in milliseconds, and how much was said in one.

use std::time::Instant;

use http::{HeaderMap, HeaderValue, Method};
use portreeve_dav::{Answer, Asked, Dav};
use portreeve_files::{RelPath, Roots, address};

const WANTED: &[u8] =
    b"<?xml version=\"1.0\"?><propfind xmlns=\"DAV:\"><prop><resourcetype/><getcontentlength/>\
    <getlastmodified/><creationdate/><getetag/></prop></propfind>";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let directory = std::fs::canonicalize(words.next().ok_or("which directory?")?)?;
    let rounds = words.next().map_or(Ok(100), |rounds| rounds.parse::<usize>())?.max(1);
    let path = RelPath::parse(directory.strip_prefix("/")?.as_os_str().as_encoded_bytes())?;
    let asked = Asked {
        method: Method::from_bytes(b"PROPFIND")?,
        path: format!("/dav/{}/", address::segments(&path)),
        headers: HeaderMap::from_iter([("depth".parse()?, HeaderValue::from_static("1"))]),
        origin: "https://portal.example.org".to_owned(),
    };
    let dav = Dav::new(Roots::default());
    let mut took = Vec::new();
    let mut said = 0;
    for _ in 0..rounds {
        let began = Instant::now();
        let Answer::Listing(_, mut listing) = dav.answer(&asked, WANTED) else {
            return Err("it is not listed".into());
        };
        said = 0;
        while let Some(piece) = listing.next(&dav)? {
            said += piece.len();
        }
        took.push(began.elapsed());
    }
    took.sort();
    let milliseconds = |index: usize| took[index].as_secs_f64() * 1000.0;
    println!("median {:.2} ms, best {:.2} ms, {said} bytes", milliseconds(rounds / 2), milliseconds(0));
    Ok(())
}
