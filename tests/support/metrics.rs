//! What `/metrics` says, by series.

use std::collections::BTreeMap;

use super::Proxy;

/// One scrape, in the classic format.
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Scrapes.
    #[track_caller]
    pub fn of(proxy: &Proxy) -> Self {
        let page = proxy.get("/metrics");
        assert_eq!(page.status, 200, "{page:?}");
        Self::parse(page.text())
    }

    /// Reads a page.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|it| !it.starts_with('#'));
        let series = lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        });
        Self(series.collect())
    }

    /// The value of a series as it is written: `name{label="value"}`.
    #[track_caller]
    pub fn value(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("no {series}"))
    }

    /// The sum of all series of a name in whose labels these texts stand.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let of = |it: &&String| {
            let (stem, rest) = it.split_once('{').unwrap_or((it, ""));
            stem == name && labels.iter().all(|label| rest.contains(label))
        };
        self.0.keys().filter(of).map(|it| self.0[it]).sum()
    }

    /// The names of all series, without labels.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|it| it.split('{').next().unwrap_or_default())
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
