//! What an address is for: the IANA special-purpose registries as one table.
//!
//! IPv4: RFC 6890 and the registry as of 2025; IPv6 likewise. An address that carries an IPv4
//! address inside (mapped, compatible, 6to4, NAT64, ISATAP) is what the inner one is, since that is
//! where the packets go. Where the registry calls a range globally reachable although no API can be
//! there (anycast for protocols, AS112 sinks, identifiers that are not locators), it is refused as
//! well: there is nothing to lose. The longest prefix wins; in IPv6 all that is outside of 2000::/3
//! and not in the table is reserved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// An ordinary address of the internet.
    Global,
    /// 0.0.0.0/8, ::; connecting there reaches the own machine.
    Unspecified,
    /// 127.0.0.0/8, ::1.
    Loopback,
    /// 10/8, 172.16/12, 192.168/16 (RFC 1918).
    Private,
    /// 100.64.0.0/10, carrier-grade NAT (RFC 6598).
    SharedAddress,
    /// 169.254.0.0/16, fe80::/10.
    LinkLocal,
    /// The addresses at which clouds hand out credentials.
    Metadata,
    /// fc00::/7 (RFC 4193).
    UniqueLocal,
    /// fec0::/10, deprecated (RFC 3879).
    SiteLocal,
    /// 192.0.0.0/24, 2001::/23 and anycast and sink ranges for protocols.
    ProtocolAssignment,
    /// 192.0.2.0/24 and its like (RFC 5737, 3849, 9637).
    Documentation,
    /// 198.18.0.0/15, 2001:2::/48.
    Benchmarking,
    /// Tunnels whose end is not known: Teredo, the 6to4 relay, local NAT64, 6to4 and ISATAP names.
    Transition,
    /// 224.0.0.0/4, ff00::/8.
    Multicast,
    /// 255.255.255.255.
    Broadcast,
    /// 240.0.0.0/4, and IPv6 that nobody has been given.
    Reserved,
}

/// How far a class may be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Always.
    Global,
    /// Where private addresses are allowed.
    Private,
    /// Never while the guard is on.
    Never,
}

impl Class {
    /// The word for logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::SharedAddress => "shared_address",
            Self::LinkLocal => "link_local",
            Self::Metadata => "metadata",
            Self::UniqueLocal => "unique_local",
            Self::SiteLocal => "site_local",
            Self::ProtocolAssignment => "protocol_assignment",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::Transition => "transition",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Reserved => "reserved",
        }
    }

    /// How far it may be connected to.
    ///
    /// Metadata services are out of reach even where private addresses are allowed: no upstream is
    /// there, and what is there is what an attacker wants.
    #[must_use]
    pub const fn reach(self) -> Reach {
        match self {
            Self::Global => Reach::Global,
            Self::Loopback
            | Self::Private
            | Self::SharedAddress
            | Self::LinkLocal
            | Self::UniqueLocal
            | Self::SiteLocal
            | Self::Documentation
            | Self::Benchmarking
            | Self::Transition => Reach::Private,
            Self::Unspecified
            | Self::Metadata
            | Self::ProtocolAssignment
            | Self::Multicast
            | Self::Broadcast
            | Self::Reserved => Reach::Never,
        }
    }
}

/// What `address` is for.
///
/// Cost: a scan of two short tables; for connects, not for requests.
#[must_use]
pub fn classify(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

fn classify_v4(address: Ipv4Addr) -> Class {
    let bits = address.to_bits();
    let row = V4.iter().find(|(network, length, _)| {
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        bits & mask == network.to_bits()
    });
    row.map_or(Class::Global, |(_, _, class)| *class)
}

fn classify_v6(address: Ipv6Addr) -> Class {
    if let Some(inner) = embedded_v4(address) {
        let class = classify_v4(inner.address);
        return if class == Class::Global { inner.when_global } else { class };
    }
    let bits = address.to_bits();
    let row = V6.iter().find(|(network, length, _)| {
        let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
        bits & mask == network.to_bits()
    });
    match row {
        Some((_, _, class)) => *class,
        None if bits >> 125 == 1 => Class::Global,
        None => Class::Reserved,
    }
}

struct Embedded {
    address: Ipv4Addr,
    /// What the whole is if the inner address is an ordinary one.
    when_global: Class,
}

/// The IPv4 address inside an IPv6 address, where the form says that there is one.
fn embedded_v4(address: Ipv6Addr) -> Option<Embedded> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let low = Ipv4Addr::from_bits(u32::from(g) << 16 | u32::from(h));
    let (address, when_global) = match [a, b, c, d, e, f] {
        // RFC 4291 section 2.5.5.2: mapped. What a v4 socket sees.
        [0, 0, 0, 0, 0, 0xffff] => (low, Class::Global),
        // RFC 2765: translated, by stateless NAT.
        [0, 0, 0, 0, 0xffff, 0] => (low, Class::Transition),
        // RFC 4291 section 2.5.5.1: compatible, deprecated; `::` and `::1` are in the table.
        [0, 0, 0, 0, 0, 0] if g != 0 || h > 1 => (low, Class::Transition),
        // RFC 6052: NAT64 with the well-known prefix. DNS64 networks reach all of IPv4 so.
        [0x64, 0xff9b, 0, 0, 0, 0] => (low, Class::Global),
        // RFC 3056: 6to4.
        [0x2002, high, low, ..] => {
            (Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)), Class::Transition)
        }
        // RFC 5214 section 6.1: ISATAP, under any ordinary prefix.
        [0x2000..=0x3fff, _, _, _, 0 | 0x200, 0x5efe] => (low, Class::Transition),
        _ => return None,
    };
    Some(Embedded { address, when_global })
}

/// Longer prefixes before shorter ones that contain them.
const V4: &[(Ipv4Addr, u32, Class)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, Class::Unspecified), // RFC 791
    (Ipv4Addr::new(10, 0, 0, 0), 8, Class::Private),    // RFC 1918
    (Ipv4Addr::new(100, 100, 100, 200), 32, Class::Metadata), // Alibaba
    (Ipv4Addr::new(100, 64, 0, 0), 10, Class::SharedAddress), // RFC 6598
    (Ipv4Addr::new(127, 0, 0, 0), 8, Class::Loopback),  // RFC 1122
    (Ipv4Addr::new(168, 63, 129, 16), 32, Class::Metadata), // Azure's platform endpoint
    (Ipv4Addr::new(169, 254, 169, 254), 32, Class::Metadata), // AWS, Azure, Google and others
    (Ipv4Addr::new(169, 254, 170, 2), 32, Class::Metadata), // AWS, containers
    (Ipv4Addr::new(169, 254, 170, 23), 32, Class::Metadata), // AWS, pods
    (Ipv4Addr::new(169, 254, 0, 0), 16, Class::LinkLocal), // RFC 3927
    (Ipv4Addr::new(172, 16, 0, 0), 12, Class::Private), // RFC 1918
    (Ipv4Addr::new(192, 0, 0, 192), 32, Class::Metadata), // Oracle
    (Ipv4Addr::new(192, 0, 0, 0), 24, Class::ProtocolAssignment), // RFC 6890
    (Ipv4Addr::new(192, 0, 2, 0), 24, Class::Documentation), // RFC 5737
    (Ipv4Addr::new(192, 31, 196, 0), 24, Class::ProtocolAssignment), // AS112, RFC 7535
    (Ipv4Addr::new(192, 52, 193, 0), 24, Class::ProtocolAssignment), // AMT, RFC 7450
    (Ipv4Addr::new(192, 88, 99, 0), 24, Class::Transition), // 6to4 relay, RFC 7526
    (Ipv4Addr::new(192, 168, 0, 0), 16, Class::Private), // RFC 1918
    (Ipv4Addr::new(192, 175, 48, 0), 24, Class::ProtocolAssignment), // AS112, RFC 7534
    (Ipv4Addr::new(198, 18, 0, 0), 15, Class::Benchmarking), // RFC 2544
    (Ipv4Addr::new(198, 51, 100, 0), 24, Class::Documentation), // RFC 5737
    (Ipv4Addr::new(203, 0, 113, 0), 24, Class::Documentation), // RFC 5737
    (Ipv4Addr::new(224, 0, 0, 0), 4, Class::Multicast), // RFC 5771
    (Ipv4Addr::new(255, 255, 255, 255), 32, Class::Broadcast), // RFC 919
    (Ipv4Addr::new(240, 0, 0, 0), 4, Class::Reserved),  // RFC 1112
];

/// As above; forms with an IPv4 address inside have been dealt with.
const V6: &[(Ipv6Addr, u32, Class)] = &[
    (Ipv6Addr::UNSPECIFIED, 128, Class::Unspecified), // RFC 4291
    (Ipv6Addr::LOCALHOST, 128, Class::Loopback),      // RFC 4291
    (v6(0x64, 0xff9b, 1, 0), 48, Class::Transition),  // NAT64 of a network's own, RFC 8215
    (v6(0x100, 0, 0, 0), 64, Class::Reserved),        // discard, RFC 6666
    (v6(0x100, 0, 0, 1), 64, Class::Reserved),        // dummy prefix, RFC 9780
    (v6(0x2001, 0, 0, 0), 32, Class::Transition),     // Teredo, RFC 4380
    (v6(0x2001, 2, 0, 0), 48, Class::Benchmarking),   // RFC 5180
    (v6(0x2001, 0, 0, 0), 23, Class::ProtocolAssignment), // RFC 2928, with all smaller ones in it
    (v6(0x2001, 0xdb8, 0, 0), 32, Class::Documentation), // RFC 3849
    (v6(0x2620, 0x4f, 0x8000, 0), 48, Class::ProtocolAssignment), // AS112, RFC 7534
    (v6(0x3ffe, 0, 0, 0), 16, Class::Reserved),       // 6bone, given back: RFC 3701
    (v6(0x3fff, 0, 0, 0), 20, Class::Documentation),  // RFC 9637
    (v6(0x5f00, 0, 0, 0), 16, Class::Reserved),       // SRv6 SIDs, RFC 9602
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128, Class::Metadata), // AWS
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23), 128, Class::Metadata), // AWS, pods
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128, Class::Metadata), // Google
    (v6(0xfc00, 0, 0, 0), 7, Class::UniqueLocal),     // RFC 4193
    (v6(0xfe80, 0, 0, 0), 10, Class::LinkLocal),      // RFC 4291
    (v6(0xfec0, 0, 0, 0), 10, Class::SiteLocal),      // RFC 3879
    (v6(0xff00, 0, 0, 0), 8, Class::Multicast),       // RFC 4291
];

const fn v6(a: u16, b: u16, c: u16, d: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)
}

#[cfg(test)]
mod tests;
