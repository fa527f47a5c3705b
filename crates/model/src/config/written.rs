//! The configuration as written: which keys stand in the file, with which type of value, and where.
//! Before: the text. After: `check`. Invariant: no judgement of values here, but every unknown key and wrong type noted.
//!
//! Each value is read by serde on its own. A derived `deny_unknown_fields` for the whole file would stop at the first
//! mistake, and the sysadmin would meet the others one restart at a time.

use super::{Notes, Section};
use toml::Spanned;

/// Every key that there is, as found. `None`: not written, or of the wrong type, which is noted then.
pub(super) struct Written {
    pub(super) threads: Option<Spanned<i64>>,
    pub(super) portal: WrittenPortal,
    pub(super) users_first_uid: Option<Spanned<i64>>,
    pub(super) sign_in_login_nodes: Option<Spanned<bool>>,
    pub(super) session: WrittenSession,
    pub(super) tls: WrittenTls,
    pub(super) groups: WrittenGroups,
    pub(super) forwards: WrittenForwards,
    pub(super) workspace: WrittenWorkspace,
    pub(super) agents: WrittenAgents,
    pub(super) limits: WrittenLimits,
}

/// `[portal]`
pub(super) struct WrittenPortal {
    pub(super) url: Option<Spanned<String>>,
    pub(super) names: Option<Vec<Spanned<String>>>,
    pub(super) apps_url: Option<Spanned<String>>,
    pub(super) apps_domain: Option<Spanned<String>>,
    pub(super) foreign_applications: Option<Spanned<String>>,
    pub(super) trusted_proxies: Option<Vec<Spanned<String>>>,
    pub(super) access_log: Option<Spanned<bool>>,
}

/// `[session]`
pub(super) struct WrittenSession {
    pub(super) idle: Option<Spanned<String>>,
    pub(super) lifetime: Option<Spanned<String>>,
    pub(super) code_lifetime: Option<Spanned<String>>,
}

/// `[tls]`
pub(super) struct WrittenTls {
    pub(super) certificate: Option<Spanned<String>>,
    pub(super) key: Option<Spanned<String>>,
}

/// `[groups]`
pub(super) struct WrittenGroups {
    pub(super) never: Option<Vec<Spanned<WrittenGroup>>>,
    pub(super) refresh: Option<Spanned<String>>,
}

/// `[forwards]`
pub(super) struct WrittenForwards {
    pub(super) directory: Option<Spanned<String>>,
    pub(super) admin: Option<Vec<Spanned<String>>>,
}

/// `[agents]`
pub(super) struct WrittenAgents {
    pub(super) lookup: Option<Spanned<String>>,
    pub(super) ident2_socket: Option<Spanned<String>>,
    pub(super) plain_networks: Option<Vec<Spanned<String>>>,
}

/// `[workspace]`, and each `[[cluster]]` with where it begins.
pub(super) struct WrittenWorkspace {
    pub(super) apps: Option<Spanned<String>>,
    pub(super) own_apps: Option<Spanned<bool>>,
    pub(super) shared: Option<Spanned<String>>,
    pub(super) on_portal_node: Option<Spanned<bool>>,
    pub(super) portreeve: Option<Spanned<String>>,
    pub(super) roots: Option<Vec<Spanned<String>>>,
    pub(super) clusters: Vec<(std::ops::Range<usize>, WrittenCluster)>,
}

/// `[[cluster]]`
pub(super) struct WrittenCluster {
    pub(super) name: Option<Spanned<String>>,
    pub(super) commands: Option<Spanned<String>>,
    pub(super) slurm_conf: Option<Spanned<String>>,
}

/// `[limits]`
pub(super) struct WrittenLimits {
    pub(super) connections: Option<Spanned<i64>>,
    pub(super) requests_per_session: Option<Spanned<i64>>,
    pub(super) response_head: Option<Spanned<String>>,
    pub(super) body_stall: Option<Spanned<String>>,
    pub(super) write_stall: Option<Spanned<String>>,
    pub(super) idle_connection: Option<Spanned<String>>,
    pub(super) http2_ping: Option<Spanned<String>>,
    pub(super) pool_idle: Option<Spanned<String>>,
    pub(super) drain: Option<Spanned<String>>,
}

/// A group: a name, or a gid without quotes.
#[derive(serde::Deserialize)]
#[serde(untagged)]
pub(crate) enum WrittenGroup {
    Gid(i64),
    Name(String),
}

/// Reads the text as far as it can be read.
pub(super) fn read(text: &str) -> (Written, Notes) {
    let mut notes = Notes::default();
    let mut top = Section::whole(text, &mut notes);
    let mut portal = top.section("portal", &mut notes);
    let mut users = top.section("users", &mut notes);
    let mut sign_in = top.section("sign_in", &mut notes);
    let mut session = top.section("session", &mut notes);
    let mut tls = top.section("tls", &mut notes);
    let mut groups = top.section("groups", &mut notes);
    let mut forwards = top.section("forwards", &mut notes);
    let mut workspace = top.section("workspace", &mut notes);
    let clusters = clusters(&mut top, &mut notes);
    let mut agents = top.section("agents", &mut notes);
    let mut limits = top.section("limits", &mut notes);
    let written = Written {
        threads: top.integer("threads", &mut notes),
        portal: WrittenPortal {
            url: portal.string("url", &mut notes),
            names: portal.array("names", "a string", &mut notes),
            apps_url: portal.string("apps_url", &mut notes),
            apps_domain: portal.string("apps_domain", &mut notes),
            foreign_applications: portal.string("foreign_applications", &mut notes),
            trusted_proxies: portal.array("trusted_proxies", "a string", &mut notes),
            access_log: portal.boolean("access_log", &mut notes),
        },
        users_first_uid: users.integer("first_uid", &mut notes),
        sign_in_login_nodes: sign_in.boolean("login_nodes", &mut notes),
        session: WrittenSession {
            idle: session.string("idle", &mut notes),
            lifetime: session.string("lifetime", &mut notes),
            code_lifetime: session.string("code_lifetime", &mut notes),
        },
        tls: WrittenTls {
            certificate: tls.string("certificate", &mut notes),
            key: tls.string("key", &mut notes),
        },
        groups: WrittenGroups {
            never: groups.array("never", "a group's name or gid", &mut notes),
            refresh: groups.string("refresh", &mut notes),
        },
        forwards: WrittenForwards {
            directory: forwards.string("directory", &mut notes),
            admin: forwards.array("admin", "a string", &mut notes),
        },
        workspace: WrittenWorkspace {
            apps: workspace.string("apps", &mut notes),
            own_apps: workspace.boolean("own_apps", &mut notes),
            shared: workspace.string("shared", &mut notes),
            on_portal_node: workspace.boolean("on_portal_node", &mut notes),
            portreeve: workspace.string("portreeve", &mut notes),
            roots: workspace.array("roots", "a string", &mut notes),
            clusters,
        },
        agents: WrittenAgents {
            lookup: agents.string("lookup", &mut notes),
            ident2_socket: agents.string("ident2_socket", &mut notes),
            plain_networks: agents.array("plain_networks", "a string", &mut notes),
        },
        limits: WrittenLimits {
            connections: limits.integer("connections", &mut notes),
            requests_per_session: limits.integer("requests_per_session", &mut notes),
            response_head: limits.string("response_head", &mut notes),
            body_stall: limits.string("body_stall", &mut notes),
            write_stall: limits.string("write_stall", &mut notes),
            idle_connection: limits.string("idle_connection", &mut notes),
            http2_ping: limits.string("http2_ping", &mut notes),
            pool_idle: limits.string("pool_idle", &mut notes),
            drain: limits.string("drain", &mut notes),
        },
    };
    for section in [top, portal, users, sign_in, session, tls, groups, forwards, workspace, agents, limits] {
        section.refuse_rest(&mut notes);
    }
    (written, notes)
}

fn clusters(top: &mut Section<'_>, notes: &mut Notes) -> Vec<(std::ops::Range<usize>, WrittenCluster)> {
    let found = top.sections("cluster", notes);
    let mut clusters = Vec::new();
    for (span, mut section) in found {
        let cluster = WrittenCluster {
            name: section.string("name", notes),
            commands: section.string("commands", notes),
            slurm_conf: section.string("slurm_conf", notes),
        };
        section.refuse_rest(notes);
        clusters.push((span, cluster));
    }
    clusters
}
