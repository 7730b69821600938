//! Where the master is, as people write it: `host`, `host:7440`, `10.0.0.1`, `[fd00::1]:7440`.

use anyhow::{Context, Result};
use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// Where a master listens unless it is told otherwise.
pub const DEFAULT_PORT: u16 = 7440;

/// The address of a master. A name stays a name until it is used, so that it may move to another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterAddress {
    host: String,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write HOST, HOST:PORT, or an IP address, for example storage-1:{DEFAULT_PORT} or 10.0.0.1; without a port it is {DEFAULT_PORT}")]
pub struct AddressError;

impl MasterAddress {
    /// Asks the resolver if it is a name. Blocks.
    pub fn resolve(&self) -> Result<SocketAddr> {
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let found: Vec<_> = found.with_context(|| format!("the name {} of the master cannot be resolved", self.host))?.collect();
        // A master listens on IPv4 unless it is told otherwise, and `localhost` is both.
        let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
        first.copied().with_context(|| format!("the name {} of the master has no address", self.host))
    }
}

impl From<SocketAddr> for MasterAddress {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl FromStr for MasterAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, DEFAULT_PORT).into());
        }
        let (host, port) = match text.split_once(':') {
            None => (text, DEFAULT_PORT),
            Some((host, port)) => (host, port.parse().map_err(|_| AddressError)?),
        };
        let is_name = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if is_name { Ok(Self { host: host.to_owned(), port }) } else { Err(AddressError) }
    }
}

impl fmt::Display for MasterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (&self.host, self.port);
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::MasterAddress;

    fn shown(text: &str) -> String {
        text.parse::<MasterAddress>().map_or_else(|_| "refused".to_owned(), |address| address.to_string())
    }

    #[test]
    fn host_names_and_missing_ports_are_understood() {
        assert_eq!(shown("storage-1"), "storage-1:7440");
        assert_eq!(shown("storage-1.example.com:99"), "storage-1.example.com:99");
        assert_eq!(shown("10.0.0.1"), "10.0.0.1:7440");
        assert_eq!(shown("10.0.0.1:1"), "10.0.0.1:1");
        assert_eq!([shown("[fd00::1]:5"), shown("fd00::1"), shown("[::1]")], ["[fd00::1]:5", "[fd00::1]:7440", "[::1]:7440"]);
        for wrong in ["", ":7440", "host:", "host:port", "host:99999", "a b", "http://host", "host:1:2"] {
            assert_eq!(shown(wrong), "refused", "{wrong}");
        }
    }

    #[test]
    fn what_is_written_down_is_read_back() {
        for text in ["storage-1:7440", "10.0.0.1:1", "[fd00::1]:5"] {
            assert_eq!(shown(&shown(text)), text);
        }
    }

    #[test]
    fn localhost_is_found_by_name() {
        let found = "localhost:7".parse::<MasterAddress>().unwrap().resolve().unwrap();
        assert!(found.ip().is_loopback() && found.port() == 7, "{found}");
    }
}
