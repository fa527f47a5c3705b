use super::*;

const PIN: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn error(line: &str) -> Error {
    match ForwardTarget::parse(line) {
        Ok(target) => panic!("{line:?} was taken for {target}"),
        Err(error) => error,
    }
}

#[test]
fn what_a_line_says() {
    for (line, shown) in [
        ("http://c1:8888/", "http://c1:8888/"),
        ("http://c1:8888", "http://c1:8888/"),
        ("HTTP://C1.Cluster:8888", "http://c1.cluster:8888/"),
        ("http://c1", "http://c1:80/"),
        ("https://c1/", "https://c1:443/"),
        ("https://[::1]", "https://[::1]:443/"),
        ("http://[::1]:8888/x", "http://[::1]:8888/x"),
        ("http://[::ffff:10.0.0.7]:8888/", "http://10.0.0.7:8888/"),
        ("http://c1:8888/user/alice/lab", "http://c1:8888/user/alice/lab"),
        ("http://c1:8888/a//b///", "http://c1:8888/a//b///"),
        ("http://c1:8888/%41%2Fb%252e%C3%A9", "http://c1:8888/%41%2Fb%252e%C3%A9"),
        ("http://c1:8888/a.b/..c/...;x=1/~d@:e!$&'()*+,=", "http://c1:8888/a.b/..c/...;x=1/~d@:e!$&'()*+,="),
        ("http://u:p@c1:8888/x", "http://c1:8888/x"),
        (
            "https://c1:8888/ \t pin=sha256:00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff",
            "https://c1:8888/ pin=sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        ),
        ("http://c1:8888/ mode=keep", "http://c1:8888/ mode=keep"),
        ("http://c1:8888 host=target mode=strip", "http://c1:8888/ mode=strip host=target"),
        ("http://c1:8888/ mode=keep", "http://c1:8888/ mode=keep"),
        ("http://c1:8888 host=target mode=strip", "http://c1:8888/ mode=strip host=target"),
    ] {
        let target = ForwardTarget::parse(line).unwrap();
        assert_eq!(target.to_string(), shown);
        assert_eq!(ForwardTarget::parse(&target.to_line()).unwrap(), target);
    }
}

#[test]
fn what_is_no_target() {
    for line in [
        "",
        " ",
        "c1:8888",
        "//c1:8888/",
        "/x",
        "ftp://c1/",
        "http:c1",
        "http:/c1",
        "javascript://c1/",
        "http ://c1",
        "file:///etc/passwd",
    ] {
        assert_eq!(error(line), Error::Scheme, "{line:?}");
    }
    for line in [
        "http://",
        "http:///",
        "http:///etc/passwd",
        "http://:8888/",
        "http://u@/",
        "http://u@v@c1/",
        "http://c1@evil@c2/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://127.1/",
        "http://0.0.0.0:1/",
        "http://[::]:1/",
        "http://224.0.0.1/",
        "http://[fe80::1%25eth0]:1/",
        "http://[c1]:1/",
        "http://[::1]x:1/",
        "http://c1]:1/",
        "http://c%31/",
        "http://c1\\@c2/",
        "http://-c1/",
        "http://c1./",
    ] {
        assert!(matches!(error(line), Error::Node(_) | Error::Credentials), "{line:?}: {:?}", error(line));
    }
    // An empty variable, a range, and what resolvers would make of it.
    for line in [
        "http://c1:/",
        "http://c1:",
        "http://c1:12001-12003/",
        "http://c1:0/",
        "http://c1:080/",
        "http://c1:65536/",
        "http://c1:80:80/",
        "http://::1/",
        "http://c1:+80/",
        "http://[::1]:/",
    ] {
        assert!(matches!(error(line), Error::Port(_) | Error::Node(_)), "{line:?}: {:?}", error(line));
    }
}

#[test]
fn paths_mean_what_they_say() {
    for path in [
        "/.",
        "/..",
        "/./",
        "/../",
        "/a/..",
        "/a/../b",
        "/a/.",
        "/%2e%2e/x",
        "/%2E/",
        "/.%2e",
        "/a%2f..%2fb",
        "/%2e%2e%2fx",
        "/..;/x",
        "/a/.;v=1",
    ] {
        assert_eq!(error(&format!("http://c1:1{path}")), Error::DotSegment, "{path}");
    }
    for path in ["/?", "/a?b", "/#", "/a#b", "?x", "#x"] {
        assert_eq!(error(&format!("http://c1:1{path}")), Error::QueryOrFragment, "{path}");
    }
    for path in ["/%", "/%4", "/%zz", "/%+1", "/a%00", "/%0d%0aX:1", "/%7f", "/%5c", "/%5C.."] {
        assert_eq!(error(&format!("http://c1:1{path}")), Error::Percent, "{path}");
    }
    for (path, found) in [
        ("/\\", '\\'),
        ("/a\\..", '\\'),
        ("/\"", '"'),
        ("/<", '<'),
        ("/{", '{'),
        ("/|", '|'),
        ("/^", '^'),
        ("/[", '['),
        ("/`", '`'),
    ] {
        assert_eq!(error(&format!("http://c1:1{path}")), Error::Character(found), "{path}");
    }
}

#[test]
fn credentials() {
    for (user_information, user, password, again) in [
        ("u:p", "u", "p", "u:p"),
        ("u", "u", "", "u:"),
        (":p", "", "p", ":p"),
        ("u:p:q", "u", "p:q", "u:p%3Aq"),
        ("u:%40%2F%25", "u", "@/%", "u:%40%2F%25"),
        ("a%20b:c%C3%A9", "a b", "cé", "a%20b:c%C3%A9"),
        ("u:p!$&", "u", "p!$&", "u:p%21%24%26"),
    ] {
        let target = ForwardTarget::parse(&format!("http://{user_information}@c1:1/")).unwrap();
        assert_eq!(target.credentials, Some(Credentials { user: user.into(), password: password.into() }));
        assert_eq!(target.to_line(), format!("http://{again}@c1:1/"));
        assert_eq!(ForwardTarget::parse(&target.to_line()), Ok(target));
    }
    for bad in ["", "a%3Ab:p", "u:%0a", "u%00:p", "u:%ff", "u:<", "u\\:p", "u:p\""] {
        assert_eq!(error(&format!("http://{bad}@c1:1/")), Error::Credentials, "{bad:?}");
    }
    assert_eq!(error("http://u:%4@c1:1/"), Error::Percent);
}

#[test]
fn the_password_shows_nowhere() {
    let target = ForwardTarget::parse("http://user:hunter2@c1:1/").unwrap();
    for shown in [target.to_string(), format!("{target:?}"), format!("{target:#?}")] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    for line in [
        "http://user:hunter2@",
        "http://user:hunter2@c1:x/",
        "ftp://user:hunter2@c1/",
        "http://user:hunter2@c1:1/ x",
    ] {
        let error = error(line);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn pins() {
    let colons = format!("https://c1:1/ pin=sha256:{}", ["AB"; 32].join(":"));
    assert_eq!(ForwardTarget::parse(&colons).unwrap().pin, Some(CertificatePin([0xab; 32])));
    assert_eq!(CertificatePin::parse(PIN).unwrap().to_string(), PIN);
    assert_eq!(error(&format!("http://c1:1/ pin={PIN}")), Error::PinWithoutTls);
    let hex = &PIN["sha256:".len()..];
    for bad in [
        "sha256:".to_owned(),
        hex.to_owned(),
        format!("sha1:{hex}"),
        format!("SHA256:{hex}"),
        format!("sha256:{}", &hex[2..]),
        format!("sha256:{hex}00"),
        format!("sha256:{}", hex.replace('a', "g")),
        format!("sha256:{}", hex.replacen("00", "+0", 1)),
        format!("sha256:{}", ["ab"; 32].join("-")),
        format!("sha256:{}:ab", ["ab"; 31].join(":").replacen("ab:ab", "ababa", 1)),
        format!("sha256:{}", ["a:b"; 31].join("") + "ab"),
    ] {
        assert_eq!(error(&format!("https://c1:1/ pin={bad}")), Error::Pin, "{bad}");
    }
    for options in [
        format!("pin={PIN} pin={PIN}"),
        "x".into(),
        "insecure".into(),
        "PIN=x".into(),
        "# mine".into(),
        "mode=auto".into(),
        "mode=".into(),
        "mode=keep mode=keep".into(),
        "host=c2".into(),
        "host=target host=target".into(),
    ] {
        assert_eq!(error(&format!("https://c1:1/ {options}")), Error::Option, "{options}");
    }
}

/// Changed lines at random, always the same ones: nothing panics, and whatever is taken is taken again from its own
/// canonical form, as the same target.
#[test]
fn whatever_is_taken_has_one_meaning() {
    let seeds = [
        format!("https://us%65r:p:w@c1.example:8443/a/b%2fc;d ... pin={PIN}").replace(" ...", ""),
        "http://[::ffff:10.0.0.7]:8888/x/".to_owned(),
        "http://c1:12001".to_owned(),
    ];
    let alphabet = b"/.:@%[]?#\\ \t\r\n\0-_;2eE5cf0a1:=pinshtx\xc3";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let mut taken = 0;
    for round in 0..60_000 {
        let mut line = seeds[round % seeds.len()].clone().into_bytes();
        for _ in 0..=random(4) {
            let (at, byte) = (random(line.len()), alphabet[random(alphabet.len())]);
            match random(3) {
                0 => line[at] = byte,
                1 => line.insert(at, byte),
                _ => _ = line.remove(at),
            }
        }
        if let Ok(crate::forward_file::ForwardFile::Target { target, .. }) = crate::forward_file::parse(&line)
        {
            taken += 1;
            assert!(target.path.starts_with('/'));
            let again = crate::forward_file::parse(target.to_line().as_bytes());
            let expected = crate::forward_file::ForwardFile::Target { target, lines_differ: false };
            assert_eq!(again, Ok(expected), "{}", String::from_utf8_lossy(&line));
        }
    }
    assert!(taken > 1_000, "only {taken} of the changed lines were taken: the test has lost its point");
}

#[test]
fn a_path_that_would_name_another_host_as_a_redirect_is_refused() {
    for line in ["http://c1:8888//evil.example", "http://c1:8888/%2fevil.example", "http://c1:8888//"] {
        assert_eq!(ForwardTarget::parse(line).unwrap_err(), Error::DoubleSlash, "{line}");
    }
}
