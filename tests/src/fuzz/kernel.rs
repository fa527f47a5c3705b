//! What the kernel says: socket diagnosis, and proc(5), where a process has a say in some of the bytes.

use portreeve_sys::{Family, canonical, sock_diag};
use std::net::IpAddr;

/// One datagram of an answer. The first byte: whether a dump was asked for; the rest has sequence number 1.
pub fn sock_diag(data: &[u8]) {
    let Some((&first, datagram)) = data.split_first() else { return };
    let is_dump = first & 1 == 1;
    let Ok((records, ended)) = sock_diag::read_one(datagram, 1, is_dump) else { return };
    assert!(records.len() <= datagram.len() / 72, "a record has no fewer bytes");
    if !is_dump {
        assert_eq!(records.len(), usize::from(!records.is_empty()), "one answer to one question");
        assert!(ended || records.is_empty());
    }
    for record in &records {
        assert_eq!((canonical(record.local), canonical(record.remote)), (record.local, record.remote));
        let is_ipv4 = |ip: IpAddr| ip.is_ipv4();
        if record.family == Family::V4 {
            assert!(is_ipv4(record.local.ip()) && is_ipv4(record.remote.ip()), "{record:?}");
        }
    }
    // The same bytes are no answer to another question.
    let other = sock_diag::read_one(datagram, 2, is_dump);
    if let Ok((others, _)) = other
        && !others.is_empty()
    {
        // Both numbers can stand in one datagram, but no message has both.
        assert!(others.len() + records.len() <= datagram.len() / 72);
    }
}

/// A `status` file, and a link to a descriptor.
pub fn proc_status(data: &[u8]) {
    if let Some((real, effective, group)) = portreeve_agent::fuzz::credentials(data) {
        let line = |name: &str, values: &[String]| {
            let mut lines = data.split(|b| *b == b'\n').filter_map(|line| line.strip_prefix(name.as_bytes()));
            let found = lines.next().expect("the line stands there");
            assert!(lines.next().is_none(), "{name} stands there twice");
            let words: Vec<&[u8]> =
                found.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
            assert_eq!(words.len(), 4);
            for (word, value) in words.iter().zip(values) {
                let digits = std::str::from_utf8(word).expect("a number is ASCII").trim_start_matches('+');
                let digits = digits.trim_start_matches('0');
                assert_eq!(if digits.is_empty() { "0" } else { digits }, value);
            }
        };
        line("Uid:", &[real.to_string(), effective.to_string()]);
        let real_group = {
            let gids = data.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"Gid:"));
            let gids = String::from_utf8_lossy(gids.expect("the line stands there")).into_owned();
            let first = gids.split_ascii_whitespace().next().and_then(|word| word.parse::<u32>().ok());
            first.expect("a number").to_string()
        };
        line("Gid:", &[real_group, group.to_string()]);
        // Whatever follows can't change who it is, unless it is another such line: then there is no answer.
        let more = [data, b"\nUid:\t0\t0\t0\t0\n"].concat();
        assert_eq!(portreeve_agent::fuzz::credentials(&more), None);
    }
    if let Some(inode) = portreeve_agent::fuzz::socket_inode(data) {
        let text = std::str::from_utf8(data).expect("a socket's link is ASCII");
        assert!(text.starts_with("socket:[") && text.ends_with(']'), "{text:?}");
        assert_eq!(portreeve_agent::fuzz::socket_inode(format!("socket:[{inode}]").as_bytes()), Some(inode));
    }
}
