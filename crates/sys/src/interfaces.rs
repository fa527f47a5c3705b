//! The addresses of this machine, so that a target on the machine itself can be told from one elsewhere.

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use std::io;
use std::net::IpAddr;

/// Every address of every interface that is up, sorted, each once. IPv6 link-local addresses are among them: whoever
/// connects from one is on this machine. Fails as `getifaddrs(3)` does.
pub fn local_addresses() -> io::Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> = getifaddrs()?
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|interface| {
            let address = interface.address?;
            if let Some(v4) = address.as_sockaddr_in() {
                return Some(IpAddr::V4(v4.ip()));
            }
            Some(IpAddr::V6(address.as_sockaddr_in6()?.ip()))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Whether something can be reached at this address as it is. At an IPv6 link-local address, only through an interface
/// that it does not name.
#[must_use]
pub fn leads_somewhere(ip: &IpAddr) -> bool {
    !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn loopback_is_there_and_each_address_once() {
        let found = local_addresses().unwrap();
        assert!(found.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{found:?}");
        assert!(found.is_sorted() && found.windows(2).all(|pair| pair[0] != pair[1]), "{found:?}");
    }
}
