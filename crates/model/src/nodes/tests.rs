use super::*;

const KEY: &str = "ed25519:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

fn map(text: &str) -> NodeMap {
    NodeMap::parse(text, "nodes.toml").unwrap()
}

#[test]
fn names_find_nodes() {
    let map = map(r#"
        portals = ["portal:8444"]
        domains = ["cluster.example"]
        [[node]]
        name = "C1"
        addresses = ["10.0.0.11", "fd00::11"]
        slurm = ["10.1.0.11", "10.0.0.11"]
        also = ["c1-ib"]
        [[node]]
        name = "c2.other.example"
        addresses = ["::ffff:10.0.0.12"]
        [[node]]
        name = "gpu.a.example"
        [[node]]
        name = "gpu.b.example"
        [[node]]
        name = "localhost.localdomain"
        addresses = ["10.0.0.13"]
    "#);
    for (asked, found) in [
        ("c1", Some("c1")),
        ("C1", Some("c1")),
        ("c1-ib", Some("c1")),
        ("c1.cluster.example", Some("c1")),
        ("C1.Cluster.Example", Some("c1")),
        ("c1.evil.example", None),
        ("c1.x.cluster.example", None),
        ("c2", Some("c2.other.example")),
        ("c2.other.example", Some("c2.other.example")),
        ("c2.cluster.example", None),
        ("10.0.0.11", Some("c1")),
        ("[fd00::11]", Some("c1")),
        ("10.0.0.12", Some("c2.other.example")),
        ("10.0.0.14", None),
        // Two nodes have this first label.
        ("gpu", None),
        ("gpu.a.example", Some("gpu.a.example")),
        ("localhost", None),
        ("c3", None),
    ] {
        assert_eq!(map.find(&name(asked)).map(|node| node.name.as_str()), found, "{asked}");
    }
    assert_eq!(map.portals(), [NodePort::parse("portal:8444").unwrap()]);
    let all: Vec<IpAddr> = ["10.0.0.11", "fd00::11", "10.1.0.11"].map(|ip| ip.parse().unwrap()).into();
    assert_eq!(map.addresses(&name("c1")), Some(all.clone()));
    assert_eq!(map.addresses(&name("[fd00::11]")), Some(vec![all[1]]));
    assert_eq!(map.addresses(&name("10.0.0.99")), None);
}

#[test]
fn localhost_is_a_node_only_where_it_is_written() {
    let map = map("[[node]]\nname = 'c1'\nalso = ['localhost']\naddresses = ['127.0.0.1']\non_portal = true");
    assert_eq!(map.find(&name("localhost")).unwrap().name.as_str(), "c1");
    assert_eq!(NodeMap::default().find(&name("localhost")), None);
}

#[test]
fn who_speaks_for_a_node() {
    let map = map(&format!(
        "[[node]]\nname = 'k'\nkey = '{KEY}'\nroles = ['login']\n[[node]]\nname = 'p'\nplain = true\n[[node]]\nname = 'n'\n"
    ));
    let key = AgentKey::parse(KEY).unwrap();
    let of = |text| map.find(&name(text)).unwrap();
    assert_eq!((of("k").speaker, of("k").is_login), (Some(Speaker::Key(key)), true));
    assert_eq!((of("p").speaker, of("p").is_login), (Some(Speaker::Plain), false));
    // Neither: a revoked key must not open the weaker way.
    assert_eq!(of("n").speaker, None);
    assert_eq!(map.of_key(&key).unwrap().name.as_str(), "k");
}

#[test]
fn one_problem_each() {
    for (text, expected) in [
        (
            "[[node]]\naddresses = []",
            "1: node.name: a node without a name; write name = \"...\" below [[node]]",
        ),
        ("[[node]]\nname = 'a b'", "2: node.name: the node name has ' ' where"),
        ("[[node]]\nname = '10.0.0.1'", "2: node.name: an address is no name"),
        ("[[node]]\nname = 'a'\n[[node]]\nname = 'A'", "4: node.name: a is there twice"),
        ("[[node]]\nname = 'a'\n[[node]]\nname = 'b'\nalso = ['a']", "5: node.also: a is there twice"),
        ("[[node]]\nname = 'a'\naddresses = ['b']", "3: node.addresses: this is no address; write an IPv4"),
        ("[[node]]\nname = 'a'\naddresses = ['0.0.0.0']", "3: node.addresses: no node has this address"),
        ("[[node]]\nname = 'a'\naddresses = ['::']", "3: node.addresses: no node has this address"),
        ("[[node]]\nname = 'a'\naddresses = ['224.0.0.1']", "3: node.addresses: a multicast address"),
        ("[[node]]\nname = 'a'\naddresses = ['fe80::1']", "3: node.addresses: a link-local address"),
        (
            "[[node]]\nname = 'a'\naddresses = ['127.0.0.1']",
            "3: node.addresses: every machine has this address",
        ),
        ("[[node]]\nname = 'a'\naddresses = ['::1']", "3: node.addresses: every machine has this address"),
        (
            "[[node]]\nname = 'a'\naddresses = ['10.0.0.1']\n[[node]]\nname = 'b'\nslurm = ['::ffff:10.0.0.1']",
            "6: node.slurm: 10.0.0.1 is a's already; an address is one node's",
        ),
        ("[[node]]\nname = 'a'\naddresses = 'x'", "3: node.addresses: a string where a list belongs"),
        ("[[node]]\nname = 'a'\nkey = 'x'", "3: node.key: a public key is written as ed25519:"),
        ("[[node]]\nname = 'a'\nroles = ['root']", "3: node.roles: there is no such role"),
        ("[[node]]\nname = 'a'\nplain = true\nroles = ['login']", "4: node.roles: whoever signs people in"),
        ("[[node]]\nname = 'a'\nplain = 'yes'", "3: node.plain: a string where true or false belongs"),
        (
            "[[node]]\nname = 'a'\nadresses = []",
            "3: node.adresses: there is no such key; did you mean node.addresses?",
        ),
        ("node = 'a'", "1: node: something else where sections belong"),
        ("portals = ['portal']", "1: portals: this is not a node and port"),
        ("nodes = 1", "1: nodes: there is no such key; did you mean node?"),
        ("domains = ['10.0.0.1']", "1: domains: this is no end of a host name"),
        ("[[node]]\nname = 'a'\nkey = ", "3: "),
    ] {
        let problems = NodeMap::parse(text, "f").unwrap_err();
        assert!(problems[0].to_string().starts_with(&format!("f:{expected}")), "{text}: {problems:#?}");
        assert_eq!(problems.len(), 1, "{text}: {problems:#?}");
    }
    let key = format!("[[node]]\nname = 'a'\nkey = '{KEY}'\n");
    for (more, expected) in [
        (format!("[[node]]\nname = 'b'\nkey = '{KEY}'"), "f:6: node.key: this is a's key already"),
        ("plain = true".to_owned(), "f:3: node.key: a node with a key is not believed without it"),
    ] {
        let problems = NodeMap::parse(&format!("{key}{more}"), "f").unwrap_err();
        assert!(problems[0].to_string().starts_with(expected), "{problems:#?}");
        assert_eq!(problems.len(), 1);
    }
}

#[test]
fn all_problems_at_once() {
    let text = "[[node]]\nname = 'a'\naddresses = ['x', '10.0.0.1', 'y']\nkey = 'z'\n[[node]]\nname = 'a'\nfoo = 1\n";
    let text = &format!("{text}[[node]]\naddresses = ['x']\n");
    let lines: Vec<Option<usize>> =
        NodeMap::parse(text, "f").unwrap_err().iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [3, 3, 4, 6, 7, 8, 9].map(Some));
}
