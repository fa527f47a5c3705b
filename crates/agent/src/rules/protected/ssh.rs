//! Where sshd listens: by sshd itself, by its configuration, or where it does everywhere.

use std::io;
use std::path::Path;
use std::time::Duration;

use portreeve_model::Port;

use super::written::{self, Form, split};
use super::{Found, Protected};
use crate::rules::ports::Ports;
use crate::rules::program::{self, ProgramError};

const CONFIG: &str = "/etc/ssh/sshd_config";
/// Where it listens if nothing says otherwise (`sshd_config(5)`).
const DEFAULT: u16 = 22;
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn find(found: &mut Found) {
    let (from, ports) = ask(&mut found.notes);
    found.protected.extend(ports.into_iter().map(|ports| Protected::new(ports, "sshd", from)));
}

fn ask(notes: &mut Vec<String>) -> (&'static str, Vec<Ports>) {
    let asked = "sshd -T";
    match program::run("sshd", &["-T"], "", PATIENCE) {
        Ok(text) => match parse(text.lines()) {
            Ok(ports) => return (asked, ports),
            Err(why) => notes.push(format!("{asked}: {why}; it was not used")),
        },
        Err(ProgramError::Missing(_)) => {}
        // An ordinary user may not read its keys.
        Err(error) => notes.push(format!("sshd was not asked: {error}")),
    }
    let directory = Path::new(CONFIG).parent().unwrap_or(Path::new("/"));
    let form = Form { base: directory.to_owned(), until: Some("match"), joins: false };
    match written::lines(Path::new(CONFIG), &form) {
        Ok(lines) => match parse(lines.iter().map(String::as_str)) {
            Ok(ports) => return (CONFIG, ports),
            Err(why) => notes.push(format!("{CONFIG}: {why}; it was not used")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => notes.push(format!("{CONFIG} was not used: {error}")),
    }
    ("default", default())
}

fn default() -> Vec<Ports> {
    Port::new(DEFAULT).map(Ports::from).into_iter().collect()
}

/// `Port`, and the ports of `ListenAddress`, in the configuration as well as in what `sshd -T` says.
fn parse<'l>(lines: impl Iterator<Item = &'l str>) -> Result<Vec<Ports>, String> {
    let mut ports = Vec::new();
    for line in lines {
        let (word, rest) = split(line);
        let port = if word.eq_ignore_ascii_case("port") {
            Some(rest)
        } else if word.eq_ignore_ascii_case("listenaddress") {
            // What may follow is a routing domain.
            port_of(rest.split_ascii_whitespace().next().unwrap_or_default())
        } else {
            None
        };
        if let Some(port) = port {
            let read =
                Port::parse(port.trim_matches('"')).map_err(|_| format!("{line:?} is not understood"))?;
            if !ports.contains(&Ports::from(read)) {
                ports.push(Ports::from(read));
            }
        }
    }
    Ok(if ports.is_empty() { default() } else { ports })
}

/// `host:port`, `[v6]:port`; a bare address, of IPv6 too, has none.
fn port_of(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    (host.ends_with(']') || !host.contains(':')).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_configuration_and_of_what_sshd_says() {
        for (text, expected) in [
            ("", Some("22")),
            ("Port 2222", Some("2222")),
            ("port=22\nPORT \"2200\"", Some("22 2200")),
            ("port 22\nlistenaddress [::]:22\nlistenaddress 0.0.0.0:22\npermitrootlogin no", Some("22")),
            (
                "Port 22\nListenAddress 10.0.0.1:2022\nListenAddress fe80::1\nListenAddress [::1]:23 rdomain r",
                Some("22 2022 23"),
            ),
            ("ListenAddress login\nPortX 1\nGatewayPorts no", Some("22")),
            ("Port", None),
            ("Port 0", None),
            ("Port 22 23", None),
            ("Port 65536", None),
            ("Port -1", None),
            ("ListenAddress host:ssh", None),
        ] {
            let read = parse(text.lines());
            let written = read.map(|ports| ports.iter().map(Ports::to_string).collect::<Vec<_>>().join(" "));
            assert_eq!(written.ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn there_is_always_a_port() {
        let mut found = Found::default();
        find(&mut found);
        assert!(!found.protected.is_empty(), "{found:?}");
    }
}
