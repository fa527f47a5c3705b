//! The broker: whether it answers at the login socket, and for this portal.

use std::path::Path;

use portreeve_model::{ControlReply, ControlRequest};

use super::{Finding, Installation, in_time};
use crate::cluster::{self, SOCKET};

pub(super) fn check(at: &Installation) -> Vec<Finding> {
    let remedy = "systemctl status portreeve-broker says why";
    let answer = in_time(|| cluster::ask(Path::new(SOCKET), &ControlRequest::Where));
    vec![match answer {
        Some(Ok(ControlReply::Portal { url, .. })) => of_portal(&url, at.config.portal.url.as_deref()),
        Some(Ok(_)) => Finding::problem(format!("{SOCKET}: an answer to another question"), remedy),
        Some(Err(error)) => Finding::problem(format!("{error:#}"), remedy),
        None => Finding::problem(format!("whoever is at {SOCKET} does not answer"), remedy),
    }]
}

fn of_portal(said: &str, configured: Option<&str>) -> Finding {
    match configured {
        Some(url) if said.trim_end_matches('/') != url => {
            let what = format!("it signs people in at {said}, and not at {url}");
            let remedy = "systemctl restart portreeve-broker portreeve-portal, so that both know the address";
            Finding::problem(what, remedy)
        }
        _ => Finding::fine(format!("it answers, for {said}")),
    }
}
