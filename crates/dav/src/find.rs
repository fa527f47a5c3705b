//! PROPFIND (RFC 4918, section 9.1): of a resource, and of what is directly in it. Said piece by piece, so that a directory may be as
//! large as it is.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use http::{HeaderValue, Response, StatusCode, header};
use portreeve_files::address::push_segment;
use portreeve_files::{Error, Found, Kind, Overview, RelPath, Root, Status};

use crate::locks::Lock;
use crate::properties::{Dead, LIVE, Resource, is_live};
use crate::refusal::Refusal;
use crate::xml::{self, Name};
use crate::{
    Asked, Dav, Depth, MULTI_STATUS, XML_DECLARATION, XML_TYPE, address, limits, status_above, status_in,
};

/// What is wanted of each resource.
#[derive(Debug)]
enum Want {
    /// All that RFC 4918 defines, dead properties, and these.
    All(Vec<Name>),
    /// These: live properties, and others.
    These(Vec<Name>, Vec<Name>),
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
    address: String,
    /// The file system of the resource itself.
    device: Option<u64>,
    itself: Option<Option<Status>>,
    members: Members,
    has_begun: bool,
    is_over: bool,
}

#[derive(Debug)]
enum Members {
    None,
    Entries(Overview),
    /// Above the roots.
    Names(std::collections::btree_set::IntoIter<OsString>),
}

impl Dav {
    pub(crate) fn find(&self, asked: &Asked, body: &[u8]) -> Result<(Response<()>, Listing), Refusal> {
        // Without the field it is meant (section 9.1).
        let depth = asked.depth()?.unwrap_or(Depth::Infinity);
        let too_deep = || {
            let why = "Ask for one directory after the other.";
            Refusal::condition(StatusCode::FORBIDDEN, "propfind-finite-depth", Vec::new(), why)
        };
        let place = asked.place()?;
        let want = want(body)?;
        let found = self.roots.find(place.path.as_ref())?;
        let (root, below, status, members) = match found {
            Found::In(root, below) => {
                let status = status_in(&root, below.as_ref())?;
                let members = match (status.kind, depth) {
                    // In a file there is nothing.
                    (Kind::Directory, Depth::Infinity) => return Err(too_deep()),
                    (Kind::Directory, Depth::One | Depth::Members) => {
                        Members::Entries(root.overview(below.as_ref())?)
                    }
                    _ => Members::None,
                };
                (Some(root), below, Some(status), members)
            }
            Found::Above(_) if depth == Depth::Infinity => return Err(too_deep()),
            Found::Above(names) => {
                let names = if depth == Depth::Zero { BTreeSet::new() } else { names };
                (None, None, self.status(&place).ok(), Members::Names(names.into_iter()))
            }
        };
        let is_directory = status.is_some_and(|status| status.kind == Kind::Directory);
        let listing = Listing {
            want,
            root,
            below,
            address: address(place.path.as_ref(), is_directory),
            device: status.map(|status| status.identity.device()),
            path: place.path,
            itself: (depth != Depth::Members).then_some(status),
            has_begun: false,
            members,
            is_over: false,
        };
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
    let names = |element: &xml::Element| -> Vec<Name> {
        element.children.iter().map(|child| child.name.clone()).collect()
    };
    let root = &document.root;
    // Each is told of for each entry, also if it has none.
    if root.children.iter().any(|child| child.children.len() > limits::NAMES) {
        let why = format!("Ask for {} properties at once at most.", limits::NAMES);
        return Err(Refusal::plain(StatusCode::BAD_REQUEST, why));
    }
    match (root.child("prop"), root.child("allprop"), root.child("propname")) {
        (Some(these), None, None) => {
            let (live, others) = names(these).into_iter().partition(is_live);
            Ok(Want::These(live, others))
        }
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
        if !std::mem::replace(&mut self.has_begun, true) {
            piece.push_str(XML_DECLARATION);
            piece.push_str(MULTI_STATUS);
        }
        if let Some(status) = self.itself.take() {
            self.say(&mut piece, dav, None, status);
        }
        while piece.len() < limits::PIECE {
            let Some((name, status)) = self.member()? else {
                piece.push_str("</D:multistatus>\n");
                self.is_over = true;
                break;
            };
            // A path that is too long has no address.
            if self.path.as_ref().is_none_or(|path| path.has_room_for(name.as_bytes())) {
                self.say(&mut piece, dav, Some(&name), status);
            }
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

    /// Of the resource itself, or of what has the name in it.
    fn say(&self, piece: &mut String, dav: &Dav, member: Option<&OsStr>, status: Option<Status>) {
        let locks = if self.tells_locks() { self.locks(dav, member) } else { Vec::new() };
        let itself = || self.path.as_ref().map(RelPath::name).unwrap_or_default();
        let resource = Resource {
            root: self.root.as_ref(),
            directory: self.below.as_ref(),
            is_member: member.is_some(),
            is_mount: member.is_some() && status.map(|status| status.identity.device()) != self.device,
            name: member.unwrap_or_else(itself).as_bytes(),
            status,
            locks: &locks,
        };
        piece.push_str("<D:response><D:href>");
        piece.push_str(&self.address);
        if let Some(name) = member {
            push_segment(piece, name.as_bytes());
            if status.is_some_and(|status| status.kind == Kind::Directory) {
                piece.push('/');
            }
        }
        piece.push_str("</D:href>");
        match &self.want {
            Want::These(live, others) => these(piece, &resource, live, others),
            Want::All(more) => all(piece, &resource, more),
            Want::Names => names_of(piece, &resource),
        }
        piece.push_str("</D:response>\n");
    }

    fn locks(&self, dav: &Dav, member: Option<&OsStr>) -> Vec<Lock> {
        let below = member.map(|name| RelPath::below(self.path.as_ref(), name.as_bytes()));
        match below {
            None => dav.locks().of(self.path.as_ref(), Instant::now()),
            Some(Ok(path)) => dav.locks().of(Some(&path), Instant::now()),
            Some(Err(_)) => Vec::new(),
        }
    }

    fn tells_locks(&self) -> bool {
        match &self.want {
            Want::All(_) => true,
            Want::These(live, _) => live.iter().any(|name| name.local == "lockdiscovery"),
            Want::Names => false,
        }
    }
}

fn these(piece: &mut String, resource: &Resource<'_>, live: &[Name], others: &[Name]) {
    let begin = piece.len();
    piece.push_str(BEGIN);
    let (none, mut missing) = (piece.len(), String::new());
    for name in live {
        if !resource.live(name, piece) {
            missing.push_str(&name.empty_element());
        }
    }
    // Looked for once, and only if somebody asks.
    let dead = if others.is_empty() { Dead::default() } else { resource.dead() };
    for name in others {
        match dead.0.get(name) {
            Some(element) => piece.push_str(element),
            None => missing.push_str(&name.empty_element()),
        }
    }
    if piece.len() == none && !missing.is_empty() {
        piece.truncate(begin);
    } else {
        end(piece, "200 OK");
    }
    if !missing.is_empty() {
        stat(piece, &missing, "404 Not Found");
    }
}

fn all(piece: &mut String, resource: &Resource<'_>, more: &[Name]) {
    piece.push_str(BEGIN);
    for local in LIVE {
        resource.live(&Name::dav(local), piece);
    }
    for name in more.iter().filter(|name| !LIVE.contains(&&*name.local)) {
        resource.live(name, piece);
    }
    piece.extend(resource.dead().0.into_values());
    end(piece, "200 OK");
}

fn names_of(piece: &mut String, resource: &Resource<'_>) {
    let mut said = String::new();
    let live = LIVE.iter().map(|local| Name::dav(local)).filter(|name| resource.live(name, &mut said));
    let dead = resource.dead();
    let names: String =
        live.map(|name| name.empty_element()).chain(dead.0.keys().map(Name::empty_element)).collect();
    stat(piece, &names, "200 OK");
}

const BEGIN: &str = "<D:propstat><D:prop>";

fn end(piece: &mut String, status: &str) {
    for part in ["</D:prop><D:status>HTTP/1.1 ", status, "</D:status></D:propstat>"] {
        piece.push_str(part);
    }
}

/// Properties, and what became of them.
pub(crate) fn stat(piece: &mut String, properties: &str, status: &str) {
    piece.push_str(BEGIN);
    piece.push_str(properties);
    end(piece, status);
}
