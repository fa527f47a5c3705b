//! Texts as the programs write them.

use super::*;
use crate::rules::protected::Protected;
use portreeve_model::Port;

fn wanted(queues: &str) -> Wanted {
    let slurm = Protected { ports: "6817-6820".parse().unwrap(), what: "slurmctld".into(), from: "x".into() };
    Wanted::new(queues.parse().unwrap(), Port::new(1024).unwrap(), vec![slurm], true)
}

const TEXT: &str = "\
table inet portreeve {
	chain input {
		type filter hook input priority 20; policy accept;
		tcp dport 6817-6820 counter return
		tcp dport 1024-65535 tcp flags & (syn | rst | ack) == syn counter queue num 0-3 fanout
		udp dport 1024-65535 ct state invalid,new,related,untracked counter queue num 0-3 fanout
		udplite dport 1024-65535 ct state new,related,untracked counter drop
		sctp dport 1024-65535 ct state new,related,untracked counter drop
		dccp dport 1024-65535 ct state new,related,untracked counter drop
		meta l4proto 115 ct state new,related,untracked counter drop
	}
	chain output {
		type filter hook output priority 20; policy accept;
		udp sport 1024-65535 ct state invalid,new,related,untracked counter queue num 0-3 bypass,fanout
	}
}
";

#[test]
fn the_rules_word_by_word() {
    assert_eq!(table(&wanted("0-3"), false), TEXT);
    let one = table(&wanted("7"), false);
    assert!(one.contains("counter queue num 7\n"), "{one}");
    let text = text(&wanted("0-3"));
    let bare = |text: &str| -> String {
        text.lines().filter(|line| !line.trim().starts_with('#')).map(|line| format!("{line}\n")).collect()
    };
    assert_eq!(bare(&text), format!("table inet portreeve\ndelete table inet portreeve\n{TEXT}"));
    // What comes has no way past the firewall.
    assert!(bare(&text).lines().all(|line| !line.contains("bypass") || line.contains("sport")), "{text}");
}

#[test]
fn every_form_that_nft_writes_is_known_again() {
    let same = |text: &str| Table { text: Some(text.to_owned()) } == Table::with(Some(&wanted("0-3")));
    assert!(same(TEXT));
    let newer = TEXT
        .replace("queue num 0-3 fanout", "queue flags fanout to 0-3")
        .replace("queue num 0-3 bypass,fanout", "queue flags fanout,bypass to 0-3")
        .replace("tcp flags & (syn | rst | ack) == syn", "tcp flags syn / syn,rst,ack")
        .replace("invalid,new,related,untracked", "invalid,related,new,untracked")
        .replace("l4proto 115", "l4proto l2tp");
    assert_ne!(newer, TEXT);
    assert!(same(&newer));
    for other in [
        TEXT.replace("queue num 0-3 fanout", "queue flags bypass,fanout to 0-3"),
        TEXT.replace("0-3 fanout", "0-3 bypass"),
        TEXT.replace("bypass,fanout", "fanout"),
        TEXT.replace("priority 20", "priority 0"),
        TEXT.replace("1024", "2048"),
        TEXT.replace("\t\tsctp dport 1024-65535 ct state new,related,untracked counter drop\n", ""),
        String::new(),
    ] {
        assert!(!same(&other), "{other}");
    }
    let newer = table(&wanted("7"), false)
        .replace("queue num 7 bypass", "queue flags bypass to 7")
        .replace("queue num 7", "queue to 7");
    let one = Table { text: Some(newer) };
    assert!(one == Table::with(Some(&wanted("7"))));
    assert!(Table::with(None) == Table::default());
}

#[test]
fn a_change_takes_the_place_of_what_is_there() {
    let none = Table::with(None).change();
    assert_eq!(none, "table inet portreeve\ndelete table inet portreeve\n");
    assert_eq!(Table::with(Some(&wanted("0-3"))).change(), format!("{none}{TEXT}"));
}
