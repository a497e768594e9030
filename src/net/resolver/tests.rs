use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::net::runtime::testing::on_both;

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn addresses(last: u8) -> Arc<[IpAddr]> {
    Arc::new([ip(last)])
}

fn failed() -> ResolveError {
    ResolveError::Failed("no such name".into())
}

fn at(seconds: f64) -> Mono {
    Mono::START.plus(Duration::from_secs_f64(seconds))
}

/// The table with a log of what it answered.
struct Desk {
    table: Table,
}

impl Desk {
    fn new() -> Self {
        Self { table: Table::new(Settings::default()) }
    }

    fn ask(&mut self, now: f64) -> (Option<Job>, reply::Waiting) {
        let (reply, waiting) = reply::channel();
        (self.table.on_request("origin".into(), reply, at(now)), waiting)
    }

    fn known(last: u8, now: f64) -> Self {
        let mut desk = Self::new();
        let (job, _) = desk.ask(now);
        assert!(job.is_some());
        desk.table.on_answer("origin", Ok(addresses(last)), at(now));
        desk
    }
}

/// The answer, if it has come.
fn answer(mut waiting: reply::Waiting) -> Option<Answer> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match Future::poll(std::pin::Pin::new(&mut waiting), &mut cx) {
        std::task::Poll::Ready(answer) => Some(answer),
        std::task::Poll::Pending => None,
    }
}

#[test]
fn requests_for_one_name_share_one_lookup() {
    let mut desk = Desk::new();
    let (job, first) = desk.ask(0.0);
    assert_eq!(job, Some(Job("origin".into())));
    let (job, second) = desk.ask(0.1);
    assert_eq!(job, None);
    desk.table.on_answer("origin", Ok(addresses(1)), at(0.2));
    for waiting in [first, second] {
        assert_eq!(answer(waiting), Some(Ok(addresses(1))));
    }
}

#[test]
fn fresh_name_is_answered_without_a_lookup_and_an_expired_one_is_not() {
    let mut desk = Desk::known(1, 0.0);
    let (job, waiting) = desk.ask(9.9);
    assert_eq!((job, answer(waiting)), (None, Some(Ok(addresses(1)))));
    let (job, waiting) = desk.ask(10.0);
    assert!(job.is_some());
    assert_eq!(answer(waiting), None, "an expired name is looked up first");
}

#[test]
fn name_in_use_is_refreshed_before_it_expires() {
    let mut desk = Desk::known(1, 0.0);
    assert_eq!(desk.table.next_wake(at(1.0)), at(7.5));
    assert_eq!(desk.table.next_jobs(at(7.4)), []);
    assert_eq!(desk.table.next_jobs(at(7.5)), [Job("origin".into())]);
    assert_eq!(desk.table.next_jobs(at(7.6)), [], "one look-up at a time");
    let (_, waiting) = desk.ask(8.0);
    assert_eq!(answer(waiting), Some(Ok(addresses(1))), "nobody waits for the refresh");
    desk.table.on_answer("origin", Ok(addresses(2)), at(8.1));
    let (_, waiting) = desk.ask(8.2);
    assert_eq!(answer(waiting), Some(Ok(addresses(2))));
}

#[test]
fn idle_name_is_no_longer_refreshed_and_then_forgotten() {
    let mut desk = Desk::known(1, 0.0);
    let mut now = 0.0;
    let mut lookups = 0;
    while now < 1_000.0 {
        for Job(host) in desk.table.next_jobs(at(now)) {
            desk.table.on_answer(&host, Ok(addresses(1)), at(now));
            lookups += 1;
        }
        now += 0.5;
    }
    // In use for six lifetimes of 10 s, looked up every 7.5 s.
    assert_eq!(lookups, 7);
    assert!(desk.table.snapshot().is_empty());
}

#[test]
fn failure_is_remembered_for_a_second() {
    let mut desk = Desk::new();
    let (_, waiting) = desk.ask(0.0);
    desk.table.on_answer("origin", Err(failed()), at(0.5));
    assert_eq!(answer(waiting), Some(Err(failed())));
    let (job, waiting) = desk.ask(1.4);
    assert_eq!((job, answer(waiting)), (None, Some(Err(failed()))));
    let (job, _) = desk.ask(1.5);
    assert!(job.is_some());
}

#[test]
fn stale_addresses_serve_while_lookups_fail_but_not_for_ever() {
    let mut desk = Desk::known(1, 0.0);
    let mut now = 20.0;
    while now < 299.0 {
        let (job, waiting) = desk.ask(now);
        if job.is_some() {
            desk.table.on_answer("origin", Err(failed()), at(now));
        }
        assert_eq!(answer(waiting), Some(Ok(addresses(1))), "at {now} s");
        now += 0.7;
    }
    let (job, waiting) = desk.ask(301.0);
    assert!(job.is_some());
    desk.table.on_answer("origin", Err(failed()), at(301.0));
    assert_eq!(answer(waiting), Some(Err(failed())));
}

#[test]
fn stale_addresses_serve_while_a_lookup_stalls_but_not_for_ever() {
    let mut desk = Desk::known(1, 0.0);
    // Not in use any more: the next request starts a look-up, which hangs.
    let (job, waiting) = desk.ask(100.0);
    assert!(job.is_some());
    assert_eq!(desk.table.next_wake(at(100.0)), at(100.2));
    desk.table.on_time(at(100.1));
    assert_eq!(desk.table.next_wake(at(100.1)), at(100.2), "a look-up takes its time");
    desk.table.on_time(at(100.2));
    assert_eq!(answer(waiting), Some(Ok(addresses(1))));
    for now in [100.3, 150.0, 299.9] {
        let (job, waiting) = desk.ask(now);
        assert_eq!((job, answer(waiting)), (None, Some(Ok(addresses(1)))), "at {now} s");
    }
    let (job, waiting) = desk.ask(300.0);
    assert_eq!(job, None, "it is still under way");
    desk.table.on_time(at(301.0));
    desk.table.on_answer("origin", Ok(addresses(2)), at(302.0));
    assert_eq!(answer(waiting), Some(Ok(addresses(2))), "too old: waited to the end");
}

#[test]
fn new_name_waits_for_a_lookup_that_stalls() {
    let mut desk = Desk::new();
    let (_, waiting) = desk.ask(0.0);
    desk.table.on_time(at(4.0));
    desk.table.on_answer("origin", Ok(addresses(1)), at(5.0));
    assert_eq!(answer(waiting), Some(Ok(addresses(1))));
}

#[test]
fn known_name_is_answered_while_its_lookup_hangs() {
    on_both(|| async {
        let (go, gate) = bounded::<()>(1);
        let lookup = move |_: &str| {
            gate.recv().ok();
            Ok(vec![ip(1)])
        };
        let settings = Settings { ttl: Duration::from_millis(1), ..Settings::default() };
        let resolver = Resolver::start_with(settings, lookup).unwrap();
        go.send(()).unwrap();
        resolver.resolve("origin", 80).await.unwrap();
        for _ in 0..10 {
            monoio::time::sleep(Duration::from_millis(2)).await;
            let answer = resolver.resolve("origin", 80).await.unwrap();
            assert_eq!(answer[0].ip(), ip(1));
        }
        drop(go);
    });
}

#[test]
fn failing_refresh_is_repeated_no_faster_than_failures_are_forgotten() {
    let mut desk = Desk::known(1, 0.0);
    let (mut lookups, mut now) = (0, 7.0);
    while now < 10.0 {
        for Job(host) in desk.table.next_jobs(at(now)) {
            desk.table.on_answer(&host, Err(failed()), at(now));
            lookups += 1;
        }
        now += 0.01;
    }
    assert!((2..=3).contains(&lookups), "{lookups}");
}

#[test]
fn names_are_bounded_and_the_least_recently_used_makes_room() {
    let mut table = Table::new(Settings::default());
    let mut ask = |host: String, now: f64| {
        let (reply, waiting) = reply::channel();
        (table.on_request(host.into(), reply, at(now)).is_some(), answer(waiting))
    };
    for number in 0..table::NAMES_MAX {
        assert_eq!(ask(format!("host-{number}"), 0.0), (true, None));
    }
    // All are in flight: none can go.
    assert_eq!(ask("extra".into(), 1.0), (false, Some(Err(ResolveError::Busy))));
    table.on_answer("host-7", Ok(addresses(7)), at(2.0));
    let (reply, _waiting) = reply::channel();
    assert!(table.on_request("extra".into(), reply, at(3.0)).is_some());
    assert!(!table.snapshot().contains_key("host-7"));
}

#[test]
fn dropped_reply_answers_busy() {
    let (reply, waiting) = reply::channel();
    drop(reply);
    assert_eq!(answer(waiting), Some(Err(ResolveError::Busy)));
}

#[test]
fn only_names_reach_the_lookup() {
    for host in ["", "a b", "a\0b", "a/b", "host:80", "[::1", &"x".repeat(256)] {
        assert_eq!(canonical(host), Err(ResolveError::InvalidName), "{host:?}");
    }
    assert_eq!(canonical("API.Example.com."), Ok("api.example.com.".into()));
}

#[test]
fn literals_are_answered_without_a_lookup() {
    on_both(|| async {
        let lookup = |host: &str| panic!("looked up {host}");
        let resolver = Resolver::start_with(Settings::default(), lookup).unwrap();
        for (host, address) in
            [("192.0.2.1", "192.0.2.1:80"), ("[::1]", "[::1]:80"), ("::1", "[::1]:80")]
        {
            let answer = resolver.resolve(host, 80).await.unwrap();
            assert_eq!(*answer, [address.parse().unwrap()], "{host}");
        }
        assert_eq!(resolver.known("192.0.2.1"), None);
    });
}

#[test]
fn waiting_core_is_woken_by_the_lookup_thread_and_the_answer_kept() {
    on_both(|| async {
        let (go, gate) = bounded::<()>(0);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let lookup = move |host: &str| {
            counted.fetch_add(1, Ordering::SeqCst);
            gate.recv().unwrap();
            if host == "origin" { Ok(vec![ip(2), ip(1), ip(2)]) } else { Ok(vec![]) }
        };
        let resolver = Resolver::start_with(Settings::default(), lookup).unwrap();
        let mut waiters = Vec::new();
        for _ in 0..100 {
            let resolver = resolver.clone();
            waiters.push(monoio::spawn(async move { resolver.resolve("Origin", 443).await }));
        }
        // Let them ask before the look-up may end.
        monoio::time::sleep(Duration::from_millis(1)).await;
        std::thread::spawn(move || {
            go.send(()).unwrap();
            go.send(()).unwrap();
        });
        for waiter in waiters {
            let answer = waiter.await.unwrap();
            assert_eq!(*answer, [SocketAddr::new(ip(2), 443), SocketAddr::new(ip(1), 443)]);
        }
        assert_eq!(resolver.resolve("origin", 80).await.unwrap()[0].port(), 80);
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert_eq!(resolver.known("origin").as_deref(), Some(&[ip(2), ip(1)][..]));
        assert_eq!(resolver.known("unknown"), None);
        let error = resolver.resolve("empty", 80).await.unwrap_err();
        assert_eq!(error.as_str(), "resolve_failed");
    });
}

#[test]
fn origin_that_moves_is_followed() {
    on_both(|| async {
        let now_at = Arc::new(Mutex::new(ip(1)));
        let told = now_at.clone();
        let lookup = move |_: &str| Ok(vec![*told.lock().unwrap()]);
        let settings = Settings { ttl: Duration::from_millis(20), ..Settings::default() };
        let resolver = Resolver::start_with(settings, lookup).unwrap();
        let first = resolver.resolve("origin", 80).await.unwrap();
        assert_eq!(first[0].ip(), ip(1));
        *now_at.lock().unwrap() = ip(2);
        let start = std::time::Instant::now();
        while resolver.known("origin").as_deref() != Some(&[ip(2)]) {
            assert!(start.elapsed() < Duration::from_secs(10), "never followed");
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(resolver.resolve("origin", 80).await.unwrap()[0].ip(), ip(2));
    });
}

#[test]
fn system_lookup_knows_localhost() {
    on_both(|| async {
        let resolver = Resolver::start(Settings::default()).unwrap();
        let answer = resolver.resolve("localhost", 80).await.unwrap();
        assert!(answer.iter().all(|it| it.ip().is_loopback()) && !answer.is_empty());
    });
}
