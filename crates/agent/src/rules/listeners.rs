//! Whether somebody serves the queues: without, what is put into them is dropped.

use std::fs;
use std::io;

use super::ports::Queues;

/// The kernel's list of the queues that a program has open in this network namespace.
pub(super) const OPEN: &str = "/proc/net/netfilter/nfnetlink_queue";

/// Those of these queues that nobody serves.
///
/// # Errors
/// When the kernel's list is there and can't be read.
pub(super) fn unserved(queues: Queues) -> io::Result<Vec<u16>> {
    let text = match fs::read_to_string(OPEN) {
        Ok(text) => text,
        // The kernel's module is loaded with the first queue.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let served = served(&text);
    Ok((queues.first..=queues.last).filter(|queue| !served.contains(queue)).collect())
}

/// A line for each: queue, netlink port of whoever has it, packets in it, and six more numbers.
fn served(text: &str) -> Vec<u16> {
    let row = |line: &str| -> Option<u16> {
        let numbers: Option<Vec<u32>> = line.split_ascii_whitespace().map(|word| word.parse().ok()).collect();
        let numbers = numbers.filter(|numbers| numbers.len() >= 9)?;
        u16::try_from(numbers[0]).ok().filter(|_| numbers[1] != 0)
    };
    text.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_served_by_whoever_has_a_port() {
        let text = "    0   4242     0 2 65531     0     0        0  1\n\
                    \x20   3   4243    12 2   128     7     0     1000  1\n\
                    \x20   4      0     0 2   128     0     0        0  1\n\
                    \x20   5   4243     0\n\
                    70000   4243     0 2   128     0     0        0  1\n\
                    x 1 1 1 1 1 1 1 1\n";
        assert_eq!(served(text), [0, 3]);
        assert!(served("").is_empty());
    }
}
