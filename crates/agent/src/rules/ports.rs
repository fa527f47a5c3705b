//! Ports and queues as they are written: one number, or the first and the last.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use portreeve_model::Port;
use portreeve_model::firewall_config::MAX_QUEUES;

/// Ports from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ports {
    pub(super) first: Port,
    /// Not below `first`.
    pub(super) last: Port,
}

/// Queues of the packet filter, from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Queues {
    pub(super) first: u16,
    /// Not below `first`.
    pub(super) last: u16,
}

impl From<Port> for Ports {
    fn from(port: Port) -> Self {
        Self { first: port, last: port }
    }
}

impl FromStr for Ports {
    type Err = String;

    /// `6817` or `6817-6820`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (Port::parse(first), Port::parse(last)) {
            (Ok(first), Ok(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!("{text:?} is neither a port nor ports from one to another, such as 6817-6820")),
        }
    }
}

impl Ports {
    /// Written with `between` between the first and the last.
    pub(super) fn written(self, between: char) -> String {
        if self.first == self.last {
            self.first.to_string()
        } else {
            format!("{}{between}{}", self.first, self.last)
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written('-'))
    }
}

impl From<RangeInclusive<u16>> for Queues {
    fn from(range: RangeInclusive<u16>) -> Self {
        Self { first: *range.start(), last: *range.end() }
    }
}

impl FromStr for Queues {
    type Err = String;

    /// `0` or `0-3`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let plain = digits && (text.len() == 1 || !text.starts_with('0'));
            text.parse::<u16>().ok().filter(|_| plain)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last && last - first < MAX_QUEUES => {
                Ok(Self { first, last })
            }
            _ => Err(format!("write one queue, such as 0, or at most {MAX_QUEUES}, such as 0-3")),
        }
    }
}

impl fmt::Display for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_or_two() {
        for good in ["1", "22", "6817-6820", "65535", "5-5"] {
            let read: Ports = good.parse().unwrap();
            assert_eq!(read.to_string(), if good == "5-5" { "5" } else { good });
        }
        for bad in ["", "0", "65536", "022", "+1", " 1", "2-1", "1-", "-1", "1-2-3", "1:2", "1,2", "ssh", "٣"]
        {
            assert!(bad.parse::<Ports>().is_err(), "{bad}");
        }
        for good in ["0", "7", "0-3", "65535", "0-63"] {
            assert_eq!(good.parse::<Queues>().unwrap().to_string(), good);
        }
        for bad in ["", "-", "00", "0-64", "3-0", "65536", "0-", "+0", "0:3"] {
            assert!(bad.parse::<Queues>().is_err(), "{bad}");
        }
    }
}
