//! Which place is asked for. Before: `authenticate`. After: `resolve`. Nothing is looked up here: a [`Place`] says
//! what was asked, not whether it exists.

use std::rc::Rc;
use std::sync::Arc;

use portreeve_model::{AppHost, ForwardName, NameError, NodePort};

use crate::limits;
use crate::resolve::Nearby;
use crate::room::Room;
use crate::site::{Origin, Site};

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Route {
    /// The workspace's pages.
    Workspace,
    /// An application, and how much of the path names it.
    Application { place: Rc<Place>, prefix_length: usize },
    /// An application's address without its closing slash: the browser is sent to the one with it, so that relative
    /// links work.
    MissingSlash,
}

/// What was asked for, and under which path it appears.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) what: What,
    /// `/fw/NAME` or `/fw2/NODE:PORT`; empty in an origin of its own.
    pub(crate) prefix: Rc<str>,
    /// The same as a header value for the application.
    pub(crate) prefix_header: http::HeaderValue,
    /// How it appears to the browser, as it was worked out last, and for which server.
    pub(crate) appearance: std::cell::RefCell<Option<(std::net::SocketAddr, Arc<portreeve_rewrite::Place>)>>,
    /// What `resolve` found out for a direct address, for a few seconds.
    pub(crate) nearby: std::cell::RefCell<Option<Nearby>>,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// `/fw2/NODE:PORT/`: a port on a node.
    Direct(NodePort),
    /// `/fw/NAME/`: a forward.
    Forward(ForwardName),
}

/// Why there is no route.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RouteError {
    /// No page or application has such an address.
    #[error("there is nothing at this address")]
    NotFound,
    /// It looks like an application's address.
    #[error("{0}")]
    BadName(#[from] NameError),
}

/// The route that the request's path and origin name.
pub(crate) fn route(room: &Room, site: &Site, path: &str) -> Result<Route, RouteError> {
    if let Some(application) = site.application() {
        let place = in_its_origin(room, &site.host, application)?;
        return Ok(Route::Application { place, prefix_length: 0 });
    }
    let (kind, rest) = if let Some(rest) = path.strip_prefix("/fw2/") {
        ("/fw2/", rest)
    } else if let Some(rest) = path.strip_prefix("/fw/") {
        ("/fw/", rest)
    } else if crate::own::workspace::is_its(path) && site.origin == Origin::Portal {
        return Ok(Route::Workspace);
    } else {
        return Err(RouteError::NotFound);
    };
    let Some(length) = rest.find('/') else {
        parse(kind, rest)?;
        return Ok(Route::MissingSlash);
    };
    let prefix_length = kind.len() + length;
    let prefix = &path[..prefix_length];
    let place = remembered(room, prefix, prefix, || parse(kind, &rest[..length]))?;
    Ok(Route::Application { place, prefix_length })
}

/// An application in an origin of its own, which is this host.
pub(crate) fn in_its_origin(room: &Room, host: &str, application: &AppHost) -> Result<Rc<Place>, RouteError> {
    remembered(room, host, "", || {
        Ok(match application {
            AppHost::NodePort(direct) => What::Direct(direct.clone()),
            AppHost::Forward(name) => What::Forward(name.clone()),
        })
    })
}

fn parse(kind: &str, name: &str) -> Result<What, RouteError> {
    if name.is_empty() || name.len() > limits::PLACE_BYTES {
        return Err(RouteError::NotFound);
    }
    Ok(if kind == "/fw2/" {
        What::Direct(NodePort::parse(name)?)
    } else {
        What::Forward(ForwardName::parse(name)?)
    })
}

fn remembered(
    room: &Room,
    key: &str,
    prefix: &str,
    what: impl FnOnce() -> Result<What, RouteError>,
) -> Result<Rc<Place>, RouteError> {
    if let Some(place) = room.places.borrow_mut().get(key) {
        return Ok(Rc::clone(place));
    }
    let what = what()?;
    let prefix_header = http::HeaderValue::try_from(prefix).map_err(|_| RouteError::NotFound)?;
    let place = Rc::new(Place {
        what,
        prefix: prefix.into(),
        prefix_header,
        appearance: std::cell::RefCell::default(),
        nearby: std::cell::RefCell::default(),
    });
    room.places.borrow_mut().put(key.into(), Rc::clone(&place));
    Ok(place)
}

impl What {
    /// What names it in a host's name.
    pub(crate) fn to_host(&self) -> AppHost {
        match self {
            Self::Direct(direct) => AppHost::NodePort(direct.clone()),
            Self::Forward(name) => AppHost::Forward(name.clone()),
        }
    }

    /// The address that leads there in path form.
    pub(crate) fn path(&self) -> String {
        match self {
            Self::Direct(direct) => format!("/fw2/{direct}"),
            Self::Forward(name) => format!("/fw/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    /// With room for one place only.
    #[test]
    fn a_place_that_was_forgotten_is_parsed_again_and_long_names_are_none() {
        let (_state, room) = crate::room::tests::room();
        room.places.borrow_mut().resize(NonZeroUsize::MIN);
        let site = Site::localhost();
        for name in ["one", "two", "one"] {
            let path = format!("/fw/{name}/x");
            let Ok(Route::Application { place, prefix_length }) = route(&room, &site, &path) else {
                panic!("{path} is no application")
            };
            assert_eq!(place.what, What::Forward(ForwardName::parse(name).unwrap()));
            assert_eq!((prefix_length, room.places.borrow().len()), ("/fw/".len() + name.len(), 1));
        }
        let named = |length: usize| route(&room, &site, &format!("/fw2/{}/", "n".repeat(length)));
        assert!(matches!(named(limits::PLACE_BYTES), Err(RouteError::BadName(_))), "looked at");
        assert!(matches!(named(limits::PLACE_BYTES + 1), Err(RouteError::NotFound)), "not even looked at");
    }
}
