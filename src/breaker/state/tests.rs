use std::collections::HashSet;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(60);

fn settings(threshold: u32, half_open: u32) -> Settings {
    Settings { enabled: true, threshold, timeout: TIMEOUT, half_open }
}

fn at(seconds: u64) -> Mono {
    Mono::START.plus(Duration::from_secs(seconds))
}

/// A breaker that only one thread uses.
struct Bench {
    settings: Settings,
    state: State,
}

impl Bench {
    fn new(threshold: u32, half_open: u32) -> Self {
        Self { settings: settings(threshold, half_open), state: State::default() }
    }

    fn admit(&mut self, now: u64) -> Result<Token, Duration> {
        match self.state.decide(&self.settings, at(now)) {
            Decision::Pass(token) => Ok(token),
            Decision::Probe(token, next) => {
                self.state = next;
                Ok(token)
            }
            Decision::Refuse(wait) => Err(wait),
        }
    }

    fn succeed(&mut self, token: &Token) {
        self.state = self.state.after_success(token, &self.settings).unwrap_or(self.state);
    }

    fn fail(&mut self, token: &Token, retry_after: Option<u64>, now: u64) {
        let asked = retry_after.map(Duration::from_secs);
        let next = self.state.after_failure(token, asked, &self.settings, at(now));
        self.state = next.unwrap_or(self.state);
    }

    fn cancel(&mut self, token: &Token) {
        self.state = self.state.after_cancel(token).unwrap_or(self.state);
    }

    fn open(threshold: u32, half_open: u32) -> Self {
        let mut bench = Self::new(threshold, half_open);
        for _ in 0..threshold.max(1) {
            let token = bench.admit(0).unwrap();
            bench.fail(&token, None, 0);
        }
        assert_eq!(bench.state.position(), Position::Open);
        bench
    }
}

#[test]
fn failures_in_a_row_open_it_and_a_success_between_starts_over() {
    let mut bench = Bench::new(3, 1);
    for outcome in [false, false, true, false, false] {
        let token = bench.admit(0).unwrap();
        if outcome {
            bench.succeed(&token)
        } else {
            bench.fail(&token, None, 0)
        }
        assert_eq!(bench.state.position(), Position::Closed);
    }
    assert_eq!(bench.state.failures(), 2);
    let token = bench.admit(7).unwrap();
    bench.fail(&token, None, 7);
    assert_eq!(bench.admit(7), Err(TIMEOUT));
    assert_eq!(bench.admit(66), Err(Duration::from_secs(1)));
}

#[test]
fn a_threshold_or_probe_count_of_zero_counts_as_one() {
    let mut bench = Bench::open(0, 0);
    let probe = bench.admit(60).unwrap();
    assert!(bench.admit(60).is_err());
    bench.succeed(&probe);
    assert_eq!(bench.state.position(), Position::Closed);
}

#[test]
fn a_success_while_nothing_has_failed_makes_no_new_state() {
    let mut bench = Bench::new(5, 3);
    let token = bench.admit(0).unwrap();
    assert_eq!(bench.state.after_success(&token, &bench.settings), None);
}

#[test]
fn all_probes_must_succeed_to_close_it() {
    let mut bench = Bench::open(5, 3);
    let probes: Vec<_> = (0..3).map(|_| bench.admit(60).unwrap()).collect();
    assert_eq!(probes[0].change(), Some(Change::HalfOpened));
    assert_eq!(probes[1].change(), None);
    for probe in &probes {
        assert_eq!(bench.state.position(), Position::HalfOpen);
        assert_eq!(bench.admit(61), Err(PROBE_WAIT));
        bench.succeed(probe);
    }
    assert_eq!(bench.state.position(), Position::Closed);
    assert_eq!(bench.state.failures(), 0);
}

#[test]
fn one_failing_probe_opens_it_again_for_the_whole_time() {
    let mut bench = Bench::open(5, 3);
    let (first, second) = (bench.admit(60).unwrap(), bench.admit(60).unwrap());
    bench.fail(&first, None, 70);
    assert_eq!(bench.admit(70), Err(TIMEOUT));
    // The other probe belongs to an earlier generation now.
    bench.succeed(&second);
    assert_eq!(bench.admit(129), Err(Duration::from_secs(1)));
    assert!(bench.admit(130).is_ok());
}

#[test]
fn a_cancelled_probe_gives_its_place_back_once() {
    let mut bench = Bench::open(5, 1);
    let probe = bench.admit(60).unwrap();
    assert!(bench.admit(60).is_err());
    bench.cancel(&probe);
    let probe = bench.admit(60).unwrap();
    assert!(bench.admit(60).is_err());
    bench.fail(&probe, None, 61);
    bench.cancel(&probe);
    assert_eq!(bench.state.position(), Position::Open);
}

#[test]
fn reports_of_an_earlier_generation_change_nothing() {
    let mut bench = Bench::new(1, 1);
    let (first, late) = (bench.admit(0).unwrap(), bench.admit(0).unwrap());
    bench.fail(&first, None, 0);
    let open = bench.state;
    for _ in 0..2 {
        bench.succeed(&late);
        bench.fail(&late, Some(3_000), 1);
        bench.cancel(&late);
        assert_eq!(bench.state, open);
    }
    let _probe = bench.admit(60).unwrap();
    let half_open = bench.state;
    bench.succeed(&late);
    bench.fail(&late, None, 61);
    bench.cancel(&late);
    assert_eq!(bench.state, half_open);
}

#[test]
fn retry_after_lengthens_the_time_but_never_shortens_it() {
    // asked, expected (seconds)
    let rows = [(None, 60), (Some(0), 60), (Some(30), 60), (Some(90), 90), (Some(99_999), 3_600)];
    for (asked, expected) in rows {
        let mut bench = Bench::new(1, 1);
        let token = bench.admit(0).unwrap();
        bench.fail(&token, asked, 0);
        assert_eq!(bench.admit(0), Err(Duration::from_secs(expected)), "closed {asked:?}");
        let probe = bench.admit(expected).unwrap();
        bench.fail(&probe, asked, expected);
        assert_eq!(bench.admit(expected), Err(Duration::from_secs(expected)), "probe {asked:?}");
    }
}

/// What a thread of the interleaving test does with its permission.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum End {
    Success,
    Failure,
    Cancel,
}

/// One thread: load, compare-and-swap, and the same again for its report.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Thread {
    Start,
    Admitting { version: u32, token: (u64, Option<Change>), next: State },
    Holding { generation: u64, role: Role },
    Reporting { generation: u64, role: Role, version: u32, next: State },
    Done(Role),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Role {
    Refused,
    Ordinary,
    Probe,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    /// Stands for the pointer that is compared: no two states share one.
    version: u32,
    state: State,
    threads: Vec<Thread>,
}

struct Model {
    settings: Settings,
    now: Mono,
    ends: Vec<End>,
    seen: HashSet<World>,
    finals: HashSet<(State, Vec<Role>)>,
}

impl Model {
    fn explore(settings: Settings, start: State, ends: &[End]) -> Self {
        let threads = vec![Thread::Start; ends.len()];
        let world = World { version: 0, state: start, threads };
        let (seen, finals) = (HashSet::new(), HashSet::new());
        let mut model = Self { settings, now: at(60), ends: ends.to_vec(), seen, finals };
        let mut todo = vec![world];
        while let Some(world) = todo.pop() {
            if !model.seen.insert(world.clone()) {
                continue;
            }
            model.check(&world);
            let runnable = |thread: &Thread| !matches!(thread, Thread::Done(_));
            if !world.threads.iter().any(runnable) {
                let roles = world.threads.iter().map(|thread| match thread {
                    Thread::Done(role) => *role,
                    _ => unreachable!(),
                });
                model.finals.insert((world.state, roles.collect()));
            }
            for at in (0..ends.len()).filter(|at| runnable(&world.threads[*at])) {
                let mut next = world.clone();
                model.step(&mut next, at);
                todo.push(next);
            }
        }
        model
    }

    /// One atomic operation of one thread.
    fn step(&self, world: &mut World, at: usize) {
        let (state, version) = (world.state, world.version);
        let thread = world.threads[at].clone();
        world.threads[at] = match thread {
            Thread::Start => match state.decide(&self.settings, self.now) {
                Decision::Pass(token) => {
                    Thread::Holding { generation: token.generation, role: Role::Ordinary }
                }
                Decision::Refuse(_) => Thread::Done(Role::Refused),
                Decision::Probe(token, next) => {
                    let token = (token.generation, token.change);
                    Thread::Admitting { version, token, next }
                }
            },
            Thread::Admitting { version: expected, token, next } if expected == version => {
                (world.state, world.version) = (next, version + 1);
                Thread::Holding { generation: token.0, role: Role::Probe }
            }
            Thread::Admitting { .. } => Thread::Start,
            Thread::Holding { generation, role } => {
                match self.after(self.ends[at], &state, generation) {
                    None => Thread::Done(role),
                    Some(next) => Thread::Reporting { generation, role, version, next },
                }
            }
            Thread::Reporting { role, version: expected, next, .. } if expected == version => {
                (world.state, world.version) = (next, version + 1);
                Thread::Done(role)
            }
            Thread::Reporting { generation, role, .. } => Thread::Holding { generation, role },
            Thread::Done(_) => unreachable!(),
        };
    }

    fn after(&self, end: End, state: &State, generation: u64) -> Option<State> {
        let token = Token { generation, change: None };
        match end {
            End::Success => state.after_success(&token, &self.settings),
            End::Failure => state.after_failure(&token, None, &self.settings, self.now),
            End::Cancel => state.after_cancel(&token),
        }
    }

    /// In every reachable world the state knows exactly the probes that are out.
    fn check(&self, world: &World) {
        let Phase::HalfOpen { in_flight, succeeded } = world.state.phase else { return };
        let holds = |thread: &&Thread| {
            let generation = match thread {
                Thread::Holding { generation, .. } | Thread::Reporting { generation, .. } => {
                    *generation
                }
                _ => return false,
            };
            generation == world.state.generation
        };
        let out = world.threads.iter().filter(holds).count();
        assert_eq!(in_flight as usize, out, "{world:?}");
        assert!(in_flight + succeeded <= self.settings.half_open, "{world:?}");
    }
}

fn probes(roles: &[Role]) -> u32 {
    u32::try_from(roles.iter().filter(|role| **role == Role::Probe).count()).unwrap()
}

#[test]
fn in_every_interleaving_exactly_the_probes_pass_and_close_it() {
    for half_open in 1..=3 {
        let start = Bench::open(1, half_open).state;
        let model = Model::explore(settings(1, half_open), start, &[End::Success; 4]);
        assert!(model.seen.len() > 50, "the model did not run");
        for (state, roles) in &model.finals {
            assert_eq!(state.position(), Position::Closed);
            assert_eq!(probes(roles), half_open, "{roles:?}");
        }
    }
}

#[test]
fn in_every_interleaving_a_failing_probe_opens_it_and_nothing_is_lost() {
    use End::{Cancel, Failure, Success};
    for ends in
        [[Success, Failure, Cancel, Success], [Cancel; 4], [Failure, Failure, Cancel, Cancel]]
    {
        let start = Bench::open(1, 2).state;
        let model = Model::explore(settings(1, 2), start, &ends);
        assert!(model.seen.len() > 50, "the model did not run");
        for (state, roles) in &model.finals {
            match state.phase {
                // No probe is out any more.
                Phase::HalfOpen { in_flight, succeeded } => {
                    assert_eq!(in_flight, 0, "{roles:?}");
                    assert!(succeeded < 2);
                }
                Phase::Open { until } => assert_eq!(until, at(120), "{roles:?}"),
                Phase::Closed { .. } => {
                    // Two successes are needed, and both other ends come with a probe's place.
                    assert_eq!(ends.iter().filter(|end| **end == Success).count(), 2);
                }
            }
        }
    }
}

#[test]
fn in_every_interleaving_failures_in_a_row_are_counted_once_each() {
    let start = State::default();
    let model = Model::explore(settings(3, 1), start, &[End::Failure; 3]);
    assert!(!model.finals.is_empty());
    for (state, roles) in &model.finals {
        let all_passed = roles.iter().all(|role| *role == Role::Ordinary);
        assert!(all_passed && state.position() == Position::Open, "{state:?} {roles:?}");
    }
    let below = Model::explore(settings(4, 1), start, &[End::Failure; 3]);
    assert!(below.finals.iter().all(|(state, _)| state.failures() == 3));
}
