//! The configuration file.

use portreeve_model::config::{Config, GroupRef, parse};
use std::fmt::Write as _;
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
    let plain: Vec<String> = config.agents.plain_networks.iter().map(|n| quoted(&n.to_string())).collect();
    let mut text = format!(
        "threads = {}\n[session]\nidle = {}\nlifetime = {}\ncode_lifetime = {}\n[groups]\nnever = [{}]\n\
         [forwards]\nadmin = [{}]\n[agents]\nplain_networks = [{}]\n[limits]\nconnections = {}\nrequests_per_session = {}\nresponse_head = {}\n\
         body_stall = {}\nwrite_stall = {}\nidle_connection = {}\nhttp2_ping = {}\npool_idle = {}\ndrain = {}\n",
        config.threads,
        time(session.idle),
        time(session.lifetime),
        time(session.code_lifetime),
        never.join(", "),
        admin.join(", "),
        plain.join(", "),
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
        let path = |path: &std::path::Path| quoted(path.to_str().expect("it came from text"));
        write!(text, "[tls]\ncertificate = {}\nkey = {}\n", path(&tls.certificate), path(&tls.key))
            .expect("a String takes everything");
    }
    text
}
