//! PAM: whether the portal's service is there, and locks nobody out whom a stranger tries to be.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use portreeve_broker::service::SlowDown;

use super::{Finding, Installation};

/// Where services are: the sysadmin's first, the distribution's after it.
const DIRECTORIES: [&str; 2] = ["/etc/pam.d", "/usr/lib/pam.d"];
/// The one that `portreeve-pam` asks.
const SERVICE: &str = "portreeve";
/// The program that speaks with PAM.
const PROGRAM: &str = "/usr/libexec/portreeve/portreeve-pam";
/// What `pam_faillock` reads, beside its arguments.
const FAILLOCK: &str = "/etc/security/faillock.conf";
/// How deep files may include each other.
const DEPTH: usize = 8;

/// One line of a service, includes resolved.
struct Line {
    /// `auth`, `account`, ...
    kind: String,
    module: String,
    arguments: Vec<String>,
}

pub(super) fn check(_: &Installation) -> Vec<Finding> {
    let mut findings = vec![program()];
    let shown = format!("{}/{SERVICE}", DIRECTORIES[0]);
    match lines(SERVICE, DEPTH) {
        Ok(lines) => findings.extend(of_service(&shown, &lines, faillock_conf().as_deref())),
        Err(error) => findings.push(Finding::unreadable(
            Path::new(&shown),
            &error,
            "without it PAM's service `other` decides: write one with lines for auth, account and session",
        )),
    }
    findings
}

fn program() -> Finding {
    match std::fs::metadata(PROGRAM) {
        Ok(found) if found.is_file() && found.mode() & 0o100 != 0 => {
            Finding::fine(format!("{PROGRAM} is there"))
        }
        Ok(_) => Finding::problem(format!("{PROGRAM} can't be executed"), format!("chmod 0755 {PROGRAM}")),
        Err(error) => Finding::unreadable(Path::new(PROGRAM), &error, "install the package portreeve again"),
    }
}

fn faillock_conf() -> Option<String> {
    std::fs::read_to_string(FAILLOCK).ok()
}

fn of_service(shown: &str, lines: &[Line], faillock_conf: Option<&str>) -> Vec<Finding> {
    let modules = |kind: &str| -> Vec<&Line> { lines.iter().filter(|line| line.kind == kind).collect() };
    let mut findings = Vec::new();
    for kind in ["auth", "account"] {
        if modules(kind).is_empty() {
            let what = format!("{shown} has no line for {kind}, so that nobody is let in");
            findings
                .push(Finding::problem(what, format!("write one, such as `{kind} required pam_unix.so`")));
        }
    }
    let auth = modules("auth");
    if !auth.is_empty() && auth.iter().all(|line| line.module == "pam_permit.so") {
        let what = format!("{shown} lets everybody in, with any password");
        findings.push(Finding::problem(what, "write a line for auth that asks for one"));
    }
    if let Some(line) = auth.iter().find(|line| line.module == "pam_faillock.so") {
        findings.extend(locks_out(line, faillock_conf));
    }
    if findings.is_empty() {
        findings.push(Finding::fine(format!("{shown} has lines for auth and account")));
    }
    findings
}

/// Whether strangers' tries, slowed as they are, are enough to lock an account.
fn locks_out(line: &Line, conf: Option<&str>) -> Option<Finding> {
    let setting = |name: &str| -> Option<u64> {
        let argument =
            line.arguments.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='));
        let of_conf = conf.unwrap_or_default().lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then_some(value)
        });
        argument.or(of_conf)?.trim().parse().ok()
    };
    // What pam_faillock(8) has for those that are not written.
    let (deny, interval) = (setting("deny").unwrap_or(3), setting("fail_interval").unwrap_or(900));
    let tries = tries_within(&SlowDown::default(), Duration::from_secs(interval));
    // Zero: nobody is locked out.
    (deny != 0 && deny <= tries).then(|| {
        Finding::warning(
            format!(
                "pam_faillock locks an account after {deny} wrong tries in {interval} s, and the portal lets strangers \
                 try {tries} times: they can lock anybody out"
            ),
            format!("write deny = {} in {FAILLOCK}, or take pam_faillock out of the service", tries + 1),
        )
    })
}

/// How often a name can be tried wrongly in so much time.
fn tries_within(slow_down: &SlowDown, time: Duration) -> u64 {
    let (mut tries, mut passed, mut wait) = (0, Duration::ZERO, Duration::from_secs(1));
    while passed <= time {
        tries += 1;
        if tries >= u64::from(slow_down.free_of_a_name) {
            passed += wait;
            wait = (wait * 2).min(slow_down.longest);
        }
    }
    tries
}

fn lines(service: &str, depth: usize) -> io::Result<Vec<Line>> {
    let read = |dir: &&str| std::fs::read_to_string(Path::new(dir).join(service));
    let text = match read(&DIRECTORIES[0]) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => read(&DIRECTORIES[1]).map_err(|_| error)?,
        text => text?,
    };
    let include = |service: &str| if depth == 0 { Ok(Vec::new()) } else { lines(service, depth - 1) };
    parse(&text, include)
}

/// The lines of a file, with those of the files that it includes in their places: pam.d(5).
fn parse(text: &str, include: impl Fn(&str) -> io::Result<Vec<Line>>) -> io::Result<Vec<Line>> {
    let mut found = Vec::new();
    for line in text.replace("\\\n", " ").lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some((first, rest)) = line.split_once(char::is_whitespace) else { continue };
        let rest = rest.trim_start();
        if first == "@include" {
            found.extend(include(rest)?);
            continue;
        }
        let kind = first.trim_start_matches('-').to_ascii_lowercase();
        let end = match rest.starts_with('[') {
            true => rest.find(']').map(|at| at + 1),
            false => rest.find(char::is_whitespace),
        };
        let Some((control, rest)) = end.map(|end| rest.split_at(end)) else { continue };
        let mut words = rest.split_whitespace().map(str::to_owned);
        let Some(module) = words.next() else { continue };
        if matches!(control, "include" | "substack") {
            found.extend(include(&module)?.into_iter().filter(|line| line.kind == kind));
        } else {
            let module = module.rsplit('/').next().unwrap_or_default().to_owned();
            found.push(Line { kind, module, arguments: words.collect() });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, conf: Option<&str>) -> Vec<String> {
        let common = |name: &str| match name {
            "common-auth" => {
                parse("auth [success=1 default=ignore] pam_unix.so\naccount required pam_unix.so\n", |_| {
                    Ok(Vec::new())
                })
            }
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let lines = parse(text, common).unwrap();
        of_service("S", &lines, conf).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn services() {
        let fine = ["ok: S has lines for auth and account"];
        for text in [
            "auth required pam_unix.so\naccount required pam_unix.so\n",
            "# auth\n-auth [success=ok \\\n default=die]  pam_unix.so nodelay # no delay\nACCOUNT\trequired\tpam_unix.so\n",
            "@include common-auth\n",
            "auth substack common-auth\naccount include common-auth\n",
            "auth required /lib/security/pam_faillock.so deny=50\naccount required pam_unix.so\n",
            "auth required pam_faillock.so deny=0\naccount required pam_unix.so\n",
        ] {
            assert_eq!(said(text, None), fine, "{text}");
        }
        let no_account = "problem: S has no line for account, so that nobody is let in; write one, such as `account required \
                          pam_unix.so`";
        assert_eq!(said("auth required pam_unix.so\n", None), [no_account]);
        assert_eq!(said("auth include common-auth\n", None), [no_account]);
        assert_eq!(said("", None).len(), 2);
        let open = said("auth required pam_permit.so\naccount required pam_unix.so\n", None);
        assert!(open.len() == 1 && open[0].contains("lets everybody in"), "{open:?}");
    }

    #[test]
    fn a_lock_out_that_strangers_can_reach() {
        let service = "auth required pam_faillock.so preauth\naccount required pam_unix.so\n";
        for (conf, warned) in [
            (None, true),
            (Some("deny = 5\n"), true),
            (Some("# deny = 50\n"), true),
            (Some("deny = 50\n"), false),
            (Some("deny=10\nfail_interval = 60\n"), false),
            (Some("deny = 50\nfail_interval = 86400\n"), true),
        ] {
            let said = said(service, conf);
            assert_eq!(
                said[0].starts_with("warning: pam_faillock locks an account after"),
                warned,
                "{said:?}"
            );
        }
    }

    #[test]
    fn tries_add_up_as_they_are_slowed() {
        let slow_down = SlowDown::default();
        for (seconds, tries) in [(0, 3), (1, 4), (2, 4), (3, 5), (63, 9), (123, 10), (900, 22)] {
            assert_eq!(tries_within(&slow_down, Duration::from_secs(seconds)), tries, "{seconds}");
        }
    }
}
