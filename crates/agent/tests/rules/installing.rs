//! What is there afterwards, and what is left alone.

use super::{Said, alone, rules, shell, skip};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

const JUMP: &str = "-A INPUT -j PORTREEVE-FIREWALL";
const INSTALL: &str = "install --backend iptables --without-daemon";

/// All rules of this network namespace, without what changes by itself.
fn everything() -> String {
    shell("iptables-save; ip6tables-save; nft list ruleset 2>/dev/null | grep -v 'counter packets' || true")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| format!("{}\n", line.split(" [").next().unwrap()))
        .collect()
}

fn chain(program: &str, chain: &str) -> Vec<String> {
    shell(&format!("{program} -t mangle -S {chain}")).lines().map(str::to_owned).collect()
}

fn sites_own_rules() {
    for program in ["iptables", "ip6tables"] {
        shell(&format!(
            "{program} -A INPUT -p tcp --dport 80 -m comment --comment \"site's own\" -j ACCEPT
             {program} -N SITE && {program} -A SITE -j RETURN && {program} -A INPUT -j SITE
             {program} -t mangle -A INPUT -i eth7 -j MARK --set-mark 7
             {program} -t mangle -A INPUT -i eth8 -j MARK --set-mark 8
             {program} -t mangle -A OUTPUT -o eth9 -j MARK --set-mark 9
             {program} -t mangle -A PREROUTING -i eth9 -j DROP"
        ));
    }
}

/// The lines that a diff takes out and puts in.
fn changes(said: &str) -> Vec<&str> {
    let is_head = |line: &&str| line.starts_with("--- ") || line.starts_with("+++ ");
    said.lines().filter(|line| line.starts_with(['+', '-']) && !is_head(line)).collect()
}

#[test]
fn installed_twice_and_removed_twice() {
    alone("installing::installed_twice_and_removed_twice", || {
        sites_own_rules();
        let before = everything();

        let dry = rules("install --backend iptables --dry-run").well();
        assert!(dry.contains(&format!("\n+{JUMP}\n")), "{dry}");
        assert!(dry.contains("nobody serves queue 0") && dry.contains("nothing was changed"), "{dry}");
        assert_eq!(everything(), before);

        rules("install --backend iptables").refused("systemctl start portreeve-firewall");
        assert_eq!(everything(), before);

        let first = rules(INSTALL).well();
        assert!(
            first.contains("--- iptables, IPv4: as it is\n+++ iptables, IPv4: as it is to be\n"),
            "{first}"
        );
        assert!(first.contains("--- iptables, IPv6: as it is\n"), "{first}");
        assert!(first.contains("\ninstalled."), "{first}");
        assert!(changes(&first).iter().all(|line| line.contains(" PORTREEVE-")), "{first}");
        for program in ["iptables", "ip6tables"] {
            let input = chain(program, "INPUT");
            assert_eq!(input[1], JUMP, "{input:?}");
            assert_eq!(input.len(), 4, "{input:?}");
            let ours = chain(program, "PORTREEVE-FIREWALL").join("\n");
            assert!(ours.contains("--tcp-flags SYN,RST,ACK SYN -j NFQUEUE --queue-num 0"), "{ours}");
            assert!(!ours.contains("bypass"), "{ours}");
            assert_eq!(chain(program, "OUTPUT")[1], "-A OUTPUT -j PORTREEVE-SENDERS");
            let senders = chain(program, "PORTREEVE-SENDERS").join("\n");
            assert!(senders.contains("--sport 1024:65535 -m conntrack"), "{senders}");
            assert!(senders.contains("NFQUEUE --queue-num 0 --queue-bypass"), "{senders}");
        }
        let installed = everything();
        let rest: String = installed
            .lines()
            .filter(|line| !line.contains("PORTREEVE") && !line.contains("\tjump"))
            .map(|line| format!("{line}\n"))
            .collect();
        for line in before.lines() {
            assert!(rest.contains(line), "gone: {line}");
        }

        // Without a daemon, too: there is nothing to do.
        for again in [INSTALL, "install --backend iptables", "install --backend iptables --dry-run"] {
            let again = rules(again).well();
            assert!(again.ends_with("nothing to do: the rules are there, as they should be\n"), "{again}");
            assert!(changes(&again).is_empty(), "{again}");
        }
        assert_eq!(everything(), installed);

        let dry = rules("remove --dry-run").well();
        assert!(dry.contains(&format!("\n-{JUMP}\n")) && dry.contains("nothing was changed"), "{dry}");
        assert_eq!(everything(), installed);
        let removed = rules("remove").well();
        assert_eq!(changes(&removed).len(), changes(&first).len(), "{removed}");
        assert_eq!(everything(), before);
        let again = rules("remove").well();
        assert!(again.ends_with("nothing to do: there are no rules of ours\n"), "{again}");
        assert_eq!(everything(), before);
    });
}

#[test]
fn what_differs_is_put_right_and_nothing_else() {
    alone("installing::what_differs_is_put_right_and_nothing_else", || {
        sites_own_rules();
        rules(INSTALL).well();
        let more = rules(&format!("{INSTALL} --protect 9000-9003,22 --queues 0-3")).well();
        let left = "+-A PORTREEVE-FIREWALL -p tcp -m tcp --dport 9000:9003 -j RETURN";
        assert_eq!(changes(&more).iter().filter(|line| **line == left).count(), 2, "{more}");
        assert_eq!(changes(&more).len(), 14, "a port and three queues, twice: {more}");
        assert!(
            more.contains("# protected: 22, a port of yours (--protect), below the first port\n"),
            "{more}"
        );
        let ours = chain("ip6tables", "PORTREEVE-FIREWALL").join("\n");
        assert!(ours.contains("NFQUEUE --queue-balance 0:3 --queue-cpu-fanout"), "{ours}");

        rules(INSTALL).well();
        let right = everything();
        for (wrong, what) in [
            ("iptables -t mangle -I INPUT 1 -i eth5 -j MARK --set-mark 5", "one before ours"),
            ("iptables -t mangle -A INPUT -j PORTREEVE-FIREWALL", "a second jump"),
            ("ip6tables -t mangle -D INPUT -j PORTREEVE-FIREWALL", "no jump"),
            ("ip6tables -t mangle -D PORTREEVE-FIREWALL 1", "a rule less"),
            ("iptables -t mangle -I PORTREEVE-FIREWALL 1 -j ACCEPT", "a rule more"),
            ("ip6tables -t mangle -D OUTPUT -j PORTREEVE-SENDERS", "no jump for what leaves"),
            ("iptables -t mangle -F PORTREEVE-SENDERS", "nothing about what leaves"),
        ] {
            shell(wrong);
            let said = rules(INSTALL).well();
            assert!(!changes(&said).is_empty(), "{what}: {said}");
            for program in ["iptables", "ip6tables"] {
                let input = chain(program, "INPUT");
                assert_eq!(input[1], JUMP, "{what}: {input:?}");
                assert_eq!(input.iter().filter(|rule| *rule == JUMP).count(), 1, "{what}: {input:?}");
            }
            drop(
                Command::new("iptables")
                    .args("-t mangle -D INPUT -i eth5 -j MARK --set-mark 5".split(' '))
                    .output(),
            );
            assert_eq!(everything(), right, "{what}");
        }

        shell("iptables -t mangle -A PREROUTING -i eth5 -j PORTREEVE-FIREWALL");
        rules(INSTALL).refused("a rule that is not ours leads to PORTREEVE-FIREWALL: -A PREROUTING -i eth5");
    });
}

#[test]
fn when_ipv6_is_refused_ipv4_is_as_before() {
    alone("installing::when_ipv6_is_refused_ipv4_is_as_before", || {
        // Programs as they are, but for the one that is to fail once it is asked in earnest.
        shell(
            "mkdir /run/sbin 2>/dev/null; mount -t tmpfs sbin /run/sbin && cp -a /usr/sbin/. /run/sbin/
             rm /run/sbin/ip6tables-restore
             printf '%s\\n' '#!/bin/sh' 'case \" $* \" in *\" --test \"*) exit 0 ;; esac' \\
                 'echo no such luck >&2; exit 4' >/run/sbin/ip6tables-restore
             chmod 755 /run/sbin/ip6tables-restore && mount --bind /run/sbin /usr/sbin",
        );
        sites_own_rules();
        let before = everything();
        let said = rules(INSTALL);
        assert!(said.error.contains("no such luck"), "{said:?}");
        said.refused(
            "iptables, IPv6: refused; what had been changed before it (iptables, IPv4) was put back",
        );
        assert_eq!(everything(), before);
        // And so that an older one of ours is back, with its jump where it was.
        shell(
            "iptables -t mangle -N PORTREEVE-FIREWALL && iptables -t mangle -A PORTREEVE-FIREWALL -p tcp -j RETURN",
        );
        shell("iptables -t mangle -I INPUT 2 -j PORTREEVE-FIREWALL");
        let before = everything();
        rules(INSTALL).refused("was put back");
        assert_eq!(everything(), before);
    });
}

#[test]
fn rules_of_the_other_packet_filter_go_in_the_same_go() {
    let name = "installing::rules_of_the_other_packet_filter_go_in_the_same_go";
    alone(name, || {
        if Command::new("nft").args(["list", "tables"]).output().is_err() {
            return skip(name, "needs nft");
        }
        let old = "nft add table inet portreeve && nft add table inet site";
        shell(old);
        let said = rules(INSTALL).well();
        assert!(said.contains("rules for nftables are there as well: they are taken out"), "{said}");
        assert!(said.contains("\n-table inet portreeve {\n"), "{said}");
        assert!(
            shell("nft list tables").contains("table inet site") && !everything().contains("inet portreeve")
        );
        assert_eq!(chain("iptables", "INPUT")[1], JUMP);

        // The other way, where the kernel has nftables' queue statement.
        let before = everything();
        let said = rules("install --backend nftables --without-daemon");
        if said.success {
            assert!(shell("nft list table inet portreeve").contains("queue"));
            assert!(!everything().contains("PORTREEVE-FIREWALL"));
            let again = rules("install --backend nftables").well();
            assert!(again.contains("nothing to do"), "{again}");
        } else {
            said.refused("nftables: refused, and nothing was changed");
            assert_eq!(everything(), before);
        }
        rules("remove").well();
        assert!(!everything().contains("PORTREEVE") && !everything().contains("inet portreeve"));
    });
}

#[test]
fn what_is_printed_can_be_loaded() {
    alone("installing::what_is_printed_can_be_loaded", || {
        // The daemon reads the same file.
        let config = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(config.path(), "first_port = 22\n").unwrap();
        let options =
            format!("--backend iptables --queues 0-1 --protect 2222 --config {}", config.path().display());
        let said = rules(&format!("print {options}")).well();
        assert!(said.contains("ports from 22 on") && said.contains(" --dport 22:65535 "), "{said}");
        let (v4, v6) = said.split_once("\n# IPv6: ").unwrap();
        let load = |program: &str, text: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            shell(&format!("{program} <{}", file.path().display()));
        };
        load("iptables-restore --noflush", v4);
        load("ip6tables-restore --noflush", &format!("# {v6}"));
        let again = rules(&format!("install {options}")).well();
        assert!(again.contains("nothing to do"), "{again}");
        rules("remove").well();

        let nft = rules(&options.replace("--backend iptables", "print --backend nftables")).well();
        if Command::new("nft").args(["list", "tables"]).output().is_err() {
            return skip("what_is_printed_can_be_loaded", "needs nft");
        }
        // Without the statement that this kernel may not have.
        let nft = nft.replace("queue num 0-1 bypass,fanout", "drop").replace("queue num 0-1 fanout", "drop");
        load("nft -f -", &nft);
        let rules_of =
            nft.lines().map(str::trim).filter(|line| !line.starts_with('#') && line.contains(" counter "));
        let expected: Vec<String> = rules_of.map(|line| format!("-{line}")).collect();
        let removed = rules("remove").well();
        let there: Vec<&str> = removed.lines().filter(|line| line.contains(" counter ")).collect();
        assert!(expected.len() == 12 && there == expected, "{there:#?} {expected:#?}");
        assert!(!shell("nft list tables").contains("portreeve"));
    });
}

#[test]
fn anybody_may_print_and_only_root_install() {
    alone("installing::anybody_may_print_and_only_root_install", || {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = dir.path().join("portreeve-agent");
        std::fs::copy(env!("CARGO_BIN_EXE_portreeve-agent"), &program).unwrap();
        let as_nobody = |arguments: &str| {
            let mut command = Command::new(&program);
            command.arg("rules").args(arguments.split(' ')).uid(65534).gid(65534).current_dir("/");
            let output = command.stdin(Stdio::null()).output().unwrap();
            let [out, error] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
            Said { success: output.status.success(), out, error }
        };
        assert!(as_nobody("print").well().starts_with("# backend: "));
        assert!(as_nobody("print --backend iptables").well().contains("\n*mangle\n"));
        as_nobody("install --without-daemon").refused("rules install needs root");
        as_nobody("install --dry-run").refused("rules install needs root");
        as_nobody("remove").refused("rules remove needs root");
        for wrong in ["print --queues 3-0", "print --protect 0", "print --backend pf"] {
            as_nobody(wrong).refused("error: invalid value");
        }
    });
}
