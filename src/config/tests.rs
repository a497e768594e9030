use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::row::{Preset, Shape};

mod hostile;

/// A parse of `text` in a world of these variables and files.
fn parse_in(
    text: &str,
    environment: &[(&str, &str)],
    files: &[(&str, &str)],
    overrides: &[Override],
) -> Result<Parsed, Faults> {
    let environment: BTreeMap<_, _> = environment.iter().copied().collect();
    let files: BTreeMap<_, _> = files.iter().copied().collect();
    parse(&Sources {
        text: Some(text),
        environment: &|name| environment.get(name).map(|it| (*it).to_owned()),
        read_file: &|path: &Path| {
            let found = files.get(path.to_str().unwrap_or_default());
            found.map(|it| (*it).to_owned()).ok_or_else(|| "No such file or directory".to_owned())
        },
        home: Some(Path::new("/home/u")),
        overrides,
    })
}

fn good(text: &str) -> Parsed {
    parse_in(text, &[], &[], &[]).unwrap_or_else(|faults| panic!("{text}: {faults}"))
}

/// The faults of `text` as lines.
fn bad(text: &str) -> Vec<String> {
    let faults = parse_in(text, &[], &[], &[]).expect_err(text);
    faults.faults.iter().map(ToString::to_string).collect()
}

fn argument(path: &str, node: Node) -> Override {
    Override { path: path.to_owned(), node, flag: format!("--{path}") }
}

#[test]
fn every_default_is_of_its_type_and_within_its_range() {
    // Each field alone, as text: a default that its own reading refuses shows as a fault.
    for row in rows().filter(|row| !row.path.contains('[')) {
        let text = match row.path.split_once('.') {
            Some((group, name)) => format!("{{{group:?}: {{{name:?}: {}}}}}", row.preset.node()),
            None => format!("{{{:?}: {}}}", row.path, row.preset.node()),
        };
        let parsed = good(&text);
        assert_eq!(parsed.settings, good("{}").settings, "{}", row.path);
        assert!(parsed.notes.is_empty(), "{}: {:?}", row.path, parsed.notes);
    }
}

#[test]
fn the_ends_of_every_range_are_read_and_what_lies_beyond_is_not() {
    for row in rows().filter(|row| !row.path.contains('[')) {
        let Shape::Whole { min, max, .. } = row.shape else { continue };
        let text = |number: u64| {
            let (group, name) = row.path.split_once('.').unwrap();
            format!("{{{group:?}: {{{name:?}: {number}}}}}")
        };
        for number in [min, max] {
            // Quotas have a relation of their own between rate and burst.
            if !row.path.contains("rate_limit") {
                good(&text(number));
            }
        }
        let fault = bad(&text(max + 1)).join("\n");
        assert!(fault.starts_with(&format!("{}: expected a whole number", row.path)), "{fault}");
        if min > 0 {
            assert_eq!(bad(&text(min - 1)).len(), 1, "{}", row.path);
        }
    }
}

#[test]
fn rows_are_complete_and_unique() {
    let mut paths = std::collections::BTreeSet::new();
    for row in rows() {
        assert!(paths.insert(row.path), "{} twice", row.path);
        assert!(row.meaning.len() > 5 && row.meaning.ends_with('.'), "{}: meaning", row.path);
        let number = matches!(row.shape, Shape::Whole { .. });
        assert!(number || row.unit.is_empty(), "{}: a unit of no number", row.path);
    }
    for row in rows().filter(|row| row.is_secret()) {
        let file = format!("{}_file", row.path);
        assert!(paths.contains(file.as_str()), "{} has no file sibling", row.path);
        assert!(!matches!(row.preset, Preset::Text(text) if !text.is_empty()), "{}", row.path);
    }
}

#[test]
fn all_faults_are_reported_at_once_with_path_and_remedy() {
    let faults = bad(r#"{"server": {"port": 70000, "read_timeout": "15"},
            "cache": {"ttl": -1, "backend": "redis"}, "entry_point": "ftp://x",
            "security": {"rate_limit_burst": 0, "block_private_ips": "true"}}"#);
    let expected = [
        "server.port: expected a whole number from 0 to 65535, found 70000; write at most 65535",
        "server.read_timeout: expected a whole number of seconds, at least 0, found the string \
         \"15\"; write 15 without quotes",
        "cache.backend: expected one of \"sqlite\", \"postgres\", \"none\", found the string \
         \"redis\"; write for example \"sqlite\", the default",
        "cache.ttl: expected a whole number of seconds, at least 0, found -1; write at least 0",
        "security.rate_limit_burst: expected a whole number from 1 to 1000000, found 0; write at \
         least 1",
        "security.block_private_ips: expected true or false, found the string \"true\"; write true \
         without quotes",
        "entry_point: \"ftp://x\" is no URL of an upstream; only `http://` and `https://` \
         upstreams can be reached",
    ];
    assert_eq!(faults, expected);
}

#[test]
fn wrong_types_are_named_with_what_was_found() {
    let table = [
        (r#"{"server": 3}"#, "server: expected an object, found 3;"),
        (r#"{"server": {"host": {}}}"#, "server.host: expected a string, found an object;"),
        (r#"{"cache": {"methods": "GET"}}"#, "found the string \"GET\"; put [ ] around it"),
        (r#"{"cache": {"ttl": 1.5}}"#, "found 1.5; round it: 2"),
        (r#"{"cache": {"ttl": 1e300}}"#, "write at least 0"),
        (r#"{"offline_endpoints": [1]}"#, "item 0: expected a string, found 1;"),
        (r#"{"routes": {}}"#, "routes: expected a list of objects, found an object;"),
        (r#"{"routes": [1]}"#, "routes[0]: expected an object, found 1;"),
        (r#"{"client": {"retry_budget": 1.5}}"#, "expected a number from 0 to 1, found 1.5;"),
        ("[]", "(file): expected an object, found a list;"),
        ("{\"a\": }", "line 1, column 7: not valid JSON"),
    ];
    for (text, expected) in table {
        let faults = bad(text);
        assert_eq!(faults.len(), 1, "{text}: {faults:?}");
        assert!(faults[0].contains(expected), "{text}: {faults:?}");
    }
}

#[test]
fn relations_between_fields_are_checked() {
    let table = [
        (r#"{"cache": {"backend": "postgres"}}"#, "cache.postgres_dsn"),
        (r#"{"cache": {"postgres_dsn": "postgres://u@h:x/d"}}"#, "cache.postgres_dsn"),
        (r#"{"server": {"host": "a b"}}"#, "server.host"),
        (r#"{"server": {"api_prefix": "api"}}"#, "server.api_prefix"),
        (r#"{"server": {"api_prefix": "/cache/x"}}"#, "server.api_prefix"),
        (r#"{"client": {"ca_file": "/nope"}}"#, "client.ca_file"),
        (r#"{"whitelisted_endpoints": ["v1/*"]}"#, "whitelisted_endpoints"),
        (r#"{"offline_endpoints": ["/a/*/b"]}"#, "offline_endpoints"),
        (r#"{"security": {"trusted_proxies": ["10.0.0.0/8", "10.0.0.0/33"]}}"#, "trusted_proxies"),
        (r#"{"security": {"allowed_upstream_hosts": ["other.example"]}}"#, "entry_point"),
        (r#"{"security": {"allowed_upstream_hosts": ["https://x"]}}"#, "allowed_upstream_hosts"),
        (r#"{"security": {"metrics_auth_enabled": true}}"#, "security.metrics_auth_token"),
        (r#"{"security": {"admin_token": "a b"}}"#, "security.admin_token"),
        (r#"{"api_key": "a\r\nX: y"}"#, "api_key"),
        (r#"{"entry_point": "http://127.0.0.1:1"}"#, "--allow-private-upstream"),
        (r#"{"entry_point": "http://[::ffff:10.0.0.1]"}"#, "--allow-private-upstream"),
        (r#"{"entry_point": "http://localhost:3000"}"#, "--allow-private-upstream"),
        (r#"{"routes": [{"prefix": "/a", "entry_point": "http://10.0.0.1"}]}"#, "routes[0].entry"),
        (r#"{"routes": [{"entry_point": "https://b.example"}]}"#, "routes[0].prefix"),
        (r#"{"routes": [{"prefix": "/a"}, {"prefix": "/a/"}]}"#, "routes[1].prefix"),
        (r#"{"cache": {"methods": ["DELETE"]}}"#, "cache.methods"),
        (r#"{"cache": {"path": "~bob/x"}}"#, "cache.path"),
        (r#"{"security": {"headers": {"A b": "x"}}}"#, "security.headers"),
        (r#"{"security": {"headers": {"X-A": "x\r\ny"}}}"#, "security.headers"),
        (r#"{"security": {"headers": {"Content-Length": "1"}}}"#, "security.headers"),
        (r#"{"security": {"client_api_keys": ["sha256:12"]}}"#, "security.client_api_keys"),
        (r#"{"security": {"client_api_keys": ["a", "a"]}}"#, "security.client_api_keys"),
    ];
    for (text, expected) in table {
        let faults = bad(text);
        assert_eq!(faults.len(), 1, "{text}: {faults:?}");
        assert!(faults[0].contains(expected), "{text}: {faults:?}");
    }
}

#[test]
fn private_upstreams_are_allowed_when_asked_for() {
    for url in ["http://127.0.0.1:1", "http://localhost", "http://10.1.2.3/base", "http://[::1]:8"]
    {
        let off = r#""security": {"block_private_ips": false}"#;
        let parsed = good(&format!(r#"{{"entry_point": {url:?}, {off}}}"#));
        assert_eq!(parsed.settings.upstreams.len(), 1);
        assert!(parsed.settings.ssrf.enabled && !parsed.settings.ssrf.block_private);
    }
    // Nobody's addresses stay refused.
    let faults =
        bad(r#"{"entry_point": "http://0.0.0.0", "security": {"block_private_ips": false}}"#);
    assert_eq!(faults.len(), 1, "{faults:?}");
}

#[test]
fn unknown_fields_are_noted_with_the_nearest_name_and_do_no_harm() {
    let table = [
        (r#"{"cache": {"tll": 1}}"#, "cache.tll", "`cache.ttl`"),
        (r#"{"sever": {"port": 1}}"#, "sever", "`server`"),
        (r#"{"ttl": 1}"#, "ttl", "`cache.ttl`"),
        (r#"{"routes": [{"prefix": "/a", "tll": 1}]}"#, "routes[0].tll", "`routes[0].ttl`"),
        (r#"{"frobnicate": 1}"#, "frobnicate", "ignored"),
        (r#"{"cache": {"ttl": 1, "ttl": 2}}"#, "cache.ttl", "more than once"),
    ];
    for (text, path, expected) in table {
        let parsed = good(text);
        assert_eq!(parsed.notes.len(), 1, "{text}: {:?}", parsed.notes);
        assert_eq!(parsed.notes[0].path, path);
        assert!(parsed.notes[0].text.contains(expected), "{text}: {}", parsed.notes[0]);
    }
    assert!(good(r#"{"$schema": "x", "_comment": "y", "cache": {"_": 1}}"#).notes.is_empty());
    let twice = good(r#"{"cache": {"ttl": 1, "sort_query": true}, "cache": {"ttl": 2}}"#).settings;
    assert_eq!((twice.cache.ttl, twice.cache.sort_query), (Duration::from_secs(2), false));
}

#[test]
fn older_names_are_mapped_where_the_newer_are_absent() {
    let parsed = good(
        r#"{"endpoint": "https://old.example", "daemon_host": "0.0.0.0", "daemon_port": 8080,
            "cache_backend": "postgres", "cache_path": "/x.db", "cache_ttl": 60,
            "postgres_dsn": "postgres://u@h/d", "user_id": "u", "tier": "pro", "plugins": []}"#,
    );
    let Settings { server, cache, endpoints, .. } = &parsed.settings;
    assert_eq!(endpoints.entry_point, "https://old.example");
    assert_eq!((server.host.as_str(), server.port), ("0.0.0.0", 8080));
    assert_eq!((cache.backend, cache.path.as_path()), (Backend::Postgres, Path::new("/x.db")));
    assert_eq!(cache.ttl, Duration::from_secs(60));
    assert_eq!(cache.postgres_dsn.expose(), "postgres://u@h/d");
    assert_eq!(parsed.notes.len(), 10, "{:?}", parsed.notes);
    let ttl = parsed.shown.iter().find(|it| it.path == "cache.ttl").unwrap();
    assert_eq!(ttl.origin, Origin::Older("cache_ttl".to_owned()));
}

#[test]
fn newer_names_win_over_older_ones_and_unset_older_ones_count_for_nothing() {
    let parsed =
        good(r#"{"cache_ttl": 60, "cache": {"ttl": 5}, "endpoint": "", "daemon_port": 0}"#);
    assert_eq!(parsed.settings.cache.ttl, Duration::from_secs(5));
    assert_eq!(parsed.settings.server.port, 9002);
    assert_eq!(parsed.settings.endpoints.entry_point, "https://api.apiproxy.app");
    assert_eq!(parsed.notes.len(), 1, "{:?}", parsed.notes);
    assert_eq!(bad(r#"{"daemon_port": "x"}"#).len(), 1);
    assert!(bad(r#"{"daemon_port": "x"}"#)[0].starts_with("daemon_port: "));
}

#[test]
fn null_and_meaningless_empty_strings_stand_for_the_default() {
    let text = r#"{"entry_point": "", "server": null,
        "cache": {"path": "", "ttl": null, "backend": ""},
        "whitelisted_endpoints": null, "routes": null, "security": {"headers": null}}"#;
    assert_eq!(good(text).settings, good("{}").settings);
}

#[test]
fn zero_means_no_limit_where_the_schema_says_so() {
    let parsed = good(
        r#"{"server": {"read_timeout": 0}, "security": {"rate_limit_per_ip": 0},
            "cache": {"max_disk_bytes": 0}, "client": {"max_conns_per_host": 0}}"#,
    );
    let Settings { server, cache, client, .. } = &parsed.settings;
    assert!(server.read_timeout > Duration::from_secs(86_400 * 365));
    assert!(cache.max_disk_bytes > 1 << 50);
    assert!(client.max_conns_per_host >= 1_000_000);
    assert_eq!(parsed.settings.address_quota, None);
    assert_eq!(parsed.settings.key_quota.map(|it| it.per_minute()), Some(300));
    assert_eq!(client.pace(), None);
}

#[test]
fn a_command_line_beats_the_environment_beats_the_file() {
    let text = r#"{"api_key": "in-file", "server": {"port": 1}}"#;
    let files = [("/secret", "from-argument\n")];
    let variables = [("APIPROXYD_API_KEY", "from-environment")];
    let key = |parsed: &Parsed| parsed.settings.endpoints.api_key.expose().to_owned();
    assert_eq!(key(&parse_in(text, &[], &files, &[]).unwrap()), "in-file");
    assert_eq!(key(&parse_in(text, &variables, &files, &[]).unwrap()), "from-environment");
    assert_eq!(key(&parse_in(text, &[("APIPROXYD_API_KEY", "")], &files, &[]).unwrap()), "in-file");
    let arguments = [
        argument("api_key_file", Node::Text("/secret".to_owned())),
        argument("server.port", Node::Whole(7)),
        argument("server.port", Node::Whole(8)),
    ];
    let parsed = parse_in(text, &variables, &files, &arguments).unwrap();
    assert_eq!(key(&parsed), "from-argument");
    assert_eq!(parsed.settings.server.port, 8);
    let back = [argument("server.port", Node::Whole(7)), argument("server.port", Node::Null)];
    assert_eq!(parse_in(text, &[], &[], &back).unwrap().settings.server.port, 9002);
}

#[test]
fn secrets_are_read_from_files_and_lists() {
    let text = r#"{"api_key_file": "~/key", "security": {"client_api_keys_file": "/keys"},
        "routes": [
            {"prefix": "/a", "entry_point": "https://a.example", "api_key_file": "/route"}]}"#;
    let files = [("/home/u/key", "  k1\n"), ("/keys", "# ours\nalpha\n\nbeta\n"), ("/route", "k2")];
    let settings = parse_in(text, &[], &files, &[]).unwrap().settings;
    assert_eq!(settings.endpoints.api_key.expose(), "k1");
    assert_eq!(settings.security.client_api_keys.0.len(), 2);
    assert_eq!(settings.upstreams[1].api_key.expose(), "k2");
    let variables = [("APIPROXYD_CLIENT_API_KEYS", "a, b,c,")];
    let listed = parse_in("{}", &variables, &[], &[]).unwrap().settings;
    assert_eq!(listed.security.client_api_keys.0.len(), 3);
    let faults = parse_in(r#"{"api_key_file": "/x", "api_key": "y"}"#, &[], &[], &[]).unwrap_err();
    assert_eq!(faults.faults.len(), 1, "{faults}");
    for (files, what) in [(&[][..], "cannot read"), (&[("/x", " \n")][..], "empty")] {
        let faults = parse_in(r#"{"api_key_file": "/x"}"#, &[], files, &[]).unwrap_err();
        assert!(faults.to_string().contains(what), "{faults}");
    }
}

#[test]
fn secrets_on_the_command_line_are_refused() {
    for row in rows().filter(|row| row.is_secret() && !row.path.contains('[')) {
        let argument = [argument(row.path, Node::Text("hunter2".to_owned()))];
        let faults = parse_in("{}", &[], &[], &argument).unwrap_err().to_string();
        assert!(faults.contains("process list") && !faults.contains("hunter2"), "{faults}");
    }
    let unknown = [argument("cache.tll", Node::Whole(1))];
    let faults = parse_in("{}", &[], &[], &unknown).unwrap_err().to_string();
    assert!(faults.contains("cache.ttl"), "{faults}");
}

#[test]
fn client_keys_are_hashed_and_may_have_a_quota() {
    // `printf %s abc | sha256sum`: FIPS 180-2 appendix B.1.
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let parsed = good(&format!(
        r#"{{"security": {{"client_api_keys": ["abc2", "sha256:{abc}",
            {{"key": "team", "name": "team-a", "per_minute": 600, "burst": 50}},
            {{"key": "free", "per_minute": 6}}]}}}}"#
    ));
    let keys = &parsed.settings.security.client_api_keys.0;
    assert_eq!(keys[1].digest[..4], [0xba, 0x78, 0x16, 0xbf]);
    let names: Vec<_> = keys.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["key-1", "key-2", "team-a", "key-4"]);
    let quotas: Vec<_> =
        keys.iter().map(|it| it.quota.map(|it| (it.per_minute(), it.burst()))).collect();
    assert_eq!(quotas, [Some((300, 10)), Some((300, 10)), Some((600, 50)), Some((6, 10))]);
    assert_eq!(bad(r#"{"security": {"client_api_keys": ["abc", {"key": "abc"}]}}"#).len(), 1);
    let off = good(r#"{"security": {"client_api_keys": ["a"], "rate_limit_enabled": false}}"#);
    assert_eq!(off.settings.security.client_api_keys.0[0].quota, None);
    assert_eq!((off.settings.address_quota, off.settings.key_quota), (None, None));
}

/// The ranges are those of the general fields, and no key hides the faults of another.
#[test]
fn rates_of_client_keys_have_the_general_range_and_all_faults_are_told() {
    let parsed = good(
        r#"{"security": {"rate_limit_per_key": 60, "client_api_keys": [
            {"key": "a", "per_minute": 0}, {"key": "b", "per_minute": 59000000},
            {"key": "c", "per_minute": 60000000}, {"key": "d", "burst": 500000},
            {"key": "e", "per_minute": 0, "burst": 5}]}}"#,
    );
    let keys = &parsed.settings.security.client_api_keys.0;
    let quotas: Vec<_> =
        keys.iter().map(|it| it.quota.map(|it| (it.per_minute(), it.burst()))).collect();
    assert_eq!(quotas[..3], [None, Some((59_000_000, 10)), None], "none: no limit");
    assert_eq!(quotas[4], None);
    let faults = bad(
        r#"{"security": {"client_api_keys": ["a b", "good", {"key": "x", "per_minute": 60000001},
            {"key": "y", "burst": 0}, {"name": "z"}, "good", {"key": "v", "burst": 1000001}]}}"#,
    );
    assert_eq!(faults.len(), 6, "{faults:?}");
    for (fault, item) in faults.iter().zip([0, 2, 3, 4, 5, 6]) {
        assert!(fault.contains(&format!("security.client_api_keys: item {item}: ")), "{fault}");
    }
}

#[test]
fn routes_inherit_and_share_upstreams() {
    let parsed = good(
        r#"{"entry_point": "https://main.example", "api_key": "general", "cache": {"ttl": 100},
            "routes": [
              {"prefix": "/b", "entry_point": "https://b.example/base", "ttl": 5,
               "methods": ["POST"]},
              {"prefix": "/b/c", "entry_point": "https://b.example/base", "ignore_query": true},
              {"prefix": "/own", "api_key": "own", "request_timeout": 3, "strip_prefix": true},
              {"prefix": "/same", "force_ttl": 9, "stale_if_error": 1}]}"#,
    );
    let settings = &parsed.settings;
    let urls: Vec<_> = settings
        .upstreams
        .iter()
        .map(|it| (it.upstream.to_string(), it.api_key.expose().to_owned()))
        .collect();
    let expected = [
        ("https://main.example", "general"),
        // The general key is for the general upstream alone.
        ("https://b.example/base", ""),
        ("https://main.example", "own"),
    ];
    let expected: Vec<_> =
        expected.map(|(url, key)| (url.to_owned(), key.to_owned())).into_iter().collect();
    assert_eq!(urls, expected);
    for (path, upstream, overrides) in
        [("/x", 0, 0), ("/b", 1, 1), ("/b/c/d", 1, 2), ("/own/x", 2, 3), ("/same", 0, 4)]
    {
        let route = settings.table.resolve(path.as_bytes()).unwrap().route;
        assert_eq!((route.upstream.0, route.overrides), (upstream, overrides), "{path}");
    }
    let policy = |index| settings.policy(index).unwrap();
    assert_eq!(policy(0).cache.ttl, Duration::from_secs(100));
    assert_eq!(policy(1).cache.ttl, Duration::from_secs(5));
    assert!(policy(1).cache.methods.post && !policy(1).cache.methods.get);
    assert!(policy(2).ignore_query && policy(2).cache.methods.get);
    assert_eq!(policy(3).request_timeout, Duration::from_secs(3));
    assert_eq!(policy(4).cache.force_ttl, Some(Duration::from_secs(9)));
    let resolved = settings.table.resolve(b"/own/x").unwrap();
    assert_eq!(resolved.path, b"/x");
    // The guard's list follows the upstreams.
    assert!(settings.ssrf.check_url("https", "b.example", 443).is_ok());
    assert!(settings.ssrf.check_url("https", "c.example", 443).is_err());
}

#[test]
fn a_route_for_everything_takes_the_general_ones_place() {
    for prefix in ["/", "//"] {
        let text = format!(
            r#"{{"routes": [{{"prefix": "{prefix}", "entry_point": "https://b.example"}}]}}"#
        );
        let settings = good(&text).settings;
        let route = settings.table.resolve(b"/x").unwrap().route;
        assert_eq!((route.upstream.0, route.overrides), (1, 1));
    }
}

#[test]
fn headers_are_laid_over_the_defaults() {
    let parsed = good(
        r#"{"security": {"headers": {"x-frame-options": "SAMEORIGIN", "X-XSS-Protection": "",
            "Referrer-Policy": null, "X-Own": "1"}}}"#,
    );
    let headers = &parsed.settings.security.headers.0;
    let value = |name: &str| headers.iter().find(|it| it.name == name).map(|it| it.value.as_str());
    assert_eq!(value("X-Frame-Options"), Some("SAMEORIGIN"));
    assert_eq!(value("X-XSS-Protection"), None);
    assert_eq!(value("Referrer-Policy"), Some("strict-origin-when-cross-origin"));
    assert_eq!(value("X-Own"), Some("1"));
    let tls_only: Vec<_> = headers.iter().filter(|it| it.tls_only).map(|it| &it.name).collect();
    assert_eq!(tls_only, ["Strict-Transport-Security"]);
}

#[test]
fn certificates_are_looked_into() {
    let text = r#"{"server": {"tls_enabled": true, "tls_cert_file": "/c", "tls_key_file": "/k"}}"#;
    let cert = ("/c", "-----BEGIN CERTIFICATE-----\n");
    let key = ("/k", "-----BEGIN EC PRIVATE KEY-----\n");
    assert!(parse_in(text, &[], &[cert, key], &[]).is_ok());
    let swapped = parse_in(text, &[], &[("/c", key.1), ("/k", cert.1)], &[]).unwrap_err();
    assert_eq!(swapped.faults.len(), 2, "{swapped}");
    assert_eq!(parse_in(text, &[], &[], &[]).unwrap_err().faults.len(), 2);
    let unnamed = bad(r#"{"server": {"tls_enabled": true}}"#);
    assert_eq!(unnamed.len(), 2, "{unnamed:?}");
    assert!(unnamed.iter().all(|it| it.contains("tls_enabled needs it")), "{unnamed:?}");
}

#[test]
fn without_a_home_only_what_needs_it_is_a_fault() {
    let parse_homeless = |text: &str| {
        parse(&Sources {
            text: Some(text),
            environment: &|_| None,
            read_file: &|_| Err("none".to_owned()),
            home: None,
            overrides: &[],
        })
    };
    let faults = parse_homeless("{}").unwrap_err();
    assert!(faults.to_string().starts_with("cache.path: "), "{faults}");
    assert!(parse_homeless(r#"{"cache": {"backend": "none"}}"#).is_ok());
    assert!(parse_homeless(r#"{"cache": {"path": "/x/y.db"}}"#).is_ok());
    assert_eq!(good("{}").settings.cache.path, Path::new("/home/u/.apiproxy/cache.db"));
}

#[test]
fn dangerous_switches_are_noted() {
    for text in [
        r#"{"whitelisted_endpoints": []}"#,
        r#"{"cache": {"backend": "none", "memory_cache_enabled": false}}"#,
        r#"{"security": {"ssrf_protection_enabled": false}}"#,
        r#"{"security": {"trusted_proxies": ["0.0.0.0/0"]}}"#,
        r#"{"security": {"proxy_protocol": true}}"#,
    ] {
        assert_eq!(good(text).notes.len(), 1, "{text}");
    }
    let behind = r#"{"security": {"proxy_protocol": true, "trusted_proxies": ["10.0.0.0/8"]}}"#;
    assert!(good(behind).notes.is_empty());
}

#[test]
fn what_show_prints_as_a_file_reads_back_as_the_same_settings() {
    let text = r#"{"server": {"cores": "0-1,3", "port": 1}, "cache": {"methods": ["GET", "QUERY"]},
        "routes": [
            {"prefix": "/a", "ttl": 5}, {"prefix": "/b", "entry_point": "https://b.example"}],
        "security": {"headers": {"X-A": "b"}}, "client": {"retry_budget": 0.5}}"#;
    let first = good(text);
    let again = good(&render::effective(&first.shown));
    assert_eq!(again.settings, first.settings);
    assert!(again.notes.is_empty(), "{:?}", again.notes);
}
