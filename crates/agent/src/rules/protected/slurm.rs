//! Where Slurm's daemons listen: by its controller, by its configuration, or where they do everywhere.
//! `SrunPortRange` is not among them: there, a user's srun listens for slurmstepd, which runs as root, and whoever else
//! connects to it must be asked about.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::written::{self, Form};
use super::{Found, Protected};
use crate::rules::ports::Ports;
use crate::rules::program::{self, ProgramError};

/// In this order. The last two are where slurmd keeps what the controller gave it, on nodes without a file of their own.
const FILES: [&str; 5] = [
    "/etc/slurm/slurm.conf",
    "/etc/slurm-llnl/slurm.conf",
    "/usr/local/etc/slurm.conf",
    "/run/slurm/conf/slurm.conf",
    "/var/spool/slurmd/conf-cache/slurm.conf",
];
/// A controller that does not answer must not hold up a node's start.
const PATIENCE: Duration = Duration::from_secs(3);

const SLURMCTLD: &str = "slurmctld";
const SLURMD: &str = "slurmd";
const SLURMDBD: &str = "slurmdbd";

/// `None`: there is no such daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SlurmPorts {
    slurmctld: Option<Ports>,
    slurmd: Option<Ports>,
    slurmdbd: Option<Ports>,
}

pub(super) fn find(found: &mut Found) {
    let (from, Read { ports, named }) = ask(&mut found.notes);
    for (what, ports) in [(SLURMCTLD, ports.slurmctld), (SLURMD, ports.slurmd), (SLURMDBD, ports.slurmdbd)] {
        let from = if named.contains(&what) { from } else { "default" };
        found.protected.extend(ports.map(|ports| Protected::new(ports, what, from)));
    }
}

fn ask(notes: &mut Vec<String>) -> (&'static str, Read) {
    let asked = "scontrol show config";
    match program::run("scontrol", &["show", "config"], "", PATIENCE) {
        Ok(text) => match parse(text.lines()) {
            Ok(read) if read.named.contains(&SLURMCTLD) && read.named.contains(&SLURMD) => {
                return (asked, read);
            }
            Ok(_) => notes.push(format!("{asked} names no ports; it was not used")),
            Err(why) => notes.push(format!("{asked}: {why}; it was not used")),
        },
        Err(ProgramError::Missing(_)) => {}
        Err(error) => notes.push(format!("Slurm's controller was not asked: {error}")),
    }
    for file in FILES {
        let path = Path::new(file);
        let directory = path.parent().unwrap_or(Path::new("/"));
        let form = Form { base: directory.to_owned(), until: None, joins: true };
        match written::lines(path, &form) {
            Ok(lines) => match parse(lines.iter().map(String::as_str)) {
                Ok(read) => return (file, read),
                Err(why) => notes.push(format!("{file}: {why}; it was not used")),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => notes.push(format!("{file} was not used: {error}")),
        }
    }
    ("default", Read::default())
}

impl Default for SlurmPorts {
    /// As `slurm.conf(5)` has them.
    fn default() -> Self {
        let port = |text: &str| text.parse().ok();
        Self { slurmctld: port("6817"), slurmd: port("6818"), slurmdbd: port("6819") }
    }
}

#[derive(Default)]
struct Read {
    ports: SlurmPorts,
    /// Whose port is not just the default.
    named: Vec<&'static str>,
}

/// `Key=Value` or `Key = Value`, in the configuration several in a line; keys in capitals or not, the last one counts.
fn parse<'l>(lines: impl Iterator<Item = &'l str>) -> Result<Read, String> {
    let mut read = Read::default();
    for line in lines {
        for (key, value) in pairs(line) {
            let is = |name: &str| key.eq_ignore_ascii_case(name);
            let (daemon, place) = if is("SlurmctldPort") {
                (SLURMCTLD, &mut read.ports.slurmctld)
            } else if is("SlurmdPort") {
                (SLURMD, &mut read.ports.slurmd)
            } else if is("AccountingStoragePort") {
                (SLURMDBD, &mut read.ports.slurmdbd)
            } else {
                continue;
            };
            // What the controller says where there is no accounting.
            let none = daemon == SLURMDBD && value == "0";
            *place = if none { None } else { Some(value.parse().map_err(|why| format!("{key}: {why}"))?) };
            read.named.push(daemon);
        }
    }
    Ok(read)
}

fn pairs(line: &str) -> Vec<(&str, &str)> {
    let mut pairs = Vec::new();
    let mut rest = line.trim();
    while let Some((before, after)) = rest.split_once('=') {
        let key = before.trim().rsplit(|c: char| c.is_ascii_whitespace()).next().unwrap_or_default();
        let after = after.trim_start();
        let end = after.find(|c: char| c.is_ascii_whitespace()).unwrap_or(after.len());
        pairs.push((key, &after[..end]));
        rest = &after[end..];
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(String, usize)> {
        let read = parse(text.lines()).ok()?;
        let one = |ports: Option<Ports>| ports.map_or("none".to_owned(), |ports| ports.to_string());
        let SlurmPorts { slurmctld, slurmd, slurmdbd } = read.ports;
        Some((format!("{} {} {}", one(slurmctld), one(slurmd), one(slurmdbd)), read.named.len()))
    }

    #[test]
    fn ports_of_a_configuration_and_of_what_the_controller_says() {
        let controller = "Configuration data as of 2024-05-01T10:00:00\n\
            AccountingStoragePort   = 0\n\
            SlurmctldParameters     = enable_configless\n\
            SlurmctldPort           = 7817-7820\n\
            SlurmdPort              = 7818\n\
            SrunPortRange           = 60001-63000\n";
        for (text, expected) in [
            ("", Some(("6817 6818 6819", 0))),
            (controller, Some(("7817-7820 7818 none", 3))),
            ("ClusterName=x\nslurmctldport=1 SLURMDPORT = 2\nAccountingStoragePort=3", Some(("1 2 3", 3))),
            ("SlurmdPort=1\nSlurmdPort=2\nNodeName=c[1-9] Port=17000", Some(("6817 2 6819", 2))),
            ("SlurmdPort=", None),
            ("SlurmdPort=0", None),
            ("SlurmdPort=6818;reboot", None),
            ("SlurmdPort=-1", None),
            ("SlurmctldPort=6820-6810", None),
            ("AccountingStoragePort=x", None),
        ] {
            let expected = expected.map(|(ports, named)| (ports.to_owned(), named));
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn pairs_of_a_line() {
        assert_eq!(pairs("a=1  b = 2 c= 3"), [("a", "1"), ("b", "2"), ("c", "3")]);
        assert_eq!(pairs("x y=1="), [("y", "1=")]);
        assert!(pairs("nothing").is_empty());
    }

    #[test]
    fn every_daemon_has_a_port() {
        let mut found = Found::default();
        find(&mut found);
        assert!(found.protected.iter().any(|one| one.what == "slurmd"), "{found:?}");
    }
}
