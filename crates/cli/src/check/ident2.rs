//! A site's ident2 service, where the portal asks that about connections: whether it answers, and the truth.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use portreeve_agent::ident2::client::{AskError, Ident2, Question};
use portreeve_model::wire::ident2::{Flags, Found, Op, Protocol, TcpStates};

use super::{Finding, Installation, in_time};

/// For one answer about this machine.
const ANSWER: Duration = Duration::from_secs(2);

pub(super) fn check(at: &Installation) -> Vec<Finding> {
    let Some(socket) = at.config.agents.lookup.ident2() else { return Vec::new() };
    let path = socket.to_owned();
    let answer = in_time(move || ask(&path));
    vec![of_answer(socket, answer.unwrap_or(Err(AskError::Late)), nix::unistd::geteuid().as_raw())]
}

/// Asks whose a port of this process is.
fn ask(path: &Path) -> Result<Option<Found>, AskError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let question = Question {
        op: Op::Remote,
        flags: Flags::default(),
        protocol: Protocol::Tcp,
        states: TcpStates::LISTEN,
        local: listener.local_addr()?,
        remote: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { Ident2::new(path).ask(question, ANSWER).await })
}

fn of_answer(socket: &Path, answer: Result<Option<Found>, AskError>, own: u32) -> Finding {
    let socket = socket.display();
    let remedy = "systemctl status portreeve-ident2 ident2d says why; without it nobody is let in anywhere";
    match answer {
        Ok(Some(found)) if found.uid == own => {
            Finding::fine(format!("the service at {socket} answers about this node"))
        }
        Ok(Some(found)) => {
            let what =
                format!("the service at {socket} takes a port of uid {own} for one of uid {}", found.uid);
            Finding::problem(what, remedy)
        }
        Ok(None) => {
            Finding::problem(format!("the service at {socket} does not know this node's ports"), remedy)
        }
        Err(AskError::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            Finding::not_checked(format!("{socket} is not yours to ask: do this as root"))
        }
        Err(AskError::Io(error)) => {
            Finding::problem(format!("the service at {socket} can't be asked: {error}"), remedy)
        }
        Err(error) => Finding::problem(format!("{socket}: {error}"), remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_an_answer() {
        let found = |uid| Ok(Some(Found { uid, gid: None, pid: None, groups: None }));
        let failed = |kind: io::ErrorKind| Err(AskError::Io(kind.into()));
        for (answer, expected) in [
            (found(7), "ok: the service at /s answers about this node"),
            (found(8), "problem: the service at /s takes a port of uid 7 for one of uid 8; "),
            (Ok(None), "problem: the service at /s does not know this node's ports; "),
            (Err(AskError::Late), "problem: /s: the ident2 service did not answer in time; "),
            (Err(AskError::Ended), "problem: /s: the ident2 service ended the connection; "),
            (failed(io::ErrorKind::NotFound), "problem: the service at /s can't be asked: "),
            (failed(io::ErrorKind::PermissionDenied), "not checked: /s is not yours to ask"),
        ] {
            let said = of_answer(Path::new("/s"), answer, 7).to_string();
            assert!(said.starts_with(expected), "{said}");
        }
        let nobody = ask(Path::new("/nonexistent/s")).unwrap_err();
        assert!(of_answer(Path::new("/s"), Err(nobody), 7).is_problem());
    }
}
