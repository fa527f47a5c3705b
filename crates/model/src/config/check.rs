//! Judges what was written: ranges, and keys that must fit each other. Before: `written`. After: the `Config`.
//! Invariant: a value that is refused is noted, and its default stands in, so that checking goes on to the next.

use super::values::{duration, is_group_name, is_unset, networks, number, path, shown};
use super::written::{
    Written, WrittenAgents, WrittenForwards, WrittenGroup, WrittenGroups, WrittenLimits, WrittenPortal,
    WrittenSession, WrittenTls, WrittenWorkspace,
};
use super::{
    AgentsConfig, Config, ForwardsConfig, GroupRef, GroupsConfig, LimitsConfig, LookupConfig, Notes,
    PortalConfig, SessionConfig, SignInConfig, SystemConfig, TlsConfig, UsersConfig, WorkspaceConfig,
};
use crate::host::split_host_port;
use crate::ident2_config::SOCKET;
use crate::names::{ForwardName, NodeName};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// The last value stands for "no user" in the kernel's calls.
const LAST_UID: usize = u32::MAX as usize - 1;
/// Browsers leave it out.
const HTTPS: u16 = 443;
const NAME_FORM: &str = "write it as in \"portal.example.org\"";

pub(super) fn check(written: Written, notes: &mut Notes) -> Config {
    let default = Config::default();
    Config {
        threads: number(written.threads, "threads", 0..=64, notes).unwrap_or(default.threads),
        portal: check_portal(written.portal, notes),
        users: UsersConfig {
            first_uid: number(written.users_first_uid, "users.first_uid", 1..=LAST_UID, notes)
                .and_then(|uid| u32::try_from(uid).ok())
                .unwrap_or(default.users.first_uid),
        },
        sign_in: SignInConfig { login_nodes: is_true(written.sign_in_login_nodes) },
        session: check_session(written.session, notes),
        tls: check_tls(written.tls, notes),
        groups: check_groups(written.groups, notes),
        forwards: check_forwards(written.forwards, notes),
        workspace: check_workspace(written.workspace, notes),
        agents: check_agents(written.agents, notes),
        limits: check_limits(written.limits, notes),
    }
}

fn check_agents(written: WrittenAgents, notes: &mut Notes) -> AgentsConfig {
    let socket = path(written.ident2_socket.as_ref(), "agents.ident2_socket", notes);
    let lookup = match written.lookup.as_ref().map(|lookup| (lookup.span(), lookup.get_ref().as_str())) {
        None | Some((_, "agents")) => LookupConfig::Agents,
        Some((_, "ident2")) => LookupConfig::Ident2(socket.map_or_else(|| SOCKET.into(), |(_, path)| path)),
        Some((span, other)) => {
            let (what, remedy) = (format!("{other:?} is none of the ways"), "write \"agents\" or \"ident2\"");
            notes.note(span, "agents.lookup", what, remedy.to_owned());
            LookupConfig::Agents
        }
    };
    AgentsConfig { lookup, plain_networks: networks(written.plain_networks, "agents.plain_networks", notes) }
}

fn is_true(written: Option<Spanned<bool>>) -> bool {
    written.is_some_and(Spanned::into_inner)
}

fn check_workspace(written: WrittenWorkspace, notes: &mut Notes) -> WorkspaceConfig {
    let default = WorkspaceConfig::default();
    let mut systems: Vec<SystemConfig> = Vec::new();
    for (span, cluster) in written.clusters {
        let at = cluster.name.as_ref().map_or(span, Spanned::span);
        let name = cluster.name.map(Spanned::into_inner).unwrap_or_default();
        let (what, remedy) = if crate::AppName::parse(&name).is_none() {
            (
                format!("{name:?} is no cluster's name"),
                "write name = \"...\" with 1 to 32 of a-z 0-9 -, beginning with a letter",
            )
        } else if systems.iter().any(|known| known.name == name) {
            (format!("there is another cluster {name:?}"), "give each a name of its own")
        } else {
            let commands = path(cluster.commands.as_ref(), "cluster.commands", notes).map(|(_, path)| path);
            let slurm_conf =
                path(cluster.slurm_conf.as_ref(), "cluster.slurm_conf", notes).map(|(_, path)| path);
            systems.push(SystemConfig { name, commands, slurm_conf });
            continue;
        };
        notes.note(at, "cluster.name", what, remedy.to_owned());
    }
    WorkspaceConfig {
        apps: path(written.apps.as_ref(), "workspace.apps", notes).map_or(default.apps, |(_, path)| path),
        own_apps: written.own_apps.map_or(default.own_apps, Spanned::into_inner),
        shared: path(written.shared.as_ref(), "workspace.shared", notes)
            .map_or(default.shared, |(_, path)| path),
        on_portal_node: is_true(written.on_portal_node),
        portreeve: path(written.portreeve.as_ref(), "workspace.portreeve", notes)
            .map_or(default.portreeve, |(_, path)| path),
        roots: written.roots.unwrap_or_default().iter().filter_map(|written| root(written, notes)).collect(),
        systems,
    }
}

fn check_portal(written: WrittenPortal, notes: &mut Notes) -> PortalConfig {
    let mut address = |written: Option<Spanned<String>>, key: &str| {
        written.filter(|url| !url.get_ref().is_empty()).and_then(|url| {
            let span = url.span();
            check_url(&url, key, notes).map(|url| (span, url))
        })
    };
    let url = address(written.url, "portal.url").map(|(_, url)| url);
    let apps_url = address(written.apps_url, "portal.apps_url");
    let names: Vec<String> =
        written.names.unwrap_or_default().iter().filter_map(|name| check_portal_name(name, notes)).collect();
    PortalConfig {
        apps_url: apps_url
            .and_then(|(span, apps_url)| check_apps_url(span, apps_url, url.as_deref(), &names, notes)),
        url,
        names,
        apps_domain: written
            .apps_domain
            .filter(|domain| !domain.get_ref().is_empty())
            .and_then(|domain| check_apps_domain(&domain, notes)),
        ask_about_foreign: written
            .foreign_applications
            .is_some_and(|text| check_foreign_applications(&text, notes)),
        trusted_proxies: networks(written.trusted_proxies, "portal.trusted_proxies", notes),
        access_log: is_true(written.access_log),
    }
}

/// A directory whose path means the same whatever is linked to what.
fn root(written: &Spanned<String>, notes: &mut Notes) -> Option<PathBuf> {
    let directory = PathBuf::from(written.get_ref());
    if is_plain(&directory) {
        return Some(directory);
    }
    let what = "this is no absolute path without . and .. and a slash at its end".to_owned();
    notes.note(written.span(), "workspace.roots", what, "write it as in \"/home\"".to_owned());
    None
}

fn is_plain(directory: &Path) -> bool {
    let parts: PathBuf = directory.components().collect();
    directory.is_absolute()
        && directory.components().skip(1).all(|part| matches!(part, Component::Normal(_)))
        && parts.as_os_str() == directory.as_os_str()
}

/// As a browser writes it: without the port if it is 443, nothing in upper case.
fn check_url(written: &Spanned<String>, key: &str, notes: &mut Notes) -> Option<String> {
    let text = written.get_ref();
    let mut refuse = |what: String, remedy: &str| {
        notes.note(written.span(), key, what, remedy.to_owned());
        None
    };
    let form = "write \"https://HOST\" or \"https://HOST:PORT\"";
    let Some((scheme, rest)) = text.split_once("://") else {
        return refuse("this is no address".to_owned(), form);
    };
    if !scheme.eq_ignore_ascii_case("https") {
        return refuse("the portal speaks https only".to_owned(), form);
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#', '@']) {
        return refuse("only a host and a port may stand here".to_owned(), form);
    }
    let Some((host, port)) = split_host_port(rest) else {
        return refuse("this is no host and port".to_owned(), form);
    };
    match NodeName::parse(host) {
        Ok(host) => Some(match port.filter(|port| port.get() != HTTPS) {
            Some(port) => format!("https://{host}:{port}"),
            None => format!("https://{host}"),
        }),
        Err(_) => refuse(format!("{host:?} is no host's name"), form),
    }
}

/// Another origin than the portal's, which the same listener answers for.
fn check_apps_url(
    span: std::ops::Range<usize>,
    apps_url: String,
    url: Option<&str>,
    names: &[String],
    notes: &mut Notes,
) -> Option<String> {
    let parts = |url: &str| {
        let (host, port) = split_host_port(url.strip_prefix("https://")?)?;
        Some((host.to_owned(), port.map_or(HTTPS, crate::names::Port::get)))
    };
    let (host, port) = parts(&apps_url)?;
    let portals = url.and_then(parts);
    let (what, remedy) = match portals {
        None => ("there is no portal.url beside it", "write portal.url, too"),
        Some((own, _)) if own == host || names.contains(&host) => {
            ("this is a name of the portal itself", "give applications a name that is used for nothing else")
        }
        Some((_, own)) if own != port => {
            ("the port is not that of portal.url", "write the same port: one listener answers for both")
        }
        Some(_) => return Some(apps_url),
    };
    notes.note(span, "portal.apps_url", what.to_owned(), remedy.to_owned());
    None
}

/// Whether visitors are asked about others' applications.
fn check_foreign_applications(written: &Spanned<String>, notes: &mut Notes) -> bool {
    match written.get_ref().as_str() {
        "ask" => return true,
        "refuse" => {}
        other => notes.note(
            written.span(),
            "portal.foreign_applications",
            format!("{other:?} is not known"),
            "write \"refuse\" or \"ask\"".to_owned(),
        ),
    }
    false
}

fn check_portal_name(written: &Spanned<String>, notes: &mut Notes) -> Option<String> {
    let (what, remedy) = match split_host_port(written.get_ref()) {
        Some((_, Some(_))) => ("a port where only a host's name belongs".to_owned(), "leave the port out"),
        Some((host, None)) => match NodeName::parse(host) {
            Ok(host) => return Some(host.to_string()),
            Err(_) => (format!("{host:?} is no host's name"), NAME_FORM),
        },
        None => ("this is no host's name".to_owned(), NAME_FORM),
    };
    notes.note(written.span(), "portal.names", what, remedy.to_owned());
    None
}

/// A domain of at least two labels: no browser takes a certificate for `*.fh.example`, nor sends cookies of ours there.
fn check_apps_domain(written: &Spanned<String>, notes: &mut Notes) -> Option<String> {
    match NodeName::parse(written.get_ref()) {
        Ok(domain) if domain.as_ip().is_none() && domain.as_str().contains('.') => Some(domain.to_string()),
        _ => {
            notes.note(
                written.span(),
                "portal.apps_domain",
                "this is no domain".to_owned(),
                "write a domain that is used for nothing else, such as \"apps.example.org\"".to_owned(),
            );
            None
        }
    }
}

fn check_groups(written: WrittenGroups, notes: &mut Notes) -> GroupsConfig {
    let default = GroupsConfig::default();
    GroupsConfig {
        never: written.never.map_or(default.never, |groups| {
            groups.into_iter().filter_map(|group| check_group(group, "groups.never", notes)).collect()
        }),
        refresh: duration(&written.refresh, "groups.refresh", SECOND..=HOUR, notes)
            .unwrap_or(default.refresh),
    }
}

fn check_forwards(written: WrittenForwards, notes: &mut Notes) -> ForwardsConfig {
    ForwardsConfig {
        directory: path(written.directory.as_ref(), "forwards.directory", notes).map(|(_, path)| path),
        admin: written
            .admin
            .unwrap_or_default()
            .iter()
            .filter_map(|name| check_forward(name, notes))
            .collect(),
    }
}

fn check_limits(written: WrittenLimits, notes: &mut Notes) -> LimitsConfig {
    let default = LimitsConfig::default();
    let mut wait = |written: &Option<Spanned<String>>, key: &str, most: Duration, default: Duration| {
        duration(written, &format!("limits.{key}"), SECOND..=most, notes).unwrap_or(default)
    };
    LimitsConfig {
        response_head: wait(&written.response_head, "response_head", DAY, default.response_head),
        body_stall: wait(&written.body_stall, "body_stall", DAY, default.body_stall),
        write_stall: wait(&written.write_stall, "write_stall", DAY, default.write_stall),
        idle_connection: wait(&written.idle_connection, "idle_connection", DAY, default.idle_connection),
        http2_ping: wait(&written.http2_ping, "http2_ping", HOUR, default.http2_ping),
        pool_idle: wait(&written.pool_idle, "pool_idle", HOUR, default.pool_idle),
        drain: wait(&written.drain, "drain", HOUR, default.drain),
        connections: number(written.connections, "limits.connections", 1..=1_000_000, notes)
            .unwrap_or(default.connections),
        requests_per_session: number(
            written.requests_per_session,
            "limits.requests_per_session",
            1..=100_000,
            notes,
        )
        .unwrap_or(default.requests_per_session),
    }
}

fn check_session(written: WrittenSession, notes: &mut Notes) -> SessionConfig {
    let default = SessionConfig::default();
    let idle = duration(&written.idle, "session.idle", SECOND..=YEAR, notes);
    let lifetime = duration(&written.lifetime, "session.lifetime", SECOND..=YEAR, notes);
    let code_lifetime = duration(&written.code_lifetime, "session.code_lifetime", SECOND..=HOUR, notes)
        .unwrap_or(default.code_lifetime);
    // A refused lifetime has been noted, and is not compared a second time under its default.
    let refused = written.lifetime.is_some() && lifetime.is_none();
    let lifetime = lifetime.unwrap_or(default.lifetime);
    if let (Some(at), Some(idle), false) = (&written.idle, idle, refused)
        && idle > lifetime
    {
        let (what, remedy) = (
            format!("{} is longer than session.lifetime, {}", shown(idle), shown(lifetime)),
            "make it at most session.lifetime, or lengthen that",
        );
        notes.note(at.span(), "session.idle", what, remedy.to_owned());
    }
    // Whoever shortens the lifetime alone need not write the idle time too.
    SessionConfig { idle: idle.unwrap_or(default.idle).min(lifetime), lifetime, code_lifetime }
}

fn check_tls(written: WrittenTls, notes: &mut Notes) -> Option<TlsConfig> {
    let certificate = path(written.certificate.as_ref(), "tls.certificate", notes);
    let key = path(written.key.as_ref(), "tls.key", notes);
    match (certificate, key) {
        (Some((_, certificate)), Some((_, key))) => Some(TlsConfig { certificate, key }),
        (Some((at, _)), None) if is_unset(written.key.as_ref()) => {
            let what = "a certificate without its key";
            notes.note(at.span(), "tls.certificate", what.to_owned(), "write tls.key, too".to_owned());
            None
        }
        (None, Some((at, _))) if is_unset(written.certificate.as_ref()) => {
            let what = "a key without its certificate";
            notes.note(at.span(), "tls.key", what.to_owned(), "write tls.certificate, too".to_owned());
            None
        }
        _ => None,
    }
}

pub(crate) fn check_group(written: Spanned<WrittenGroup>, key: &str, notes: &mut Notes) -> Option<GroupRef> {
    let span = written.span();
    let (what, remedy) = match written.into_inner() {
        WrittenGroup::Gid(gid) => match u32::try_from(gid) {
            // The last value stands for "no group" in the kernel's calls.
            Ok(gid) if gid != u32::MAX => return Some(GroupRef::Gid(gid)),
            _ => ("this is no gid".to_owned(), "write a number from 0 to 4294967294"),
        },
        WrittenGroup::Name(name) if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) => {
            ("a gid in quotes reads as a group's name".to_owned(), "leave the quotes out")
        }
        WrittenGroup::Name(name) => {
            if is_group_name(&name) {
                return Some(GroupRef::Name(name));
            }
            ("this is no group's name".to_owned(), "write a name as getent group shows it")
        }
    };
    notes.note(span, key, what, remedy.to_owned());
    None
}

fn check_forward(written: &Spanned<String>, notes: &mut Notes) -> Option<ForwardName> {
    ForwardName::parse(written.get_ref())
        .map_err(|error| {
            let remedy = "write the name of a forward, not a path";
            notes.note(written.span(), "forwards.admin", error.to_string(), remedy.to_owned());
        })
        .ok()
}
