//! Where an application is shown: in an origin of its own, in the one that all share, or beside the portal's own pages.
//!
//! Pages of one origin can do to each other what they like. So somebody else's application is shown beside anything of the
//! visitor's only where the sysadmin allows it, and then after its visitor was told (`consent`).

use std::net::IpAddr;

use http::uri::PathAndQuery;
use portreeve_model::wire::worker::OwnOrigins;

use super::consent;
use super::origins::Reader;
use crate::front::Connection;
use crate::portal::Portal;
use crate::reject::Reject;
use crate::route::Place;
use crate::sessions::Session;
use crate::site::{Origin, Site};

/// An application that its visitor may use, asked for at an address.
pub(crate) struct Shown<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) site: &'a Site,
    pub(crate) session: &'a Session,
    pub(crate) place: &'a Place,
    /// The path that was asked for, whole.
    pub(crate) asked: &'a PathAndQuery,
    pub(crate) reader: Reader,
    /// Whether it asks for a service worker's script.
    pub(crate) for_service_worker: bool,
    /// Whether visitors are asked about others' applications.
    pub(crate) asks: bool,
}

impl Shown<'_> {
    /// Refuses to show it here: a window is sent to where it is shown, a page gets nothing, a program may read.
    pub(crate) fn refuse(&self, owner: u32, is_foreign: bool) -> Result<(), Reject> {
        let portal = &self.connection.room.portal;
        if self.site.owner().is_some_and(|uid| uid != owner) {
            return Err(self.of_another_owner());
        }
        let in_path_form = self.site.application().is_none();
        // One's own applications are shown in path form, too, in `up`.
        let better =
            if in_path_form && (is_foreign || portal.hosts.tagged) { self.better(owner) } else { None };
        // A service worker would outlive the application, and see the codes that enter its origin.
        if self.for_service_worker && (is_foreign || better.is_some()) {
            return Err(Reject::NoServiceWorker);
        }
        if !in_path_form || self.reader == Reader::Program {
            return Ok(());
        }
        match better {
            Some(address) if self.reader == Reader::Window => Err(Reject::Elsewhere(address)),
            Some(_) => Err(foreign_here(portal)),
            None if !is_foreign => Ok(()),
            None if self.asks && self.session.consented(&self.place.what, owner) => Ok(()),
            None if self.asks && self.reader == Reader::Window => {
                Err(Reject::Elsewhere(consent::address(portal, self.site, self.asked.as_str())))
            }
            None => Err(foreign_here(portal)),
        }
    }

    /// The address where browsers keep it apart from more than here, if there is one.
    fn better(&self, owner: u32) -> Option<String> {
        let Self { connection, site, place, asked, .. } = self;
        let hosts = &connection.room.portal.hosts;
        let own =
            hosts.own_host(&place.what.to_host(), Some(owner)).filter(|_| are_offered(connection, site));
        if let Some(host) = own {
            return Some(format!("https://{host}{}{}", port(site), &asked.as_str()[place.prefix.len()..]));
        }
        let shared = shared_origin(&connection.room.portal, site).filter(|_| site.origin == Origin::Portal);
        shared.map(|origin| format!("{origin}{asked}"))
    }

    /// An application's origin that says another owner than the application has: a window is sent to the right one.
    fn of_another_owner(&self) -> Reject {
        let portal = &self.connection.room.portal;
        match portal.hosts.own_host(&self.place.what.to_host(), None) {
            Some(host) if self.reader == Reader::Window => {
                Reject::Elsewhere(super::open::address(portal, self.site, &host, self.asked.as_str()))
            }
            _ => foreign_here(portal),
        }
    }
}

/// The portal's own origin, seen from an application's.
pub(crate) fn portal_origin(portal: &Portal, site: &Site) -> String {
    let hosts = &portal.hosts;
    let name = match hosts.portal_names.first() {
        Some(name) if hosts.tagged => name,
        // `*.localhost` and `localhost` lead to the same machine, whatever else it is called.
        _ => &hosts.apps_domain,
    };
    format!("https://{name}{}", port(site))
}

/// The origin that all applications in path form share, if it is not the portal's own.
pub(crate) fn shared_origin(portal: &Portal, site: &Site) -> Option<String> {
    let name = &portal.hosts.apps_name;
    (!name.is_empty()).then(|| format!("https://{name}{}", port(site)))
}

/// Somebody else's application is not shown under the portal's own address.
pub(crate) fn foreign_here(portal: &Portal) -> Reject {
    Reject::ForeignHere { has_origins: !portal.hosts.apps_domain.is_empty() }
}

/// Whether applications' own origins can be reached by this browser: names below `localhost` lead to its own machine.
pub(crate) fn are_offered(connection: &Connection, site: &Site) -> bool {
    let hosts = &connection.room.portal.hosts;
    let peer: IpAddr = connection.peer.ip().to_canonical();
    (hosts.tagged || peer.is_loopback()) && site.application().is_none() && !hosts.apps_domain.is_empty()
}

/// The host names that applications have of their own, for the workspace's links.
pub(crate) fn own_origins(connection: &Connection, site: &Site) -> Option<OwnOrigins> {
    let hosts = &connection.room.portal.hosts;
    are_offered(connection, site).then(|| OwnOrigins {
        domain: hosts.apps_domain.clone(),
        port: site.port,
        tagged: hosts.tagged,
    })
}

/// What follows the host name: `:8443`, or nothing for HTTPS's own port.
pub(super) fn port(site: &Site) -> String {
    site.port.map(|port| format!(":{port}")).unwrap_or_default()
}
