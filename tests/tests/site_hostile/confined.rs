//! Files, processes, the machine, code.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;
use nix::libc;
use portreeve_tests::hostile::{Denied, Order, Outcome, Report, Use};
use portreeve_tests::world::hostile::Taken;
use portreeve_tests::world::site::{PROGRAMS, Site, outside};
use portreeve_tests::world::testbed::repository;
use portreeve_tests::world::units::{self, Shown};

/// Of the attempts, those that the unit alone lets through: a process like itself, which is in the same cage, and what a
/// process may do to itself.
const THE_UNIT_ALLOWS: &[&str] = &["dumpable", "fork", "program-linker", "program-own", "userfaultfd"];
/// Nobody may, or not here: no modules, no such processor, a file system without handles, a root without CAP_SYS_RESOURCE.
const NOT_SHOWN_HERE: &[&str] =
    &["delete-module", "descriptor-limit", "file-by-handle", "kexec", "limit", "module", "ports"];
/// Part of the names of files that are put where a portal must not see them.
const MARK: &str = "hostile-mark";

/// The reason of whoever may not, or does not see it.
const NO: [i32; 5] = [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::ENOENT, libc::EROFS];

/// Attacks, by name, and what came of them.
#[derive(Default)]
struct Made(BTreeMap<String, Result<String, Denied>>);

impl Made {
    fn add(&mut self, outcomes: Vec<Outcome>) {
        self.0.extend(outcomes.into_iter().map(|outcome| (outcome.name, outcome.result)));
    }

    /// The names of those that gained something.
    fn gained(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, result)| result.is_ok()).map(|(name, _)| name.as_str()).collect()
    }

    /// That all others were denied for what they are, not because they were made badly.
    #[track_caller]
    fn assert_denied_by_rule(&self) {
        for (name, result) in &self.0 {
            let Err(denied) = result else { continue };
            // What nobody may is no question of rules: prctl(2) has no way to take the flag back.
            let by_rule =
                denied.errno.is_some_and(|errno| NO.contains(&errno)) || name == "no-new-privileges-off";
            assert!(by_rule, "{name}: {denied:?}");
        }
    }
}

/// The same attempts where nothing confines them: as root, and on a process of alice's.
fn unconfined(site: &Site, pid: u32) -> Made {
    let said = site.root(
        "login",
        &format!(
            "exec unshare --mount --propagation private {PROGRAMS}/portreeve-test-hostile attempts {pid}"
        ),
    );
    let mut made = Made::default();
    made.add(said.lines().map(|line| serde_json::from_str(line).unwrap()).collect());
    made
}

fn path(taken: &Taken<'_>, to: Use, path: &str) -> Result<String, Denied> {
    taken.try_to(&Order::Path { to, path: path.to_owned() })
}

#[track_caller]
fn denied(result: Result<String, Denied>, errnos: &[Errno]) {
    let errno = result.as_ref().err().and_then(|denied| denied.errno).map(Errno::from_raw);
    assert!(errno.is_some_and(|errno| errnos.contains(&errno)), "{result:?}");
}

/// Files that everybody on the machine may read, and must not be seen here. Removed when dropped.
struct Marks<'s>(&'s Site);

const MARKED: &str = "/home/alice /tmp /var/tmp /dev/shm /srv /opt /mnt /run /run/portreeve /var/lib /etc /usr/share /run/user";

impl<'s> Marks<'s> {
    fn set(site: &'s Site) -> Self {
        let script = format!("for at in {MARKED}; do echo secret >$at/{MARK}; chmod 0644 $at/{MARK}; done");
        site.root("login", &script);
        Self(site)
    }
}

impl Drop for Marks<'_> {
    fn drop(&mut self) {
        let _ = self.0.shell("login", "root", &format!("for at in {MARKED}; do rm -f $at/{MARK}; done"));
    }
}

/// What runs on login besides: alice's, one of the portal's own user's, which no site has, and ours.
struct Others {
    alice: u32,
    same_user: u32,
    all: Vec<u32>,
}

impl Others {
    fn find(site: &Site) -> Self {
        let pid = |script: &str| -> u32 {
            site.until("login", &format!("{script} | wc -l"), "1");
            site.root("login", script).parse().unwrap()
        };
        let alice = pid("pgrep -u alice -x -f 'sleep 4711'");
        let same_user = pid("pgrep -u portreeve -x -f 'sleep 4712'");
        let spawner = pid("systemctl show --property MainPID --value portreeve-broker");
        let broker = pid(&format!("pgrep -P {spawner} -o portreeve-broke"));
        let agent = pid("systemctl show --property MainPID --value portreeve-agent");
        Self { alice, same_user, all: vec![1, spawner, broker, agent, alice] }
    }
}

/// The kernel's word on what can be written where, and what can be run from where.
fn check_mounts(taken: &Taken<'_>) {
    let table = path(taken, Use::Read, "/proc/self/mountinfo").unwrap();
    let mut seen = BTreeSet::new();
    for line in table.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (at, options) = (fields[4], fields[5].split(',').collect::<Vec<_>>());
        seen.insert(at);
        // Root's by its mode, and the kernel's terminals, which are their owners'.
        let is_written_to = ["/run/portreeve/keys", "/dev/pts"].contains(&at);
        assert_eq!(options.contains(&"rw"), is_written_to, "{line}");
        assert!(options.contains(&"nosuid"), "{line}");
        let is_program =
            ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/libexec/portreeve/portreeve-portal"];
        // Files alone, no larger than a page or two, and the machine's own.
        let is_file = ["/etc/group", "/etc/passwd", "/etc/ld.so.cache", "/etc/nsswitch.conf"];
        let may_run = is_program.contains(&at) || is_file.contains(&at) || ["/dev/pts"].contains(&at);
        assert!(options.contains(&"noexec") || may_run || at == "/run/systemd/incoming", "{line}");
    }
    for at in ["/", "/etc/portreeve", "/tmp", "/var/tmp", "/proc", "/dev/shm"] {
        assert!(seen.contains(at), "{at} is not among {seen:?}");
    }
}

/// What holds whether it is locked up or not, since the unit holds it. Adds what it has shown.
fn check_what_is_seen(taken: &Taken<'_>, others: &Others, shown: &mut BTreeSet<&'static str>) {
    let Report::Walked { marked, readable, writable, seen } =
        taken.tell(&Order::Walk { mark: MARK.to_owned() })
    else {
        panic!()
    };
    assert!(seen > 20, "there is nothing at all?");
    assert_eq!(marked, [""; 0]);
    assert_eq!(writable, [""; 0]);
    shown.extend(["marks", "written nowhere"]);
    // Its own credentials, and of the configuration what everybody may read.
    let secrets: Vec<&String> = readable.iter().filter(|path| path.contains("key")).collect();
    let own = "/run/credentials/portreeve-portal.service/";
    assert_eq!(secrets, [&format!("{own}agents-key.pem"), &format!("{own}tls.key")]);
    let expected = |path: &&String| {
        path.starts_with(own)
            || path.starts_with("/etc/portreeve/")
            || ["/etc/group", "/etc/passwd", "/etc/ld.so.cache", "/etc/nsswitch.conf"]
                .contains(&path.as_str())
            || path.as_str() == "/usr/libexec/portreeve/portreeve-portal"
    };
    assert_eq!(readable.iter().filter(|path| !expected(path)).collect::<Vec<_>>(), [""; 0]);
    for secret in [
        "/etc/portreeve/tls.key",
        "/etc/portreeve/agents-key.pem",
        "/etc/portreeve/agent-keys",
        "/etc/portreeve/agent-key.toml",
    ] {
        denied(path(taken, Use::Read, secret), &[Errno::EACCES]);
    }
    shown.insert("credentials");
    for place in [
        "/etc/shadow",
        "/home/alice",
        "/home/alice/hostile-mark",
        "/root/ca.key",
        "/var/lib/portreeve/broker/ticket-keys.json",
        "/run/user",
        "/run/portreeve/login.sock",
        "/run/portreeve/portal.sock",
        "/run/systemd/private",
        "/run/dbus/system_bus_socket",
        "/run/munge/munge.socket.2",
        "/bin/sh",
        "../../../../etc/shadow",
        "/proc/self/root/etc/shadow",
        "/proc/self/cwd/../etc/shadow",
    ] {
        denied(path(taken, Use::Read, place), &[Errno::ENOENT, Errno::EACCES]);
    }
    denied(path(taken, Use::Enter, "/home"), &[Errno::ENOENT]);
    // The root is the end of all ways up.
    assert_eq!(path(taken, Use::Enter, "/../.."), Ok("/".to_owned()));
    shown.insert("places");
    for device in
        ["/dev/kmsg", "/dev/mem", "/dev/sda", "/dev/vda", "/dev/fuse", "/dev/net/tun", "/dev/kvm", "/dev/tty"]
    {
        denied(path(taken, Use::Read, device), &[Errno::ENOENT, Errno::ENXIO, Errno::EPERM]);
    }
    shown.insert("devices");
    for file in [
        "/proc/meminfo",
        "/proc/net/tcp",
        "/proc/sys/kernel/hostname",
        "/proc/kallsyms",
        "/proc/sysrq-trigger",
    ] {
        denied(path(taken, Use::Read, file), &[Errno::ENOENT]);
    }
    for file in [
        "/proc/self/oom_score_adj",
        "/proc/self/mem",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/kernel/mm/ksm/run",
    ] {
        denied(path(taken, Use::Write, file), &[Errno::EROFS, Errno::EACCES]);
    }
    shown.insert("kernel's files");
    let network = path(taken, Use::Read, "/proc/self/net/dev").unwrap();
    let devices: Vec<&str> =
        network.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
    assert_eq!(devices, ["lo"], "a network of its own");
    shown.insert("network");
    let own = path(taken, Use::Read, "/proc").unwrap();
    let processes = own.lines().filter(|name| name.parse::<u32>().is_ok());
    let visible = processes.filter(|pid| *pid != others.same_user.to_string()).count();
    assert_eq!(visible, 1, "processes: {own}");
    shown.insert("others' /proc");
    let status = path(taken, Use::Read, "/proc/self/status").unwrap();
    for line in [
        "NoNewPrivs:\t1",
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
    ] {
        assert!(status.contains(line), "{line} in {status}");
    }
    let ids: Vec<&str> =
        status.lines().filter(|line| line.starts_with("Uid:") || line.starts_with("Gid:")).collect();
    assert!(ids.iter().all(|line| line.split('\t').skip(1).all(|id| id != "0")), "{ids:?}");
    shown.insert("identity");
    check_mounts(taken);
    shown.insert("mounts");
}

/// Others' processes are out of reach; another one of the same user's, which no site has, can be signalled and no more.
fn check_processes(taken: &Taken<'_>, others: &Others, shown: &mut BTreeSet<&'static str>) {
    let mut made = Made::default();
    made.add(taken.all(&Order::OnProcesses(others.all.clone())));
    assert_eq!(made.gained(), [""; 0]);
    made.assert_denied_by_rule();
    let mut same = Made::default();
    same.add(taken.all(&Order::OnProcesses(vec![others.same_user])));
    let own = |name: &str| name.split(' ').next().unwrap().to_owned();
    let gained: BTreeSet<String> = same.gained().into_iter().map(own).collect();
    let allowed = [
        "cmdline",
        "compare",
        "cwd",
        "environ",
        "fd",
        "kill",
        "limit",
        "maps",
        "mem",
        "queue-signal",
        "root/etc",
        "signal-by-descriptor",
        "tgkill",
    ];
    let more: Vec<&String> = gained.iter().filter(|name| !allowed.contains(&name.as_str())).collect();
    assert_eq!(more, [""; 0]);
    shown.insert("trace");
    // A signal by way of a descriptor is not sent to whoever may not be signalled.
    for pid in &others.all {
        let _ = taken.try_to(&Order::SignalByDescriptor { pid: *pid });
    }
    denied(taken.try_to(&Order::OnPeer { socket: "line".to_owned() }), &[Errno::EPERM, Errno::ENOPROTOOPT]);
}

#[test]
fn neither_file_nor_process_nor_machine() {
    outside("neither_file_nor_process_nor_machine", |site| async {
        let _marks = Marks::set(site);
        let _alice = site.start("login", "alice", "exec sleep 4711");
        {
            let _alone = site.alone();
            // Nobody but the portal is this user: whoever were, could be signalled by it.
            site.until("login", "pgrep -c -u portreeve", "1");
        }
        let _same_user = site.start("login", "portreeve", "exec sleep 4712");
        let taken = site.taken_over();
        let others = Others::find(site);
        // That the attempts are well made.
        let free = unconfined(site, others.alice);
        for (name, result) in &free.0 {
            let nothing_but_rules = result.as_ref().is_err_and(|denied| {
                denied.errno.is_none_or(|errno| {
                    [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EOPNOTSUPP].contains(&errno)
                })
            });
            if nothing_but_rules {
                println!("not shown here to work for one who may: {name}: {result:?}");
                assert!(
                    NOT_SHOWN_HERE.contains(&name.split(' ').next().unwrap()) || name == "x32",
                    "{name}: {result:?}"
                );
            }
        }

        let mut shown = BTreeSet::new();
        let open = taken.done(&Order::Descriptors);
        let files: Vec<&str> = open.lines().filter(|line| !line.starts_with("socket:")).collect();
        assert_eq!(files, ["/dev/null"], "it was started with a file: {open}");
        taken.take_line("line");
        check_what_is_seen(&taken, &others, &mut shown);
        check_processes(&taken, &others, &mut shown);
        taken.done(&Order::Log(format!("<0>{MARK}")));
        let priority =
            "journalctl --no-pager --unit portreeve-portal --output json --grep '^<0>hostile-mark' --lines 1";
        site.until("login", &format!("{priority} | grep -o '\"PRIORITY\":\"[0-9]\"'"), "\"PRIORITY\":\"6\"");
        shown.insert("log");
        let mut by_the_unit = Made::default();
        by_the_unit.add(taken.all(&Order::Attempts));
        assert_eq!(by_the_unit.gained(), THE_UNIT_ALLOWS);
        by_the_unit.assert_denied_by_rule();
        for (name, family) in [
            ("inet", libc::AF_INET),
            ("netlink", libc::AF_NETLINK),
            ("packet", libc::AF_PACKET),
            ("vsock", libc::AF_VSOCK),
        ] {
            denied(
                taken.try_to(&Order::Socket { family, kind: libc::SOCK_STREAM, pair: false }),
                &[Errno::EAFNOSUPPORT],
            );
            shown.insert(match name {
                "inet" => "socket inet",
                "netlink" => "socket netlink",
                "packet" => "socket packet",
                _ => "socket vsock",
            });
        }

        taken.done(&Order::LockUp);
        check_what_is_seen(&taken, &others, &mut shown);
        check_processes(&taken, &others, &mut shown);
        let mut locked = Made::default();
        locked.add(taken.all(&Order::Attempts));
        assert_eq!(locked.gained(), [""; 0]);
        locked.assert_denied_by_rule();
        assert!(
            site.shell("login", "root", &format!("kill -0 {}", others.alice)).status == 0,
            "alice's process is alive"
        );

        // Another way to call the kernel ends the process, locked up or not.
        for lock in [false, true] {
            for name in ["x32", "i386"] {
                if lock {
                    taken.done(&Order::LockUp);
                }
                let ended = taken.fatal(&Order::Attempt(name.to_owned()));
                assert!(
                    ended.as_ref().is_ok_and(|ended| ended.contains("status=31/SYS")),
                    "{name}: {ended:?}"
                );
            }
        }
        shown.extend(["x32", "i386"]);
        every_directive_is_known(site, &by_the_unit, &shown);
    });
}

/// What systemd applied is the unit that is shipped, and of each directive is known where it shows.
fn every_directive_is_known(site: &Site, made: &Made, shown: &BTreeSet<&str>) {
    let applied = site.root("login", "systemctl cat --no-pager portreeve-portal | grep -v '^# /'");
    let shipped = std::fs::read_to_string(repository().join("systemd/portreeve-portal.service")).unwrap();
    assert_eq!(applied.trim(), shipped.trim(), "the installed unit is not the shipped one");
    let directives = units::section(&applied, "Service");
    let known: Vec<&str> = units::OF_THE_PORTAL.iter().map(|(name, _)| *name).collect();
    assert_eq!(units::strangers(directives.keys(), &known), [""; 0]);
    for (directive, by) in units::OF_THE_PORTAL {
        let Shown::By(attacks) = by else { continue };
        for attack in *attacks {
            let is_denied = made.0.get(*attack).is_some_and(Result::is_err);
            assert!(
                is_denied || shown.contains(attack),
                "{directive}: {attack} was not shown to be denied by the unit"
            );
        }
    }
    let ignored = "journalctl --no-pager --output cat _PID=1 UNIT=portreeve-portal.service | grep -iE 'ignor|not supported|unknown' | sort -u";
    assert_eq!(site.shell("login", "root", ignored).out, "", "systemd did not apply everything");
}
