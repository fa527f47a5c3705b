//! A range of addresses, as a sysadmin writes it.

use std::fmt;
use std::net::IpAddr;

/// `ADDRESS/BITS`, or one address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    /// The bits past the prefix are 0.
    address: IpAddr,
    bits: u8,
}

/// This is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a network is written as ADDRESS/BITS, the bits past the prefix being 0")]
pub struct NotANetwork;

impl Network {
    /// `10.1.0.0/16`, `fd00:1::/32`, or an address for itself alone. An address with bits past the prefix is refused: it
    /// is not clear which of the two was meant.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(text: &str) -> Result<Self, NotANetwork> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, bits)| (a, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => {
                bits.parse().map_err(|_| NotANetwork)?
            }
            Some(_) => return Err(NotANetwork),
        };
        let is_mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        let network = Self { address, bits };
        if bits > most || is_mapped || network.prefix(address) != network.prefix_of_itself() {
            return Err(NotANetwork);
        }
        Ok(network)
    }

    /// Whether the address is in it. IPv4-mapped IPv6 addresses count as the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && self.prefix(address) == self.prefix_of_itself()
    }

    fn prefix(&self, address: IpAddr) -> u128 {
        let (number, width) = number(address);
        let dropped = width - u32::from(self.bits).min(width);
        number.checked_shr(dropped).unwrap_or(0).checked_shl(dropped).unwrap_or(0)
    }

    fn prefix_of_itself(&self) -> u128 {
        number(self.address).0
    }
}

fn number(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (u32::from(v4).into(), 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_it() {
        for (network, inside, outside) in [
            (
                "10.1.0.0/16",
                &["10.1.0.0", "10.1.255.255", "::ffff:10.1.2.3"][..],
                &["10.2.0.0", "::a01:203"][..],
            ),
            ("10.1.2.3", &["10.1.2.3"], &["10.1.2.2"]),
            ("0.0.0.0/0", &["1.2.3.4"], &["::1"]),
            ("::/0", &["::1", "fd00::1"], &["1.2.3.4", "::ffff:1.2.3.4"]),
            ("fd00:1::/32", &["fd00:1:2::3"], &["fd00:2::1"]),
        ] {
            let parsed = Network::parse(network).unwrap();
            assert!(inside.iter().all(|ip| parsed.contains(ip.parse().unwrap())), "{network}");
            assert!(!outside.iter().any(|ip| parsed.contains(ip.parse().unwrap())), "{network}");
        }
        assert_eq!(Network::parse("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
    }

    #[test]
    fn what_is_none() {
        for bad in [
            "",
            "10.1.0.0/",
            "10.1.0.0/33",
            "10.1.0.1/16",
            "/8",
            "10.1/16",
            "c1/8",
            "10.0.0.0/+8",
            "fd00::1/64",
            "::/129",
            "10.0.0.0/8/8",
            "::ffff:10.0.0.0/104",
            " 10.0.0.0/8",
        ] {
            assert_eq!(Network::parse(bad), Err(NotANetwork), "{bad}");
        }
    }
}
