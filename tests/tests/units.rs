//! The units of `systemd/`: what systemd itself makes of them, and what they must hold.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use portreeve_model::Config;
use portreeve_portal::limits;
use portreeve_tests::world::testbed::repository;
use portreeve_tests::world::{skip, system, units};

/// What the units start.
const PROGRAMS: [&str; 4] = [
    "/usr/libexec/portreeve/portreeve-portal",
    "/usr/libexec/portreeve/portreeve-broker",
    "/usr/sbin/portreeve-agent",
    "%h/.local/bin/portreeve",
];

const SOCKETS: [(&str, &str); 4] =
    [("portal", "https"), ("broker-line", "broker"), ("agents", "agents"), ("metrics", "metrics")];

fn directory() -> PathBuf {
    repository().join("systemd")
}

fn units() -> Vec<PathBuf> {
    let mut units: Vec<PathBuf> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "service" || kind == "socket"))
        .collect();
    units.sort();
    units
}

/// The directives of a section, with all their values.
fn section(unit: &str, section: &str) -> BTreeMap<String, Vec<String>> {
    let directives = units::section(&std::fs::read_to_string(directory().join(unit)).unwrap(), section);
    assert!(!directives.is_empty(), "{unit} has no section {section}");
    directives
}

fn one(unit: &str, of: &str, key: &str) -> String {
    let directives = section(unit, of);
    let values = directives.get(key).unwrap_or_else(|| panic!("{unit} has no {key}"));
    assert_eq!(values.len(), 1, "{unit}: {key}");
    values[0].clone()
}

/// The units as they are, but starting programs that are there.
fn copies(into: &Path) -> Vec<String> {
    units()
        .iter()
        .map(|unit| {
            let mut text = std::fs::read_to_string(unit).unwrap();
            for program in PROGRAMS {
                let stand_in = into.join(Path::new(program).file_name().unwrap());
                std::fs::write(&stand_in, "").unwrap();
                std::fs::set_permissions(&stand_in, std::fs::Permissions::from_mode(0o755)).unwrap();
                text = text.replace(program, &stand_in.display().to_string());
            }
            let copy = into.join(unit.file_name().unwrap());
            std::fs::write(&copy, text).unwrap();
            copy.display().to_string()
        })
        .collect()
}

#[test]
fn systemd_has_nothing_to_say() {
    let dir = tempfile::tempdir().unwrap();
    let units = copies(dir.path());
    assert_eq!(units.len(), 11);
    for unit in &units {
        let Some(output) = system("systemd-analyze", &["verify", "--man=no", "--recursive-errors=no", unit])
        else {
            return skip("systemd_has_nothing_to_say", "systemd-analyze is not installed");
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.trim().is_empty(), "{unit}: {said}");
    }
}

#[test]
fn they_are_exposed_no_more_than_this() {
    // Of a hundred; systemd shows tenths of it.
    for (unit, most) in [
        ("portreeve-portal.service", "20"),
        ("portreeve-agent.service", "30"),
        ("portreeve-firewall.service", "35"),
        ("portreeve-ident2.service", "30"),
    ] {
        let path = directory().join(unit).display().to_string();
        let arguments = ["security", "--offline=yes", "--no-pager", "--threshold", most, &path];
        let Some(output) = system("systemd-analyze", &arguments) else {
            return skip("they_are_exposed_no_more_than_this", "systemd-analyze is not installed");
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.contains("Overall exposure level"),
            "{unit}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{unit}:\n{said}");
    }
}

#[test]
fn each_directive_is_a_known_one() {
    let of_the_portal: Vec<&str> = units::OF_THE_PORTAL.iter().map(|(name, _)| *name).collect();
    for (unit, known) in
        [("portreeve-portal.service", &of_the_portal[..]), ("portreeve-broker.service", units::OF_THE_BROKER)]
    {
        let directives = section(unit, "Service");
        assert_eq!(units::strangers(directives.keys(), known), [""; 0], "{unit}");
    }
}

#[test]
fn the_portal_has_no_power() {
    let unit = "portreeve-portal.service";
    for (key, value) in [
        ("User", "portreeve"),
        ("CapabilityBoundingSet", ""),
        ("AmbientCapabilities", ""),
        ("NoNewPrivileges", "yes"),
        ("RestrictAddressFamilies", "AF_UNIX"),
        ("PrivateNetwork", "yes"),
        ("NoExecPaths", "+/ +/etc/portreeve +/run +/run/portreeve/keys +/tmp +/var/tmp"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
    ] {
        assert_eq!(one(unit, "Service", key), value, "{key}");
    }
    // With it, root at the other end of the broker's socket would be nobody.
    assert!(!section(unit, "Service").contains_key("PrivateUsers"));
    // A node map that were a credential would be the old one after a reload, with the keys that were revoked.
    let credentials = &section(unit, "Service")["LoadCredential"];
    let names: Vec<&str> = credentials.iter().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(names, ["tls.crt", "tls.key", "agents-key.pem"]);
    let filled = &section(unit, "Service")["ExecReload"][0];
    for credential in credentials {
        let path = credential.split_once(':').unwrap().1;
        assert!(filled.contains(path), "a reload does not renew {path}");
    }
}

#[test]
fn nothing_is_given_up_for_ever() {
    for unit in ["portal", "broker", "agent", "ident2"].map(|name| format!("portreeve-{name}.service")) {
        assert_eq!(one(&unit, "Unit", "StartLimitIntervalSec"), "0", "{unit}");
        assert_eq!(one(&unit, "Service", "Restart"), "always", "{unit}");
        // None says that it is ready: the portal has no socket to say so on.
        assert_eq!(one(&unit, "Service", "Type"), "exec", "{unit}");
    }
    for (name, _) in SOCKETS {
        assert_eq!(
            one(&format!("portreeve-{name}.socket"), "Socket", "TriggerLimitIntervalSec"),
            "0",
            "{name}"
        );
    }
}

#[test]
fn the_sockets_have_the_names_that_the_portal_knows() {
    for (name, known) in SOCKETS {
        let unit = format!("portreeve-{name}.socket");
        assert_eq!(one(&unit, "Socket", "FileDescriptorName"), known);
        assert_eq!(one(&unit, "Socket", "Service"), "portreeve-portal.service");
        let also = section("portreeve-portal.service", "Install").remove("Also").unwrap().join(" ");
        assert!(also.split(' ').any(|other| other == unit), "{unit} is not enabled with the portal");
    }
    // Whoever could connect to it could play the broker.
    assert_eq!(one("portreeve-broker-line.socket", "Socket", "SocketMode"), "0600");
    assert_eq!(one("portreeve-metrics.socket", "Socket", "SocketMode"), "0600");
}

#[test]
fn ident2_is_where_those_who_ask_ident2d_look() {
    let (service, socket) = ("portreeve-ident2.service", "portreeve-ident2.socket");
    assert_eq!(one(socket, "Socket", "ListenSequentialPacket"), portreeve_model::ident2_config::SOCKET);
    assert_eq!(one(socket, "Socket", "SocketMode"), "0600");
    assert_eq!(one(socket, "Socket", "Service"), service);
    assert_eq!(one(service, "Install", "Alias"), "ident2d.service");
    assert_eq!(one(service, "Install", "Also"), socket);
    assert_eq!(one(service, "Unit", "Requires"), socket);
    assert_eq!(one(service, "Service", "DynamicUser"), "yes");
    let capabilities = "CAP_NET_BIND_SERVICE CAP_SYS_PTRACE CAP_DAC_READ_SEARCH";
    assert_eq!(one(service, "Service", "CapabilityBoundingSet"), capabilities);
}

#[test]
fn there_is_time_to_drain() {
    let seconds = |unit: &str| -> u64 { one(unit, "Service", "TimeoutStopSec").parse().unwrap() };
    let needed = Config::default().limits.drain + limits::CUT_OFF;
    assert!(seconds("portreeve-portal.service") > needed.as_secs());
    let spawner = portreeve_broker::spawner::Settings::END_PATIENCE;
    assert!(seconds("portreeve-broker.service") > spawner.as_secs());
}
