//! PROPFIND (RFC 4918, section 9.1): of a resource, and of what is directly in it. Said piece by piece, so that a directory may be as
//! large as it is.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use http::{HeaderValue, Response, StatusCode, header};
use portreeve_files::{Entries, Error, Found, Kind, RelPath, Root, Status};

use crate::properties::{LIVE, Resource, is_live};
use crate::refusal::Refusal;
use crate::xml::{self, DAV, Name};
use crate::{
    Asked, Dav, Depth, MULTI_STATUS, XML_DECLARATION, XML_TYPE, address, limits, status_above, status_in,
};

/// What is wanted of each resource.
#[derive(Debug)]
enum Want {
    /// All that RFC 4918 defines, dead properties, and these.
    All(Vec<Name>),
    /// These.
    These(Vec<Name>),
    /// What there is, without values.
    Names,
}

/// The answer to a PROPFIND, as far as it was not said yet.
#[derive(Debug)]
pub struct Listing {
    want: Want,
    root: Option<Root>,
    /// Of the resource itself, below the root and as it is asked for.
    below: Option<RelPath>,
    path: Option<RelPath>,
    itself: Option<Option<Status>>,
    members: Members,
    is_over: bool,
}

#[derive(Debug)]
enum Members {
    None,
    Entries(Entries),
    /// Above the roots.
    Names(std::collections::btree_set::IntoIter<OsString>),
}

impl Dav {
    pub(crate) fn find(&self, asked: &Asked, body: &[u8]) -> Result<(Response<()>, Listing), Refusal> {
        let depth = match asked.depth()? {
            Some(depth @ (Depth::Zero | Depth::One)) => depth,
            // Without the field it is meant (section 9.1).
            None | Some(Depth::Infinity) => {
                let why = "Ask for one directory after the other.";
                return Err(Refusal::condition(
                    StatusCode::FORBIDDEN,
                    "propfind-finite-depth",
                    Vec::new(),
                    why,
                ));
            }
        };
        let place = asked.place()?;
        let want = want(body)?;
        let found = self.roots.find(place.path.as_ref())?;
        let (root, below, status, members) = match found {
            Found::In(root, below) => {
                let status = status_in(&root, below.as_ref())?;
                let members = match (status.kind, depth) {
                    (Kind::Directory, Depth::One) => Members::Entries(root.entries(below.as_ref())?),
                    _ => Members::None,
                };
                (Some(root), below, Some(status), members)
            }
            Found::Above(names) => {
                let names = if depth == Depth::One { names } else { BTreeSet::new() };
                (None, None, self.status(&place).ok(), Members::Names(names.into_iter()))
            }
        };
        let listing =
            Listing { want, root, below, path: place.path, itself: Some(status), members, is_over: false };
        let mut head = Response::new(());
        *head.status_mut() = StatusCode::MULTI_STATUS;
        head.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(XML_TYPE));
        Ok((head, listing))
    }
}

fn want(body: &[u8]) -> Result<Want, Refusal> {
    if body.is_empty() {
        return Ok(Want::All(Vec::new()));
    }
    let document = xml::read(body)?;
    let malformed =
        || Refusal::plain(StatusCode::BAD_REQUEST, "The body does not say which properties are wanted.");
    if !document.root.is("propfind") {
        return Err(malformed());
    }
    let names = |element: &xml::Element| element.children.iter().map(|child| child.name.clone()).collect();
    let root = &document.root;
    match (root.child("prop"), root.child("allprop"), root.child("propname")) {
        (Some(these), None, None) => Ok(Want::These(names(these))),
        (None, Some(_), None) => Ok(Want::All(root.child("include").map(names).unwrap_or_default())),
        (None, None, Some(_)) => Ok(Want::Names),
        _ => Err(malformed()),
    }
}

impl Listing {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When the directory can't be read on: then the answer has no end.
    pub fn next(&mut self, dav: &Dav) -> Result<Option<Vec<u8>>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let mut piece = String::with_capacity(limits::PIECE + 4096);
        if let Some(status) = self.itself.take() {
            piece.push_str(XML_DECLARATION);
            piece.push_str(MULTI_STATUS);
            let name = self.path.as_ref().map(|path| path.name().to_owned()).unwrap_or_default();
            let (below, path) = (self.below.clone(), self.path.clone());
            self.say(&mut piece, dav, &name, below, path, status);
        }
        while piece.len() < limits::PIECE {
            let Some((name, status)) = self.member()? else {
                piece.push_str("</D:multistatus>\n");
                self.is_over = true;
                break;
            };
            let in_it = |path: Option<&RelPath>| RelPath::below(path, name.as_bytes()).ok();
            // A path that is too long has no address.
            let Some(path) = in_it(self.path.as_ref()) else { continue };
            let below = in_it(self.below.as_ref());
            self.say(&mut piece, dav, &name, below, Some(path), status);
        }
        Ok(Some(piece.into_bytes()))
    }

    fn member(&mut self) -> Result<Option<(OsString, Option<Status>)>, Error> {
        match (&mut self.members, &self.root) {
            (Members::Entries(entries), Some(root)) => match entries.next(root) {
                None => Ok(None),
                Some(entry) => {
                    let entry = entry?;
                    let status = match entry.kind {
                        Kind::Link => entry.link_to,
                        _ => entry.status,
                    };
                    Ok(Some((entry.name, status)))
                }
            },
            (Members::Names(names), _) => {
                // They are directories, whatever they hold: the way to the roots.
                Ok(names.next().map(|name| (name, status_above().ok())))
            }
            _ => Ok(None),
        }
    }

    fn say(
        &self,
        piece: &mut String,
        dav: &Dav,
        name: &std::ffi::OsStr,
        below: Option<RelPath>,
        path: Option<RelPath>,
        status: Option<Status>,
    ) {
        let locks =
            if self.tells_locks() { dav.locks().of(path.as_ref(), Instant::now()) } else { Vec::new() };
        let is_directory = status.is_some_and(|status| status.kind == Kind::Directory);
        let resource =
            Resource { root: self.root.as_ref(), path: below, name: name.as_bytes(), status, locks: &locks };
        let _ = write!(piece, "<D:response><D:href>{}</D:href>", address(path.as_ref(), is_directory));
        match &self.want {
            Want::These(names) => these(piece, &resource, names),
            Want::All(more) => all(piece, &resource, more),
            Want::Names => names_of(piece, &resource),
        }
        piece.push_str("</D:response>\n");
    }

    fn tells_locks(&self) -> bool {
        match &self.want {
            Want::All(_) => true,
            Want::These(names) => names.iter().any(|name| name.space == DAV && name.local == "lockdiscovery"),
            Want::Names => false,
        }
    }
}

fn these(piece: &mut String, resource: &Resource<'_>, names: &[Name]) {
    // Looked for once, and only if somebody asks.
    let dead = names.iter().any(|name| !is_live(name)).then(|| resource.dead());
    let found = |name: &Name| match is_live(name) {
        true => resource.live(name),
        false => dead.as_ref().and_then(|dead| dead.0.get(name).cloned()),
    };
    let (mut there, mut missing) = (String::new(), String::new());
    for name in names {
        match found(name) {
            Some(element) => there.push_str(&element),
            None => missing.push_str(&name.empty_element()),
        }
    }
    if !there.is_empty() || missing.is_empty() {
        stat(piece, &there, "200 OK");
    }
    if !missing.is_empty() {
        stat(piece, &missing, "404 Not Found");
    }
}

fn all(piece: &mut String, resource: &Resource<'_>, more: &[Name]) {
    let mut there: String = LIVE.iter().filter_map(|local| resource.live(&Name::dav(local))).collect();
    there.extend(
        more.iter().filter(|name| !LIVE.contains(&&*name.local)).filter_map(|name| resource.live(name)),
    );
    there.extend(resource.dead().0.into_values());
    stat(piece, &there, "200 OK");
}

fn names_of(piece: &mut String, resource: &Resource<'_>) {
    let live = LIVE.iter().map(|local| Name::dav(local)).filter(|name| resource.live(name).is_some());
    let dead = resource.dead();
    let names: String =
        live.map(|name| name.empty_element()).chain(dead.0.keys().map(Name::empty_element)).collect();
    stat(piece, &names, "200 OK");
}

pub(crate) fn stat(piece: &mut String, properties: &str, status: &str) {
    let _ = write!(
        piece,
        "<D:propstat><D:prop>{properties}</D:prop><D:status>HTTP/1.1 {status}</D:status></D:propstat>"
    );
}
