//! Who may ask an endpoint: anyone, whoever has its token, or whoever is on this machine.
//!
//! **Tokens** are compared as SHA-256 digests and in constant time, so that neither a part nor the
//! length of one can be found out. A wrong one costs its sender's address one of its quota, as a
//! guessed API key does, and one of a second quota of the same size that wrong tokens alone use up:
//! while that is empty no token of the address is looked at, so that a guess can't hide among
//! refusals, and whoever asks much of the API stays an operator.
//!
//! **This machine**, where no token is set: the socket, what PROXY protocol says and what trusted
//! proxies say must all be loopback; a request that a proxy passed on without saying for whom, or
//! that is not trusted with saying it, is nobody's. A browser on this machine runs pages of others:
//! what it sends for another origin's page is refused (Sec-Fetch-Site, Origin), as is a page of
//! this origin under a name that somebody's DNS could have pointed here.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use sha2::{Digest as _, Sha256};

use crate::admin::query;
use crate::http::{Authority, Fields};
use crate::limit::{Kind, Quota, Verdict, fields};
use crate::metrics::Counter;
use crate::net::mono;
use crate::proxy::error::Refusal;
use crate::proxy::gate::Standings;
use crate::proxy::{Core, Task};

/// Who may ask.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Everybody.
    Anyone,
    /// With `security.admin_token`; without one set, loopback peers.
    Operator,
    /// With `security.metrics_auth_token`, where that is enabled.
    Scraper,
}

/// Why somebody may not, and where their address stands with the limiter if that was asked.
pub struct Denied {
    /// Why.
    pub refusal: Refusal,
    /// Where it stands.
    pub standings: Standings,
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, standings: Standings::default() }
    }
}

impl Who {
    /// Whether the sender of a request is one of them.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(self, core: &Core, task: &Task) -> Result<(), Denied> {
        let security = &core.plan().settings.security;
        let fields = &task.head.fields;
        match self {
            Self::Anyone => Ok(()),
            Self::Operator if security.admin_token.is_empty() => Ok(on_this_machine(core, task)?),
            Self::Operator => {
                let presented: Vec<_> = bearer(fields).map(<[u8]>::to_vec).into_iter().collect();
                check_token(core, task, security.admin_token.expose(), &presented)
            }
            Self::Scraper if security.metrics_auth_enabled => {
                let presented = match bearer(fields) {
                    Some(token) => vec![token.to_vec()],
                    None => in_query(task),
                };
                check_token(core, task, security.metrics_auth_token.expose(), &presented)
            }
            Self::Scraper => Ok(()),
        }
    }
}

fn on_this_machine(core: &Core, task: &Task) -> Result<(), Refusal> {
    let fields = &task.head.fields;
    let is_trusted = core.plan().trusted_proxies.contains(task.peer.address);
    let is_local = task.peer.is_local()
        && task.client.to_canonical().is_loopback()
        && names_its_client(fields, is_trusted);
    let is_own_page = is_of_own_site(fields) && is_own_origin(fields, &task.head.authority);
    if is_local && is_own_page { Ok(()) } else { Err(Refusal::Forbidden) }
}

/// Whether no proxy stands between, or one that is trusted and says an address: one that says
/// `unknown`, or whose word does not count, has a client who may be anywhere.
fn names_its_client(fields: &Fields, is_trusted: bool) -> bool {
    let Some(list) = fields.combined("X-Forwarded-For") else {
        return !fields.contains("Forwarded");
    };
    let last = list.rsplit(|byte| *byte == b',').next().map(<[u8]>::trim_ascii);
    let last = last.and_then(|it| std::str::from_utf8(it).ok());
    let is_address = |it: &str| it.parse::<IpAddr>().is_ok() || it.parse::<SocketAddr>().is_ok();
    is_trusted && last.is_some_and(is_address)
}

/// What browsers say of the page that asks (W3C Fetch Metadata); other programs say nothing.
fn is_of_own_site(fields: &Fields) -> bool {
    let said = fields.combined("Sec-Fetch-Site");
    said.is_none_or(|it| matches!(&*it, b"same-origin" | b"none"))
}

/// Whether Origin is absent or names the host that is asked, by an address or as `localhost`.
fn is_own_origin(fields: &Fields, authority: &str) -> bool {
    let Some(origin) = fields.combined("Origin") else { return true };
    let schemes = [(&b"http://"[..], 80), (b"https://", 443)];
    let found = schemes.iter().find_map(|(it, port)| Some((origin.strip_prefix(*it)?, *port)));
    let Some((origin, port)) = found else { return false };
    let both = Authority::parse(origin).ok().zip(Authority::parse(authority.as_bytes()).ok());
    both.is_some_and(|(origin, own)| origin.same_as(&own, port) && is_fixed(&origin.host))
}

/// Whether no name server decides where this host is.
fn is_fixed(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok()
}

fn bearer(fields: &Fields) -> Option<&[u8]> {
    let (scheme, token) = fields.single("Authorization")?.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// `?token=`, as it was written and percent-decoded.
fn in_query(task: &Task) -> Vec<Vec<u8>> {
    let token = query::parameters(task).find(|(name, _)| *name == "token").map(|it| it.1);
    let raw = token.map(|it| it.as_bytes().to_vec());
    raw.into_iter().chain(token.and_then(query::decoded)).collect()
}

fn check_token(core: &Core, task: &Task, token: &str, presented: &[Vec<u8>]) -> Result<(), Denied> {
    let guesses = Guesses::of(core, task);
    if let Some(guesses) = &guesses {
        guesses.look()?;
    }
    let expected = Sha256::digest(token.as_bytes());
    let is_it = |it: &Vec<u8>| verify_slices_are_equal(&Sha256::digest(it), &expected).is_ok();
    if !token.is_empty() && presented.iter().any(is_it) {
        return Ok(());
    }
    let standings = match guesses.filter(|_| !presented.is_empty()) {
        Some(guesses) => guesses.take()?,
        None => Standings::default(),
    };
    Err(Denied { refusal: Refusal::TokenNeeded, standings })
}

/// The wrong tokens of an address, where addresses are limited.
struct Guesses<'c> {
    core: &'c Core,
    client: IpAddr,
    quota: &'c Quota,
}

impl<'c> Guesses<'c> {
    fn of(core: &'c Core, task: &Task) -> Option<Self> {
        let quota = core.plan().settings.address_quota.as_ref()?;
        Some(Self { core, client: task.client, quota })
    }

    /// Whether a token may be looked at.
    fn look(&self) -> Result<(), Denied> {
        let shared = &self.core.shared;
        let hash = Kind::hash_guesses(&shared.seed, self.client);
        self.judged(shared.limiter.peek(hash, self.quota, mono())).map(drop)
    }

    /// Counts a wrong one.
    fn take(&self) -> Result<Standings, Denied> {
        let shared = &self.core.shared;
        let (guesses, address) = (
            Kind::hash_guesses(&shared.seed, self.client),
            Kind::hash_address(&shared.seed, self.client),
        );
        let now = mono();
        let own = shared.limiter.check(guesses, self.quota, now);
        let of_address = shared.limiter.check(address, self.quota, now);
        self.judged(own)?;
        self.judged(of_address)
    }

    fn judged(&self, verdict: Verdict) -> Result<Standings, Denied> {
        match verdict {
            Verdict::Admitted(standing) => Ok(Standings { address: Some(standing), key: None }),
            Verdict::Rejected { retry_after } => {
                self.core.cells.inc(Counter::LimiterRejectedIp);
                let secs = u32::try_from(fields::retry_seconds(retry_after)).unwrap_or(u32::MAX);
                let standing = crate::limit::Standing { remaining: 0, reset_after: retry_after };
                Err(Denied {
                    refusal: Refusal::RateLimited(secs),
                    standings: Standings { address: Some(standing), key: None },
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        lines.iter().for_each(|(name, value)| fields.push(name, *value));
        fields
    }

    #[test]
    fn pages_of_other_origins_are_told_apart() {
        for (site, own) in [
            (None, true),
            (Some("none"), true),
            (Some("same-origin"), true),
            (Some("same-site"), false),
            (Some("cross-site"), false),
            (Some(""), false),
        ] {
            let lines: Vec<_> = site.map(|it| ("Sec-Fetch-Site", it)).into_iter().collect();
            assert_eq!(is_of_own_site(&fields(&lines)), own, "{site:?}");
        }
        for (origin, authority, own) in [
            ("http://127.0.0.1:9002", "127.0.0.1:9002", true),
            ("http://localhost:9002", "LOCALHOST:9002", true),
            ("http://[::1]:9002", "[::1]:9002", true),
            ("http://127.0.0.1", "127.0.0.1:80", true),
            ("https://localhost", "localhost", true),
            ("http://127.0.0.1:8000", "127.0.0.1:9002", false),
            ("http://evil.example", "127.0.0.1:9002", false),
            // A name of theirs that points here.
            ("http://evil.example:9002", "evil.example:9002", false),
            ("null", "127.0.0.1:9002", false),
            ("", "127.0.0.1:9002", false),
        ] {
            let lines = fields(&[("Origin", origin)]);
            assert_eq!(is_own_origin(&lines, authority), own, "{origin} at {authority}");
        }
        assert!(is_own_origin(&fields(&[]), "anything"));
    }
}
