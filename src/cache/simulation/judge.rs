//! What must hold of every answer from the store, worked out from what the origin meant.

use std::collections::HashMap;

use crate::base::Wall;
use crate::cache::reason::Reason;
use crate::cache::settings::Settings;
use crate::cache::simulation::Stored;
use crate::cache::simulation::origin::{Client, Truth};
use crate::cache::update::HeadUpdate;

/// How an answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Fresh,
    MaxStale,
    WhileRevalidate,
    OnError,
}

/// How often things happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub fresh: u64,
    pub max_stale: u64,
    pub while_revalidate: u64,
    pub on_error: u64,
    pub failed: u64,
    pub refused: u64,
    pub bypassed: u64,
    pub stored: u64,
    pub updated: u64,
    pub head_updated: u64,
    pub head_removed: u64,
    pub other_variant: u64,
    /// More than one stored response matched.
    pub several: u64,
    pub not_stored: HashMap<Reason, u64>,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.fresh += other.fresh;
        self.max_stale += other.max_stale;
        self.while_revalidate += other.while_revalidate;
        self.on_error += other.on_error;
        self.failed += other.failed;
        self.refused += other.refused;
        self.bypassed += other.bypassed;
        self.stored += other.stored;
        self.updated += other.updated;
        self.head_updated += other.head_updated;
        self.head_removed += other.head_removed;
        self.other_variant += other.other_variant;
        self.several += other.several;
        for (reason, count) in &other.not_stored {
            *self.not_stored.entry(*reason).or_default() += count;
        }
    }

    pub fn assert_everything_happened(&self) {
        let counts = [
            self.fresh,
            self.max_stale,
            self.while_revalidate,
            self.on_error,
            self.failed,
            self.refused,
            self.bypassed,
            self.stored,
            self.updated,
            self.head_updated,
            self.head_removed,
            self.other_variant,
            self.several,
        ];
        assert!(counts.iter().all(|count| *count >= 50), "{self:?}");
        for reason in [
            Reason::NoStore,
            Reason::Private,
            Reason::Authorization,
            Reason::SetCookie,
            Reason::VaryAny,
            Reason::PartUnusable,
            Reason::NoFreshness,
            Reason::NoValidator,
        ] {
            assert!(self.not_stored.contains_key(&reason), "{reason:?}: {self:?}");
        }
    }
}

/// Remembers what was served, and judges what is.
#[derive(Default)]
pub(super) struct Judge {
    pub counts: Counts,
    /// Contents up to this number were invalidated, for each URI.
    invalid_up_to: HashMap<usize, u64>,
    /// The last age served of each stored response, in milliseconds. An update makes another one
    /// of it: same content, later exchange.
    ages: HashMap<(u64, Wall), u128>,
}

impl Judge {
    pub fn invalidated(&mut self, uri: usize, up_to: u64) {
        self.invalid_up_to.insert(uri, up_to);
    }

    pub fn must_be_newer(&self, uri: usize, than: u64) {
        assert_eq!(self.invalid_up_to.get(&uri), Some(&than), "a change that invalidated nothing");
    }

    pub fn not_stored(&mut self, reason: Reason) {
        *self.counts.not_stored.entry(reason).or_default() += 1;
    }

    /// RFC 9111 section 4.3.5: only what tells the same of the content updates it, and only what
    /// tells another thing removes it.
    pub fn head_told(&mut self, stored: &Truth, head: &Truth, told: HeadUpdate) {
        let differ = |one: Option<u64>, other: Option<u64>| {
            one.zip(other).is_some_and(|(one, other)| one != other)
        };
        let secs = |truth: &Truth| truth.modified.map(Wall::as_secs);
        let other = differ(stored.etag, head.etag) || differ(secs(stored), secs(head));
        match told {
            HeadUpdate::Update => {
                self.counts.head_updated += 1;
                assert!(
                    head.status == 200 && stored.status == 200 && !other,
                    "{stored:?} {head:?}"
                );
            }
            HeadUpdate::Invalidate if head.status == 200 => {
                // A validator that the stored response lacks speaks of another one too.
                let more = (stored.etag.is_none() && head.etag.is_some())
                    || (stored.modified.is_none() && head.modified.is_some());
                self.counts.head_removed += 1;
                assert!(other || more, "{stored:?} {head:?}");
            }
            HeadUpdate::Invalidate => assert_eq!(head.status, 404),
            HeadUpdate::Ignore => assert!(head.status != 200 || stored.status != 200),
        }
    }

    /// Ages fall with the clock.
    pub fn clock_set_back(&mut self) {
        self.ages.clear();
    }

    /// RFC 9111 section 5.2.1.7.
    pub fn may_ask(&self, client: &Client) {
        assert!(!client.only_if_cached, "the origin was asked in spite of only-if-cached");
    }

    /// RFC 9111 section 4: of what is stored and matches, the one with the latest Date.
    pub fn newest<'t>(
        &mut self,
        client: &Client,
        stored: &Stored,
        others: impl Iterator<Item = &'t Truth>,
    ) {
        let matching = others.filter(|it| it.matches(client) && it.id != stored.truth.id);
        let dates: Vec<Wall> = matching.map(|it| it.date).collect();
        self.counts.several += u64::from(!dates.is_empty());
        for date in dates {
            assert!(date <= stored.truth.date, "an older one was served: {:?}", stored.truth);
        }
    }

    pub fn served(
        &mut self,
        client: &Client,
        stored: &Stored,
        how: How,
        settings: &Settings,
        now: Wall,
    ) {
        let truth = &stored.truth;
        judge_storing(truth);
        judge_variant(truth, client);
        judge_freshness(truth, client, how, settings, now);
        assert!(!stored.fields.contains("Age"));
        let hidden = truth.set_cookie || !stored.fields.contains("Set-Cookie");
        assert!(hidden, "a cookie came from nowhere");
        let invalid = self.invalid_up_to.get(&client.uri).copied().unwrap_or(0);
        assert!(truth.id > invalid, "an invalidated response was served");
        // The age told is the age there is, and grows.
        let age = stored.facts.age(now).as_millis();
        assert_eq!(age, age_of(truth, now), "{truth:?}");
        let before = self.ages.insert((truth.id, truth.exchange.responded), age).unwrap_or(0);
        assert!(age >= before, "age fell from {before} to {age}");
        *match how {
            How::Fresh => &mut self.counts.fresh,
            How::MaxStale => &mut self.counts.max_stale,
            How::WhileRevalidate => &mut self.counts.while_revalidate,
            How::OnError => &mut self.counts.on_error,
        } += 1;
    }
}

/// RFC 9111 sections 3, 3.5, 5.2.2 and 7.3.
fn judge_storing(truth: &Truth) {
    assert!(!truth.no_store && !truth.private && !truth.vary_any, "{truth:?}");
    assert_ne!(truth.status, 206, "a part was served as the whole");
    if truth.authorized {
        let shared = truth.public || truth.must_revalidate || truth.s_maxage.is_some();
        assert!(shared, "an authorized response was shared: {truth:?}");
    }
    if truth.set_cookie {
        assert!(truth.shares_cookie(), "a cookie was shared: {truth:?}");
    }
}

/// RFC 9111 section 4.1.
fn judge_variant(truth: &Truth, client: &Client) {
    assert!(truth.matches(client), "another's variant: {truth:?}");
}

/// RFC 9111 sections 4.2, 4.2.4 and 5.2.1, RFC 5861.
fn judge_freshness(truth: &Truth, client: &Client, how: How, settings: &Settings, now: Wall) {
    let age = age_of(truth, now);
    let lifetime = lifetime_of(truth, settings);
    let fresh = age < lifetime;
    let staleness = age.saturating_sub(lifetime);
    let context = format!("{how:?} age {age} lifetime {lifetime} {truth:?}");
    // Of what seems to come from the future nobody knows the age.
    let known = truth.exchange.responded <= now.plus(std::time::Duration::from_secs(60));
    assert!(known || (how == How::OnError && settings.offline), "{context}");
    assert!(!truth.no_cache, "{context}");
    assert!(!client.no_cache || (how == How::OnError && settings.offline), "{context}");
    if !fresh {
        assert!(!truth.must_revalidate && truth.s_maxage.is_none(), "{context}");
        assert!(truth.status < 500, "{context}");
    }
    if how != How::OnError {
        assert!(client.max_age.is_none_or(|limit| age <= millis(limit)), "{context}");
        let left = lifetime.saturating_sub(age);
        assert!(client.min_fresh.is_none_or(|span| left >= millis(span)), "{context}");
    }
    let within = |own: Option<u64>, set: std::time::Duration| {
        staleness < own.map_or(set.as_millis(), millis)
    };
    let max_stale = client.max_stale.is_some_and(|limit| staleness <= millis(limit));
    match how {
        How::Fresh => assert!(fresh, "{context}"),
        How::MaxStale => assert!(!fresh && max_stale, "{context}"),
        How::WhileRevalidate => {
            let window = within(truth.stale_while_revalidate, settings.stale_while_revalidate);
            assert!(!fresh && window, "{context}");
        }
        How::OnError => {
            let window = within(truth.stale_if_error, settings.stale_if_error);
            assert!(fresh || settings.offline || max_stale || window, "{context}");
        }
    }
}

/// RFC 9111 section 4.2.3, in milliseconds.
fn age_of(truth: &Truth, now: Wall) -> u128 {
    let (requested, responded) = (truth.exchange.requested, truth.exchange.responded);
    let by_clock = millis(responded.as_secs().saturating_sub(truth.date.as_secs()));
    let upstream = u128::from(responded.as_millis() - requested.as_millis());
    let resident = u128::from(now.as_millis().saturating_sub(responded.as_millis()));
    by_clock.max(millis(truth.age) + upstream) + resident
}

/// RFC 9111 section 4.2.1, in milliseconds.
fn lifetime_of(truth: &Truth, settings: &Settings) -> u128 {
    let success = truth.status == 200 || (truth.public && truth.status < 400);
    let configured = match truth.status {
        404 if !settings.negative_ttl.is_zero() => settings.negative_ttl.as_millis(),
        _ if success && !settings.ttl.is_zero() => settings.ttl.as_millis(),
        200 | 404 => share_since_change(truth),
        _ if truth.public => share_since_change(truth),
        _ => 0,
    };
    let expires =
        truth.expires.map(|expires| millis(expires.as_secs().saturating_sub(truth.date.as_secs())));
    let stated = truth.s_maxage.or(truth.max_age).map(millis).or(expires);
    stated.unwrap_or(configured)
}

/// RFC 9111 section 4.2.2: a tenth of the time since Last-Modified, at most a day.
fn share_since_change(truth: &Truth) -> u128 {
    let since = truth.modified.map(|it| truth.date.as_secs().saturating_sub(it.as_secs()));
    since.map_or(0, |since| (millis(since) / 10).min(millis(86_400)))
}

fn millis(seconds: u64) -> u128 {
    u128::from(seconds) * 1_000
}
