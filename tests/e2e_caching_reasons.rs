//! Every reason that Cache-Status can give, reached from outside: what the origin says, what the
//! clients ask, and the last answer's `detail`.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

#[path = "support/store.rs"]
mod store_support;
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use apiproxyd::base::{Seed, Wall};
use apiproxyd::cache::key::Class;
use apiproxyd::cache::{Entry, Facts, Key, KeyWriter, Ledger, LifetimeSource, Reason, record};
use apiproxyd::http::Fields;
use apiproxyd::store::{self, StoreHandle};
use store_support::Desk;
use support::client::request;
use support::{Gate, Origin, Response, Setup, answer};

type Lines = &'static [(&'static str, &'static str)];

/// What the origin does with one request.
#[derive(Clone)]
enum Turn {
    Answer(Vec<u8>),
    /// Sends this and closes.
    Cut(Vec<u8>),
}

/// One request: method, fields, body.
type Ask = (&'static str, Lines, &'static str);

struct Row {
    reason: Reason,
    settings: Vec<(&'static str, serde_json::Value)>,
    turns: Vec<Turn>,
    asks: Vec<Ask>,
}

const GET: Ask = ("GET", &[], "");
const BODY: &str = "body";

/// The origin plays the turns in order, whatever is asked; the last one for ever.
fn origin_of(turns: Vec<Turn>) -> Origin {
    let turn = AtomicUsize::new(0);
    Origin::script(move |connection| {
        while connection.request().is_some() {
            let at = turn.fetch_add(1, Ordering::SeqCst).min(turns.len() - 1);
            match &turns[at] {
                Turn::Answer(bytes) => {
                    connection.send(bytes);
                }
                Turn::Cut(bytes) => {
                    connection.send(bytes);
                    connection.close();
                }
            }
        }
    })
}

fn says(status: u16, fields: &[(&str, &str)]) -> Turn {
    Turn::Answer(answer(status, fields, BODY))
}

fn kept(cache_control: &str) -> Turn {
    says(200, &[("Cache-Control", cache_control), ("ETag", "\"a\"")])
}

fn detail(response: &Response) -> Option<&str> {
    let status = response.field("Cache-Status")?;
    status.split("; ").find_map(|it| it.strip_prefix("detail="))
}

#[track_caller]
fn play(row: &Row) {
    let origin = origin_of(row.turns.clone());
    let setup = Setup::over(&origin).with("client.circuit_breaker_enabled", false);
    let setup = row.settings.iter().fold(setup, |it, (path, value)| it.with(path, value.clone()));
    let proxy = setup.start();
    let mut last = None;
    for (method, fields, body) in &row.asks {
        let mut client = proxy.connect();
        client.send(request(method, "/api/x", fields, body));
        last = Some(client.read(method));
    }
    let last = last.unwrap();
    assert_eq!(detail(&last), Some(row.reason.as_str()), "{:?}: {last:?}", row.reason);
    proxy.stop();
}

macro_rules! row {
    ($reason:ident, [$($turn:expr),*], [$($ask:expr),*] $(, $path:literal = $value:expr)*) => {
        Row {
            reason: Reason::$reason,
            settings: vec![$(($path, serde_json::json!($value))),*],
            turns: vec![$($turn),*],
            asks: vec![$($ask),*],
        }
    };
}

const HOUR: &str = "max-age=3600";

/// RFC 9111 sections 3, 4 and 5.2.1, RFC 9110 section 13.1: what the request says.
fn in_the_request() -> Vec<Row> {
    const JSON: (&str, &str) = ("Content-Type", "application/json");
    vec![
        row!(MethodNotCached, [kept(HOUR)], [("DELETE", &[], "")]),
        row!(Precondition, [kept(HOUR)], [("GET", &[("If-Match", "\"a\"")], "")]),
        row!(
            BodyNotCanonical,
            [kept(HOUR)],
            [("POST", &[JSON], "{\"a\":1,\"a\":2}")],
            "cache.methods" = ["GET", "POST"]
        ),
        row!(MarkedUncacheable, [kept("no-store")], [GET, GET]),
        row!(RequestNoStore, [kept(HOUR)], [("GET", &[("Cache-Control", "no-store")], "")]),
        row!(RequestNoCache, [kept(HOUR)], [GET, ("GET", &[("Cache-Control", "no-cache")], "")]),
        row!(RequestNoCache, [kept(HOUR)], [GET, ("GET", &[("Pragma", "no-cache")], "")]),
        row!(RequestMaxAge, [kept(HOUR)], [GET, ("GET", &[("Cache-Control", "max-age=0")], "")]),
        row!(
            RequestMinFresh,
            [kept(HOUR)],
            [GET, ("GET", &[("Cache-Control", "min-fresh=7200")], "")]
        ),
        row!(OnlyIfCached, [kept(HOUR)], [("GET", &[("Cache-Control", "only-if-cached")], "")]),
        row!(MaxStale, [kept("max-age=0")], [GET, ("GET", &[("Cache-Control", "max-stale")], "")]),
    ]
}

/// RFC 9111 sections 3 and 5.2.2: what the answer says.
fn in_the_answer() -> Vec<Row> {
    let wide: Vec<String> = (0..17).map(|it| format!("Field-{it}")).collect();
    let wide = wide.join(", ");
    let vary = |value| says(200, &[("Cache-Control", HOUR), ("Vary", value)]);
    let cookie = says(200, &[("Set-Cookie", "a=b")]);
    let part = says(206, &[("Cache-Control", HOUR), ("Content-Range", "bytes 0-3/9")]);
    let understand = says(299, &[("Cache-Control", "must-understand, max-age=3600")]);
    let fixed = [
        ("Cache-Control", "no-transform, max-age=3600"),
        ("Content-Encoding", "gzip"),
        ("Vary", "Accept-Encoding"),
    ];
    let fixed = says(200, &fixed);
    let gzip: Ask = ("GET", &[("Accept-Encoding", "gzip")], "");
    let bearer: Ask = ("GET", &[("Authorization", "Bearer x")], "");
    vec![
        row!(Stale, [kept("max-age=0")], [GET, GET]),
        row!(NoCache, [kept("no-cache")], [GET, GET]),
        row!(NoStore, [kept("no-store")], [GET]),
        row!(Private, [kept("private, max-age=3600")], [GET]),
        row!(Authorization, [kept(HOUR)], [bearer]),
        row!(SetCookie, [cookie], [GET]),
        row!(VaryAny, [vary("*")], [GET]),
        row!(VaryTooWide, [vary(&wide)], [GET]),
        row!(PartUnusable, [part.clone()], [GET]),
        row!(Partial, [part, kept(HOUR)], [("GET", &[("Range", "bytes=0-3")], ""), GET]),
        row!(ContentCoding, [fixed.clone(), fixed], [gzip, GET]),
        row!(Status, [says(401, &[("Cache-Control", HOUR)])], [GET]),
        row!(StatusNotUnderstood, [understand], [GET]),
        row!(NoFreshness, [says(500, &[])], [GET]),
        row!(NoValidator, [says(200, &[("Cache-Control", "s-maxage=0")])], [GET]),
        row!(
            ResponseTooLarge,
            [Turn::Answer(answer(200, &[], "x".repeat(2000)))],
            [GET],
            "cache.backend" = "none",
            "cache.memory_cache_max_object" = 1000
        ),
        row!(
            Incomplete,
            [
                kept("no-store"),
                Turn::Cut(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart".into())
            ],
            [GET, GET]
        ),
    ]
}

/// RFC 9111 section 4.2.4, RFC 5861.
fn for_and_against_stale() -> Vec<Row> {
    let gone = || Turn::Cut(Vec::new());
    let error = || says(503, &[]);
    vec![
        row!(StaleWhileRevalidate, [kept("max-age=0, stale-while-revalidate=60")], [GET, GET]),
        row!(StaleIfError, [kept("max-age=0, stale-if-error=60"), error()], [GET, GET]),
        row!(StaleIfError, [kept("max-age=0"), gone()], [GET, GET]),
        row!(Offline, [kept("max-age=0"), gone()], [GET, GET], "offline_endpoints" = ["/x"]),
        row!(StaleForbidden, [kept("max-age=0, must-revalidate"), gone()], [GET, GET]),
        row!(StaleTooOld, [kept("max-age=0"), gone()], [GET, GET], "cache.stale_if_error" = 0),
    ]
}

/// A fetch that a purge of its key overtakes is delivered and not stored; one that a purge of
/// another key overtakes is.
#[test]
fn fetch_is_stored_unless_its_own_key_was_purged_meanwhile() {
    for (purged, reason) in [("/api/x", Some("purged")), ("/api/other", None)] {
        let gate = Gate::default();
        let held = gate.clone();
        let origin = Origin::respond(move |asked| {
            if asked.method == "GET" {
                held.pass();
            }
            answer(200, &[("Cache-Control", "max-age=60")], BODY)
        });
        let proxy = Setup::over(&origin).start();
        let mut client = proxy.connect();
        client.send(request("GET", "/api/x", &[], ""));
        origin.await_requests(1);
        proxy.ask("DELETE", purged, &[]);
        gate.open();
        let response = client.read("GET");
        assert_eq!((response.text(), detail(&response)), (BODY, reason), "{purged}");
        let again = proxy.get("/api/x").cache().to_owned();
        assert_eq!(again == "HIT", reason.is_none(), "{purged}: {again}");
    }
}

/// The clock was set back since it was stored: nobody knows how old it is (RFC 9111 section
/// 4.2.3).
#[test]
fn answer_from_the_future_is_not_used_without_asking() {
    let origin = origin_of(vec![kept(HOUR)]);
    let setup = Setup::over(&origin);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    store_answer_of(Wall::from_secs(now + 7_200), &origin.url(), &setup.home().join("cache.db"));
    let proxy = setup.start();
    let response = proxy.get("/api/x");
    assert_eq!(detail(&response), Some(Reason::ClockSkew.as_str()), "{response:?}");
    assert_eq!(response.text(), BODY);
}

/// Puts an answer for `/x` that arrived at `arrival` into the second tier.
fn store_answer_of(arrival: Wall, upstream: &str, path: &Path) {
    let mut key = Vec::new();
    let _ = KeyWriter::new(&mut key, Class::Read, 0, b"/x", None).finish();
    let key = Key::new(&key, &Seed::fixed(1));
    let mut fields = Fields::new();
    fields.push("Content-Length", "6");
    let facts = Facts {
        response_time: arrival,
        date: arrival,
        initial_age: Duration::ZERO,
        lifetime: Duration::from_secs(3_600),
        stale_while_revalidate: None,
        stale_if_error: None,
        status: 200,
        lifetime_source: LifetimeSource::MaxAge,
        stale_forbidden: false,
        no_cache: false,
        immutable: false,
        has_validator: false,
        shareable: true,
    };
    let digest = key.digest(upstream.as_bytes());
    let ledger = Arc::new(Ledger::new(1 << 20));
    let entry = Entry::new(key, facts, &fields, "future".into(), &ledger);
    let settings = store::Settings { path: path.to_owned(), ..store::Settings::default() };
    let desk = Desk::new(StoreHandle::open(&settings).unwrap());
    desk.put(store::Row {
        digest,
        path: format!("{upstream} /x").into(),
        meta: record::encode(&entry).into(),
        body: "future".into(),
        stored_at: arrival,
        keep_until: Wall::FOREVER,
        expired_at: None,
    });
    desk.flush();
    desk.end();
}

#[test]
fn each_reason_is_given_where_it_holds() {
    // These have tests of their own, the last one in `e2e_memory.rs`.
    let mut reached = BTreeSet::from([Reason::Purged, Reason::ClockSkew, Reason::NoRoom]);
    for row in in_the_request().into_iter().chain(in_the_answer()).chain(for_and_against_stale()) {
        play(&row);
        reached.insert(row.reason);
    }
    let missing: Vec<_> = Reason::ALL.iter().filter(|it| !reached.contains(it)).collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
}
