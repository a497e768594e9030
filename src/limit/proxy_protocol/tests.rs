use proptest::prelude::*;

use super::*;

fn done(source: &str, destination: &str, consumed: usize) -> Progress {
    let header = Header {
        source: Some(source.parse().unwrap()),
        destination: Some(destination.parse().unwrap()),
    };
    Progress::Done { header, consumed }
}

fn unnamed(consumed: usize) -> Progress {
    Progress::Done { header: Header { source: None, destination: None }, consumed }
}

/// A version 2 header whose length is that of its block.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE_V2.to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
    bytes.extend(block);
    bytes
}

const TCP4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0xc8, 0x22, 0x01, 0xbb];

fn tcp6() -> Vec<u8> {
    let mut block = Vec::new();
    block.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    block.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
    block.extend([0xc8, 0x22, 0x01, 0xbb]);
    block
}

fn samples() -> Vec<(Vec<u8>, Progress)> {
    let with_additions = [TCP4.as_slice(), &[0x04, 0, 2, 0, 0], &[0xea, 0, 0]].concat();
    let largest = [TCP4.as_slice(), &[0x04, 7, 0xe1], &[0; 2_017]].concat();
    let longest_v1 = format!("PROXY UNKNOWN {}\r\n", "f".repeat(91));
    assert_eq!(longest_v1.len(), LINE_BYTES_MAX);
    vec![
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.2 51234 443\r\n".to_vec(),
            done("192.0.2.1:51234", "192.0.2.2:443", 42),
        ),
        (
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n".to_vec(),
            done("255.255.255.255:65535", "255.255.255.255:65535", 56),
        ),
        (
            b"PROXY TCP6 2001:db8::1 2001:db8::2 0 443\r\n".to_vec(),
            done("[2001:db8::1]:0", "[2001:db8::2]:443", 42),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), unnamed(15)),
        (b"PROXY UNKNOWN ffff::1 what ever\r\n".to_vec(), unnamed(33)),
        (longest_v1.into_bytes(), unnamed(LINE_BYTES_MAX)),
        (v2(0x21, 0x11, &TCP4), done("192.0.2.1:51234", "192.0.2.2:443", 28)),
        (v2(0x21, 0x11, &with_additions), done("192.0.2.1:51234", "192.0.2.2:443", 36)),
        (v2(0x21, 0x21, &tcp6()), done("[2001:db8::1]:51234", "[2001:db8::2]:443", 52)),
        (v2(0x21, 0x31, &[b'/'; 216]), unnamed(232)),
        (v2(0x21, 0x00, &[]), unnamed(16)),
        (v2(0x20, 0x00, &[]), unnamed(16)),
        // LOCAL: family and block do not matter.
        (v2(0x20, 0x12, &[1, 2, 3]), unnamed(19)),
        (v2(0x21, 0x11, &largest), done("192.0.2.1:51234", "192.0.2.2:443", HEADER_BYTES_MAX)),
    ]
}

#[test]
fn headers_are_read_and_what_follows_is_left_alone() {
    for (bytes, expected) in samples() {
        assert_eq!(parse(&bytes), Ok(expected));
        let followed = [bytes.as_slice(), b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(parse(&followed), Ok(expected));
    }
}

#[test]
fn a_header_cut_at_any_byte_is_incomplete() {
    for (bytes, _) in samples() {
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(Progress::Incomplete), "{end} of {bytes:x?}");
        }
    }
}

#[test]
fn malformed_headers_are_refused() {
    let too_long = [SIGNATURE_V2, &[0x21, 0x11, 0x08, 0x00]].concat();
    let rows: &[(&[u8], Refusal)] = &[
        (b"GET / HTTP/1.1\r\n", Refusal::NoHeader),
        (b"G", Refusal::NoHeader),
        (b"\r\n\r\nX", Refusal::NoHeader),
        (b"proxy TCP4 ", Refusal::NoHeader),
        (b"PROXY\tTCP4", Refusal::NoHeader),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", Refusal::LineMalformed),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n", Refusal::LineMalformed),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n", Refusal::LineMalformed),
        (b"PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n", Refusal::LineMalformed),
        (b"PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n", Refusal::LineMalformed),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n", Refusal::LineMalformed),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n", Refusal::LineMalformed),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n", Refusal::LineMalformed),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n", Refusal::LineMalformed),
        (b"PROXY TCP4 1.1.1.01 2.2.2.2 1 2\r\n", Refusal::LineMalformed),
        (b"PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n", Refusal::LineMalformed),
        (b"PROXY TCP4 ::1 ::2 1 2\r\n", Refusal::LineMalformed),
        (b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n", Refusal::LineMalformed),
        (b"PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n", Refusal::LineMalformed),
        (b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n", Refusal::LineMalformed),
        (b"PROXY UNKNOWNX\r\n", Refusal::LineMalformed),
        (b"PROXY \r\n", Refusal::LineMalformed),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", Refusal::LineMalformed),
        (b"PROXY TCP4 1.1.1.1\r2.2.2.2 1 2\r\n", Refusal::LineMalformed),
        (b"PROXY UNKNOWN \xff", Refusal::LineMalformed),
        (b"PROXY UNKNOWN \0\r\n", Refusal::LineMalformed),
        (&[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 93]].concat(), Refusal::LineTooLong),
        (&v2(0x11, 0x11, &TCP4), Refusal::Command),
        (&v2(0x22, 0x11, &TCP4), Refusal::Command),
        (&v2(0x31, 0x11, &TCP4), Refusal::Command),
        (&v2(0x21, 0x12, &TCP4), Refusal::Family),
        (&v2(0x21, 0x22, &tcp6()), Refusal::Family),
        (&v2(0x21, 0x41, &TCP4), Refusal::Family),
        (&v2(0x21, 0x10, &TCP4), Refusal::Family),
        (&v2(0x21, 0x11, &TCP4[..11]), Refusal::Length),
        (&v2(0x21, 0x21, &TCP4), Refusal::Length),
        (&too_long, Refusal::Length),
        (&v2(0x21, 0x11, &[TCP4.as_slice(), &[4]].concat()), Refusal::Additions),
        (&v2(0x21, 0x11, &[TCP4.as_slice(), &[4, 0, 2, 0]].concat()), Refusal::Additions),
        (&v2(0x21, 0x00, &[1]), Refusal::Additions),
    ];
    for (bytes, refusal) in rows {
        assert_eq!(parse(bytes), Err(*refusal), "{}", String::from_utf8_lossy(bytes));
        assert!(!refusal.as_str().is_empty());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered_within_the_bound(
        start in prop::sample::select(vec![b"".as_slice(), b"PROXY TCP4 ", SIGNATURE_V2]),
        rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [start, &rest].concat();
        match parse(&bytes) {
            Ok(Progress::Done { consumed, .. }) => {
                prop_assert!(consumed <= bytes.len() && consumed <= HEADER_BYTES_MAX);
                // More bytes change nothing.
                let longer = [bytes.as_slice(), b"x"].concat();
                prop_assert_eq!(parse(&longer), parse(&bytes));
            }
            Ok(Progress::Incomplete) => prop_assert!(bytes.len() < HEADER_BYTES_MAX),
            Err(refusal) => {
                let longer = [bytes.as_slice(), b"x"].concat();
                prop_assert_eq!(parse(&longer), Err(refusal));
            }
        }
    }

    #[test]
    fn every_pair_of_addresses_survives_both_versions(
        source: std::net::SocketAddrV4,
        destination: std::net::SocketAddrV4,
    ) {
        let expected = |consumed| Ok(done(&source.to_string(), &destination.to_string(), consumed));
        let line = format!(
            "PROXY TCP4 {} {} {} {}\r\n",
            source.ip(), destination.ip(), source.port(), destination.port()
        );
        prop_assert_eq!(parse(line.as_bytes()), expected(line.len()));
        let mut block = [source.ip().octets(), destination.ip().octets()].concat();
        block.extend([source.port().to_be_bytes(), destination.port().to_be_bytes()].concat());
        prop_assert_eq!(parse(&v2(0x21, 0x11, &block)), expected(28));
    }
}
