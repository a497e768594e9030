//! Every metric: one row each, with name, unit, help and labels.
//!
//! A new counter or gauge of the cores is a row here and one increment in the shell; nothing else
//! changes. Names follow the Prometheus conventions: prefix `apiproxyd_`, base units, the unit last,
//! counters end in `_total`.

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

/// Whether the cores' values of a gauge are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Across {
    /// One series: the sum.
    Sum,
    /// One series for each core, with the label `core`.
    Each,
}

/// A counter family and its cells, each with the value of the family's only label, if it has one.
#[derive(Debug)]
pub struct CounterFamily {
    /// Name, unit, help, labels.
    pub row: Row,
    /// One series each.
    pub cells: &'static [(Counter, &'static str)],
}

/// A gauge family and its cells, as in [`CounterFamily`].
#[derive(Debug)]
pub struct GaugeFamily {
    /// Name, unit, help, labels.
    pub row: Row,
    /// Whether the cores' values are added up.
    pub across: Across,
    /// One series each.
    pub cells: &'static [(Gauge, &'static str)],
}

macro_rules! metrics {
    (
        counters { $($c_name:literal $c_unit:ident ($($c_label:literal)?) $c_help:literal
            => [$($counter:ident $($c_value:literal)?),+ $(,)?];)+ }
        gauges { $($g_name:literal $g_unit:ident ($($g_label:literal)?) $g_across:ident
            $g_help:literal => [$($gauge:ident $($g_value:literal)?),+ $(,)?];)+ }
        others { $($other:ident $o_name:literal $o_kind:ident $o_unit:ident
            ($($o_label:literal),*) $o_help:literal;)+ }
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

        /// A metric that is put together at a scrape, from several cells or from what the shell
        /// passes in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Derived {
            $(#[doc = concat!("`", $o_name, "`: ", $o_help)] $other,)+
        }

        impl Derived {
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
            across: Across::$g_across,
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
            "Bytes read from client connections." => [BytesReceived];
        "apiproxyd_client_sent_bytes_total" Bytes ()
            "Bytes written to client connections." => [BytesSent];
        "apiproxyd_tls_handshakes_total" Count ("result")
            "TLS handshakes with clients, by result." =>
            [TlsHandshakes "ok", TlsHandshakesFailed "failed"];
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
        "apiproxyd_upstream_received_bytes_total" Bytes ()
            "Bytes of response bodies read from upstreams." => [UpstreamBytesReceived];
        "apiproxyd_breaker_refused_total" Count ()
            "Requests that an open circuit breaker kept from an upstream." => [BreakerRefused];
        "apiproxyd_breaker_opened_total" Count ()
            "Times a circuit breaker opened." => [BreakerOpened];
        "apiproxyd_rate_limit_admitted_total" Count ("kind")
            "Requests admitted by the rate limiter, by the kind of limit they passed." =>
            [LimiterAdmitted "ip", LimiterAdmittedKey "key"];
        "apiproxyd_rate_limit_rejected_total" Count ("kind")
            "Requests rejected by the rate limiter, by the kind of limit." =>
            [LimiterRejectedIp "ip", LimiterRejectedKey "key"];
        "apiproxyd_panics_total" Count ()
            "Panics caught at the boundary of a connection or exchange; each is a bug." =>
            [Panics];
    }
    gauges {
        "apiproxyd_l1_entries" Count () Sum
            "Entries in the memory of the cores; one shared by several cores counts for each." =>
            [L1Entries];
        "apiproxyd_requests_in_flight" Count () Sum
            "Requests that wait for the store or an upstream." => [RequestsInFlight];
        "apiproxyd_upstream_connections" Count ("state") Sum
            "Connections to upstreams, by state." =>
            [UpstreamConnectionsActive "active", UpstreamConnectionsIdle "idle"];
    }
    others {
        Requests "apiproxyd_requests_total" Counter Count ("method", "status_class", "cache")
            "Requests answered, by method, status class and what the cache had to do with it.";
        RequestDuration "apiproxyd_request_duration_seconds" Histogram Seconds ("cache")
            "Time from a request's head to the end of its answer, by cache result. Hits answered at \
             once are not timed: they count in the lowest bucket and add nothing to the sum.";
        ResponseSize "apiproxyd_response_size_bytes" Histogram Bytes ()
            "Size of response bodies before framing and TLS.";
        SavedBytes "apiproxyd_cache_saved_bytes_total" Counter Bytes ()
            "Bytes of response bodies that came from the cache instead of an upstream.";
        Refusals "apiproxyd_refusals_total" Counter Count ("status")
            "Requests that the daemon refused before they were routed, by status.";
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
}
