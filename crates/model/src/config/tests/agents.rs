use super::*;

#[test]
fn who_is_asked() {
    let lookup = |text: &str| parse(&format!("[agents]\n{text}"), "f").map(|config| config.agents.lookup);
    let ident2 = |path: &str| LookupConfig::Ident2(path.into());
    for (text, expected) in [
        ("", LookupConfig::Agents),
        ("lookup = 'agents'", LookupConfig::Agents),
        // Shown with its default, it changes nothing by itself.
        ("ident2_socket = '/run/i.sock'", LookupConfig::Agents),
        ("lookup = 'ident2'", ident2("/run/ident2d.sock")),
        ("lookup = 'ident2'\nident2_socket = ''", ident2("/run/ident2d.sock")),
        ("lookup = 'ident2'\nident2_socket = '/run/i.sock'", ident2("/run/i.sock")),
    ] {
        assert_eq!(lookup(text), Ok(expected), "{text}");
    }
    for (text, expected) in [
        (
            "lookup = 'ident'",
            "f:2: agents.lookup: \"ident\" is none of the ways; write \"agents\" or \"ident2\"",
        ),
        ("lookup = ''", "f:2: agents.lookup: \"\" is none of the ways; write \"agents\" or \"ident2\""),
        ("lookup = true", "f:2: agents.lookup: a boolean where a string belongs; "),
        ("ident2_socket = 'i.sock'", "f:2: agents.ident2_socket: this is no absolute path; "),
    ] {
        let problems = lookup(text).unwrap_err();
        assert!(problems.len() == 1 && problems[0].to_string().starts_with(expected), "{problems:?}");
    }
}
