//! Judges what was written: ranges, and keys that must fit each other. Before: `written`. After: the `Config`.
//! Invariant: a value that is refused is noted, and its default stands in, so that checking goes on to the next.

use super::written::{Notes, Written, WrittenGroup, WrittenLimits, WrittenSession, WrittenTls};
use super::{
    AgentsConfig, Config, ForwardsConfig, GroupRef, GroupsConfig, LimitsConfig, SessionConfig, TlsConfig,
};
use crate::names::ForwardName;
use crate::network::Network;
use jiff::SignedDuration;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

pub(super) fn check(written: Written, notes: &mut Notes) -> Config {
    let Written { threads, session, tls, groups_never, forwards_admin, agents_plain_networks, limits } =
        written;
    let default = Config::default();
    Config {
        threads: number(threads, "threads", 0..=64, notes).unwrap_or(default.threads),
        session: check_session(session, notes),
        tls: check_tls(tls, notes),
        groups: groups_never.map_or(default.groups, |written| GroupsConfig {
            never: written.into_iter().filter_map(|group| check_group(group, notes)).collect(),
        }),
        forwards: forwards_admin.map_or(default.forwards, |written| ForwardsConfig {
            admin: written.into_iter().filter_map(|name| check_forward(&name, notes)).collect(),
        }),
        agents: AgentsConfig {
            plain_networks: agents_plain_networks
                .unwrap_or_default()
                .iter()
                .filter_map(|network| check_network(network, notes))
                .collect(),
        },
        limits: check_limits(limits, notes),
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
    let certificate = check_path(written.certificate.as_ref(), "tls.certificate", notes);
    let key = check_path(written.key.as_ref(), "tls.key", notes);
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

/// Empty is as good as not written: so the shipped file can show the key with its default.
fn is_unset(written: Option<&Spanned<String>>) -> bool {
    written.is_none_or(|path| path.get_ref().is_empty())
}

fn check_path<'w>(
    written: Option<&'w Spanned<String>>,
    key: &str,
    notes: &mut Notes,
) -> Option<(&'w Spanned<String>, PathBuf)> {
    let written = written.filter(|path| !path.get_ref().is_empty())?;
    let path = PathBuf::from(written.get_ref());
    if path.is_absolute() && !written.get_ref().contains(char::is_control) {
        return Some((written, path));
    }
    let remedy = "write the whole path from '/' on";
    notes.note(written.span(), key, "this is no absolute path".to_owned(), remedy.to_owned());
    None
}

fn check_group(written: Spanned<WrittenGroup>, notes: &mut Notes) -> Option<GroupRef> {
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
            let bad = |c: char| c.is_control() || matches!(c, ':' | ',' | '/');
            if !name.trim().is_empty() && name.trim() == name && name.len() <= 255 && !name.contains(bad) {
                return Some(GroupRef::Name(name));
            }
            ("this is no group's name".to_owned(), "write a name as getent group shows it")
        }
    };
    notes.note(span, "groups.never", what, remedy.to_owned());
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

fn check_network(written: &Spanned<String>, notes: &mut Notes) -> Option<Network> {
    Network::parse(written.get_ref())
        .map_err(|error| {
            let remedy = "write it as \"10.1.0.0/16\"";
            notes.note(written.span(), "agents.plain_networks", error.to_string(), remedy.to_owned());
        })
        .ok()
}

fn number(
    written: Option<Spanned<i64>>,
    key: &str,
    range: RangeInclusive<usize>,
    notes: &mut Notes,
) -> Option<usize> {
    let written = written?;
    match usize::try_from(*written.get_ref()) {
        Ok(number) if range.contains(&number) => Some(number),
        _ => {
            let remedy = format!("write a number from {} to {}", range.start(), range.end());
            notes.note(written.span(), key, format!("{} is out of range", written.get_ref()), remedy);
            None
        }
    }
}

fn duration(
    written: &Option<Spanned<String>>,
    key: &str,
    range: RangeInclusive<Duration>,
    notes: &mut Notes,
) -> Option<Duration> {
    let written = written.as_ref()?;
    let (what, remedy) = match written.get_ref().parse::<SignedDuration>() {
        Ok(signed) => match Duration::try_from(signed) {
            Ok(duration) if range.contains(&duration) => return Some(duration),
            _ => (
                format!("{:?} is out of range", written.get_ref()),
                format!("write a duration from {} to {}", shown(*range.start()), shown(*range.end())),
            ),
        },
        Err(_) => (
            "this is no duration".to_owned(),
            "write hours, minutes and seconds, such as \"90s\", \"5m\" or \"1h 30m\"".to_owned(),
        ),
    };
    notes.note(written.span(), key, what, remedy);
    None
}

/// In the form that the file takes.
fn shown(duration: Duration) -> String {
    SignedDuration::try_from(duration)
        .map_or_else(|_| format!("{duration:?}"), |signed| format!("{signed:#}"))
}
