//! Who reads the answer, and how addresses look from there: what the portal says beside each request. Before: `ticket`. After: `routes`.
//!
//! Invariant: what changes something is asked for by a program, by a script of our own page, or by a form of our own page with the
//! page's secret. An application that shares the portal's origin has none of these.

use data_encoding::BASE64URL_NOPAD;
use http::HeaderMap;
use portreeve_model::wire::worker::{Reader, VISIT, Visit};

use crate::respond::Refused;
use crate::ticket::Holder;

/// Takes it out of a request's fields. It must be about the ticket's holder.
pub(crate) fn take(headers: &mut HeaderMap, holder: &Holder) -> Result<Visit, Refused> {
    let said = headers.remove(VISIT).ok_or(Refused::Malformed)?;
    let json = BASE64URL_NOPAD.decode(said.as_bytes()).map_err(|_| Refused::Malformed)?;
    let visit: Visit = serde_json::from_slice(&json).map_err(|_| Refused::Malformed)?;
    if visit.user == *holder.user() { Ok(visit) } else { Err(Refused::Malformed) }
}

/// Whether this visit may change something; `shown` is what its form says is the page's secret.
pub(crate) fn may_change(visit: &Visit, shown: Option<&str>) -> Result<(), Refused> {
    let may = match visit.reader {
        Reader::Program | Reader::Script => true,
        Reader::Window => match (&visit.page_secret, shown) {
            (Some(secret), Some(shown)) => secret.reveal() == shown,
            _ => false,
        },
    };
    if may { Ok(()) } else { Err(Refused::NotOurPage) }
}

#[cfg(test)]
mod tests {
    use portreeve_model::{Secret, UserName};

    use super::*;

    #[test]
    fn who_may_change_something() {
        let visit = |reader, secret: Option<&str>| Visit {
            user: UserName::parse("alice").unwrap(),
            origin: String::new(),
            own_origins: None,
            shared_origin: None,
            modes: std::collections::BTreeMap::new(),
            page_secret: secret.map(|secret| Secret::new(secret.to_owned())),
            reader,
        };
        for (reader, secret, shown, may) in [
            (Reader::Program, None, None, true),
            (Reader::Script, Some("s"), None, true),
            (Reader::Window, Some("s"), Some("s"), true),
            (Reader::Window, Some("s"), Some("t"), false),
            (Reader::Window, Some("s"), Some(""), false),
            (Reader::Window, Some("s"), None, false),
            (Reader::Window, None, None, false),
            (Reader::Window, None, Some(""), false),
        ] {
            assert_eq!(
                may_change(&visit(reader, secret), shown).is_ok(),
                may,
                "{reader:?} {secret:?} {shown:?}"
            );
        }
    }
}
