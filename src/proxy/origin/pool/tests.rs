use std::future::Future;
use std::net::{TcpListener, TcpStream};
use std::pin::{Pin, pin};
use std::task::{Context, Waker};

use super::*;
use crate::net::runtime::{Driver, ENTRIES_DEFAULT, Runtime};
use crate::net::{Stream, Tcp};
use crate::proxy::origin::permits::{IdleEverywhere, WAITING_MAX};

fn permits(max: usize, idle_max: usize) -> Arc<Permits> {
    Permits::new(max, idle_max, IdleEverywhere::new(idle_max))
}

fn pool(core: usize, permits: &Arc<Permits>) -> Pool {
    Pool::new(core, Arc::clone(permits), Duration::from_secs(90), None)
}

fn now<T>(future: &mut Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Runs `work` in a runtime, with a maker of connections and the origin's ends of those it made.
fn with_lines(work: impl FnOnce(&mut dyn FnMut() -> (Rc<Line>, TcpStream))) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut runtime = Runtime::build(Driver::Epoll, ENTRIES_DEFAULT).unwrap();
    runtime.block_on(async {
        work(&mut || {
            let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let peer = ours.peer_addr().unwrap();
            let tcp = Tcp::from_std(ours, peer).unwrap();
            (Line::new(Stream::from(tcp)), listener.accept().unwrap().0)
        });
    });
}

fn addresses(ip: &str) -> Arc<[IpAddr]> {
    Arc::new([ip.parse().unwrap()])
}

fn new_place(pool: &Pool) -> Permit {
    match pool.try_acquire(Reuse::Any) {
        Some(Place::New(permit)) => permit,
        Some(Place::Kept(_)) | None => panic!("no place for a new connection"),
    }
}

fn is_kept(place: Option<Result<Place, Fault>>) -> bool {
    matches!(place, Some(Ok(Place::Kept(_))))
}

#[test]
fn a_returned_permit_goes_to_the_one_who_waits() {
    let permits = permits(1, 1);
    let (first, second) = (pool(0, &permits), pool(1, &permits));
    let permit = new_place(&first);
    assert!(second.try_acquire(Reuse::Any).is_none());
    let mut waiting = pin!(second.acquire(Reuse::Any, || {}));
    assert!(now(&mut waiting).is_none());
    assert_eq!(permits.waiting(), 1);
    drop(permit);
    assert!(matches!(now(&mut waiting), Some(Ok(Place::New(_)))));
}

#[test]
fn a_waiter_that_leaves_takes_its_place_in_the_queue_along() {
    let permits = permits(1, 1);
    let pool = pool(0, &permits);
    let permit = new_place(&pool);
    {
        let mut waiting = pin!(pool.acquire(Reuse::Any, || {}));
        assert!(now(&mut waiting).is_none());
    }
    assert_eq!(permits.waiting(), 0);
    drop(permit);
    assert_eq!(permits.open(), 0);
}

#[test]
fn nobody_overtakes_those_who_wait() {
    let permits = permits(1, 1);
    let pool = pool(0, &permits);
    let permit = new_place(&pool);
    let mut waiting = pin!(pool.acquire(Reuse::Any, || {}));
    assert!(now(&mut waiting).is_none());
    drop(permit);
    assert!(pool.try_acquire(Reuse::Any).is_none(), "the permit is free, and spoken for");
    assert!(now(&mut waiting).is_some());
}

/// Whoever comes later and is polled first used to take what the first had been woken for.
#[test]
fn the_first_of_two_who_wait_is_served_first() {
    let permits = permits(1, 1);
    let (here, there) = (pool(0, &permits), pool(1, &permits));
    let permit = new_place(&here);
    let mut first = pin!(there.acquire(Reuse::Any, || {}));
    assert!(now(&mut first).is_none());
    drop(permit);
    let mut second = pin!(here.acquire(Reuse::Any, || {}));
    assert!(now(&mut second).is_none(), "it stands behind");
    assert!(matches!(now(&mut first), Some(Ok(Place::New(_)))));
}

#[test]
fn a_queue_that_is_full_refuses() {
    let permits = permits(1, 1);
    let pool = pool(0, &permits);
    let _permit = new_place(&pool);
    let mut waiting: Vec<_> =
        (0..WAITING_MAX).map(|_| Box::pin(pool.acquire(Reuse::Any, || {}))).collect();
    assert!(waiting.iter_mut().all(|it| now(&mut it.as_mut()).is_none()));
    let mut refused = pin!(pool.acquire(Reuse::Any, || {}));
    assert!(matches!(now(&mut refused), Some(Err(Fault::Busy))));
}

#[test]
fn other_cores_are_asked_once_for_all_who_wait() {
    with_lines(|make| {
        let permits = permits(1, 1);
        let (here, there) = (pool(0, &permits), pool(1, &permits));
        let (line, _origin) = make();
        here.put(line, new_place(&here));
        let asked = std::cell::Cell::new(0);
        let ask = || asked.set(asked.get() + 1);
        let mut waiting: Vec<_> =
            (0..3).map(|_| Box::pin(there.acquire(Reuse::Any, ask))).collect();
        assert!(waiting.iter_mut().all(|it| now(&mut it.as_mut()).is_none()));
        assert_eq!(asked.get(), 1);
        here.yield_idle();
        let (line, _origin) = make();
        assert!(matches!(now(&mut waiting[0].as_mut()), Some(Ok(Place::New(_)))));
        drop(line);
    });
}

#[test]
fn a_connection_that_comes_back_goes_to_a_waiter_of_its_core() {
    with_lines(|make| {
        let permits = permits(1, 0);
        let pool = pool(0, &permits);
        let permit = new_place(&pool);
        let mut waiting = pin!(pool.acquire(Reuse::Recent, || {}));
        assert!(now(&mut waiting).is_none());
        let (line, _origin) = make();
        pool.put(line, permit);
        assert!(is_kept(now(&mut waiting)), "as it is, not dialled anew");
    });
}

#[test]
fn a_waiter_of_another_core_gets_the_place_of_a_connection_that_comes_back() {
    with_lines(|make| {
        let permits = permits(1, 1);
        let (here, there) = (pool(0, &permits), pool(1, &permits));
        let permit = new_place(&here);
        let mut waiting = pin!(there.acquire(Reuse::Any, || {}));
        assert!(now(&mut waiting).is_none());
        let (line, _origin) = make();
        here.put(line, permit);
        assert!(here.is_empty());
        assert!(matches!(now(&mut waiting), Some(Ok(Place::New(_)))));
    });
}

#[test]
fn an_idle_connection_is_closed_where_another_core_waits_for_its_place() {
    with_lines(|make| {
        let permits = permits(1, 1);
        let (here, there) = (pool(0, &permits), pool(1, &permits));
        let (line, _origin) = make();
        here.put(line, new_place(&here));
        here.yield_idle();
        assert_eq!(here.len(), 1, "nobody waits");
        let mut waiting = pin!(there.acquire(Reuse::Any, || {}));
        assert!(now(&mut waiting).is_none());
        here.yield_idle();
        assert_eq!((here.len(), permits.idle()), (0, 0));
        assert!(matches!(now(&mut waiting), Some(Ok(Place::New(_)))));
    });
}

#[test]
fn a_connection_that_was_closed_or_has_spoken_is_not_used_again() {
    with_lines(|make| {
        let permits = permits(9, 9);
        let pool = pool(0, &permits);
        let (first, second) = (make(), make());
        let places = [new_place(&pool), new_place(&pool)];
        for (line, place) in [first.0, second.0].into_iter().zip(places) {
            pool.put(line, place);
        }
        drop(first.1);
        std::io::Write::write_all(&mut &second.1, b"HTTP/1.1 408 Late\r\n\r\n").unwrap();
        let kept = pool.try_acquire(Reuse::Any);
        assert!(matches!(kept, Some(Place::New(_))));
        assert_eq!((pool.len(), permits.open(), permits.idle()), (0, 1, 0));
    });
}

#[test]
fn a_retry_gets_a_new_connection_even_where_idle_ones_hold_all_places() {
    with_lines(|make| {
        let permits = permits(1, 1);
        let pool = pool(0, &permits);
        let (line, _origin) = make();
        pool.put(line, new_place(&pool));
        let place = pool.try_acquire(Reuse::Never);
        assert!(matches!(place, Some(Place::New(_))));
        assert_eq!((pool.len(), permits.open()), (0, 1));
    });
}

#[test]
fn a_connection_that_leads_to_an_old_address_is_closed() {
    with_lines(|make| {
        let permits = permits(9, 9);
        let pool = pool(0, &permits);
        let (line, _origin) = make();
        pool.put(line, new_place(&pool));
        pool.sweep(Some(addresses("127.0.0.1")));
        assert_eq!(pool.len(), 1);
        pool.sweep(None);
        assert_eq!(pool.len(), 1, "what was known before holds");
        pool.sweep(Some(addresses("192.0.2.1")));
        assert_eq!((pool.len(), permits.open(), permits.idle()), (0, 0, 0));
    });
}

#[test]
fn a_pool_that_ends_gives_everything_back() {
    with_lines(|make| {
        let permits = permits(9, 9);
        let pool = pool(0, &permits);
        let (lines, places) = ([make(), make()], [new_place(&pool), new_place(&pool)]);
        for ((line, _origin), place) in lines.into_iter().zip(places) {
            pool.put(line, place);
        }
        assert_eq!((permits.open(), permits.idle()), (2, 2));
        drop(pool);
        assert_eq!((permits.open(), permits.idle()), (0, 0));
    });
}
