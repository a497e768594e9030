//! Which CPUs serve: `"auto"`, a number, or a list such as `"0-3,6"`.

use std::fmt;

/// The cores that serve clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cores {
    /// One for each CPU this process may run on.
    #[default]
    Auto,
    /// This many, on the first CPUs this process may run on; 1 to [`CORES_MAX`].
    Count(usize),
    /// Exactly these CPUs, ascending, without repeats, never empty.
    List(Vec<usize>),
}

/// Most cores served, and one past the highest CPU number. Linux itself is built for at most
/// 8192 CPUs; every core costs a thread, a ring and a listener.
pub const CORES_MAX: usize = 1024;

impl Cores {
    /// Reads the text form.
    ///
    /// # Errors
    ///
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        if !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit()) {
            return Self::count(text.parse().unwrap_or(u64::MAX));
        }
        let mut list = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (cpu(first)?, cpu(last)?);
            if first > last {
                return Err(format!("the range {first}-{last} runs backwards"));
            }
            list.extend(first..=last);
        }
        list.sort_unstable();
        if list.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err("a CPU is listed twice".to_owned());
        }
        Ok(Self::List(list))
    }

    /// This many cores.
    ///
    /// # Errors
    ///
    /// When it is 0 or above [`CORES_MAX`].
    pub fn count(count: u64) -> Result<Self, String> {
        match usize::try_from(count) {
            Ok(count @ 1..=CORES_MAX) => Ok(Self::Count(count)),
            _ => Err(format!("{count} is not between 1 and {CORES_MAX}")),
        }
    }
}

fn cpu(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    match text.parse::<usize>() {
        Ok(cpu) if digits && cpu < CORES_MAX => Ok(cpu),
        _ => Err(format!("{text:?} is not a CPU number below {CORES_MAX}")),
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Count(count) => write!(f, "{count}"),
            // A list of one would read as a count.
            Self::List(list) if list.len() == 1 => {
                list.iter().try_for_each(|cpu| write!(f, "{cpu}-{cpu}"))
            }
            Self::List(list) => list.iter().enumerate().try_for_each(|(index, cpu)| {
                let gap = if index == 0 { "" } else { "," };
                write!(f, "{gap}{cpu}")
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_three_forms_are_read() {
        assert_eq!(Cores::parse("auto"), Ok(Cores::Auto));
        assert_eq!(Cores::parse(" 4 "), Ok(Cores::Count(4)));
        assert_eq!(Cores::parse("0-3,6"), Ok(Cores::List(vec![0, 1, 2, 3, 6])));
        assert_eq!(Cores::parse("6, 0-1"), Ok(Cores::List(vec![0, 1, 6])));
        assert_eq!(Cores::parse("2-2"), Ok(Cores::List(vec![2])));
    }

    #[test]
    fn every_malformation_is_refused() {
        for text in [
            "", "0", "1025", "-1", "1-", "-", ",", "0,", "3-1", "1,1", "0-3,2", "x", "0-9999",
            "1 2", "+1,2",
        ] {
            assert!(Cores::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(
            list in proptest::collection::btree_set(0..CORES_MAX, 1..20),
        ) {
            let cores = Cores::List(list.into_iter().collect());
            prop_assert_eq!(Cores::parse(&cores.to_string()), Ok(cores));
        }

        #[test]
        fn no_text_panics(text in "[-,0-9a ]{0,12}") {
            let _ = Cores::parse(&text);
        }
    }
}
