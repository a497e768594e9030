//! What is allowed.

use std::fmt;
use std::net::IpAddr;

use crate::ssrf::class::{Class, Reach, classify};
use crate::ssrf::host::{Host, HostFault, HostPattern};

/// The guard's settings (`security.ssrf_protection_enabled` and the fields beside it).
///
/// Both the host's name and every address it resolves to must pass: being on the list does not
/// make a private address allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Default on. Off: every host and address passes.
    pub enabled: bool,
    /// Default on: only addresses of the internet. Off: private ones too, still without metadata
    /// services and addresses that are nobody's.
    pub block_private: bool,
    /// Hosts that may be upstreams; `None` for all.
    pub allowed_hosts: Option<Vec<HostPattern>>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { enabled: true, block_private: true, allowed_hosts: None }
    }
}

impl Policy {
    /// Checks a URL before its host is resolved.
    ///
    /// # Errors
    /// The first rule it breaks. A name that passes must still have each of its addresses checked.
    pub fn check_url(&self, scheme: &str, host: &str, port: u16) -> Result<(), Refusal> {
        if !self.enabled {
            return Ok(());
        }
        if !["http", "https"].iter().any(|it| scheme.eq_ignore_ascii_case(it)) {
            return Err(Refusal::Scheme);
        }
        if port == 0 {
            return Err(Refusal::Port);
        }
        let host = Host::parse(host).map_err(Refusal::HostMalformed)?;
        let allowed = self.allowed_hosts.as_deref();
        if allowed.is_some_and(|hosts| !hosts.iter().any(|pattern| pattern.matches(&host))) {
            return Err(Refusal::HostNotAllowed);
        }
        match host {
            Host::Address(address) => self.check_address(address),
            Host::Name(_) => Ok(()),
        }
    }

    /// Checks an address right before connecting to it.
    ///
    /// # Errors
    /// What the address is, when that is not allowed.
    pub fn check_address(&self, address: IpAddr) -> Result<(), Refusal> {
        if !self.enabled {
            return Ok(());
        }
        let class = classify(address);
        match class.reach() {
            Reach::Global => Ok(()),
            Reach::Private if !self.block_private => Ok(()),
            Reach::Private | Reach::Never => Err(Refusal::Address(class)),
        }
    }
}

/// Why the guard refuses. Clients learn `upstream_not_allowed` only; the rest is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Neither `http` nor `https`.
    Scheme,
    /// Port 0.
    Port,
    /// The host is neither a name nor an address.
    HostMalformed(HostFault),
    /// The host is not on the list.
    HostNotAllowed,
    /// The address is one that must not be connected to.
    Address(Class),
}

impl Refusal {
    /// The word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheme => "scheme_not_allowed",
            Self::Port => "port_not_allowed",
            Self::HostMalformed(fault) => fault.as_str(),
            Self::HostNotAllowed => "host_not_allowed",
            Self::Address(class) => class.as_str(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => out.write_str("only `http` and `https` are allowed"),
            Self::Port => out.write_str("port 0 cannot be connected to"),
            Self::HostMalformed(fault) => fault.fmt(out),
            Self::HostNotAllowed => {
                out.write_str("the host is not in `security.allowed_upstream_hosts`: add it there")
            }
            Self::Address(class) if class.reach() == Reach::Private => write!(
                out,
                "the address is {}: set `security.block_private_ips` to false to allow it",
                class.as_str().replace('_', "-")
            ),
            Self::Address(class) => {
                write!(out, "the address is {}: no upstream can be there", class.as_str())
            }
        }
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(hosts: &[&str]) -> Policy {
        let hosts = hosts.iter().map(|it| HostPattern::parse(it).unwrap()).collect();
        Policy { allowed_hosts: Some(hosts), ..Policy::default() }
    }

    #[test]
    fn a_url_must_pass_every_rule() {
        let policy = policy(&["api.example.com", "*.example.org", "10.0.0.1", "8.8.8.8"]);
        let rows: &[(&str, &str, u16, Result<(), Refusal>)] = &[
            ("https", "api.example.com", 443, Ok(())),
            ("HTTP", "API.example.com.", 80, Ok(())),
            ("https", "a.example.org", 8443, Ok(())),
            ("https", "8.8.8.8", 443, Ok(())),
            ("https", "0x08.8.8.8", 443, Ok(())),
            ("ftp", "api.example.com", 21, Err(Refusal::Scheme)),
            ("file", "", 0, Err(Refusal::Scheme)),
            ("gopher", "api.example.com", 70, Err(Refusal::Scheme)),
            ("https", "api.example.com", 0, Err(Refusal::Port)),
            ("https", "", 443, Err(Refusal::HostMalformed(HostFault::Empty))),
            ("https", "example.org", 443, Err(Refusal::HostNotAllowed)),
            ("https", "api.example.com.evil.net", 443, Err(Refusal::HostNotAllowed)),
            ("https", "127.0.0.1", 443, Err(Refusal::HostNotAllowed)),
            ("https", "10.0.0.1", 443, Err(Refusal::Address(Class::Private))),
            ("https", "167772161", 443, Err(Refusal::Address(Class::Private))),
        ];
        for &(scheme, host, port, expected) in rows {
            assert_eq!(policy.check_url(scheme, host, port), expected, "{scheme} {host} {port}");
        }
    }

    #[test]
    fn private_addresses_pass_when_allowed_but_metadata_never() {
        let strict = Policy::default();
        let open = Policy { block_private: false, ..Policy::default() };
        let off = Policy { enabled: false, ..Policy::default() };
        // address, strict, private allowed
        let rows = [
            ("93.184.216.34", true, true),
            ("2606:4700::1111", true, true),
            ("64:ff9b::808:808", true, true),
            ("127.0.0.1", false, true),
            ("::1", false, true),
            ("192.168.1.1", false, true),
            ("fd12::1", false, true),
            ("::ffff:10.0.0.1", false, true),
            ("169.254.1.1", false, true),
            ("169.254.169.254", false, false),
            ("::ffff:169.254.169.254", false, false),
            ("64:ff9b::a9fe:a9fe", false, false),
            ("fd00:ec2::254", false, false),
            ("0.0.0.0", false, false),
            ("::", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
        ];
        for (address, by_default, private_allowed) in rows {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(strict.check_address(address).is_ok(), by_default, "{address}");
            assert_eq!(open.check_address(address).is_ok(), private_allowed, "{address}");
            assert!(off.check_address(address).is_ok());
        }
    }

    #[test]
    fn a_refusal_says_how_to_allow_what_can_be_allowed() {
        let private = Refusal::Address(Class::Loopback).to_string();
        assert!(private.contains("block_private_ips"), "{private}");
        let never = Refusal::Address(Class::Metadata).to_string();
        assert!(!never.contains("block_private_ips"), "{never}");
        assert_eq!(Refusal::Address(Class::Metadata).as_str(), "metadata");
    }
}
