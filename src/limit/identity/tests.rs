use std::iter;

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Trusts 10.0.0.0/8 and 2001:db8::/32.
fn proxies() -> TrustedProxies {
    TrustedProxies::parse(&["10.0.0.0/8", "2001:db8::/32"]).unwrap()
}

fn by_list(peer: &str, lines: &[&str]) -> IpAddr {
    let lines = lines.iter().map(|it| it.as_bytes());
    proxies().client_address(ip(peer), lines, iter::empty())
}

fn by_forwarded(peer: &str, lines: &[&str]) -> IpAddr {
    let lines = lines.iter().map(|it| it.as_bytes());
    proxies().client_address(ip(peer), iter::empty(), lines)
}

#[test]
fn x_forwarded_for_is_read_from_the_right_through_trusted_proxies() {
    // peer, lines, client
    let rows: &[(&str, &[&str], &str)] = &[
        // Nobody is believed who is not trusted.
        ("192.0.2.1", &["1.1.1.1"], "192.0.2.1"),
        ("192.0.2.1", &[], "192.0.2.1"),
        ("10.0.0.1", &[], "10.0.0.1"),
        ("10.0.0.1", &["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", &["1.1.1.1, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", &["1.1.1.1, 192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        ("10.0.0.1", &["1.1.1.1, 192.0.2.7, 10.0.0.2,10.9.9.9"], "192.0.2.7"),
        ("2001:db8::1", &["192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        ("::ffff:10.0.0.1", &["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", &["::ffff:192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", &["192.0.2.7, ::ffff:10.0.0.2"], "192.0.2.7"),
        // All trusted: the first.
        ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        // RFC 9110 section 5.3: lines are one list, in their order.
        ("10.0.0.1", &["1.1.1.1", "192.0.2.7", "10.0.0.2"], "192.0.2.7"),
        // RFC 9110 section 5.6.1.2: empty members do not count.
        ("10.0.0.1", &["192.0.2.7,,\t ,", ""], "192.0.2.7"),
        // Ports.
        ("10.0.0.1", &["192.0.2.7:1234"], "192.0.2.7"),
        ("10.0.0.1", &["[2a00::7]:1234"], "2a00::7"),
        ("10.0.0.1", &["[2a00::7]"], "2a00::7"),
        ("10.0.0.1", &["2a00::7"], "2a00::7"),
        // What is no address ends the walk at the proxy that sent it.
        ("10.0.0.1", &["192.0.2.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", &["192.0.2.7, garbage, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", &["192.0.2.7, 10.0.0.2 10.0.0.3"], "10.0.0.1"),
        ("10.0.0.1", &["192.0.2.7, 010.0.0.2"], "10.0.0.1"),
        ("10.0.0.1", &["192.0.2.7, 10.0.0.256"], "10.0.0.1"),
        ("10.0.0.1", &["192.0.2.7, 10.0.0.2:99999"], "10.0.0.1"),
        ("10.0.0.1", &["192.0.2.7, fe80::1%eth0"], "10.0.0.1"),
        ("10.0.0.1", &["192.0.2.7, [fe80::1%2]:80"], "10.0.0.1"),
        ("10.0.0.1", &["192.0.2.7, \"10.0.0.2\""], "10.0.0.1"),
        ("10.0.0.1", &["192.0.2.7, \u{ff11}0.0.0.2"], "10.0.0.1"),
    ];
    for (peer, lines, client) in rows {
        assert_eq!(by_list(peer, lines), ip(client), "{peer} {lines:?}");
    }
}

#[test]
fn forwarded_is_read_likewise() {
    // RFC 7239 sections 4 and 6
    let rows: &[(&str, &[&str], &str)] = &[
        ("192.0.2.1", &["for=1.1.1.1"], "192.0.2.1"),
        ("10.0.0.1", &["for=192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", &["For=\"192.0.2.7\";proto=https;by=10.0.0.1"], "192.0.2.7"),
        ("10.0.0.1", &["proto=http;FOR=192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", &["for=\"[2a00::7]:4711\""], "2a00::7"),
        ("10.0.0.1", &["for=\"192.0.2.7:_port\""], "192.0.2.7"),
        ("10.0.0.1", &["for=\"[2a00::7]:_p\""], "2a00::7"),
        ("10.0.0.1", &["for=1.1.1.1, for=192.0.2.7 , for=10.0.0.2"], "192.0.2.7"),
        ("10.0.0.1", &["for=1.1.1.1", "for=192.0.2.7;by=\"a,b;c\"", "for=10.0.0.2"], "192.0.2.7"),
        ("10.0.0.1", &["for=192.0.2.7;;proto=http;", ", ,"], "192.0.2.7"),
        // Hidden and missing names end the walk.
        ("10.0.0.1", &["for=192.0.2.7, for=unknown"], "10.0.0.1"),
        ("10.0.0.1", &["for=192.0.2.7, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", &["for=192.0.2.7, proto=http, for=10.0.0.2"], "10.0.0.2"),
        // Bad syntax makes the line garbage.
        ("10.0.0.1", &["for=192.0.2.7;for=10.0.0.2"], "10.0.0.1"),
        ("10.0.0.1", &["for=\"192.0.2.7"], "10.0.0.1"),
        ("10.0.0.1", &["for=\"192.0.2.7\\"], "10.0.0.1"),
        ("10.0.0.1", &["for=2a00::7"], "10.0.0.1"),
        ("10.0.0.1", &["for 192.0.2.7"], "10.0.0.1"),
        ("10.0.0.1", &["=192.0.2.7"], "10.0.0.1"),
        ("10.0.0.1", &["for="], "10.0.0.1"),
        ("10.0.0.1", &["for=192.0.2.7 x"], "10.0.0.1"),
        ("10.0.0.1", &["garbage", "for=10.0.0.2"], "10.0.0.2"),
    ];
    for (peer, lines, client) in rows {
        assert_eq!(by_forwarded(peer, lines), ip(client), "{peer} {lines:?}");
    }
}

#[test]
fn a_quote_left_open_cannot_hide_what_a_proxy_appends() {
    let appended = [
        "for=192.0.2.7",
        "for=\"192.0.2.7\"",
        "for=\"192.0.2.7:80\";by=\"[2001:db8::1]\"",
        "for=\"[2a00::7]\"",
        "by=\"_gw\";for=192.0.2.7;proto=https",
    ];
    for forged in
        ["for=1.1.1.1;x=\"", "for=1.1.1.1, y=\"a", "for=\"1.1.1.1\\", "for=1.1.1.1;x=\"\\"]
    {
        for appended in appended {
            let client = by_forwarded("10.0.0.1", &[&format!("{forged}, {appended}")]);
            assert_ne!(client, ip("1.1.1.1"), "{forged} {appended}");
        }
    }
}

#[test]
fn forwarded_is_not_read_where_x_forwarded_for_is_there() {
    let client = proxies().client_address(
        ip("10.0.0.1"),
        iter::once(b"192.0.2.7".as_slice()),
        iter::once(b"for=1.1.1.1".as_slice()),
    );
    assert_eq!(client, ip("192.0.2.7"));
}

#[test]
fn the_walk_ends_after_as_many_proxies_as_are_kept() {
    let chain = |length: usize| {
        let proxies = vec!["10.0.0.2"; length].join(",");
        by_list("10.0.0.1", &[&format!("192.0.2.7,{proxies}")])
    };
    assert_eq!(chain(PROXIES_MAX - 1), ip("192.0.2.7"));
    assert_eq!(chain(PROXIES_MAX), ip("10.0.0.2"));
    assert_eq!(chain(20_000), ip("10.0.0.2"));
}

#[test]
fn networks_are_parsed_and_compared_in_canonical_form() {
    // network, inside, outside
    let rows = [
        ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("::1", "::1", "::2"),
        ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
        ("::ffff:10.0.0.0/104", "10.1.2.3", "11.0.0.0"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"),
        ("0.0.0.0/0", "8.8.8.8", "2a00::1"),
        ("::/0", "2a00::1", "8.8.8.8"),
    ];
    for (network, inside, outside) in rows {
        let trusted = TrustedProxies::parse(&[network]).unwrap();
        assert!(trusted.contains(ip(inside)), "{network} {inside}");
        assert!(!trusted.contains(ip(outside)), "{network} {outside}");
    }
    let faults = [
        ("10.0.0.1/8", CidrFault::HostBits),
        ("2001:db8::1/32", CidrFault::HostBits),
        ("10.0.0.0/33", CidrFault::Syntax),
        ("10.0.0/8", CidrFault::Syntax),
        ("localhost", CidrFault::Syntax),
        ("", CidrFault::Syntax),
    ];
    for (text, fault) in faults {
        assert_eq!(TrustedProxies::parse(&["::1", text]), Err((1, fault)), "{text}");
        assert!(!fault.to_string().is_empty() && !fault.as_str().is_empty());
    }
    assert!(TrustedProxies::default().is_empty());
}

#[test]
fn an_address_is_hashed_as_what_one_customer_has() {
    let seed = Seed::fixed(7);
    let hash = |text: &str| Kind::hash_address(&seed, ip(text));
    assert_eq!(hash("192.0.2.1"), hash("::ffff:192.0.2.1"));
    assert_ne!(hash("192.0.2.1"), hash("192.0.2.2"));
    assert_eq!(hash("2a00:1:2:3::1"), hash("2a00:1:2:3:ffff:ffff:ffff:ffff"));
    assert_ne!(hash("2a00:1:2:3::1"), hash("2a00:1:2:4::1"));
    assert_ne!(hash("192.0.2.1"), Kind::hash_key(&seed, &[192, 0, 2, 1]));
    assert_ne!(Kind::hash_key(&seed, b"a"), Kind::hash_key(&seed, b"b"));
}

proptest! {
    #[test]
    fn whatever_a_client_writes_before_it_the_proxys_word_decides(forged in "[ -~]{0,60}") {
        // X-Forwarded-For: the proxy appends to the line, or adds one.
        let (same, own) = (format!("{forged},192.0.2.7"), "192.0.2.7".to_owned());
        for lines in [vec![same], vec![forged.clone(), own]] {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            prop_assert_eq!(by_list("10.0.0.1", &lines), ip("192.0.2.7"));
        }
        // Forwarded: the same, or the line is garbage and the proxy itself is the client.
        let line = format!("{forged}, for=192.0.2.7;proto=https");
        let client = by_forwarded("10.0.0.1", &[&line]);
        prop_assert!(client == ip("192.0.2.7") || client == ip("10.0.0.1"), "{}", client);
        prop_assert_eq!(by_forwarded("10.0.0.1", &[&forged, "for=192.0.2.7"]), ip("192.0.2.7"));
    }

    #[test]
    fn quotes_and_commas_never_let_a_forged_member_through(
        forged in "(for=1\\.1\\.1\\.1|[\";,= \\\\]|x){0,12}",
        node in prop::sample::select(vec!["192.0.2.7", "\"192.0.2.7\"", "\"[2a00::7]:80\""]),
    ) {
        let client = by_forwarded("10.0.0.1", &[&format!("{forged}, for={node}")]);
        prop_assert_ne!(client, ip("1.1.1.1"));
    }

    #[test]
    fn no_bytes_make_it_panic(list: Vec<u8>, forwarded: Vec<u8>) {
        let lines = iter::once(list.as_slice());
        let _ = proxies().client_address(ip("10.0.0.1"), lines, iter::once(forwarded.as_slice()));
        let lines = iter::once(forwarded.as_slice());
        let _ = proxies().client_address(ip("10.0.0.1"), iter::empty(), lines);
    }
}
