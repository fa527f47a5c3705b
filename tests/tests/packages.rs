//! The packages: what is in them, and what they do to a node that is installed, configured, upgraded and cleared.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use portreeve_tests::world::testbed::{Testbed, packages, progress, repository};
use portreeve_tests::world::{built_if_possible, skip, system};

/// The node that is used, which no other test needs.
const NODE: &str = "c2";

fn file(dir: &Path, start: &str, end: &str) -> PathBuf {
    let mut found = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with(start) && name.ends_with(end)
    });
    let first = found.next().unwrap_or_else(|| panic!("no {start}*{end}"));
    assert!(found.next().is_none(), "several {start}*{end}");
    first
}

fn says(program: &str, arguments: &[&str]) -> String {
    let output = system(program, arguments).unwrap_or_else(|| panic!("{program} is not installed"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn lacks(programs: &[&str]) -> Option<String> {
    let missing =
        |program: &&&str| system("sh", &["-c", &format!("command -v {program}")]).unwrap().stdout.is_empty();
    programs.iter().find(missing).map(|program| format!("{program} is not installed"))
}

/// Where everything belongs, whatever the package.
const FILES: &[&str] = &[
    "/etc/pam.d/portreeve",
    "/etc/portreeve/portreeve.toml",
    "/usr/lib/systemd/system/portreeve-agents.socket",
    "/usr/lib/systemd/system/portreeve-broker-line.socket",
    "/usr/lib/systemd/system/portreeve-broker.service",
    "/usr/lib/systemd/system/portreeve-metrics.socket",
    "/usr/lib/systemd/system/portreeve-portal.service",
    "/usr/lib/systemd/system/portreeve-portal.socket",
    "/usr/lib/sysusers.d/portreeve.conf",
    "/usr/lib/tmpfiles.d/portreeve.conf",
    "/usr/libexec/portreeve/portreeve-broker",
    "/usr/share/doc/portreeve/apps/jupyter.toml",
    "/usr/share/doc/portreeve/copyright",
    "/usr/share/doc/portreeve/docs/admin/README.md",
];
const FILES_OF_THE_CLIENT: &[&str] = &[
    "/usr/bin/portreeve",
    "/usr/share/bash-completion/completions/portreeve",
    "/usr/share/doc/portreeve-client/copyright",
    "/usr/share/man/man1/portreeve.1.gz",
];
const FILES_OF_THE_AGENT: &[&str] = &[
    "/etc/portreeve/agent.toml",
    "/etc/portreeve/firewall.toml",
    "/etc/portreeve/ident2.toml",
    "/usr/lib/systemd/system/portreeve-agent.service",
    "/usr/lib/systemd/system/portreeve-firewall.service",
    "/usr/lib/systemd/system/portreeve-ident2.service",
    "/usr/lib/systemd/system/portreeve-ident2.socket",
    "/usr/sbin/portreeve-agent",
    "/usr/share/doc/portreeve-agent/copyright",
    "/usr/share/doc/portreeve-agent/ident2.md",
];

/// Before it builds for half an hour.
#[test]
fn a_training_says_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let script = repository().join("systemd/packages/build");
    let target = dir.path().join("target");
    let lacks = |arguments: &[&str], expected: &str| {
        let mut build = Command::new("/bin/bash");
        build.arg(&script).args(arguments).env("PATH", dir.path()).env("CARGO_TARGET_DIR", &target);
        let output = build.env_remove("LLVM_PROFDATA").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.trim_end().ends_with(expected), "{said}");
        assert!(!target.exists());
    };
    let put = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(dir.path().join(name), Permissions::from_mode(0o755)).unwrap();
    };
    for name in ["dirname", "sed", "git", "date", "mktemp", "rm"] {
        put(name, &format!("PATH=/usr/local/bin:/usr/bin:/bin exec {name} \"$@\""));
    }
    lacks(&["--trained", "--profile", "dev"], "--trained and --profile dev exclude each other");
    for name in ["nginx", "wrk", "h2load", "openssl", "python3"] {
        lacks(&["--trained"], &format!("--trained needs {name}, for the load"));
        put(name, "exit 1");
    }
    put("rustc", "echo LLVM version: 7.1.0");
    put("llvm-profdata-8", "exit 1");
    lacks(&["--trained"], "rustup component add llvm-tools, or the package llvm-7");
}

#[test]
fn debian_packages() {
    if let Some(why) = lacks(&["dpkg-deb", "dpkg-shlibdeps", "strip"]) {
        return skip("debian_packages", &why);
    }
    let (dir, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    packages(dir.path(), &["--only", "deb"]);
    packages(again.path(), &["--only", "deb"]);
    let version = env!("CARGO_PKG_VERSION");
    for (package, files, configuration) in [
        ("portreeve", FILES, &["/etc/pam.d/portreeve", "/etc/portreeve/portreeve.toml"][..]),
        ("portreeve-client", FILES_OF_THE_CLIENT, &[]),
        (
            "portreeve-agent",
            FILES_OF_THE_AGENT,
            &["/etc/portreeve/agent.toml", "/etc/portreeve/firewall.toml", "/etc/portreeve/ident2.toml"],
        ),
    ] {
        let deb = file(dir.path(), &format!("{package}_{version}_"), ".deb");
        let path = deb.display().to_string();
        let listed = says("dpkg-deb", &["--contents", &path]);
        for wanted in files {
            assert!(
                listed.lines().any(|line| line.ends_with(&format!(" .{wanted}"))),
                "{package}: {wanted}:\n{listed}"
            );
        }
        for line in listed.lines() {
            assert!(line.contains(" root/root "), "{line}");
            // Nothing with the rights of somebody else, nothing that others may write.
            assert!(!line[..10].contains('s') && &line[8..9] == "-", "{line}");
        }
        if !configuration.is_empty() {
            let conffiles = says("dpkg-deb", &["--info", &path, "conffiles"]);
            assert_eq!(conffiles.lines().collect::<Vec<_>>(), configuration, "{package}");
        }
        assert!(!configuration.is_empty() || !listed.contains(" ./etc/"), "{listed}");
        let depends = says("dpkg-deb", &["--field", &path, "Depends"]);
        assert!(depends.contains("libc6 (>= "), "{depends}");
        let same = std::fs::read(&deb).unwrap()
            == std::fs::read(again.path().join(deb.file_name().unwrap())).unwrap();
        assert!(same, "{package} differs when it is built again");
    }
}

#[test]
fn rpm_packages() {
    if let Some(why) = lacks(&["rpmbuild", "rpm", "strip"]) {
        return skip("rpm_packages", &why);
    }
    let dir = tempfile::tempdir().unwrap();
    packages(dir.path(), &["--only", "rpm"]);
    let version = env!("CARGO_PKG_VERSION");
    for (package, files) in [
        ("portreeve", FILES),
        ("portreeve-client", FILES_OF_THE_CLIENT),
        ("portreeve-agent", FILES_OF_THE_AGENT),
    ] {
        let rpm = file(dir.path(), &format!("{package}-{version}-"), ".rpm").display().to_string();
        let query = |what: &str| says("rpm", &["--query", "--package", what, &rpm]);
        let listed = query("--list");
        for wanted in files {
            assert!(listed.lines().any(|line| line == *wanted), "{package}: {wanted}:\n{listed}");
        }
        let configuration = query("--configfiles");
        assert!(configuration.lines().all(|line| line.starts_with("/etc/")), "{configuration}");
        for wanted in files.iter().filter(|file| file.starts_with("/etc/")) {
            assert!(configuration.contains(wanted), "{package}: {wanted} would be replaced");
        }
        assert!(query("--requires").contains("libc.so.6"));
    }
}

const PACKAGES: [&str; 3] = ["portreeve", "portreeve-client", "portreeve-agent"];

/// A node of the cluster as a new machine: without what the cluster itself has put there in the packages' places. Ends
/// as it was.
struct Fresh<'a>(&'a Testbed);

impl<'a> Fresh<'a> {
    fn new(testbed: &'a Testbed) -> Self {
        testbed.root(NODE, "mkdir -p /root/kept && mv /etc/pam.d/portreeve /root/kept && userdel portreeve");
        Self(testbed)
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        let _ = self.0.shell(
            NODE,
            "root",
            "systemctl stop 'portreeve*'; dpkg --purge portreeve portreeve-client portreeve-agent; rm -rf /etc/portreeve /var/lib/portreeve
             userdel portreeve; groupadd --gid 20090 portreeve
             useradd --uid 20090 --gid 20090 --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin portreeve
             mv /root/kept/portreeve /etc/pam.d",
        );
    }
}

fn install(testbed: &Testbed, packages: &[PathBuf]) {
    testbed.root(NODE, "rm -rf /root/packages && mkdir /root/packages");
    for package in packages {
        let name = package.file_name().unwrap().to_string_lossy();
        testbed.copy(package, NODE, &format!("/root/packages/{name}"));
    }
    testbed.root(
        NODE,
        "DEBIAN_FRONTEND=noninteractive dpkg --install --force-unsafe-io /root/packages/*.deb 2>&1",
    );
}

/// A certificate, the agents' keys, and a portal's address.
const CONFIGURE: &str = "cd /etc/portreeve
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=portal.test \
        -addext subjectAltName=DNS:portal.test -keyout tls.key -out tls.crt 2>/dev/null
    portreeve keys init --portal 10.77.0.12:8499
    portreeve keys add c2 --addresses 10.77.0.12
    mkdir -p /srv/forwards && chmod 1777 /srv/forwards
    printf '[portal]\nurl = \"https://portal.test\"\n[forwards]\ndirectory = \"/srv/forwards\"\n' >portreeve.toml";

#[test]
fn a_nodes_life() {
    const NAME: &str = "a_nodes_life";
    let (testbed, missing) =
        match (Testbed::empty("packages"), lacks(&["dpkg-deb", "dpkg-shlibdeps", "strip"])) {
            (Ok(testbed), None) => (
                testbed,
                ["portreeve-pam", "portreeve-portal", "portreeve-worker"]
                    .iter()
                    .find_map(|name| built_if_possible(name).err()),
            ),
            (Err(why), _) | (_, Some(why)) => return skip(NAME, &why),
        };
    let dir = tempfile::tempdir().unwrap();
    packages(dir.path(), &["--only", "deb"]);
    let version = env!("CARGO_PKG_VERSION");
    let of = |package: &str, version: &str| file(dir.path(), &format!("{package}_{version}_"), ".deb");
    let fresh = Fresh::new(&testbed);
    install(&testbed, &PACKAGES.map(|package| of(package, version)));
    progress("nothing runs unconfigured");
    nothing_runs_unconfigured(&testbed);
    let Some(why) = missing else {
        testbed.root(NODE, CONFIGURE);
        testbed.root(NODE, "systemctl start portreeve-portal");
        progress("it runs");
        it_runs(&testbed);
        progress("a reload renews secrets");
        a_reload_renews_secrets(&testbed);
        progress("a portal that crashes is never given up");
        a_portal_that_crashes_is_never_given_up(&testbed);
        packages(dir.path(), &["--only", "deb", "--version", "9.9.9"]);
        progress("an upgrade closes no socket");
        an_upgrade_closes_no_socket(
            &testbed,
            &["portreeve", "portreeve-client"].map(|package| of(package, "9.9.9")),
        );
        progress("removing stops it");
        removing_stops_it(&testbed);
        progress("purging takes what it made");
        purging_takes_what_it_made(&testbed);
        drop(fresh);
        return;
    };
    testbed.root(NODE, "dpkg --remove portreeve");
    skip(NAME, &format!("the half of it that needs all programs: {why}"));
}

fn nothing_runs_unconfigured(testbed: &Testbed) {
    assert_eq!(
        testbed.root(
            NODE,
            "stat -c '%A %U %G' /run/portreeve /run/portreeve/keys /etc/portreeve /etc/portreeve/*"
        ),
        "\
        drwxr-xr-x root root\ndrwxr-x--- root portreeve\ndrwxr-xr-x root root\n-rw-r--r-- root root\n-rw-r--r-- root root\n\
        -rw-r--r-- root root\n-rw-r--r-- root root"
    );
    assert_eq!(
        testbed.root(NODE, "getent passwd portreeve | cut -d : -f 6-"),
        "/nonexistent:/usr/sbin/nologin"
    );
    assert!(
        testbed.root(NODE, "id portreeve").ends_with("(portreeve)"),
        "the portal's user is in other groups"
    );
    assert_eq!(testbed.root(NODE, "systemctl list-units --no-legend --state active 'portreeve*'"), "");
    let started = testbed.shell(NODE, "root", "systemctl start portreeve-portal");
    assert_ne!(started.status, 0, "a portal without a certificate: {}", started.out);
    assert_eq!(testbed.root(NODE, "systemctl is-system-running"), "running");
    assert_eq!(testbed.root(NODE, "ss -Hltn '( sport = 443 or sport = 8499 )'"), "");
}

const ACTIVE: &str = "systemctl is-active portreeve-portal.socket portreeve-broker-line.socket portreeve-agents.socket \
    portreeve-metrics.socket portreeve-portal portreeve-broker";

fn it_runs(testbed: &Testbed) {
    testbed.until(NODE, ACTIVE, "active\nactive\nactive\nactive\nactive\nactive");
    testbed.root(NODE, "portreeve check --config /etc/portreeve/portreeve.toml");
    assert_eq!(
        testbed.root(NODE, "stat -c '%A %U %n' /run/portreeve/*.sock /var/lib/portreeve/broker"),
        "srw-rw-rw- root /run/portreeve/login.sock\nsrw------- root /run/portreeve/metrics.sock\n\
         srw------- root /run/portreeve/portal.sock\ndrwx------ root /var/lib/portreeve/broker"
    );
    assert_eq!(testbed.root(NODE, "systemctl show --property User --value portreeve-portal"), "portreeve");
    // From another node, by way of the sockets that systemd has.
    testbed.until(
        "login",
        "curl --silent --insecure --output /dev/null --write-out %{http_version} https://c2/",
        "2",
    );
    let pid = testbed.root(NODE, "systemctl show --property MainPID --value portreeve-portal");
    assert_eq!(
        testbed.root(
            NODE,
            &format!("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/{pid}/status | tr -s '\\t\\n' ' '")
        ),
        "CapInh: 0000000000000000 CapPrm: 0000000000000000 CapEff: 0000000000000000 CapBnd: 0000000000000000 \
         CapAmb: 0000000000000000 NoNewPrivs: 1 Seccomp: 2"
    );
    // What it can see of the node: neither homes nor anybody's keys nor another program.
    assert_eq!(
        testbed.root(NODE, &format!("cd /proc/{pid}/root && ls -d home/* srv/* etc/shadow etc/ssh bin usr/bin run/portreeve/*.sock 2>/dev/null || true")),
        ""
    );
}

fn a_reload_renews_secrets(testbed: &Testbed) {
    let shown = "openssl s_client -connect 127.0.0.1:443 -servername portal.test </dev/null 2>/dev/null | openssl x509 -noout -serial";
    let before = testbed.root(NODE, shown);
    testbed.root(NODE, "cd /etc/portreeve && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
        -days 30 -subj /CN=portal.test -keyout tls.key -out tls.crt 2>/dev/null; systemctl reload portreeve-portal");
    let after = testbed.root(NODE, "openssl x509 -noout -serial -in /etc/portreeve/tls.crt");
    assert_ne!(before, after);
    testbed.until(NODE, shown, &after);
    assert_eq!(
        testbed.root(NODE, "stat -c '%A %U %G' /run/portreeve/keys/tls.key"),
        "-r--r----- root portreeve"
    );
    let log =
        "journalctl --no-pager --output cat --unit portreeve-broker | grep -c 'configuration was reloaded'";
    testbed.until(NODE, log, "1");
}

fn a_portal_that_crashes_is_never_given_up(testbed: &Testbed) {
    let crashes =
        "[Service]\nExecStart=\nExecStart=/usr/libexec/portreeve/portreeve-portal --no-such-option\n";
    testbed.root(NODE, "mkdir -p /run/systemd/system/portreeve-portal.service.d");
    testbed.write(
        NODE,
        "root",
        "/run/systemd/system/portreeve-portal.service.d/crash.conf",
        crashes.as_bytes(),
    );
    testbed.root(NODE, "systemctl daemon-reload; systemctl kill --signal KILL portreeve-portal");
    let many = "[ $(systemctl show --property NRestarts --value portreeve-portal) -gt 12 ] && echo many";
    testbed.until(NODE, many, "many");
    testbed.root(NODE, "systemctl is-active portreeve-portal.socket portreeve-agents.socket");
    testbed
        .root(NODE, "rm /run/systemd/system/portreeve-portal.service.d/crash.conf; systemctl daemon-reload");
    testbed.until(NODE, ACTIVE, "active\nactive\nactive\nactive\nactive\nactive");
}

fn an_upgrade_closes_no_socket(testbed: &Testbed, newer: &[PathBuf]) {
    let socket =
        "systemctl show --property InvocationID --value portreeve-portal.socket portreeve-agents.socket";
    let pids = "systemctl show --property MainPID --value portreeve-portal portreeve-broker";
    let (sockets_before, pids_before) = (testbed.root(NODE, socket), testbed.root(NODE, pids));
    testbed.root(NODE, "echo '# ours' >>/etc/portreeve/portreeve.toml");
    install(testbed, newer);
    testbed.until(NODE, ACTIVE, "active\nactive\nactive\nactive\nactive\nactive");
    assert_eq!(testbed.root(NODE, socket), sockets_before);
    let after = testbed.root(NODE, pids);
    assert!(
        after.split_whitespace().zip(pids_before.split_whitespace()).all(|(new, old)| new != old),
        "{pids_before} {after}"
    );
    assert_eq!(testbed.root(NODE, "tail -n 1 /etc/portreeve/portreeve.toml"), "# ours");
}

fn removing_stops_it(testbed: &Testbed) {
    testbed.root(
        NODE,
        "mkdir -p /var/lib/portreeve/forwards; echo http://c1:8000/ >/var/lib/portreeve/forwards/alice-web
        dpkg --remove portreeve portreeve-client portreeve-agent",
    );
    assert_eq!(testbed.root(NODE, "systemctl list-units --no-legend --state active 'portreeve*'"), "");
    assert_eq!(testbed.root(NODE, "pgrep -f ^/usr/libexec/portreeve || true"), "");
    testbed.root(NODE, "test -e /etc/portreeve/portreeve.toml -a -e /var/lib/portreeve/broker/mark-key");
}

fn purging_takes_what_it_made(testbed: &Testbed) {
    testbed.root(NODE, "dpkg --purge portreeve portreeve-client portreeve-agent");
    // The certificate was the sysadmin's, a forward is a user's.
    assert_eq!(
        testbed.root(
            NODE,
            "find /etc/portreeve /var/lib/portreeve /run/portreeve -not -type d 2>/dev/null | sort"
        ),
        "/etc/portreeve/tls.crt\n/etc/portreeve/tls.key\n/var/lib/portreeve/forwards/alice-web"
    );
    assert_eq!(testbed.root(NODE, "find /etc/systemd/system -name 'portreeve*'"), "");
    assert_eq!(testbed.root(NODE, "systemctl is-system-running"), "running");
}
