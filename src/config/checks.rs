//! Checks across fields, once each is known to be of its type and within its range.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use crate::config::node::quoted;
use crate::config::reader::{Reader, Sources};
use crate::config::resolved::Settings;
use crate::config::words::Backend;
use crate::route::Upstream;
use crate::ssrf::{Reach, Refusal};

/// Reports everything that single fields cannot show.
pub(super) fn check(settings: &Settings, reader: &mut Reader<'_>, sources: &Sources<'_>) {
    server(settings, reader);
    files(settings, reader, sources);
    cache(settings, reader);
    upstreams(settings, reader);
    secrets(settings, reader);
    notes(settings, reader);
}

fn server(settings: &Settings, reader: &mut Reader<'_>) {
    let server = &settings.server;
    let name = |it: u8| it.is_ascii_alphanumeric() || b"-._".contains(&it);
    if server.ip().is_none() && !server.host.bytes().all(name) {
        let what = format!("{} is no address", quoted(&server.host));
        report(
            reader,
            "server.host",
            what,
            "write for example \"127.0.0.1\", \"0.0.0.0\" or \"::\"",
        );
    }
    let prefix = server.api_prefix.as_str();
    let own = OWN_PATHS.iter().find(|own| {
        prefix.strip_prefix(**own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    if let Some(own) = own {
        let what = format!("{} is the daemon's own", quoted(own));
        report(reader, "server.api_prefix", what, "write for example \"/api\"");
    }
    if server.tls_enabled {
        for (path, file) in [
            ("server.tls_cert_file", &server.tls_cert_file),
            ("server.tls_key_file", &server.tls_key_file),
        ] {
            if file.as_os_str().is_empty() {
                let remedy = "name a PEM file, or set server.tls_enabled to false";
                report(reader, path, "server.tls_enabled needs it", remedy);
            }
        }
    }
}

/// Paths that the daemon answers itself.
const OWN_PATHS: &[&str] = &["/health", "/livez", "/readyz", "/metrics", "/cache"];

/// Files that are read at start, read here so that `check` finds what `run` would.
fn files(settings: &Settings, reader: &mut Reader<'_>, sources: &Sources<'_>) {
    let server = &settings.server;
    let tls = server.tls_enabled;
    for (path, file, wanted, label) in [
        ("server.tls_cert_file", &server.tls_cert_file, tls, "CERTIFICATE-----"),
        ("server.tls_key_file", &server.tls_key_file, tls, "PRIVATE KEY-----"),
        ("client.ca_file", &settings.client.ca_file, true, "CERTIFICATE-----"),
    ] {
        if !wanted || file.as_os_str().is_empty() {
            continue;
        }
        let remedy = "name a readable PEM file";
        let shown = quoted(&file.to_string_lossy());
        match (sources.read_file)(Path::new(file)) {
            Err(why) => report(reader, path, format!("cannot read {shown}: {why}"), remedy),
            Ok(text) if !text.contains(label) => {
                let what = format!("{shown} has no \"-----BEGIN ... {label}\" in it");
                report(reader, path, what, remedy);
            }
            Ok(_) => {}
        }
    }
}

fn cache(settings: &Settings, reader: &mut Reader<'_>) {
    let cache = &settings.cache;
    if cache.backend == Backend::Postgres && cache.postgres_dsn.is_empty() {
        let remedy = "write \"postgres://user@host/database\", or set $APIPROXYD_POSTGRES_DSN";
        report(reader, "cache.postgres_dsn", "backend \"postgres\" needs it", remedy);
    }
    if !cache.postgres_dsn.is_empty()
        && cache.postgres_dsn.expose().parse::<postgres::Config>().is_err()
    {
        let what = "not a PostgreSQL connection string";
        let remedy = "write \"postgres://user:password@host:5432/database?sslmode=require\"";
        report(reader, "cache.postgres_dsn", what, remedy);
    }
    if cache.backend == Backend::Sqlite && cache.path.starts_with("~") {
        let what = "the home directory is not known (HOME is not set)";
        let remedy = "write a whole path such as \"/var/cache/apiproxyd/cache.db\"";
        report(reader, "cache.path", what, remedy);
    }
}

/// What the guard would refuse at every request is refused at start.
fn upstreams(settings: &Settings, reader: &mut Reader<'_>) {
    let urls = settings.routes.iter().enumerate().filter_map(|(index, route)| {
        let url = route.entry_point.as_ref();
        url.map(|url| (format!("routes[{index}].entry_point"), url))
    });
    let first = ("entry_point".to_owned(), &settings.endpoints.entry_point);
    for (path, url) in std::iter::once(first).chain(urls) {
        let Ok(upstream) = Upstream::parse(url) else { continue };
        let host = upstream.host();
        let checked = settings.ssrf.check_url(upstream.scheme().as_str(), host, upstream.port());
        // RFC 6761 section 6.3: the one name whose address is known without asking.
        let local = settings.ssrf.enabled
            && settings.ssrf.block_private
            && (host == "localhost" || host.ends_with(".localhost"));
        match checked {
            Ok(()) if local => report(reader, &path, private(host), ALLOW_PRIVATE),
            Ok(()) => {}
            Err(Refusal::Address(class)) if class.reach() == Reach::Private => {
                report(reader, &path, private(host), ALLOW_PRIVATE);
            }
            Err(Refusal::HostNotAllowed) => {
                if reader.is_sound("security.allowed_upstream_hosts") {
                    let what =
                        format!("{} is not in security.allowed_upstream_hosts", quoted(host));
                    report(reader, &path, what, "add it there, or remove that list");
                }
            }
            Err(refusal) => {
                let what = format!("{}: {refusal}", quoted(host));
                report(reader, &path, what, "write another URL");
            }
        }
    }
}

fn private(host: &str) -> String {
    format!(
        "{} is not a public address and security.block_private_ips is on, so that every request \
         would be refused",
        quoted(host)
    )
}

const ALLOW_PRIVATE: &str =
    "start with --allow-private-upstream, or set security.block_private_ips to false";

fn secrets(settings: &Settings, reader: &mut Reader<'_>) {
    let security = &settings.security;
    let general = [
        ("api_key".to_owned(), &settings.endpoints.api_key),
        ("security.metrics_auth_token".to_owned(), &security.metrics_auth_token),
        ("security.admin_token".to_owned(), &security.admin_token),
    ];
    let routes = settings.routes.iter().enumerate().filter_map(|(index, route)| {
        route.api_key.as_ref().map(|key| (format!("routes[{index}].api_key"), key))
    });
    for (path, secret) in general.into_iter().chain(routes) {
        if !secret.expose().bytes().all(|it| it.is_ascii_graphic()) {
            let what = "it has white space or characters that no header may have";
            report(reader, &path, what, "write printable ASCII without spaces");
        }
    }
    if security.metrics_auth_enabled && security.metrics_auth_token.is_empty() {
        let remedy = "set it or $APIPROXYD_METRICS_AUTH_TOKEN, or turn that off";
        let what = "security.metrics_auth_enabled needs it";
        report(reader, "security.metrics_auth_token", what, remedy);
    }
}

/// What works, and is rarely meant.
fn notes(settings: &Settings, reader: &mut Reader<'_>) {
    let Settings { endpoints, cache, security, .. } = settings;
    if endpoints.whitelisted_endpoints.is_empty() {
        reader.note("whitelisted_endpoints", "empty: every request is refused");
    }
    if cache.backend == Backend::None && !cache.memory_cache_enabled {
        reader.note("cache", "both tiers are off: nothing is cached");
    }
    if cache.memory_cache_enabled && cache.memory_cache_max_bytes == 0 {
        reader.note("cache.memory_cache_max_bytes", "0: nothing fits into the first tier");
    }
    if !security.ssrf_protection_enabled {
        reader.note("security.ssrf_protection_enabled", "off: upstream addresses go unchecked");
    }
    if security.proxy_protocol && security.trusted_proxies.is_empty() {
        let text = "without security.trusted_proxies every peer's PROXY header is believed";
        reader.note("security.proxy_protocol", text);
    }
    // Documentation addresses (RFC 5737): only a network as wide as everything has all three.
    let strangers = [[192, 0, 2, 1], [198, 51, 100, 1], [203, 0, 113, 1]];
    let trusts = |it: [u8; 4]| security.trusted_proxies.contains(IpAddr::V4(Ipv4Addr::from(it)));
    if strangers.into_iter().all(trusts) {
        let text = "trusts everybody: any client can claim any address";
        reader.note("security.trusted_proxies", text);
    }
}

/// A fault at the place where the operator wrote the field; silent if it has one already.
fn report(reader: &mut Reader<'_>, path: &str, what: impl Into<String>, remedy: &str) {
    if reader.is_sound(path) {
        let at = reader.written_at(path);
        reader.fault(&at, what, remedy);
    }
}
