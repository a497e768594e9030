//! `apiproxyd demo`: an example API, the proxy in front of it, and calls to try.

mod origin;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use crate::cli::load::{Loader, plain};
use crate::cli::{failure, print, run, usage};
use crate::config::{Node, Override};

/// Starts both and serves until told to stop. The cache lives in a folder of this run.
pub(super) fn demo(port: u16) -> ExitCode {
    crate::server::hold_signals();
    let origin = match origin::start() {
        Ok(origin) => origin,
        Err(error) => return failure(format!("cannot start the example API: {}", plain(&error))),
    };
    let folder = std::env::temp_dir().join(format!("apiproxyd-demo-{}", std::process::id()));
    match Loader::bare(overrides(&format!("http://{origin}"), port, &folder)).load() {
        Ok(parsed) => {
            let code = run::run_then(parsed.settings, |url| {
                print(&introduction(&format!("http://{origin}"), url));
            });
            // Nothing in it is worth keeping; it may not even exist.
            let _ = std::fs::remove_dir_all(&folder);
            code
        }
        Err(error) => usage(error),
    }
}

fn overrides(origin: &str, port: u16, folder: &Path) -> Vec<Override> {
    let text = |it: &str| Node::Text(it.to_owned());
    let cache = folder.join("cache.db");
    [
        ("entry_point", text(origin)),
        ("server.port", Node::Whole(u64::from(port))),
        ("cache.path", text(&cache.to_string_lossy())),
        ("security.block_private_ips", Node::Flag(false)),
        // Enough for whoever holds the return key down.
        ("security.rate_limit_per_ip", Node::Whole(60_000)),
        ("security.rate_limit_burst", Node::Whole(1_000)),
    ]
    .into_iter()
    .map(|(path, node)| Override { path: path.to_owned(), node, flag: format!("demo: {path}") })
    .collect()
}

fn introduction(origin: &str, base: &str) -> String {
    let mut out = format!(
        "\nAn example API runs on {origin}; it takes 200 ms for an answer. \
         Try, in another terminal:\n\n"
    );
    for (path, meaning) in [
        ("/api/v1/weather?city=Oslo", "the first is a MISS in 200 ms, the second a HIT at once"),
        ("/api/v1/time", "no-store: never cached"),
        ("/api/v1/quote", "fresh for 5 s, then revalidated by its ETag"),
        ("/api/v1/status/503", "an error of the API"),
        ("/cache/stats", "what the cache did"),
    ] {
        let _ = writeln!(out, "  curl -i '{base}{path}'   # {meaning}");
    }
    out.push('\n');
    out
}
