//! An outage costs the origin one attempt for each key and interval, wherever the stale entry is.

mod support;

use support::{Origin, Setup, answer};

/// The entry is only in the second tier: `/cache/expire` has dropped it from memory and marked the
/// row. Four requests used to be four attempts, since the look-up went on to the origin without
/// asking the hub whether it had failed lately.
#[test]
fn stale_entry_of_the_second_tier_is_served_without_an_attempt_for_each_request() {
    let origin = Origin::respond(|request| match request.field("if-none-match") {
        None => answer(200, &[("Cache-Control", "max-age=60"), ("ETag", "\"a\"")], "kept"),
        Some(_) => answer(503, &[], "down"),
    });
    let proxy = Setup::over(&origin).start();
    assert_eq!(proxy.get("/api/v1/x").text(), "kept");
    assert_eq!(proxy.ask("POST", "/cache/expire?path=/v1/x", &[]).status, 200);
    for _ in 0..4 {
        let response = proxy.get("/api/v1/x");
        assert_eq!((response.status, response.text()), (200, "kept"));
        assert_eq!(response.cache(), "STALE");
    }
    assert_eq!(origin.count(), 2, "one to fill, one that failed");
}
