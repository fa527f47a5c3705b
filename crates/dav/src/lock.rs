//! LOCK and UNLOCK (RFC 4918, sections 9.10 and 9.11).

use std::time::{Duration, Instant};

use http::{HeaderValue, Response, StatusCode};
use portreeve_files::{Error, Finish, NewMode, Only, Status};

use crate::conditions::If;
use crate::locks::{Lock, NotLocked, Reach, Wanted};
use crate::properties::active;
use crate::refusal::Refusal;
use crate::xml;
use crate::{Asked, Dav, Depth, Place, address, limits, with_status, xml_answer};

impl Dav {
    pub(crate) fn lock(&self, asked: &Asked, body: &[u8]) -> Result<Response<Vec<u8>>, Refusal> {
        let place = asked.place()?;
        let status = match self.status(&place) {
            Ok(status) => Some(status),
            Err(Error::NotFound) => None,
            Err(error) => return Err(error.into()),
        };
        let time = time(asked)?;
        let shown = self.conditions(asked, &place, status.as_ref())?;
        if body.is_empty() {
            let tokens: Vec<&str> = shown.tokens().collect();
            let lock = self.locks().refresh(place.path.as_ref(), &tokens, time, Instant::now());
            let lock = lock.ok_or_else(|| no_such_lock(StatusCode::PRECONDITION_FAILED))?;
            return Ok(discovered(&lock, StatusCode::OK));
        }
        let deep = match asked.depth()? {
            None | Some(Depth::Infinity) => true,
            Some(Depth::Zero) => false,
            Some(Depth::One | Depth::Members) => {
                return Err(Refusal::plain(StatusCode::BAD_REQUEST, "Depth does not go with a lock."));
            }
        };
        let wanted = wanted(&place, body, deep, time)?;
        let lock = self.take(&place, status.as_ref(), wanted, &shown)?;
        let mut answer =
            discovered(&lock, if status.is_some() { StatusCode::OK } else { StatusCode::CREATED });
        if let Ok(token) = HeaderValue::try_from(format!("<{}>", lock.token)) {
            answer.headers_mut().insert("lock-token", token);
        }
        Ok(answer)
    }

    /// Locks it. What is not there is made: an empty file (section 7.3).
    fn take(
        &self,
        place: &Place,
        status: Option<&Status>,
        wanted: Wanted,
        shown: &If,
    ) -> Result<Lock, Refusal> {
        if status.is_none() {
            self.unlocked(place.path.as_ref(), Reach::Existence, shown)?;
        }
        let lock = self.locks().add(wanted, Instant::now()).map_err(|why| match why {
            NotLocked::Conflict(path) => {
                let about = vec![address(path.as_ref(), false)];
                Refusal::condition(
                    StatusCode::LOCKED,
                    "no-conflicting-lock",
                    about,
                    "Somebody has locked it.",
                )
            }
            NotLocked::TooMany => {
                Refusal::plain(StatusCode::SERVICE_UNAVAILABLE, "Too much is locked at once.")
            }
            NotLocked::NoToken => {
                Refusal::plain(StatusCode::INTERNAL_SERVER_ERROR, "No token could be made.")
            }
        })?;
        if status.is_none() {
            let made = self.roots.named(place.path.as_ref()).and_then(|(root, path)| {
                root.put(&path)?.finish(Finish { mode: NewMode::Kept, only: Only::IfAbsent })
            });
            match made {
                // Somebody else made it meanwhile: then that is locked.
                Ok(_) | Err(Error::Exists) => {}
                Err(error) => {
                    self.locks().remove(place.path.as_ref(), &lock.token, Instant::now());
                    return Err(Refusal::of_parent(&error));
                }
            }
        }
        Ok(lock)
    }

    pub(crate) fn unlock(&self, asked: &Asked) -> Result<Response<Vec<u8>>, Refusal> {
        let place = asked.place()?;
        let field = asked.headers.get("lock-token").and_then(|value| value.to_str().ok());
        let token = field.and_then(|text| text.trim().strip_prefix('<')?.strip_suffix('>'));
        let token = token.ok_or_else(|| {
            Refusal::plain(StatusCode::BAD_REQUEST, "The field Lock-Token is not understood.")
        })?;
        if self.locks().remove(place.path.as_ref(), token, Instant::now()) {
            return Ok(with_status(StatusCode::NO_CONTENT));
        }
        Err(no_such_lock(StatusCode::CONFLICT))
    }
}

fn no_such_lock(status: StatusCode) -> Refusal {
    let why = "There is no lock with that token: it may be over.";
    Refusal::condition(status, "lock-token-matches-request-uri", Vec::new(), why)
}

fn wanted(place: &Place, body: &[u8], deep: bool, time: Duration) -> Result<Wanted, Refusal> {
    let document = xml::read(body)?;
    let malformed = || Refusal::plain(StatusCode::BAD_REQUEST, "The body does not say which lock is wanted.");
    let root = &document.root;
    if !root.is("lockinfo") || root.child("locktype").is_none_or(|kind| kind.child("write").is_none()) {
        return Err(malformed());
    }
    let scope = root.child("lockscope").ok_or_else(malformed)?;
    let exclusive = match (scope.child("exclusive"), scope.child("shared")) {
        (Some(_), None) => true,
        (None, Some(_)) => false,
        _ => return Err(malformed()),
    };
    let owner = root.child("owner").map(|owner| document.standalone(owner)).unwrap_or_default();
    if owner.len() > limits::LOCK_OWNER {
        return Err(Refusal::plain(StatusCode::PAYLOAD_TOO_LARGE, "The lock's owner is too long."));
    }
    Ok(Wanted { path: place.path.clone(), deep, exclusive, owner, time })
}

/// The field `Timeout` (section 10.7): the first wish that is understood, as far as it is granted.
fn time(asked: &Asked) -> Result<Duration, Refusal> {
    let Some(field) = asked.headers.get("timeout") else { return Ok(limits::LOCK_TIME) };
    let malformed = || Refusal::plain(StatusCode::BAD_REQUEST, "The field Timeout is not understood.");
    let text = field.to_str().map_err(|_| malformed())?;
    let wish = |wish: &str| {
        let wish = wish.trim();
        if wish.eq_ignore_ascii_case("infinite") {
            return Some(limits::LOCK_MOST);
        }
        let seconds = wish
            .get(..7)
            .filter(|word| word.eq_ignore_ascii_case("second-"))
            .and_then(|_| wish[7..].parse().ok());
        seconds.map(|seconds: u64| Duration::from_secs(seconds.max(1)))
    };
    Ok(text.split(',').find_map(wish).unwrap_or(limits::LOCK_TIME).min(limits::LOCK_MOST))
}

fn discovered(lock: &Lock, status: StatusCode) -> Response<Vec<u8>> {
    let active = active(std::slice::from_ref(lock));
    let said = format!("<D:prop xmlns:D=\"DAV:\"><D:lockdiscovery>{active}</D:lockdiscovery></D:prop>\n");
    xml_answer(status, &said)
}
