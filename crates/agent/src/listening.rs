//! What a person has listening on this node, so that the workspace can offer it. For show only: who may connect is
//! decided for each connection by `lookup`.

use crate::processes::{Budget, each_of_uid};
use portreeve_model::wire::agent::{FIRST_PORT, MAX_COMMAND, Row};
use portreeve_sys::{Family, SockDiag, SocketRecord};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::ControlFlow;

/// One address that something of this user listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// The address; 0.0.0.0 for every address, whether by one socket or by one for each family.
    pub address: IpAddr,
    /// The TCP port, 1024 or above.
    pub port: u16,
    /// The first process found to hold it, where that can be seen.
    pub pid: Option<u32>,
    /// That process's name for itself, without control characters. The process chose it: escape it, believe nothing.
    pub command: Option<String>,
}

impl From<Listening> for Row {
    /// For the workspace, without the job.
    fn from(found: Listening) -> Self {
        let command = found.command.map(|mut command| {
            command.truncate((0..=MAX_COMMAND).rev().find(|&end| command.is_char_boundary(end)).unwrap_or(0));
            command
        });
        Self { address: found.address, port: found.port, command, job: None }
    }
}

/// The listening TCP sockets of `uid` on ports from 1024 up, by port and address, each address and port once.
/// Fails only if the kernel can't be asked; a process that can't be seen leaves its fields empty.
pub fn listening(uid: u32) -> io::Result<Vec<Listening>> {
    let records = SockDiag::open()?.listening(uid)?;
    let rows = rows(&records);
    let mut programs = programs(uid, rows.values().flatten().copied());
    Ok(rows
        .into_iter()
        .map(|((port, address), inodes)| {
            let program = inodes.iter().find_map(|inode| programs.remove(inode));
            let (pid, command) = program.map_or((None, None), |(pid, command)| (Some(pid), command));
            Listening { address, port, pid, command }
        })
        .collect())
}

/// Rows by port and address, with the inodes of the sockets that each stands for.
fn rows(records: &[SocketRecord]) -> BTreeMap<(u16, IpAddr), Vec<u32>> {
    let takes_ipv4 = |record: &SocketRecord| {
        record.local.ip().is_unspecified() && (record.family == Family::V4 || record.v6only == Some(false))
    };
    let mut rows = BTreeMap::<_, Vec<u32>>::new();
    for record in records.iter().filter(|record| record.local.port() >= FIRST_PORT) {
        let port = record.local.port();
        let everywhere = record.local.ip().is_unspecified()
            && records.iter().any(|other| other.local.port() == port && takes_ipv4(other));
        let address = if everywhere { Ipv4Addr::UNSPECIFIED.into() } else { record.local.ip() };
        rows.entry((port, address)).or_default().push(record.inode);
    }
    rows
}

/// The processes that hold these sockets, as far as they can be seen.
fn programs(uid: u32, inodes: impl Iterator<Item = u32>) -> HashMap<u32, (u32, Option<String>)> {
    let mut found: HashMap<u32, Option<(u32, Option<String>)>> = inodes.map(|inode| (inode, None)).collect();
    let mut left = found.len();
    let mut budget = Budget::new();
    let walked = each_of_uid(uid, |process| {
        let Ok(process) = process else { return ControlFlow::Continue(()) };
        // What could not be read stays empty: these fields are for show.
        let _ = process.each_socket(&mut budget, |inode| {
            if let Some(program @ None) = found.get_mut(&inode) {
                *program = Some((process.pid, process.command()));
                left -= 1;
            }
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if let Err(error) = walked {
        tracing::debug!(%error, "the names of programs could not be read");
    }
    found.into_iter().filter_map(|(inode, program)| Some((inode, program?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use portreeve_sys::TcpState;
    use std::net::{SocketAddr, TcpListener};

    fn record(local: &str, v6only: Option<bool>, inode: u32) -> SocketRecord {
        let local: SocketAddr = local.parse().unwrap();
        SocketRecord {
            state: TcpState::Listen,
            family: if local.is_ipv4() { Family::V4 } else { Family::V6 },
            local,
            remote: "[::]:0".parse().unwrap(),
            uid: 1,
            inode,
            cookie: 1,
            v6only,
            cgroup: None,
            silent_for: None,
        }
    }

    #[test]
    fn the_same_port_on_every_address_is_one_row() {
        for (sockets, expected) in [
            (vec![("0.0.0.0:8000", None), ("[::]:8000", Some(true))], vec!["0.0.0.0:8000"]),
            (vec![("[::]:8000", Some(true)), ("0.0.0.0:8000", None)], vec!["0.0.0.0:8000"]),
            (vec![("[::]:8000", Some(false))], vec!["0.0.0.0:8000"]),
            (vec![("[::]:8000", Some(true))], vec!["[::]:8000"]),
            (vec![("0.0.0.0:8000", None), ("[::]:8001", Some(true))], vec!["0.0.0.0:8000", "[::]:8001"]),
            (
                vec![("127.0.0.2:8000", None), ("127.0.0.1:8000", None)],
                vec!["127.0.0.1:8000", "127.0.0.2:8000"],
            ),
            (vec![("127.0.0.1:8000", None), ("127.0.0.1:8000", None)], vec!["127.0.0.1:8000"]),
            (vec![("0.0.0.0:1023", None), ("0.0.0.0:1024", None)], vec!["0.0.0.0:1024"]),
        ] {
            let records: Vec<_> =
                sockets.iter().zip(1..).map(|((at, only), inode)| record(at, *only, inode)).collect();
            let found: Vec<String> =
                rows(&records).keys().map(|&(port, ip)| SocketAddr::from((ip, port)).to_string()).collect();
            assert_eq!(found, expected, "{sockets:?}");
        }
    }

    #[test]
    fn our_own_listener_is_listed_with_its_program() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let rows = listening(nix::unistd::geteuid().as_raw()).unwrap();
        let row = rows.iter().find(|row| row.port == at.port() && row.address == at.ip()).unwrap();
        assert!(row.pid.is_some() && row.command.is_some(), "{row:?}");
        assert!(rows.is_sorted_by_key(|row| (row.port, row.address)));
        assert!(rows.iter().all(|row| row.port >= FIRST_PORT));
        assert_eq!(listening(3_999_999_999).unwrap(), []);
    }
}
