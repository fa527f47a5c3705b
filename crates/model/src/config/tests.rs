use super::*;

const SHIPPED: &str = include_str!("../../../../proxy-config/portreeve.toml");

fn problems(text: &str) -> Vec<String> {
    parse(text, "p.toml").map_or_else(|found| found.iter().map(Problem::to_string).collect(), |_| vec![])
}

/// The shipped file with every key that is commented out put in force: prose has a blank after '#', keys have none.
fn uncommented() -> String {
    let is_key = |line: &&str| line.starts_with(char::is_alphabetic);
    SHIPPED.lines().flat_map(|line| [line.strip_prefix('#').filter(is_key).unwrap_or(line), "\n"]).collect()
}

#[test]
fn the_shipped_file_is_the_defaults() {
    assert_eq!(parse("", "-"), Ok(Config::default()));
    assert_eq!(parse(SHIPPED, "portreeve.toml"), Ok(Config::default()));
    assert_eq!(parse(&uncommented(), "portreeve.toml"), Ok(Config::default()));
}

#[test]
fn the_shipped_file_shows_every_key() {
    let table: toml::Table = uncommented().parse().unwrap();
    let mut shown: Vec<String> = vec![];
    for (key, value) in &table {
        shown.push(key.clone());
        shown.extend(value.as_table().into_iter().flatten().map(|(inner, _)| format!("{key}.{inner}")));
    }
    let mut known = written::read("").1.known;
    shown.sort();
    known.sort();
    assert_eq!(shown, known);
}

#[test]
fn every_key_is_read() {
    let text = r#"
        threads = 4
        [portal]
        url = "HTTPS://Portal.Example.org:8443/"
        names = ["Portal2.example.org", "[FD00::1]", "10.0.0.1"]
        apps_url = "https://Apps2.example.org:8443"
        apps_domain = "Apps.Example.org"
        foreign_applications = "ask"
        trusted_proxies = ["10.2.0.0/24", "fd00::8"]
        access_log = true
        [users]
        first_uid = 4294967294
        [sign_in]
        login_nodes = true
        [session]
        idle = "90s"
        lifetime = "1h 30m"
        code_lifetime = "1s"
        [tls]
        certificate = "/etc/c.pem"
        key = "/etc/k.pem"
        [groups]
        never = ["domain users", 0, 4294967294]
        refresh = "1h"
        [forwards]
        directory = "/home/portal-url-fw"
        admin = ["status", "Docs"]
        [agents]
        lookup = "ident2"
        ident2_socket = "/run/other.sock"
        plain_networks = ["10.1.0.0/16", "fd00::7"]
        [limits]
        connections = 1
        requests_per_session = 100_000
        response_head = "1 second"
        body_stall = "24h"
        write_stall = "2s"
        idle_connection = "3s"
        http2_ping = "1h"
        pool_idle = "5s"
        drain = "6s"
        [workspace]
        apps = "/srv/apps"
        own_apps = false
        shared = "/srv/shared"
        on_portal_node = true
        portreeve = "/opt/bin/portreeve"
        roots = ["/home", "/data/proj"]
        [[cluster]]
        name = "main"
        commands = "/opt/slurm/bin"
        slurm_conf = "/etc/slurm/a.conf"
        [[cluster]]
        name = "gpu-2"
    "#;
    let expected = Config {
        threads: 4,
        portal: PortalConfig {
            url: Some("https://portal.example.org:8443".into()),
            names: vec!["portal2.example.org".into(), "[fd00::1]".into(), "10.0.0.1".into()],
            apps_url: Some("https://apps2.example.org:8443".into()),
            apps_domain: Some("apps.example.org".into()),
            ask_about_foreign: true,
            trusted_proxies: ["10.2.0.0/24", "fd00::8/128"].map(|text| Network::parse(text).unwrap()).into(),
            access_log: true,
        },
        users: UsersConfig { first_uid: u32::MAX - 1 },
        sign_in: SignInConfig { login_nodes: true },
        session: SessionConfig {
            idle: Duration::from_secs(90),
            lifetime: Duration::from_secs(5400),
            code_lifetime: Duration::from_secs(1),
        },
        tls: Some(TlsConfig { certificate: "/etc/c.pem".into(), key: "/etc/k.pem".into() }),
        groups: GroupsConfig {
            never: vec![GroupRef::Name("domain users".into()), GroupRef::Gid(0), GroupRef::Gid(u32::MAX - 1)],
            refresh: Duration::from_secs(3600),
        },
        forwards: ForwardsConfig {
            directory: Some("/home/portal-url-fw".into()),
            admin: vec![ForwardName::parse("status").unwrap(), ForwardName::parse("Docs").unwrap()],
        },
        workspace: WorkspaceConfig {
            apps: "/srv/apps".into(),
            own_apps: false,
            shared: "/srv/shared".into(),
            on_portal_node: true,
            portreeve: "/opt/bin/portreeve".into(),
            roots: vec!["/home".into(), "/data/proj".into()],
            systems: vec![
                SystemConfig {
                    name: "main".into(),
                    commands: Some("/opt/slurm/bin".into()),
                    slurm_conf: Some("/etc/slurm/a.conf".into()),
                },
                SystemConfig { name: "gpu-2".into(), commands: None, slurm_conf: None },
            ],
        },
        agents: AgentsConfig {
            lookup: LookupConfig::Ident2("/run/other.sock".into()),
            plain_networks: ["10.1.0.0/16", "fd00::7/128"].map(|text| Network::parse(text).unwrap()).into(),
        },
        limits: LimitsConfig {
            connections: 1,
            requests_per_session: 100_000,
            response_head: Duration::from_secs(1),
            body_stall: Duration::from_secs(24 * 3600),
            write_stall: Duration::from_secs(2),
            idle_connection: Duration::from_secs(3),
            http2_ping: Duration::from_secs(3600),
            pool_idle: Duration::from_secs(5),
            drain: Duration::from_secs(6),
        },
    };
    assert_eq!(parse(text, "-"), Ok(expected.clone()));
    assert!(expected.forwards.is_admin(&ForwardName::parse("status").unwrap()));
    assert!(!expected.forwards.is_admin(&ForwardName::parse("Status").unwrap()));
}

#[test]
fn every_problem_at_once() {
    let text = r#"threads = 65
treads = 1
idle = "1h"
[portal]
url = "http://portal.example.org"
names = ["a b", 1, "portal.example.org"]
trusted_proxies = ["10.0.0.0/99"]
access_log = "yes"
[users]
first_uid = 0
[sign_in]
login_node = true
[session]
idle = "3 days"
lifetim = "1h"
code_lifetime = 300
[tls]
certificate = "cert.pem"
[groups]
never = ["users", "100", -1, 1.5]
refresh = "1d"
[forwards]
directory = "forwards"
admin = ["../etc", 7]
[limits]
connections = "many"
body_stall = "0s"
[limit]
x = 1
"#;
    let expected = [
        "p.toml:1: threads: 65 is out of range; write a number from 0 to 64",
        "p.toml:2: treads: there is no such key; did you mean threads?",
        "p.toml:3: idle: there is no such key; did you mean session.idle?",
        "p.toml:5: portal.url: the portal speaks https only; write \"https://HOST\" or \"https://HOST:PORT\"",
        "p.toml:6: portal.names: this is no host's name; write it as in \"portal.example.org\"",
        "p.toml:6: portal.names: an integer where a string belongs; write it in quotes",
        "p.toml:7: portal.trusted_proxies: a network is written as ADDRESS/BITS, the bits past the prefix being 0; write it as \"10.1.0.0/16\"",
        "p.toml:8: portal.access_log: a string where true or false belongs; write it without quotes",
        "p.toml:10: users.first_uid: 0 is out of range; write a number from 1 to 4294967294",
        "p.toml:12: sign_in.login_node: there is no such key; did you mean sign_in.login_nodes?",
        "p.toml:14: session.idle: this is no duration; write hours, minutes and seconds, such as \"90s\", \"5m\" or \"1h 30m\"",
        "p.toml:15: session.lifetim: there is no such key; did you mean session.lifetime?",
        "p.toml:16: session.code_lifetime: an integer where a string belongs; write it in quotes",
        "p.toml:18: tls.certificate: this is no absolute path; write the whole path from '/' on",
        "p.toml:20: groups.never: a gid in quotes reads as a group's name; leave the quotes out",
        "p.toml:20: groups.never: this is no gid; write a number from 0 to 4294967294",
        "p.toml:20: groups.never: a float where a group's name or gid belongs; write a name in quotes, or digits without quotes",
        "p.toml:21: groups.refresh: this is no duration; write hours, minutes and seconds, such as \"90s\", \"5m\" or \"1h 30m\"",
        "p.toml:23: forwards.directory: this is no absolute path; write the whole path from '/' on",
        "p.toml:24: forwards.admin: the forward name has '/' where that is not allowed; a forward has 1 to 63 of A-Z a-z 0-9 . _ - and does not start with '.' or '-'; write the name of a forward, not a path",
        "p.toml:24: forwards.admin: an integer where a string belongs; write it in quotes",
        "p.toml:26: limits.connections: a string where a whole number belongs; write digits only, without quotes",
        "p.toml:27: limits.body_stall: \"0s\" is out of range; write a duration from 1s to 24h",
        "p.toml:28: limit: there is no such key; did you mean limits?",
    ];
    assert_eq!(problems(text), expected);
}

#[test]
fn one_problem_each() {
    for (text, expected) in [
        (
            "session = 1",
            "p.toml:1: session: an integer where a section belongs; write [session] on a line of its own, and its keys below",
        ),
        ("threads = -1", "p.toml:1: threads: -1 is out of range; write a number from 0 to 64"),
        (
            "threads = 9223372036854775808",
            "p.toml:1: threads: the number is out of all bounds; write digits only, without quotes",
        ),
        ("nonsense = 1", "p.toml:1: nonsense: there is no such key; remove it"),
        (
            "[session]\nidle = '25h'",
            "p.toml:2: session.idle: 25h is longer than session.lifetime, 24h; make it at most session.lifetime, or lengthen that",
        ),
        (
            "[session]\nidle = '2h'\nlifetime = '1h'",
            "p.toml:2: session.idle: 2h is longer than session.lifetime, 1h; make it at most session.lifetime, or lengthen that",
        ),
        (
            "[session]\nidle = '48h'\nlifetime = 'long'",
            "p.toml:3: session.lifetime: this is no duration; write hours, minutes and seconds, such as \"90s\", \"5m\" or \"1h 30m\"",
        ),
        (
            "[session]\nidle = '-5m'",
            "p.toml:2: session.idle: \"-5m\" is out of range; write a duration from 1s to 8784h",
        ),
        (
            "[session]\nidle = '999ms'",
            "p.toml:2: session.idle: \"999ms\" is out of range; write a duration from 1s to 8784h",
        ),
        (
            "[session]\ncode_lifetime = '61m'",
            "p.toml:2: session.code_lifetime: \"61m\" is out of range; write a duration from 1s to 1h",
        ),
        (
            "[tls]\ncertificate = '/c'",
            "p.toml:2: tls.certificate: a certificate without its key; write tls.key, too",
        ),
        (
            "[tls]\ncertificate = ''\nkey = '/k'",
            "p.toml:3: tls.key: a key without its certificate; write tls.certificate, too",
        ),
        (
            "[tls]\ncertificate = '/c'\nkey = 'k'",
            "p.toml:3: tls.key: this is no absolute path; write the whole path from '/' on",
        ),
        (
            "[users]\nfirst_uid = 4294967295",
            "p.toml:2: users.first_uid: 4294967295 is out of range; write a number from 1 to 4294967294",
        ),
        (
            "[sign_in]\nlogin_nodes = 1",
            "p.toml:2: sign_in.login_nodes: an integer where true or false belongs; write it without quotes",
        ),
        (
            "[groups]\nrefresh = '61m'",
            "p.toml:2: groups.refresh: \"61m\" is out of range; write a duration from 1s to 1h",
        ),
        (
            "[forwards]\ndirectory = \"/home/\\u0007fw\"",
            "p.toml:2: forwards.directory: this is no absolute path; write the whole path from '/' on",
        ),
        (
            "[groups]\nnever = 'users'",
            "p.toml:2: groups.never: a string where a list belongs; write [ ] around it",
        ),
        (
            "[groups]\nnever = ['']",
            "p.toml:2: groups.never: this is no group's name; write a name as getent group shows it",
        ),
        (
            "[groups]\nnever = [4294967295]",
            "p.toml:2: groups.never: this is no gid; write a number from 0 to 4294967294",
        ),
        (
            "[limits]\nconnections = 0",
            "p.toml:2: limits.connections: 0 is out of range; write a number from 1 to 1000000",
        ),
        (
            "[limits]\nrequests_per_session = 0",
            "p.toml:2: limits.requests_per_session: 0 is out of range; write a number from 1 to 100000",
        ),
        (
            "[limits]\nresponse_head = '0s'",
            "p.toml:2: limits.response_head: \"0s\" is out of range; write a duration from 1s to 24h",
        ),
        (
            "[agents]\nplain_networks = ['10.1.0.1/16']",
            "p.toml:2: agents.plain_networks: a network is written as ADDRESS/BITS, the bits past the prefix being 0; write \
             it as \"10.1.0.0/16\"",
        ),
        (
            "[limits]\nwrite_stall = '0s'",
            "p.toml:2: limits.write_stall: \"0s\" is out of range; write a duration from 1s to 24h",
        ),
        (
            "[limits]\nidle_connection = '25h'",
            "p.toml:2: limits.idle_connection: \"25h\" is out of range; write a duration from 1s to 24h",
        ),
        (
            "[limits]\nhttp2_ping = '61m'",
            "p.toml:2: limits.http2_ping: \"61m\" is out of range; write a duration from 1s to 1h",
        ),
        (
            "[limits]\npool_idle = '61m'",
            "p.toml:2: limits.pool_idle: \"61m\" is out of range; write a duration from 1s to 1h",
        ),
        (
            "[limits]\ndrain = 10",
            "p.toml:2: limits.drain: an integer where a string belongs; write it in quotes",
        ),
        (
            "[limits]\ndrain = '2h'",
            "p.toml:2: limits.drain: \"2h\" is out of range; write a duration from 1s to 1h",
        ),
    ] {
        assert_eq!(problems(text), [expected], "{text}");
    }
}

#[test]
fn what_a_cluster_must_say() {
    let said = |text: &str| match parse_cluster(text, "p.toml") {
        Ok(cluster) => {
            assert_eq!(Some(&cluster.url), cluster.config.portal.url.as_ref());
            assert_eq!(Some(&cluster.forwards), cluster.config.forwards.directory.as_ref());
            vec![]
        }
        Err(problems) => problems.iter().map(Problem::to_string).collect(),
    };
    let url = "p.toml: portal.url: it is missing, and a cluster needs it; write the address that people type, such as \
               \"https://portal.example.org\"";
    let directory = "p.toml: forwards.directory: it is missing, and a cluster needs it; write the directory of forward files \
                     that all nodes share";
    for (text, expected) in [
        ("", &[url, directory][..]),
        (SHIPPED, &[url, directory]),
        ("[portal]\nurl = ''\n[forwards]\ndirectory = '/fw'", &[url]),
        ("[portal]\nurl = 'https://p'\n", &[directory]),
        ("[portal]\nurl = 'https://p'\n[forwards]\ndirectory = '/fw'", &[]),
        (
            "threads = 65\n[forwards]\ndirectory = 'fw'",
            &[
                "p.toml:1: threads: 65 is out of range; write a number from 0 to 64",
                "p.toml:3: forwards.directory: this is no absolute path; write the whole path from '/' on",
                url,
            ],
        ),
    ] {
        assert_eq!(said(text), expected, "{text}");
    }
    // What stands on a broken line is not said to be missing.
    let found = said("[portal]\nurl = 'https://p\n");
    assert!(found.len() == 1 && found[0].starts_with("p.toml:2: "), "{found:#?}");
}

#[test]
fn syntax_errors_have_a_line_and_hide_nothing() {
    let found = problems("threads = 1\n[session\nidle = '1h'\n[limits]\nconnections = 0\n");
    assert!(found.iter().any(|p| p.starts_with("p.toml:2: ")), "{found:#?}");
    assert!(found.iter().any(|p| p.starts_with("p.toml:5: limits.connections: ")), "{found:#?}");
    let found = problems("threads = 1\nthreads = 2\n");
    assert!(found.len() == 1 && found[0].starts_with("p.toml:2: "), "{found:#?}");
    assert!(parse("threads = ", "-").is_err());
    assert!(parse("\0", "-").is_err());
}

#[test]
fn a_short_lifetime_shortens_the_unwritten_idle_time() {
    let config = parse("[session]\nlifetime = '1h'", "-").unwrap();
    assert_eq!(config.session.idle, Duration::from_secs(HOUR));
}

#[test]
fn threads() {
    for (threads, cores, started) in [(0, 1, 1), (0, 0, 1), (0, 8, 8), (0, 64, 8), (3, 64, 3), (64, 1, 64)] {
        let config = Config { threads, ..Config::default() };
        assert_eq!(config.worker_threads(cores), started);
    }
}

mod addresses;
mod agents;
mod clusters;
