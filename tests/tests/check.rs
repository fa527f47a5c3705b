//! `portreeve check`: every problem of the files at once, and with `--live` what is wrong with a portal node.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept, bind, listen, recv, send, socket,
};
use portreeve_model::wire::{decode, encode_bare};
use portreeve_model::{ControlReply, ControlRequest};
use portreeve_tests::world::etc::Etc;
use portreeve_tests::world::{Finished, Portal, PortalOptions, Skip, built_if_possible, portreeve, skip};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair, date_time_ymd};

const CLUSTER: &str =
    "[portal]\nurl = \"https://portal.example.org\"\n[forwards]\ndirectory = \"/nonexistent/forwards\"\n";
const KEY: &str = "ed25519:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const DAY: u64 = 24 * 3600;

fn assert_says(said: &Finished, status: i32, expected: &[&str]) {
    let all = format!("{}{}", said.out, said.err);
    for line in expected {
        assert!(all.contains(line), "{line:?} is missing:\n{all}");
    }
    assert_eq!(said.status, status, "{all}");
}

#[test]
fn files_are_checked_together() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (config, nodes, other) = (at("portreeve.toml"), at("nodes.toml"), at("other.toml"));
    let good_nodes = format!("[[node]]\nname = 'c1'\naddresses = ['10.0.0.11']\nkey = '{KEY}'\n");
    let bad_nodes = "[[node]]\nname = 'c1'\naddresses = ['10.0.0.11', 'c1']\n[[node]]\nkey = 'x'\n";
    let check = ["check", "--config", &config];
    for (config_text, nodes_text, more, status, expected) in [
        ("threads = 1", None, &[][..], 0, &["portreeve.toml: no problems"][..]),
        // What a cluster needs is missed only where there is one.
        (
            "threads = 1",
            None,
            &["--cluster"],
            1,
            &[
                "portreeve.toml: portal.url: it is missing, and a cluster needs it; write the address",
                "portreeve.toml: forwards.directory: it is missing",
                "nodes.toml: it is not there; make it with portreeve keys init",
                "portreeve: 3 problems",
            ],
        ),
        (
            CLUSTER,
            Some(&*good_nodes),
            &[],
            0,
            &["portreeve.toml: no problems", "nodes.toml: no problems", "nodes: ok"],
        ),
        (
            "[portal]\nurl = 'https://p'",
            Some(&*good_nodes),
            &[],
            1,
            &["forwards.directory: it is missing", "one problem"],
        ),
        // Everything at once, each with its line.
        (
            "threads = 65\n[portal]\nurl = 'https://p/x'\n[users]\nfirst_uid = 0\n",
            Some(bad_nodes),
            &[],
            1,
            &[
                "portreeve.toml:1: threads: 65 is out of range; write a number from 0 to 64",
                "portreeve.toml:3: portal.url: only a host and a port may stand here; write \"https://HOST\"",
                "portreeve.toml:5: users.first_uid: 0 is out of range",
                "portreeve.toml: forwards.directory: it is missing",
                "nodes.toml:3: node.addresses: this is no address",
                "nodes.toml:4: node.name: a node without a name",
                "nodes.toml:5: node.key: ",
            ],
        ),
        ("threads = 65", Some(bad_nodes), &["--nodes", &nodes], 1, &["portreeve.toml:1:", "nodes.toml:3:"]),
        (CLUSTER, None, &["--nodes", &other], 1, &["other.toml: it is not there"]),
        // What only both files together say.
        (
            CLUSTER,
            Some(&format!(
                "[[node]]\nname = 'c1'\naddresses = ['10.0.0.11']\n[[node]]\nname = 'c2'\nkey = '{KEY}'\n[[node]]\nname = 'c3'\n\
                 addresses = ['10.0.0.13']\nplain = true\n[[node]]\nname = 'login1'\naddresses = ['10.0.0.14']\nroles = ['login']\n\
                 key = '{}'\n",
                KEY.replace("0011", "1100")
            )),
            &[],
            1,
            &[
                "nodes: warning: c1 has no key, so nobody is let in there; portreeve keys add c1",
                "nodes: warning: c2 has no address",
                "nodes: problem: c3 is plain, and no address of it is in agents.plain_networks: its agent is refused",
                "nodes: warning: login1 has the role login, and sign_in.login_nodes is false",
                "one problem",
            ],
        ),
        (
            &format!("{CLUSTER}[agents]\nlookup = 'ident2'\nident2_socket = '/run/i.sock'\n"),
            Some("[[node]]\nname = 'c1'\naddresses = ['10.0.0.11']\n[[node]]\nname = 'c2'\n"),
            &[],
            0,
            &[
                "nodes: warning: c2 has no address",
                "nodes: warning: whose a connection is says the ident2 service at /run/i.sock, about all 2 nodes",
            ],
        ),
        (CLUSTER, Some(""), &[], 1, &["nodes: problem: the node map has no node"]),
    ] {
        std::fs::write(&config, config_text).unwrap();
        let _ = std::fs::remove_file(&nodes);
        nodes_text.into_iter().for_each(|text: &str| std::fs::write(&nodes, text).unwrap());
        assert_says(&portreeve(&[&check[..], more].concat(), None), status, expected);
    }
    if !Path::new("/etc/portreeve/portreeve.toml").exists() {
        assert_says(
            &portreeve(&["check"], None),
            1,
            &["there is no /etc/portreeve/portreeve.toml: name a file with --config"],
        );
    }
}

/// A portal node of a test's own: `/etc`, `/run`, `/usr/libexec` and programs, in a mount namespace.
struct Machine {
    etc: Etc,
    ca: Issuer<'static, KeyPair>,
    ca_pem: String,
    /// Of the portal's certificate.
    key: KeyPair,
    /// What runs before the check, in the namespace.
    before: String,
    portal: Portal,
}

/// The certificate's names, from when and until when, in days from now.
fn certificate(
    machine: &(&Issuer<'static, KeyPair>, &KeyPair),
    names: &[&str],
    from: i64,
    to: i64,
) -> String {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let at = |days: i64| {
        let offset = Duration::from_secs(days.unsigned_abs() * DAY);
        let then = if days < 0 { now - offset } else { now + offset };
        date_time_ymd(1970, 1, 1) + then
    };
    (params.not_before, params.not_after) = (at(from), at(to));
    params.signed_by(machine.1, machine.0).unwrap().pem()
}

impl Machine {
    /// One where all is well.
    fn new() -> Result<Self, Skip> {
        let etc = Etc::new("auth required pam_unix.so\naccount required pam_unix.so\n")?;
        built_if_possible("portreeve")?;
        if !Path::new("/usr/libexec").is_dir() {
            return Err("needs a directory /usr/libexec".into());
        }
        for name in ["etc/portreeve", "run", "run/portreeve", "libexec", "libexec/portreeve", "bin"] {
            std::fs::create_dir(etc.path(name)).unwrap();
            std::fs::set_permissions(etc.path(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        std::fs::create_dir(etc.path("forwards")).unwrap();
        mode(&etc.path("forwards"), 0o1777);
        mode(&etc.path(""), 0o755);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "the authority of this test");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca_pem = params.self_signed(&ca_key).unwrap().pem();
        let (ca, key) = (Issuer::new(params, ca_key), KeyPair::generate().unwrap());
        etc.write("etc/portreeve/tls.crt", &(certificate(&(&ca, &key), &["localhost"], -1, 90) + &ca_pem));
        etc.write("etc/portreeve/tls.key", &key.serialize_pem());
        mode(&etc.path("etc/portreeve/tls.key"), 0o600);
        etc.write(
            "etc/portreeve/agents-key.pem",
            &KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem(),
        );
        mode(&etc.path("etc/portreeve/agents-key.pem"), 0o600);
        let nodes = format!("[[node]]\nname = 'c1'\naddresses = ['10.0.0.11']\nkey = '{KEY}'\n");
        etc.write("etc/portreeve/nodes.toml", &nodes);
        etc.program("libexec/portreeve/portreeve-pam", "#!/bin/sh\n");
        etc.program("bin/scontrol", "#!/bin/sh\n[ \"$*\" = 'show node -o' ] && /bin/cat DIR/slurm\n");
        etc.write("slurm", "NodeName=c1 NodeAddr=10.0.0.11\n");
        let tls = format!(
            "[tls]\ncertificate = {:?}\nkey = {:?}\n",
            etc.path("etc/portreeve/tls.crt"),
            etc.path("etc/portreeve/tls.key")
        );
        let portal = Portal::start(PortalOptions { config: Some(tls), ..PortalOptions::default() });
        let machine = Self { etc, ca, ca_pem, key, before: String::new(), portal };
        machine.configure("localhost", "");
        Ok(machine)
    }

    fn configure(&self, host: &str, more: &str) {
        let (port, forwards) = (self.portal.port(), self.etc.path("forwards"));
        let text = format!(
            "[portal]\nurl = \"https://{host}:{port}\"\n{more}[forwards]\ndirectory = {forwards:?}\n\
             [workspace]\nportreeve = \"/bin/sh\"\nshared = {forwards:?}\n"
        );
        self.etc.write("etc/portreeve/portreeve.toml", &text);
    }

    fn certify(&self, names: &[&str], from: i64, to: i64) {
        let pem = certificate(&(&self.ca, &self.key), names, from, to);
        self.etc.write("etc/portreeve/tls.crt", &(pem + &self.ca_pem));
    }

    /// What `portreeve check --live` says as somebody.
    fn check_as(&self, uid: u32) -> Finished {
        let script = format!(
            "mount --bind {dir}/run /run && mount --bind {dir}/libexec /usr/libexec && {before} \
             exec setpriv --reuid {uid} --regid {uid} --clear-groups -- env PATH={dir}/bin \"$@\"",
            dir = self.etc.path("").display(),
            before = self.before,
        );
        let mut command = self.etc.command(Path::new("sh"));
        command
            .args(["-c", &script, "sh"])
            .arg(built_if_possible("portreeve").unwrap())
            .args(["check", "--live"]);
        let output = command.stdin(Stdio::null()).stdout(Stdio::piped()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Finished { status: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    fn check(&self) -> Finished {
        self.check_as(0)
    }

    /// A broker that answers one question.
    fn broker(&self, url: &str) -> std::thread::JoinHandle<ControlRequest> {
        let path = self.etc.path("run/portreeve/login.sock");
        let _ = std::fs::remove_file(&path);
        let listener =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        mode(&path, 0o666);
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let reply = encode_bare(&ControlReply::Portal { url: url.to_owned(), pid: 1 }).unwrap();
        std::thread::spawn(move || answer(&listener, &reply))
    }
}

/// A portal's metrics socket that answers one question.
fn metrics(machine: &Machine, nodes: &'static str) -> std::thread::JoinHandle<String> {
    let path = machine.etc.path("run/portreeve/metrics.sock");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    mode(&path, 0o600);
    std::thread::spawn(move || {
        let (mut caller, _) = listener.accept().unwrap();
        let asked = BufReader::new(&caller).lines().next().unwrap().unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", nodes.len());
        caller.write_all((head + nodes).as_bytes()).unwrap();
        // Until the caller has it.
        let _ = caller.read_to_end(&mut Vec::new());
        asked
    })
}

fn answer(listener: &OwnedFd, reply: &[u8]) -> ControlRequest {
    let caller = accept(listener.as_raw_fd()).unwrap();
    let mut asked = vec![0; 4096];
    let length = recv(caller, &mut asked, MsgFlags::empty()).unwrap();
    send(caller, reply, MsgFlags::empty()).unwrap();
    nix::unistd::close(caller).unwrap();
    decode(&asked[..length]).unwrap()
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn with(name: &str, test: impl FnOnce(Machine)) {
    match Machine::new() {
        Ok(machine) => test(machine),
        Err(why) => skip(name, &why),
    }
}

#[test]
fn a_node_where_all_is_well() {
    with("a_node_where_all_is_well", |machine| {
        let url = machine.portal.url().to_owned();
        let broker = machine.broker(&url);
        let metrics = metrics(&machine, r#"[{"node":"c1","agent":"connected"}]"#);
        let said = machine.check();
        let authority = format!("localhost:{}", machine.portal.port());
        assert_says(
            &said,
            0,
            &[
                "/etc/portreeve/portreeve.toml: no problems",
                "/etc/portreeve/nodes.toml: no problems",
                "nodes: ok: 1 known, each with an agent",
                "certificate: ok: /etc/portreeve/tls.key is its key",
                "certificate: ok: the certificate is good until ",
                "certificate: ok: it is for localhost",
                "files: ok: /etc/portreeve/agents-key.pem is root's, mode 0600",
                "files: ok: /etc/portreeve/tls.key is root's, mode 0600",
                "groups: ok: ",
                "pam: ok: /usr/libexec/portreeve/portreeve-pam is there",
                "pam: ok: /etc/pam.d/portreeve has lines for auth and account",
                "forwards: ok: ",
                "slurm: ok: it answers, and has 1 node(s)",
                "workspace: ok: 7 applications can be started",
                &format!("broker: ok: it answers, for {url}"),
                &format!("portal: ok: it answers as {authority}"),
                "agents: ok: 1 of 1 are connected",
            ],
        );
        assert!(
            !said.out.contains("problem:") && !said.out.contains("warning:") && said.err.is_empty(),
            "{said:?}"
        );
        // It only asked where the portal is.
        assert_eq!(broker.join().unwrap(), ControlRequest::Where);
        assert_eq!(metrics.join().unwrap(), "GET /nodes HTTP/1.1");
    });
}

#[test]
fn what_is_not_anybodys_to_read_is_said_to_be_unchecked() {
    with("what_is_not_anybodys_to_read_is_said_to_be_unchecked", |machine| {
        let broker = machine.broker(machine.portal.url());
        let socket = UnixListener::bind(machine.etc.path("run/portreeve/metrics.sock")).unwrap();
        mode(&machine.etc.path("run/portreeve/metrics.sock"), 0o600);
        let said = machine.check_as(20001);
        drop(socket);
        let all = [
            "certificate: not checked: /etc/portreeve/tls.key is not yours to read: do this as root",
            "certificate: ok: it is for localhost",
            "files: ok: /etc/portreeve/agents-key.pem is root's, mode 0600",
            "broker: ok: it answers",
            "agents: not checked: /run/portreeve/metrics.sock is not yours to ask: do this as root",
        ];
        assert!(all.iter().all(|line| said.out.contains(line)), "{said:?}");
        broker.join().unwrap();
    });
}

#[test]
fn certificates() {
    with("certificates", |machine| {
        let file = machine.etc.path("etc/portreeve/tls.crt");
        for (names, from, to, expected) in [
            (&["localhost"][..], -100, -1, "certificate: problem: the certificate ended on "),
            (&["localhost"], 1, 100, "certificate: problem: the certificate is not good before "),
            (&["localhost"], -1, 13, "certificate: problem: the certificate ends on "),
            (&["localhost"], -1, 15, "certificate: ok: the certificate is good until "),
            (
                &["portal.example.org"],
                -1,
                90,
                "certificate: problem: it is not for localhost; get one that has this name",
            ),
            (&["*.example.org"], -1, 90, "certificate: problem: it is not for localhost"),
        ] {
            machine.certify(names, from, to);
            assert_says(&machine.check(), 1, &[expected]);
        }
        machine.configure("Portal.Example.org", "names = [\"other.example.org\", \"portal.example.com\"]\n");
        machine.certify(&["*.example.org"], -1, 90);
        assert_says(
            &machine.check(),
            1,
            &[
                "certificate: ok: it is for portal.example.org",
                "certificate: ok: it is for other.example.org",
                "certificate: problem: it is not for portal.example.com",
            ],
        );
        // What systemd hands to the portal goes before what is configured.
        machine.configure(
            "localhost",
            "[tls]\ncertificate = \"/elsewhere/tls.crt\"\nkey = \"/elsewhere/tls.key\"\n",
        );
        let expected = "certificate: warning: tls.certificate, /elsewhere/tls.crt, is not used: /etc/portreeve/tls.crt is";
        assert_says(&machine.check(), 1, &[expected]);
        machine.configure("localhost", "");
        machine.certify(&["localhost"], -1, 90);
        let good = std::fs::read_to_string(&file).unwrap();
        let ca_first =
            machine.ca_pem.clone() + &certificate(&(&machine.ca, &machine.key), &["localhost"], -1, 90);
        let key = KeyPair::generate().unwrap().serialize_pem();
        let (order, no_pem) = ("are not each followed by its issuer's", "holds no certificates in PEM form");
        for (chain, key, expected) in [
            (
                good.as_str(),
                key.as_str(),
                "certificate: problem: /etc/portreeve/tls.key does not go with the certificate",
            ),
            (
                &good,
                "nonsense",
                "certificate: problem: /etc/portreeve/tls.key holds no private key in PEM form",
            ),
            (&ca_first, &machine.key.serialize_pem(), order),
            ("nonsense", &machine.key.serialize_pem(), no_pem),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                &key,
                "holds something that is no certificate",
            ),
        ] {
            std::fs::write(&file, chain).unwrap();
            std::fs::write(machine.etc.path("etc/portreeve/tls.key"), key).unwrap();
            let said = machine.check();
            assert_says(&said, 1, &[expected]);
            assert!(!said.out.contains("PRIVATE"), "{said:?}");
        }
        std::fs::remove_file(&file).unwrap();
        assert_says(
            &machine.check(),
            1,
            &["certificate: problem: there is no /etc/portreeve/tls.crt; put the portal's"],
        );
    });
}

#[test]
fn files_with_secrets() {
    with("files_with_secrets", |machine| {
        let file = |name: &str| machine.etc.path(&format!("etc/portreeve/{name}"));
        for (name, bits, expected) in [
            ("agents-key.pem", 0o640, "files: problem: /etc/portreeve/agents-key.pem has mode 0640"),
            (
                "tls.key",
                0o644,
                "files: problem: /etc/portreeve/tls.key has mode 0644: others can read it; chmod 0600",
            ),
        ] {
            mode(&file(name), bits);
            assert_says(&machine.check(), 1, &[expected]);
            mode(&file(name), 0o600);
        }
        for (name, bits) in
            [("portreeve.toml", 0o664), ("nodes.toml", 0o646), ("tls.crt", 0o664), (".", 0o775)]
        {
            mode(&file(name), bits);
            let expected = format!("has mode {bits:04o}: others can change it; chmod go-w");
            assert_says(&machine.check(), 1, &[&expected]);
            mode(&file(name), bits & !0o022);
        }
        mode(&file("tls.key"), 0o640);
        std::os::unix::fs::chown(file("agents-key.pem"), Some(20001), None).unwrap();
        let expected = [
            "files: ok: /etc/portreeve/tls.key",
            "files: problem: /etc/portreeve/agents-key.pem belongs to uid 20001",
        ];
        assert_says(&machine.check(), 1, &expected);
        std::os::unix::fs::chown(file("agents-key.pem"), Some(0), None).unwrap();
        std::fs::write(file("agents-key.pem"), machine.key.serialize_pem()).unwrap();
        assert_says(&machine.check(), 1, &["files: problem: /etc/portreeve/agents-key.pem can't be used"]);
        std::fs::remove_file(file("agents-key.pem")).unwrap();
        assert_says(
            &machine.check(),
            1,
            &["there is no /etc/portreeve/agents-key.pem; make it with portreeve keys init"],
        );
    });
}

#[test]
fn groups_that_the_portal_can_not_find() {
    with("groups_that_the_portal_can_not_find", |machine| {
        let never = |groups: &str| machine.configure("localhost", &format!("[groups]\nnever = {groups}\n"));
        never("[\"proj\", \"users\", 20100]");
        assert_says(&machine.check(), 1, &["groups: ok: "]);
        never("[\"nobodys\"]");
        let expected = "groups: problem: groups.never has \"nobodys\", which is not in /etc/group";
        assert_says(&machine.check(), 1, &[expected, "remove it: the system does not know it either"]);
    });
}

#[test]
fn pam_service() {
    with("pam_service", |machine| {
        machine.etc.write("etc/pam.d/portreeve", "@include common-auth\naccount required pam_unix.so\n");
        machine.etc.write(
            "etc/pam.d/common-auth",
            "auth required pam_faillock.so preauth\nauth required pam_unix.so\n",
        );
        let locks = "pam: warning: pam_faillock locks an account after 3 wrong tries in 900 s";
        assert_says(&machine.check(), 1, &[locks]);
        machine.etc.write("etc/security/faillock.conf", "deny = 5\n");
        assert_says(&machine.check(), 1, &["pam_faillock locks an account after 5 wrong tries"]);
        machine.etc.write("etc/security/faillock.conf", "deny = 30\n");
        assert_says(&machine.check(), 1, &["pam: ok: /etc/pam.d/portreeve"]);
        machine.etc.write("etc/pam.d/portreeve", "auth required pam_permit.so\n");
        let expected = [
            "pam: problem: /etc/pam.d/portreeve has no line for account",
            "pam: problem: /etc/pam.d/portreeve lets everybody in",
        ];
        assert_says(&machine.check(), 1, &expected);
        std::fs::remove_file(machine.etc.path("etc/pam.d/portreeve")).unwrap();
        std::fs::remove_file(machine.etc.path("libexec/portreeve/portreeve-pam")).unwrap();
        let expected = [
            "pam: problem: there is no /etc/pam.d/portreeve; without it PAM's service `other` decides",
            "pam: problem: there is no /usr/libexec/portreeve/portreeve-pam",
        ];
        assert_says(&machine.check(), 1, &expected);
    });
}

#[test]
fn directory_of_forwards() {
    with("directory_of_forwards", |mut machine| {
        let dir = machine.etc.path("forwards");
        let shown = dir.display().to_string();
        for (bits, expected) in [
            (0o755, "has mode 0755: nobody can make a forward; chmod 1777"),
            (0o777, "has mode 0777: without the sticky bit people can remove each other's forwards"),
            (0o770, "has mode 0770: without the sticky bit"),
            (0o1770, "forwards: warning: "),
            (0o1775, "forwards: ok: "),
            (0o1777, "forwards: ok: "),
        ] {
            mode(&dir, bits);
            assert_says(&machine.check(), 1, &[expected]);
        }
        std::os::unix::fs::chown(&dir, Some(20001), None).unwrap();
        assert_says(
            &machine.check(),
            1,
            &["belongs to uid 20001, who can rename what others have there; chown root"],
        );
        std::os::unix::fs::chown(&dir, Some(0), None).unwrap();
        machine.before = format!("mount -t tmpfs -o noexec,mode=1777 none {shown} &&");
        let noexec = format!(
            "forwards: problem: {shown} is mounted noexec: nobody has execute permission on any forward"
        );
        assert_says(&machine.check(), 1, &[&noexec]);
        machine.before.clear();
        std::fs::remove_dir(&dir).unwrap();
        let missing = format!(
            "forwards: problem: there is no {shown}; make it on the shared file system: install -d -m 1777"
        );
        assert_says(&machine.check(), 1, &[&missing]);
        std::fs::write(&dir, "").unwrap();
        assert_says(&machine.check(), 1, &["is no directory; make it on"]);
    });
}

#[test]
fn slurms_nodes_and_ours() {
    with("slurms_nodes_and_ours", |machine| {
        let sync = "scontrol show node -o | portreeve nodes sync, then systemctl reload portreeve-portal";
        machine.etc.write("slurm", "NodeName=c1 NodeAddr=10.0.0.12\nNodeName=c2 NodeAddr=10.0.0.13\n");
        let expected = [
            "slurm: ok: it answers, and has 2 node(s)",
            &format!("slurm: problem: Slurm says that c1 is at 10.0.0.12, and the node map does not; {sync}"),
            &format!("slurm: problem: Slurm has c2, and the node map does not: nobody can reach it; {sync}"),
        ];
        assert_says(&machine.check(), 1, &expected);
        machine
            .etc
            .program("bin/scontrol", "#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n");
        assert_says(
            &machine.check(),
            1,
            &["slurm: problem: scontrol show node: Unable to contact slurm controller"],
        );
        std::fs::remove_file(machine.etc.path("bin/scontrol")).unwrap();
        assert_says(&machine.check(), 1, &["slurm: not checked: there is no Slurm here"]);
    });
}

#[test]
fn portal_and_broker() {
    with("portal_and_broker", |mut machine| {
        assert_says(
            &machine.check(),
            1,
            &[
                "broker: problem: /run/portreeve/login.sock is not there",
                "agents: problem: no portal answers at /run/portreeve/metrics.sock",
            ],
        );
        let broker = machine.broker("https://elsewhere.example.org/");
        assert_says(
            &machine.check(),
            1,
            &["broker: problem: it signs people in at https://elsewhere.example.org/, and not at"],
        );
        broker.join().unwrap();
        let gone = metrics(&machine, r#"[{"node":"c1","agent":"never","problem":"it never came"}]"#);
        assert_says(
            &machine.check(),
            1,
            &["agents: problem: no agent is connected, so that nobody is let in anywhere"],
        );
        gone.join().unwrap();
        // The portal goes on with what it had.
        let port = machine.portal.port();
        machine.certify(&["localhost"], -1, 80);
        let expected = [
            &*format!("portal: ok: it answers as localhost:{port}"),
            "portal: problem: it shows another certificate than the one in /etc/portreeve/tls.crt; systemctl reload",
        ];
        assert_says(&machine.check(), 1, &expected);
        machine.configure("elsewhere.example.org", "");
        assert_says(
            &machine.check(),
            1,
            &[&format!("portal: problem: it is not elsewhere.example.org:{port}; systemctl restart")],
        );
        machine.configure("localhost", "");
        machine.portal.signal(Signal::SIGTERM);
        assert!(machine.portal.process().wait(Duration::from_secs(15)).is_some());
        assert_says(
            &machine.check(),
            1,
            &[&format!("portal: problem: nobody listens on port {port} of this machine")],
        );
    });
}

#[test]
fn a_broken_file_does_not_hide_what_is_there() {
    with("a_broken_file_does_not_hide_what_is_there", |machine| {
        machine.etc.write("etc/portreeve/portreeve.toml", "threads = 65\n");
        machine.etc.write("etc/portreeve/nodes.toml", "[[node]]\n");
        let expected = [
            "/etc/portreeve/portreeve.toml:1: threads",
            "/etc/portreeve/portreeve.toml: portal.url: it is missing",
            "nodes: not checked: the node map has problems",
            "certificate: ok: /etc/portreeve/tls.key is its key",
            "forwards: not checked: forwards.directory is missing",
            "portal: not checked: portal.url is missing",
        ];
        assert_says(&machine.check(), 1, &expected);
    });
}

#[test]
fn forwards_of_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let shared = dir.path().join("shared");
    let config = format!("[forwards]\ndirectory = {shared:?}\n");
    // `up` takes the directory from its file, and tells `forward`.
    let portal = Portal::with_config(&config);
    let state = portal.state().display().to_string();
    let added = portreeve(&["forward", "add", "tb", "8888", "--state", &state], None);
    assert_says(&added, 0, &["added /fw/tb/"]);
    assert!(shared.join("tb").exists());
    // The option is stronger.
    let own = dir.path().join("own");
    let options =
        PortalOptions { config: Some(config), forwards: Some(own.clone()), ..PortalOptions::default() };
    let portal = Portal::start(options);
    assert_eq!(portal.forwards(), own);
    let state = portal.state().display().to_string();
    assert_says(
        &portreeve(&["forward", "add", "tb2", "8888", "--state", &state], None),
        0,
        &["added /fw/tb2/"],
    );
    assert!(own.join("tb2").exists() && !shared.join("tb2").exists());
}

#[test]
fn forward_on_a_cluster_works_in_the_clusters_directory() {
    with("forward_on_a_cluster_works_in_the_clusters_directory", |machine| {
        let home = machine.etc.path("home/alice").display().to_string();
        let run = |arguments: &[&str]| {
            let script = "exec setpriv --reuid 20001 --regid 20001 --clear-groups -- \"$@\"";
            let mut command = machine.etc.command(Path::new("sh"));
            command.args(["-c", script, "sh"]).arg(built_if_possible("portreeve").unwrap()).args(arguments);
            command.env_remove("XDG_STATE_HOME").env("HOME", &home);
            let output = command.stdin(Stdio::null()).stdout(Stdio::piped()).output().unwrap();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            Finished {
                status: output.status.code().unwrap(),
                out: text(output.stdout),
                err: text(output.stderr),
            }
        };
        assert_says(&run(&["forward", "add", "tb", "c1:8888"]), 0, &["added /fw/tb/ -> http://c1:8888/"]);
        assert!(machine.etc.path("forwards/tb").exists());
        assert!(!machine.etc.path("home/alice/.local").exists(), "nothing is made at home");
        // Whoever says where means it.
        let elsewhere = machine.etc.path("home/alice/fw").display().to_string();
        assert_says(&run(&["forward", "add", "tb", "1234", "--forwards", &elsewhere]), 0, &["added"]);
        assert_says(&run(&["forward", "add", "tb", "1234", "--state", &home]), 0, &["added"]);
        assert!(machine.etc.path("home/alice/forwards/tb").exists());
        // What is not there is not made by somebody who happens to be the first.
        let gone = machine.etc.path("gone");
        let text = format!("[forwards]\ndirectory = {gone:?}\n");
        machine.etc.write("etc/portreeve/portreeve.toml", &text);
        let said = run(&["forward", "add", "tb", "1234"]);
        assert_says(&said, 1, &["ask whoever runs this cluster", "/etc/portreeve/portreeve.toml"]);
        assert!(!gone.exists());
        machine.etc.write("etc/portreeve/portreeve.toml", "threads = 65\n");
        assert_says(&run(&["forward", "list"]), 1, &["portreeve.toml:1: threads"]);
        std::fs::remove_file(machine.etc.path("etc/portreeve/portreeve.toml")).unwrap();
        assert_says(&run(&["forward", "list"]), 0, &["no forwards"]);
    });
}
