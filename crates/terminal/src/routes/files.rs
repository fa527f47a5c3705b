//! `GET /files`: what a directory holds. With `?path=` that one; without, the one that the program is in.

use std::cmp::Reverse;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use http::Uri;
use portreeve_files::{Entry, Error, Kind, Listed};
use serde::Serialize;

use super::file::aside;
use crate::access::Keeper;
use crate::desk::Desk;
use crate::limits;
use crate::place::{Place, encoded};
use crate::respond::{self, Answer, Refused};
use crate::whereabouts;

/// For the page. What ends in `at` goes into addresses as it is; names that are no UTF-8 can only be shown nearly.
#[derive(Serialize)]
struct Listing {
    path: String,
    at: String,
    parent_at: Option<String>,
    why: Why,
    home: String,
    /// It does not lie in home, links followed.
    outside: bool,
    entries: Vec<Item>,
    /// There are more.
    more: bool,
}

/// Why this one.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Why {
    Asked,
    /// The program is there.
    Program,
    /// Where the program is can't be known; it began there.
    Began,
}

#[derive(Serialize)]
struct Item {
    name: String,
    at: String,
    is: Is,
    /// Of a file itself, not of one behind a link.
    size: Option<u64>,
    /// In seconds since 1970.
    modified: Option<u64>,
    /// To replace exactly this content.
    etag: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Is {
    Directory,
    File,
    /// A device, a FIFO, a link that leads nowhere.
    Other,
}

pub(super) async fn files(_: &Keeper, desk: &Desk, uri: &Uri) -> Result<Answer, Refused> {
    let settings = &desk.settings;
    let asked = Place::of_query(uri.query(), &settings.home).transpose()?;
    let (home, began, program) = (settings.home.clone(), settings.directory.clone(), desk.program());
    let listing = aside(move || match asked {
        Some(place) => list(&place, Why::Asked, home),
        None => {
            let there = program.and_then(whereabouts::directory);
            let why = if there.is_some() { Why::Program } else { Why::Began };
            let began = || began.unwrap_or_else(|| ".".into()).canonicalize().ok();
            let path = there.or_else(began).unwrap_or_else(|| home.clone());
            let place =
                Place::parse(path.as_os_str().as_encoded_bytes(), &home).map_err(|_| Error::NotFound)?;
            list(&place, why, home)
        }
    });
    respond::json(&listing.await?)
}

fn list(place: &Place, why: Why, home: PathBuf) -> Result<Listing, Error> {
    let (mut entries, at) = (Vec::new(), place.encoded());
    let listed = Place::root()?.list(place.below_root(), limits::LISTED, |entry| {
        entries.push(item(&at, entry));
        ControlFlow::Continue(())
    })?;
    entries.sort_by_cached_key(|item| {
        (Reverse(item.is == Is::Directory), item.name.to_lowercase(), item.at.clone())
    });
    let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let path = place.path();
    Ok(Listing {
        outside: !real(path.clone()).starts_with(real(home.clone())),
        path: path.to_string_lossy().into_owned(),
        at,
        parent_at: place.parent().map(|parent| parent.encoded()),
        why,
        home: home.to_string_lossy().into_owned(),
        entries,
        more: listed == Listed::Part,
    })
}

fn item(directory: &str, entry: Entry) -> Item {
    let Entry { name, kind, status, link_to } = entry;
    let is = match link_to.map_or(kind, |status| status.kind) {
        Kind::Directory => Is::Directory,
        Kind::File => Is::File,
        _ => Is::Other,
    };
    let itself = status.filter(|status| status.kind == Kind::File);
    let since = |status: portreeve_files::Status| status.modified.duration_since(UNIX_EPOCH).ok();
    Item {
        name: name.to_string_lossy().into_owned(),
        at: format!("{}/{}", directory.trim_end_matches('/'), encoded(&name)),
        is,
        size: itself.map(|status| status.size),
        modified: itself.and_then(since).map(|since| since.as_secs()),
        etag: itself.map(|status| respond::etag(&status.identity)),
    }
}
