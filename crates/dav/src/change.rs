//! MKCOL, DELETE, COPY and MOVE (RFC 4918, sections 9.3, 9.6, 9.8, 9.9).
//!
//! Invariant: what a copy or a move replaces is there until the new one is complete.

use http::{Response, StatusCode};
use portreeve_files::{Deep, Error, Kind, Left, Over, RelPath, Root, To};
use quick_xml::escape::escape;

use crate::conditions::If;
use crate::locks::{Reach, is_below};
use crate::refusal::Refusal;
use crate::{Asked, Dav, Depth, MULTI_STATUS, address, with_status, xml_answer};

impl Dav {
    pub(crate) fn make(&self, asked: &Asked, body: &[u8]) -> Result<Response<Vec<u8>>, Refusal> {
        if !body.is_empty() {
            return Err(Refusal::plain(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "A directory is made without a body.",
            ));
        }
        let place = asked.place()?;
        let exists =
            || Refusal::plain(StatusCode::METHOD_NOT_ALLOWED, "There is something of that name already.");
        let Some(path) = &place.path else { return Err(exists()) };
        let (root, below) = self.roots.named(Some(path))?;
        let status = root.status(&below).ok();
        let shown = self.conditions(asked, &place, status.as_ref())?;
        self.unlocked(Some(path), Reach::Existence, &shown)?;
        match root.make_dir(&below, 0o777) {
            Ok(()) => Ok(with_status(StatusCode::CREATED)),
            Err(Error::Exists) => Err(exists()),
            Err(error) => Err(Refusal::of_parent(&error)),
        }
    }

    pub(crate) fn delete(&self, asked: &Asked) -> Result<Response<Vec<u8>>, Refusal> {
        let place = asked.place()?;
        let path = place.path.as_ref().ok_or(Error::Denied)?;
        let (root, below) = self.roots.named(Some(path))?;
        let status = root.status(&below);
        let is_directory = status.as_ref().is_ok_and(|status| status.kind == Kind::Directory);
        if is_directory && !matches!(asked.depth()?, None | Some(Depth::Infinity)) {
            return Err(Refusal::plain(
                StatusCode::BAD_REQUEST,
                "A directory is removed with all that is in it.",
            ));
        }
        let shown = self.conditions(asked, &place, status.ok().as_ref())?;
        let left = self.remove_in(&root, &below, path, &shown)?;
        Ok(if left.is_empty() { with_status(StatusCode::NO_CONTENT) } else { not_all(path, left) })
    }

    pub(crate) fn transfer(&self, asked: &Asked) -> Result<Response<Vec<u8>>, Refusal> {
        let moves = asked.method.as_str() == "MOVE";
        let (place, target) = (asked.place()?, asked.destination()?);
        let forbidden = |why: &str| Refusal::plain(StatusCode::FORBIDDEN, why);
        let (root, from) = self.roots.named(place.path.as_ref())?;
        let status = root.status(&from);
        let deep = match (asked.depth()?, moves) {
            (None | Some(Depth::Infinity), _) => Deep::All,
            (Some(Depth::Zero), false) => Deep::Empty,
            // Of a file there is nothing below.
            (Some(Depth::Zero), true)
                if status.as_ref().is_ok_and(|status| status.kind != Kind::Directory) =>
            {
                Deep::All
            }
            _ => return Err(Refusal::plain(StatusCode::BAD_REQUEST, "Depth does not go with this.")),
        };
        // A link that leads nowhere can be moved.
        let status = match status {
            Err(Error::NotFound) if moves && root.has_name(&from)? => None,
            other => Some(other?),
        };
        let (Some(source), Some(wanted)) = (&place.path, &target.path) else {
            return Err(forbidden("The root stays where it is."));
        };
        let over = match asked.headers.get("overwrite").map(http::HeaderValue::as_bytes) {
            None | Some(b"T" | b"t") => Over::Replace,
            Some(b"F" | b"f") => Over::Refuse,
            Some(_) => {
                return Err(Refusal::plain(
                    StatusCode::BAD_REQUEST,
                    "The field Overwrite is not understood.",
                ));
            }
        };
        let shown = self.conditions(asked, &place, status.as_ref())?;
        let existed = self.carry(source, wanted, Carry { moves, deep, over }, &shown)?;
        Ok(with_status(if existed { StatusCode::NO_CONTENT } else { StatusCode::CREATED }))
    }

    /// Moves it, for somebody who holds no lock.
    ///
    /// # Errors
    /// Then both are as they were.
    pub fn relocate(&self, from: &RelPath, to: &RelPath, over: Over) -> Result<(), Refusal> {
        self.carry(from, to, Carry { moves: true, deep: Deep::All, over }, &If::default()).map(|_| ())
    }

    /// Copies it, for somebody who holds no lock.
    ///
    /// # Errors
    /// Then both are as they were.
    pub fn copy(&self, from: &RelPath, to: &RelPath, over: Over) -> Result<(), Refusal> {
        self.carry(from, to, Carry { moves: false, deep: Deep::All, over }, &If::default()).map(|_| ())
    }

    /// Removes it with all that is in it, for somebody who holds no lock; what stays, with the reason.
    ///
    /// # Errors
    /// When nothing was done.
    pub fn remove(&self, path: &RelPath) -> Result<Vec<Left>, Refusal> {
        let (root, below) = self.roots.named(Some(path))?;
        self.remove_in(&root, &below, path, &If::default())
    }

    fn remove_in(
        &self,
        root: &Root,
        below: &RelPath,
        path: &RelPath,
        shown: &If,
    ) -> Result<Vec<Left>, Refusal> {
        self.unlocked(Some(path), Reach::Existence, shown)?;
        let left = root.remove_tree(below)?;
        if left.is_empty() {
            self.locks().forget(path);
        }
        Ok(left)
    }

    /// Whether something had the new name.
    fn carry(&self, from: &RelPath, to: &RelPath, how: Carry, shown: &If) -> Result<bool, Refusal> {
        let forbidden = |why: &str| Err(Refusal::plain(StatusCode::FORBIDDEN, why));
        if from == to || (how.moves && is_below(Some(to), Some(from))) {
            return forbidden("It can't be brought to where it is, or into itself.");
        }
        if is_below(Some(from), Some(to)) {
            return forbidden("It is in what it would replace.");
        }
        let (root, old) = self.roots.named(Some(from))?;
        let (to_root, new) = self.roots.named(Some(to))?;
        let existed = to_root.has_name(&new).map_err(|error| Refusal::of_parent(&error))?;
        if how.moves {
            self.unlocked(Some(from), Reach::Existence, shown)?;
        }
        self.unlocked(Some(to), Reach::Existence, shown)?;
        let target = To { root: &to_root, path: &new, over: how.over };
        let done = if how.moves { root.relocate(&old, target) } else { root.copy(&old, target, how.deep) };
        done.map_err(|error| match error {
            Error::Exists => {
                Refusal::plain(StatusCode::PRECONDITION_FAILED, "There is something of that name already.")
            }
            other => Refusal::from(other),
        })?;
        if how.moves {
            self.locks().forget(from);
        }
        Ok(existed)
    }
}

#[derive(Clone, Copy)]
struct Carry {
    /// The old one goes.
    moves: bool,
    deep: Deep,
    over: Over,
}

/// What stays, each with its reason.
fn not_all(path: &RelPath, left: Vec<Left>) -> Response<Vec<u8>> {
    let mut said = String::from(MULTI_STATUS);
    for Left { below, error } in left {
        let whole = if below.is_empty() { Ok(path.clone()) } else { path.join(&below) };
        let refusal = Refusal::from(error);
        said += &format!(
            "<D:response><D:href>{}</D:href><D:status>HTTP/1.1 {} {}</D:status><D:responsedescription>{}</D:responsedescription></D:response>\n",
            address(whole.ok().as_ref().or(Some(path)), false),
            refusal.status.as_str(),
            refusal.status.canonical_reason().unwrap_or_default(),
            escape(&refusal.why),
        );
    }
    xml_answer(StatusCode::MULTI_STATUS, &(said + "</D:multistatus>\n"))
}
