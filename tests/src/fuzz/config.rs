//! The configuration file.

use portreeve_model::config::{Config, GroupRef, parse};
use portreeve_model::{Network, Port, split_host_port};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// A whole file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse(text, "portreeve.toml") {
        Ok(config) => {
            in_range(&config);
            let written = to_toml(&config);
            assert_eq!(parse(&written, "again").as_ref(), Ok(&config), "{written}");
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            assert!(problems.is_sorted_by_key(|problem| problem.line), "{problems:?}");
            let lines = 1 + text.bytes().filter(|&b| b == b'\n').count();
            for problem in problems {
                assert!(problem.line.is_some_and(|line| (1..=lines).contains(&line)), "{problem:?}");
                assert!(!problem.what.is_empty() && !problem.remedy.is_empty(), "{problem:?}");
                assert!(problem.to_string().starts_with("portreeve.toml:"), "{problem}");
            }
        }
    }
}

fn in_range(config: &Config) {
    let second = Duration::from_secs(1);
    let (hour, day) = (second * 3600, second * 86_400);
    let (session, limits) = (&config.session, &config.limits);
    assert!(config.threads <= 64 && matches!(config.worker_threads(3), 1..=64));
    assert!(second <= session.idle && session.idle <= session.lifetime && session.lifetime <= day * 366);
    assert!((second..=hour).contains(&session.code_lifetime));
    assert!((1..=1_000_000).contains(&limits.connections));
    assert!((1..=100_000).contains(&limits.requests_per_session));
    assert!((second..=day).contains(&limits.response_head) && (second..=day).contains(&limits.body_stall));
    assert!((second..=hour).contains(&config.groups.refresh));
    assert!((1..u32::MAX).contains(&config.users.first_uid));
    if let Some(url) = &config.portal.url {
        let rest = url.strip_prefix("https://").expect("https only");
        let (host, port) = split_host_port(rest).expect("a host and a port");
        assert_eq!(host, host.to_ascii_lowercase());
        assert_ne!(port, Port::new(443));
    }
    for name in &config.portal.names {
        assert_eq!(split_host_port(name), Some((name.to_ascii_lowercase().as_str(), None)), "{name:?}");
    }
    if let Some(directory) = &config.forwards.directory {
        assert!(directory.is_absolute());
    }
    if let Some(tls) = &config.tls {
        assert!(tls.certificate.is_absolute() && tls.key.is_absolute());
    }
    for group in &config.groups.never {
        match group {
            GroupRef::Name(name) => assert!(!name.is_empty() && !name.contains(char::is_control), "{name:?}"),
            GroupRef::Gid(gid) => assert_ne!(*gid, u32::MAX),
        }
    }
    assert!(config.forwards.admin.iter().all(|name| config.forwards.is_admin(name)));
}

/// The same configuration with every key written out.
fn to_toml(config: &Config) -> String {
    // JSON's strings are TOML's, but for DEL, which no value here has.
    let quoted = |text: &str| serde_json::to_string(text).expect("text has a JSON form");
    let time = |duration: Duration| format!("\"{}s {}ns\"", duration.as_secs(), duration.subsec_nanos());
    let (session, limits) = (&config.session, &config.limits);
    let never: Vec<String> = config
        .groups
        .never
        .iter()
        .map(|group| match group {
            GroupRef::Name(name) => quoted(name),
            GroupRef::Gid(gid) => gid.to_string(),
        })
        .collect();
    let admin: Vec<String> = config.forwards.admin.iter().map(|name| quoted(name.as_str())).collect();
    let networks =
        |list: &[Network]| list.iter().map(|n| quoted(&n.to_string())).collect::<Vec<_>>().join(", ");
    let names: Vec<String> = config.portal.names.iter().map(|name| quoted(name)).collect();
    let path = |path: &Path| quoted(path.to_str().expect("it came from text"));
    let mut text = format!(
        "threads = {}\n[portal]\nurl = {}\nnames = [{}]\ntrusted_proxies = [{}]\naccess_log = {}\n\
         [users]\nfirst_uid = {}\n[sign_in]\nlogin_nodes = {}\n\
         [session]\nidle = {}\nlifetime = {}\ncode_lifetime = {}\n[groups]\nnever = [{}]\nrefresh = {}\n\
         [forwards]\ndirectory = {}\nadmin = [{}]\n[agents]\nplain_networks = [{}]\n\
         [limits]\nconnections = {}\nrequests_per_session = {}\nresponse_head = {}\n\
         body_stall = {}\nwrite_stall = {}\nidle_connection = {}\nhttp2_ping = {}\npool_idle = {}\ndrain = {}\n",
        config.threads,
        quoted(config.portal.url.as_deref().unwrap_or_default()),
        names.join(", "),
        networks(&config.portal.trusted_proxies),
        config.portal.access_log,
        config.users.first_uid,
        config.sign_in.login_nodes,
        time(session.idle),
        time(session.lifetime),
        time(session.code_lifetime),
        never.join(", "),
        time(config.groups.refresh),
        path(config.forwards.directory.as_deref().unwrap_or(Path::new(""))),
        admin.join(", "),
        networks(&config.agents.plain_networks),
        limits.connections,
        limits.requests_per_session,
        time(limits.response_head),
        time(limits.body_stall),
        time(limits.write_stall),
        time(limits.idle_connection),
        time(limits.http2_ping),
        time(limits.pool_idle),
        time(limits.drain),
    );
    if let Some(tls) = &config.tls {
        write!(text, "[tls]\ncertificate = {}\nkey = {}\n", path(&tls.certificate), path(&tls.key))
            .expect("a String takes everything");
    }
    text
}
