use super::*;

#[test]
fn nodes() {
    let longest_label = "n".repeat(63);
    for (good, text, ip) in [
        ("c1", "c1", false),
        ("C1.Cluster.Example", "c1.cluster.example", false),
        ("gpu_node-3", "gpu_node-3", false),
        ("127-0-0-1", "127-0-0-1", false),
        ("1a", "1a", false),
        ("localhost", "localhost", false),
        (&longest_label, &longest_label, false),
        ("127.0.0.1", "127.0.0.1", true),
        ("[::1]", "[::1]", true),
        ("[2001:DB8:0:0::7]", "[2001:db8::7]", true),
        ("[::ffff:10.0.0.7]", "10.0.0.7", true),
        ("[::ffff:7f00:1]", "127.0.0.1", true),
    ] {
        let node = NodeName::parse(good).unwrap();
        assert_eq!((node.as_str(), node.as_ip().is_some()), (text, ip), "{good}");
        assert_eq!(NodeName::parse(node.as_str()).unwrap(), node);
    }
}

#[test]
fn what_is_no_node() {
    let long_label = "n".repeat(64);
    let long_name = vec!["n".repeat(50); 6].join(".");
    for bad in [
        "",
        ".",
        "..",
        "c1.",
        ".c1",
        "a..b",
        "-c1",
        "c1-",
        "a.-b",
        "a-.b",
        "c 1",
        "c1/x",
        "c1:80",
        "c1\0",
        "ç1",
        "a@b",
        // what looks like an address but is none, or is one in disguise
        "::1",
        "[::1",
        "::1]",
        "[c1]",
        "[127.0.0.1]",
        "[fe80::1%eth0]",
        "[fe80::1%251]",
        "[[::1]]",
        "[]",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0X7F.0x1",
        "0177.0.0.1",
        "127.0.0.01",
        "1.2.3.4.5",
        "256.1.1.1",
        "c1.5",
        "c1.0x",
        // addresses of no single node
        "0.0.0.0",
        "0.1.2.3",
        "[::]",
        "255.255.255.255",
        "224.0.0.1",
        "239.1.2.3",
        "[ff02::1]",
        "[::ffff:0.0.0.0]",
        "[::ffff:224.0.0.1]",
        "[::ffff:255.255.255.255]",
        &long_label,
        &long_name,
    ] {
        assert!(NodeName::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn ports() {
    for (good, number, privileged) in
        [("1", 1, true), ("1023", 1023, true), ("1024", 1024, false), ("65535", 65535, false)]
    {
        let port = Port::parse(good).unwrap();
        assert_eq!((port.get(), port.is_privileged()), (number, privileged));
        assert_eq!(port.to_string(), good);
    }
    for bad in [
        "",
        "0",
        "00",
        "080",
        "+80",
        "-1",
        "65536",
        "99999",
        "100000",
        "8o",
        "0x50",
        " 80",
        "80 ",
        "8080-8090",
        "８０",
    ] {
        assert!(Port::parse(bad).is_err(), "{bad:?}");
    }
    assert_eq!(Port::new(0), None);
    assert!(serde_json::from_str::<Port>("0").is_err());
    assert!(serde_json::from_str::<Port>("65536").is_err());
    assert_eq!(serde_json::from_str::<Port>("8888").unwrap(), Port::parse("8888").unwrap());
}

#[test]
fn node_and_port() {
    for (text, shown) in [
        ("C1:8888", "c1:8888"),
        ("[::1]:8888", "[::1]:8888"),
        ("[::ffff:127.0.0.1]:1", "127.0.0.1:1"),
        ("a.b:80", "a.b:80"),
    ] {
        assert_eq!(NodePort::parse(text).unwrap().to_string(), shown);
    }
    for bad in ["", ":", "c1", "c1:", ":80", "::1:80", "c1:80:80", "c1-80", "c1: 80", "[::1]80"] {
        assert!(NodePort::parse(bad).is_err(), "{bad:?}");
    }
    for (text, shown) in [
        ("c1-8888", "c1:8888"),
        ("gpu-node-3-12001", "gpu-node-3:12001"),
        ("A-1", "a:1"),
        ("a.b-80", "a.b:80"),
    ] {
        assert_eq!(NodePort::parse_label(text).unwrap().to_string(), shown);
    }
    for bad in [
        "",
        "-",
        "c1",
        "c1-",
        "-80",
        "c1--80",
        "c1-0",
        "c1-080",
        "127.0.0.1-80",
        "[::1]-80",
        "c1:80",
        "c1-99999",
        "8-80",
    ] {
        assert!(NodePort::parse_label(bad).is_err(), "{bad:?}");
    }
}
