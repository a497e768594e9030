//! Every metric: one row each, with name, unit, help and labels.
//!
//! A new counter or gauge of the cores is a row here and one increment in the shell; nothing else
//! changes. Names follow the Prometheus conventions: prefix `apiproxyd_`, base units, the unit
//! last, counters end in `_total`.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from zero at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by upper bounds.
    Histogram,
    /// Always 1; the labels say it all.
    Info,
}

/// What a metric's number is measured in; stands at the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// One metric family, as operators see it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The name in the classic text format, `_total` and `_info` included.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What it is measured in.
    pub unit: Unit,
    /// What it says, in one line.
    pub help: &'static str,
    /// Its labels, `le` of histograms left out.
    pub labels: &'static [&'static str],
}

/// A counter family and its cells, each with the value of the family's only label, if it has one.
#[derive(Debug)]
pub struct CounterFamily {
    /// Name, unit, help, labels.
    pub row: Row,
    /// One series each.
    pub cells: &'static [(Counter, &'static str)],
}

/// A gauge family and its cells, as in [`CounterFamily`]. The cores' values are added up.
#[derive(Debug)]
pub struct GaugeFamily {
    /// Name, unit, help, labels.
    pub row: Row,
    /// One series each.
    pub cells: &'static [(Gauge, &'static str)],
}

macro_rules! metrics {
    (
        counters { $($c_name:literal $c_unit:ident ($($c_label:literal)?) $c_help:literal
            => [$($counter:ident $($c_value:literal)?),+ $(,)?];)+ }
        gauges { $($g_name:literal $g_unit:ident ($($g_label:literal)?) $g_help:literal
            => [$($gauge:ident $($g_value:literal)?),+ $(,)?];)+ }
        $($set:ident $set_doc:literal { $($other:ident $o_name:literal $o_kind:ident $o_unit:ident
            ($($o_label:literal),*) $o_help:literal;)+ })+
    ) => {
        /// A counter that a core keeps.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Counter {
            $($(
                #[doc = concat!("`", $c_name, "`", $(" (`", $c_value, "`)",)? ": ", $c_help)]
                $counter,
            )+)+
        }

        impl Counter {
            /// Every counter, in the order of the enum.
            pub const ALL: &[Self] = &[$($(Self::$counter,)+)+];
        }

        /// A gauge that a core keeps.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Gauge {
            $($(
                #[doc = concat!("`", $g_name, "`", $(" (`", $g_value, "`)",)? ": ", $g_help)]
                $gauge,
            )+)+
        }

        impl Gauge {
            /// Every gauge, in the order of the enum.
            pub const ALL: &[Self] = &[$($(Self::$gauge,)+)+];
        }

        $(
            #[doc = $set_doc]
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
            pub enum $set {
                $(#[doc = concat!("`", $o_name, "`: ", $o_help)] $other,)+
            }

            impl $set {
                /// Every one, in the order of the enum.
                pub const ALL: &[Self] = &[$(Self::$other,)+];

                /// Name, kind, unit, help, labels.
                #[must_use]
                pub const fn row(self) -> Row {
                    match self {
                        $(Self::$other => Row {
                            name: $o_name,
                            kind: Kind::$o_kind,
                            unit: Unit::$o_unit,
                            help: $o_help,
                            labels: &[$($o_label),*],
                        },)+
                    }
                }
            }
        )+

        /// The families of [`Counter`].
        pub const COUNTERS: &[CounterFamily] = &[$(CounterFamily {
            row: Row {
                name: $c_name,
                kind: Kind::Counter,
                unit: Unit::$c_unit,
                help: $c_help,
                labels: &[$($c_label)?],
            },
            cells: &[$((Counter::$counter, concat!($($c_value)?)),)+],
        },)+];

        /// The families of [`Gauge`].
        pub const GAUGES: &[GaugeFamily] = &[$(GaugeFamily {
            row: Row {
                name: $g_name,
                kind: Kind::Gauge,
                unit: Unit::$g_unit,
                help: $g_help,
                labels: &[$($g_label)?],
            },
            cells: &[$((Gauge::$gauge, concat!($($g_value)?)),)+],
        },)+];
    };
}

metrics! {
    counters {
        "apiproxyd_connections_accepted_total" Count ()
            "Client connections accepted." => [ConnectionsAccepted];
        "apiproxyd_connections_closed_total" Count ()
            "Client connections that have ended." => [ConnectionsClosed];
        "apiproxyd_client_received_bytes_total" Bytes ()
            "Bytes read from client connections, inside TLS where there is TLS." => [BytesReceived];
        "apiproxyd_client_sent_bytes_total" Bytes ()
            "Bytes written to client connections, inside TLS where there is TLS." => [BytesSent];
        "apiproxyd_tls_handshakes_total" Count ("result")
            "TLS handshakes with clients, by result." =>
            [TlsHandshakes "ok", TlsHandshakesFailed "failed"];
        "apiproxyd_proxy_protocol_headers_total" Count ("result")
            "PROXY headers expected from load balancers, by what came: one with an address, one \
             without, none in time, none before the end, something else." =>
            [ProxyHeaders "ok", ProxyHeadersLocal "local", ProxyHeadersLate "timeout",
             ProxyHeadersMissing "closed", ProxyHeadersRefused "refused"];
        "apiproxyd_http2_connections_total" Count ()
            "Client connections that speak HTTP/2." => [Http2Connections];
        "apiproxyd_http1_refused_total" Count ()
            "HTTP/1 request heads and bodies refused as malformed or too large." => [H1Refused];
        "apiproxyd_l1_lookups_total" Count ("result")
            "Look-ups in the memory of the core, by result." => [L1Hits "hit", L1Misses "miss"];
        "apiproxyd_l1_insertions_total" Count ()
            "Entries put into the memory of a core." => [L1Insertions];
        "apiproxyd_l1_evictions_total" Count ()
            "Entries evicted from the memory of a core to keep its limits." => [L1Evictions];
        "apiproxyd_hub_hits_total" Count ()
            "Entries taken from another core instead of the store." => [HubHits];
        "apiproxyd_l2_lookups_total" Count ("result")
            "Look-ups in the store, by result; shed ones are misses." =>
            [L2Hits "hit", L2Misses "miss"];
        "apiproxyd_coalesced_requests_total" Count ()
            "Requests that shared the fetch of another." => [Coalesced];
        "apiproxyd_stale_served_total" Count ()
            "Answers served stale: while refreshing, instead of an error, or offline." =>
            [StaleServed];
        "apiproxyd_background_refreshes_total" Count ()
            "Fetches started behind an answer that was served stale." => [BackgroundRefreshes];
        "apiproxyd_uncacheable_responses_total" Count ()
            "Responses of origins that could not be stored." => [Uncacheable];
        "apiproxyd_purges_total" Count ()
            "Purges and clears asked for by operators." => [Purges];
        "apiproxyd_upstream_requests_total" Count ()
            "Requests sent to upstreams, retries included." => [UpstreamRequests];
        "apiproxyd_upstream_retries_total" Count ()
            "Requests sent to an upstream once more." => [Retries];
        "apiproxyd_upstream_connections_opened_total" Count ()
            "Connections opened to upstreams." => [UpstreamConnectionsOpened];
        "apiproxyd_requests_abandoned_total" Count ()
            "Requests whose client left before its answer was through; they count nowhere else." =>
            [RequestsAbandoned];
        "apiproxyd_upstream_pauses_total" Count ()
            "Answers that asked for a pause: Retry-After of 429 and 503, used-up RateLimit." =>
            [UpstreamPauses];
        "apiproxyd_upstream_paused_requests_total" Count ()
            "Requests kept from an upstream by its pace or a pause that it asked for." =>
            [UpstreamPausedRequests];
        "apiproxyd_breaker_refused_total" Count ()
            "Requests that an open circuit breaker kept from an upstream." => [BreakerRefused];
        "apiproxyd_breaker_changes_total" Count ("change")
            "Changes of the circuit breakers, by what they became." =>
            [BreakerOpened "opened", BreakerHalfOpened "half_opened", BreakerClosed "closed"];
        "apiproxyd_rate_limit_admitted_total" Count ("kind")
            "Requests admitted by the rate limiter, by the kind of limit they passed." =>
            [LimiterAdmitted "ip", LimiterAdmittedKey "key"];
        "apiproxyd_rate_limit_rejected_total" Count ("kind")
            "Requests rejected by the rate limiter, by the kind of limit." =>
            [LimiterRejectedIp "ip", LimiterRejectedKey "key"];
        "apiproxyd_request_bodies_shed_total" Count ()
            "Requests refused because request bodies had all the memory that they may have." =>
            [RequestBodiesShed];
        "apiproxyd_panics_total" Count ()
            "Panics caught at the boundary of a connection or exchange; each is a bug." =>
            [Panics];
    }
    gauges {
        "apiproxyd_l1_entries" Count ()
            "Entries in the memory of the cores; one shared by several cores counts for each." =>
            [L1Entries];
        "apiproxyd_requests_in_flight" Count ()
            "Requests that wait for the store or an upstream." => [RequestsInFlight];
    }
    Derived "A metric that a scrape puts together from several cells." {
        Requests "apiproxyd_requests_total" Counter Count ("method", "status_class", "cache")
            "Requests answered, by method, status class and what the cache had to do with it.";
        RequestDuration "apiproxyd_request_duration_seconds" Histogram Seconds ("cache")
            "Time from a request's head to the end of its answer, by cache result. Hits answered \
             at once are not timed: they count in the lowest bucket and add nothing to the sum.";
        ResponseSize "apiproxyd_response_size_bytes" Histogram Bytes ()
            "Size of response bodies before framing and TLS.";
        SavedBytes "apiproxyd_cache_saved_bytes_total" Counter Bytes ()
            "Bytes of response bodies that came from the cache instead of an upstream.";
        Refusals "apiproxyd_refusals_total" Counter Count ("status")
            "Requests that the daemon refused, whatever the upstream and the cache, by status.";
        HeadRefusals "apiproxyd_http1_refusal_reasons_total" Counter Count ("reason")
            "HTTP/1 refusals whose reason is known, by reason.";
        UpstreamFailures "apiproxyd_upstream_failures_total" Counter Count ("reason")
            "Exchanges with upstreams that failed, by reason.";
        CoreRequests "apiproxyd_core_requests_total" Counter Count ("core")
            "Requests answered by each core.";
        CoreConnections "apiproxyd_core_connections" Gauge Count ("core")
            "Client connections that each core has open.";
        LoopLag "apiproxyd_event_loop_lag_seconds" Gauge Seconds ("core")
            "How late the event loop of each core wakes: the worst of late, fading.";
    }
    Shared "A metric that the shell gathers from what the cores share." {
        BuildInfo "apiproxyd_build_info" Info Count ("version")
            "The version of the daemon.";
        RuntimeInfo "apiproxyd_runtime_info" Info Count ("driver", "store")
            "What the cores and the store run on.";
        Uptime "apiproxyd_uptime_seconds" Gauge Seconds ()
            "Time since the start of the process.";
        Cores "apiproxyd_cores" Gauge Count ()
            "Cores that serve clients.";
        L1Distinct "apiproxyd_l1_distinct_entries" Gauge Count ()
            "Entries in memory, each counted once, those on their way out included.";
        L1Bytes "apiproxyd_l1_bytes" Gauge Bytes ()
            "Memory that entries take: keys, heads, bodies and their encoded forms.";
        L1Limit "apiproxyd_l1_limit_bytes" Gauge Bytes ()
            "The limit of apiproxyd_l1_bytes.";
        RequestBodyBytes "apiproxyd_request_body_memory_bytes" Gauge Bytes ()
            "Memory that request bodies take which are held whole.";
        AccessLogDropped "apiproxyd_access_log_dropped_total" Counter Count ()
            "Lines of the access log dropped: its queue was full, or they could not be written.";
        LogDropped "apiproxyd_log_dropped_total" Counter Count ()
            "Lines of the daemon's own log dropped because its queue was full.";
        BreakerState "apiproxyd_breaker_state" Gauge Count ("upstream", "state")
            "The circuit breaker of an upstream: 1 for the state it is in, else 0.";
        BreakerFailures "apiproxyd_breaker_consecutive_failures" Gauge Count ("upstream")
            "Failures in a row that the circuit breaker of an upstream has seen.";
        Permits "apiproxyd_upstream_permits_taken" Gauge Count ("upstream")
            "Places for connections to an upstream that are taken.";
        PermitsMax "apiproxyd_upstream_permits" Gauge Count ("upstream")
            "Places for connections to an upstream.";
        UpstreamConnections "apiproxyd_upstream_connections" Gauge Count ("upstream", "state")
            "Connections to an upstream, by state.";
        UpstreamWaiting "apiproxyd_upstream_waiting_requests" Gauge Count ("upstream")
            "Requests that wait for a connection to an upstream, for all of its places are taken.";
        UpstreamReceived "apiproxyd_upstream_received_bytes_total" Counter Bytes ("upstream")
            "Bytes of response bodies read from an upstream.";
    }
    Stored "A metric of the store." {
        Up "apiproxyd_store_up" Gauge Count ("side")
            "Whether the store works: 1, or 0 while its last call on that side failed.";
        Heartbeat "apiproxyd_store_heartbeat_age_seconds" Gauge Seconds ()
            "Time since the storage thread last went round, about a second at most.";
        Queue "apiproxyd_store_queue_depth" Gauge Count ()
            "Commands that wait for the storage thread.";
        PutRows "apiproxyd_store_put_queue_rows" Gauge Count ()
            "Rows that wait to be written.";
        PutBytes "apiproxyd_store_put_queue_bytes" Gauge Bytes ()
            "Bytes of the rows that wait to be written.";
        Calls "apiproxyd_store_calls_total" Counter Count ("op")
            "Calls of the backend, each with a batch of items, by operation.";
        Items "apiproxyd_store_items_total" Counter Count ("op")
            "Look-ups, rows or purges in the calls of the backend, by operation.";
        Busy "apiproxyd_store_busy_seconds_total" Counter Seconds ("op")
            "Time spent in calls of the backend, by operation.";
        Errors "apiproxyd_store_errors_total" Counter Count ("op")
            "Calls of the backend that failed, by operation.";
        Unanswered "apiproxyd_store_lookups_unanswered_total" Counter Count ("reason")
            "Look-ups that the store did not answer; each was a miss.";
        PutsDropped "apiproxyd_store_puts_dropped_total" Counter Count ("reason")
            "Rows that were not written, by reason.";
        Removed "apiproxyd_store_rows_removed_total" Counter Count ("reason")
            "Rows removed from the store other than by a purge, by reason.";
        Repairs "apiproxyd_store_repairs_total" Counter Count ("kind")
            "Times the backend was opened again after a fault, its damaged file moved aside, or \
             its file of another format emptied.";
        RemotePurges "apiproxyd_store_remote_purges_total" Counter Count ()
            "Purges received from other instances.";
        Panics "apiproxyd_store_panics_total" Counter Count ()
            "Panics caught in the storage threads; each is a bug.";
        Rows "apiproxyd_store_rows" Gauge Count ()
            "Rows in the store, as last counted.";
        Bytes "apiproxyd_store_bytes" Gauge Bytes ()
            "Bytes that the store takes, as last measured.";
    }
}

/// Every row.
pub fn rows() -> impl Iterator<Item = Row> {
    let counters = COUNTERS.iter().map(|family| family.row);
    let gauges = GAUGES.iter().map(|family| family.row);
    let derived = Derived::ALL.iter().map(|it| it.row());
    let shared = Shared::ALL.iter().map(|it| it.row());
    let stored = Stored::ALL.iter().map(|it| it.row());
    counters.chain(gauges).chain(derived).chain(shared).chain(stored)
}
