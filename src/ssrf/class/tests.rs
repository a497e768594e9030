use proptest::prelude::*;

use super::*;

fn class(text: &str) -> Class {
    classify(text.parse().unwrap_or_else(|_| panic!("{text}")))
}

/// Range, class, class of the address before it, class of the one after it.
type Row = (&'static str, u32, Class, Class, Class);

use Class::{
    Benchmarking, Broadcast, Documentation, Global, LinkLocal, Loopback, Metadata, Multicast,
    Private, ProtocolAssignment, Reserved, SharedAddress, SiteLocal, Transition, UniqueLocal,
    Unspecified,
};

/// Every row of the IANA IPv4 special-purpose registry, multicast, and metadata services. `Global`
/// stands for "no such address" where a range begins or ends the address space.
const V4_ROWS: &[Row] = &[
    ("0.0.0.0", 8, Unspecified, Global, Global),
    ("0.0.0.0", 32, Unspecified, Global, Unspecified),
    ("10.0.0.0", 8, Private, Global, Global),
    ("100.64.0.0", 10, SharedAddress, Global, Global),
    ("100.100.100.200", 32, Metadata, SharedAddress, SharedAddress),
    ("127.0.0.0", 8, Loopback, Global, Global),
    ("168.63.129.16", 32, Metadata, Global, Global),
    ("169.254.0.0", 16, LinkLocal, Global, Global),
    ("169.254.169.254", 32, Metadata, LinkLocal, LinkLocal),
    ("169.254.170.2", 32, Metadata, LinkLocal, LinkLocal),
    ("169.254.170.23", 32, Metadata, LinkLocal, LinkLocal),
    ("172.16.0.0", 12, Private, Global, Global),
    ("192.0.0.0", 24, ProtocolAssignment, Global, Global),
    ("192.0.0.0", 29, ProtocolAssignment, Global, ProtocolAssignment),
    ("192.0.0.8", 32, ProtocolAssignment, ProtocolAssignment, ProtocolAssignment),
    ("192.0.0.9", 32, ProtocolAssignment, ProtocolAssignment, ProtocolAssignment),
    ("192.0.0.10", 32, ProtocolAssignment, ProtocolAssignment, ProtocolAssignment),
    ("192.0.0.170", 32, ProtocolAssignment, ProtocolAssignment, ProtocolAssignment),
    ("192.0.0.171", 32, ProtocolAssignment, ProtocolAssignment, ProtocolAssignment),
    ("192.0.0.192", 32, Metadata, ProtocolAssignment, ProtocolAssignment),
    ("192.0.2.0", 24, Documentation, Global, Global),
    ("192.31.196.0", 24, ProtocolAssignment, Global, Global),
    ("192.52.193.0", 24, ProtocolAssignment, Global, Global),
    ("192.88.99.0", 24, Transition, Global, Global),
    ("192.168.0.0", 16, Private, Global, Global),
    ("192.175.48.0", 24, ProtocolAssignment, Global, Global),
    ("198.18.0.0", 15, Benchmarking, Global, Global),
    ("198.51.100.0", 24, Documentation, Global, Global),
    ("203.0.113.0", 24, Documentation, Global, Global),
    ("224.0.0.0", 4, Multicast, Global, Reserved),
    ("255.255.255.255", 32, Broadcast, Reserved, Global),
];

/// Every row of the IANA IPv6 special-purpose registry and what is special beside it.
const V6_ROWS: &[Row] = &[
    ("::", 128, Unspecified, Global, Loopback),
    ("::1", 128, Loopback, Unspecified, Unspecified),
    ("64:ff9b:1::", 48, Transition, Reserved, Reserved),
    ("100::", 64, Reserved, Reserved, Reserved),
    ("100:0:0:1::", 64, Reserved, Reserved, Reserved),
    ("2000::", 3, Global, Reserved, Reserved),
    ("2001::", 23, Transition, Global, Global),
    ("2001::", 32, Transition, Global, ProtocolAssignment),
    ("2001:1::1", 128, ProtocolAssignment, ProtocolAssignment, ProtocolAssignment),
    ("2001:1::2", 128, ProtocolAssignment, ProtocolAssignment, ProtocolAssignment),
    ("2001:1::3", 128, ProtocolAssignment, ProtocolAssignment, ProtocolAssignment),
    ("2001:2::", 48, Benchmarking, ProtocolAssignment, ProtocolAssignment),
    ("2001:3::", 32, ProtocolAssignment, ProtocolAssignment, ProtocolAssignment),
    ("2001:4:112::", 48, ProtocolAssignment, ProtocolAssignment, ProtocolAssignment),
    ("2001:10::", 28, ProtocolAssignment, ProtocolAssignment, ProtocolAssignment),
    ("2001:20::", 28, ProtocolAssignment, ProtocolAssignment, ProtocolAssignment),
    ("2001:30::", 28, ProtocolAssignment, ProtocolAssignment, ProtocolAssignment),
    ("2001:db8::", 32, Documentation, Global, Global),
    ("2620:4f:8000::", 48, ProtocolAssignment, Global, Global),
    ("3ffe::", 16, Reserved, Global, Documentation),
    ("3fff::", 20, Documentation, Reserved, Global),
    ("5f00::", 16, Reserved, Reserved, Reserved),
    ("fc00::", 7, UniqueLocal, Reserved, Reserved),
    ("fd00:ec2::23", 128, Metadata, UniqueLocal, UniqueLocal),
    ("fd00:ec2::254", 128, Metadata, UniqueLocal, UniqueLocal),
    ("fd20:ce::254", 128, Metadata, UniqueLocal, UniqueLocal),
    ("fe80::", 10, LinkLocal, Reserved, SiteLocal),
    ("fec0::", 10, SiteLocal, LinkLocal, Multicast),
    ("ff00::", 8, Multicast, SiteLocal, Global),
];

#[test]
fn every_ipv4_range_holds_from_its_first_to_its_last_address() {
    for &(first, length, expected, before, after) in V4_ROWS {
        let first = first.parse::<Ipv4Addr>().unwrap().to_bits();
        let last = first | u32::MAX.checked_shr(length).unwrap_or(0);
        let at = |bits: u32| classify(Ipv4Addr::from_bits(bits).into());
        let row = Ipv4Addr::from_bits(first);
        assert_eq!(at(first), expected, "{row}/{length}");
        assert_eq!(at(last), expected, "{row}/{length}");
        if let Some(bits) = first.checked_sub(1) {
            assert_eq!(at(bits), before, "before {row}/{length}");
        }
        if let Some(bits) = last.checked_add(1) {
            assert_eq!(at(bits), after, "after {row}/{length}");
        }
    }
    // The registry's 240.0.0.0/4 ends before the broadcast address.
    assert_eq!(class("240.0.0.0"), Reserved);
    assert_eq!(class("255.255.255.254"), Reserved);
}

#[test]
fn every_ipv6_range_holds_from_its_first_to_its_last_address() {
    for &(first, length, expected, before, after) in V6_ROWS {
        let first = first.parse::<Ipv6Addr>().unwrap().to_bits();
        let last = first | u128::MAX.checked_shr(length).unwrap_or(0);
        let at = |bits: u128| classify(Ipv6Addr::from_bits(bits).into());
        let row = Ipv6Addr::from_bits(first);
        assert_eq!(at(first), expected, "{row}/{length}");
        // 2001::/23 ends in another of its ranges than it begins with.
        let at_end =
            if (length, expected) == (23, Transition) { ProtocolAssignment } else { expected };
        assert_eq!(at(last), at_end, "{row}/{length}");
        if let Some(bits) = first.checked_sub(1) {
            assert_eq!(at(bits), before, "before {row}/{length}");
        }
        if let Some(bits) = last.checked_add(1) {
            assert_eq!(at(bits), after, "after {row}/{length}");
        }
    }
}

#[test]
fn ordinary_addresses_are_global() {
    for text in [
        "1.1.1.1",
        "8.8.8.8",
        "93.184.216.34",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2606:4700:4700::1111",
        "2a00:1450::1",
    ] {
        assert_eq!(class(text), Global, "{text}");
    }
}

#[test]
fn an_address_inside_another_is_what_counts() {
    let rows = [
        // RFC 4291 section 2.5.5.2: mapped
        ("::ffff:127.0.0.1", Loopback),
        ("::ffff:10.1.2.3", Private),
        ("::ffff:169.254.169.254", Metadata),
        ("::ffff:0.0.0.0", Unspecified),
        ("::ffff:255.255.255.255", Broadcast),
        ("::ffff:8.8.8.8", Global),
        // RFC 2765: translated
        ("::ffff:0:127.0.0.1", Loopback),
        ("::ffff:0:8.8.8.8", Transition),
        // RFC 4291 section 2.5.5.1: compatible
        ("::127.0.0.1", Loopback),
        ("::10.0.0.1", Private),
        ("::2", Unspecified),
        ("::8.8.8.8", Transition),
        // RFC 6052: NAT64
        ("64:ff9b::7f00:1", Loopback),
        ("64:ff9b::a9fe:a9fe", Metadata),
        ("64:ff9b::c0a8:1", Private),
        ("64:ff9b::808:808", Global),
        ("64:ff9b:0:0:1::808:808", Reserved),
        // RFC 8215: where the IPv4 address is in a local prefix is the network's own choice
        ("64:ff9b:1::808:808", Transition),
        // RFC 3056: 6to4
        ("2002:7f00:1::", Loopback),
        ("2002:a9fe:a9fe::1", Metadata),
        ("2002:a00:1::1", Private),
        ("2002:808:808::1", Transition),
        // RFC 4380: Teredo
        ("2001:0:808:808::1", Transition),
        // RFC 5214: ISATAP
        ("2606:4700::5efe:10.0.0.1", Private),
        ("2606:4700::200:5efe:10.0.0.1", Private),
        ("2606:4700::200:5efe:8.8.8.8", Transition),
        ("fe80::5efe:8.8.8.8", LinkLocal),
    ];
    for (text, expected) in rows {
        assert_eq!(class(text), expected, "{text}");
    }
}

#[test]
fn rows_stand_before_the_shorter_prefixes_that_contain_them() {
    for (at, (network, length, class)) in V4.iter().enumerate() {
        assert_eq!(classify((*network).into()), *class, "{network}/{length}");
        for (_, shorter, _) in V4[..at].iter().filter(|(other, shorter, _)| {
            let mask = u32::MAX.checked_shl(32 - shorter).unwrap_or(0);
            network.to_bits() & mask == other.to_bits()
        }) {
            assert!(shorter > length, "{network}/{length} is never reached");
        }
    }
}

proptest! {
    #[test]
    fn a_mapped_address_is_what_its_inner_address_is(bits: u32) {
        let inner = Ipv4Addr::from_bits(bits);
        prop_assert_eq!(classify(inner.to_ipv6_mapped().into()), classify(inner.into()));
    }

    #[test]
    fn what_the_standard_library_knows_as_special_is_never_global(bits: u128) {
        let v4 = Ipv4Addr::from_bits(bits as u32);
        let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
            || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified();
        prop_assert!(!special || classify(v4.into()) != Global);
        let v6 = Ipv6Addr::from_bits(bits);
        let outside = v6.segments()[0] & 0xe000 != 0x2000;
        prop_assert!(!outside || classify(v6.into()) != Global);
    }
}
