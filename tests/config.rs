//! The promises of the configuration: names and defaults that users' files rely on, and an
//! example file that shows all of them.

use std::collections::BTreeMap;
use std::path::Path;

use apiproxyd::config::{Node, Parsed, Sources, parse, render, rows};

const EXAMPLE: &str = include_str!("../config.example.json");

fn sources() -> Sources<'static> {
    Sources {
        text: None,
        environment: &|_| None,
        read_file: &|_| Err("no files here".to_owned()),
        home: Some(Path::new("/home/u")),
        overrides: &[],
    }
}

fn parsed(text: &str) -> Parsed {
    let text = Some(text);
    parse(&Sources { text, ..sources() }).unwrap_or_else(|faults| panic!("{faults}"))
}

/// Leaves of a file by path; `security.headers` counts as one.
fn leaves(text: &str) -> BTreeMap<String, String> {
    let Node::Object(members) = Node::parse(text).unwrap() else { panic!("no object") };
    let mut leaves = BTreeMap::new();
    for (name, node) in members {
        match node {
            Node::Object(members) => {
                leaves.extend(
                    members.iter().map(|(it, node)| (format!("{name}.{it}"), node.to_string())),
                );
            }
            node => {
                leaves.insert(name, node.to_string());
            }
        }
    }
    leaves
}

#[test]
fn the_example_is_complete_and_equals_the_defaults() {
    assert_eq!(EXAMPLE, render::example(), "write it anew with `apiproxyd config init -`");
    let shown = leaves(EXAMPLE);
    for row in rows().filter(|row| !row.path.contains('[')) {
        assert_eq!(shown.get(row.path), Some(&row.preset.node().to_string()), "{}", row.path);
    }
    let example = parsed(EXAMPLE);
    assert_eq!(example.settings, parsed("{}").settings);
    assert!(example.notes.is_empty(), "{:?}", example.notes);
}

#[test]
fn promised_names_and_defaults_are_kept() {
    let shown = leaves(EXAMPLE);
    for (path, default) in PROMISED {
        assert_eq!(shown.get(*path).map(String::as_str), Some(*default), "{path}");
    }
}

/// Those of libpq, of which the driver knows three; and a trust anchor of one's own.
#[test]
fn every_sslmode_is_taken_and_no_other() {
    let dsn = |options: &str| {
        let dsn = format!("postgres://u:hunter2@db.test/cache?{options}");
        format!(r#"{{"cache":{{"backend":"postgres","postgres_dsn":"{dsn}"}}}}"#)
    };
    for mode in ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] {
        parsed(&dsn(&format!("sslmode={mode}&sslrootcert=/etc/ca.pem")));
    }
    let text = dsn("sslmode=sometimes");
    let refused = parse(&Sources { text: Some(&text), ..sources() }).unwrap_err().to_string();
    assert!(
        refused.contains("sslmode must be one of") && !refused.contains("hunter2"),
        "{refused}"
    );
}

#[test]
fn the_table_has_a_row_for_every_field() {
    let table = render::table();
    for row in rows() {
        let start = format!("| `{}` | ", row.name());
        let line = table.lines().find(|it| it.starts_with(&start) && it.contains(row.meaning));
        let line = line.unwrap_or_else(|| panic!("{} is missing", row.path));
        assert_eq!(line.matches(" | ").count(), 3, "{line}");
    }
}

#[test]
fn what_is_shown_names_every_field_once() {
    let shown = parsed("{}").shown;
    let names: Vec<_> = shown.iter().map(|it| it.path.as_str()).collect();
    let expected: Vec<_> = rows().map(|row| row.path).filter(|path| !path.contains('[')).collect();
    assert_eq!(names, expected);
}

/// What files of users already have.
const PROMISED: &[(&str, &str)] = &[
    ("server.host", "\"127.0.0.1\""),
    ("server.port", "9002"),
    ("server.read_timeout", "15"),
    ("server.write_timeout", "15"),
    ("server.idle_timeout", "60"),
    ("server.tls_enabled", "false"),
    ("server.tls_cert_file", "\"\""),
    ("server.tls_key_file", "\"\""),
    ("server.enable_http2", "true"),
    ("server.cores", "\"auto\""),
    ("server.api_prefix", "\"/api\""),
    ("server.driver", "\"auto\""),
    ("server.max_connections", "65536"),
    ("server.shutdown_timeout", "30"),
    ("entry_point", "\"https://api.apiproxy.app\""),
    ("api_key", "\"\""),
    ("offline_endpoints", "[]"),
    ("whitelisted_endpoints", "[\"/*\"]"),
    ("routes", "[]"),
    ("cache.backend", "\"sqlite\""),
    ("cache.path", "\"~/.apiproxy/cache.db\""),
    ("cache.postgres_dsn", "\"\""),
    ("cache.ttl", "86400"),
    ("cache.memory_cache_enabled", "true"),
    ("cache.memory_cache_size", "1000"),
    ("cache.memory_cache_max_bytes", "268435456"),
    ("cache.memory_cache_max_object", "4194304"),
    ("cache.max_open_conns", "25"),
    ("cache.max_idle_conns", "5"),
    ("cache.conn_max_lifetime", "300"),
    ("cache.conn_max_idle_time", "60"),
    ("cache.cleanup_interval", "3600"),
    ("cache.max_disk_bytes", "0"),
    ("cache.stale_if_error", "86400"),
    ("cache.stale_while_revalidate", "0"),
    ("cache.negative_ttl", "0"),
    ("cache.methods", "[\"GET\", \"HEAD\"]"),
    ("cache.sort_query", "false"),
    ("cache.compression_level", "6"),
    ("cache.compression_min_size", "1024"),
    ("security.rate_limit_enabled", "true"),
    ("security.rate_limit_per_ip", "60"),
    ("security.rate_limit_per_key", "300"),
    ("security.rate_limit_burst", "10"),
    ("security.max_request_body_size", "10485760"),
    ("security.max_response_body_size", "52428800"),
    ("security.ssrf_protection_enabled", "true"),
    ("security.allowed_upstream_hosts", "null"),
    ("security.block_private_ips", "true"),
    ("security.metrics_auth_enabled", "false"),
    ("security.metrics_auth_token", "\"\""),
    ("security.admin_token", "\"\""),
    ("security.client_api_keys", "[]"),
    ("security.require_json_body", "true"),
    ("security.trusted_proxies", "[]"),
    ("security.proxy_protocol", "false"),
    ("security.max_header_bytes", "65536"),
    ("client.request_timeout", "30"),
    ("client.dial_timeout", "10"),
    ("client.keep_alive", "30"),
    ("client.max_idle_conns", "100"),
    ("client.max_idle_conns_per_host", "10"),
    ("client.max_conns_per_host", "100"),
    ("client.idle_conn_timeout", "90"),
    ("client.circuit_breaker_enabled", "true"),
    ("client.circuit_breaker_threshold", "5"),
    ("client.circuit_breaker_timeout", "60"),
    ("client.circuit_breaker_half_open", "3"),
    ("client.deduplication_enabled", "true"),
    ("client.http2", "true"),
    ("client.ca_file", "\"\""),
    ("client.retry_budget", "0.2"),
];
