//! The schema's rows, and the macro that makes a settings group out of them.

use crate::config::node::Node;

/// One field of the configuration: what parse, `config init`, `config show`,
/// `config.example.json` and the README's table know about it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// JSON path: `cache.ttl`; `routes[].ttl` for a member of each route.
    pub path: &'static str,
    /// Type and range.
    pub shape: Shape,
    /// Value when nothing is given.
    pub preset: Preset,
    /// Unit of the number, empty for plain counts and for what is no number.
    pub unit: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// What it costs in memory, empty where it costs nothing worth knowing.
    pub memory: &'static str,
}

/// Type and range of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `true` or `false`.
    Flag,
    /// A whole number within `min..=max`.
    Whole {
        /// Least.
        min: u64,
        /// Greatest.
        max: u64,
        /// What a zero means.
        zero: Zero,
    },
    /// A number from 0 to 1.
    Share,
    /// A string; an empty one stands for the default.
    Text,
    /// A string that may be empty.
    TextOrEmpty,
    /// A file name in which a leading `~` is the home directory.
    Path,
    /// A string that is never printed; its `*_file` and environment siblings exist too.
    Secret,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of strings.
    List,
    /// [`Cores`](super::Cores).
    Cores,
    /// [`SecurityHeaders`](super::SecurityHeaders).
    Headers,
    /// [`ClientKeys`](super::ClientKeys): a secret list.
    Keys,
    /// A list of objects with fields of their own (`routes[].`).
    Objects,
}

/// What a zero means in a field of whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero {
    /// Zero.
    Zero,
    /// No limit: read as the greatest value of the range, so that nobody above needs a case.
    NoLimit,
}

/// Value of a field when nothing is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Preset {
    /// Nothing: derived from other fields, or inherited.
    Null,
    /// A flag.
    Flag(bool),
    /// A whole number.
    Whole(u64),
    /// A share.
    Real(f64),
    /// A string.
    Text(&'static str),
    /// A list of strings.
    List(&'static [&'static str]),
    /// An object of strings.
    Object(&'static [(&'static str, &'static str)]),
}

impl Preset {
    /// As JSON.
    #[must_use]
    pub fn node(&self) -> Node {
        let text = |it: &&str| Node::Text((*it).to_owned());
        match self {
            Self::Null => Node::Null,
            Self::Flag(flag) => Node::Flag(*flag),
            Self::Whole(number) => Node::Whole(*number),
            Self::Real(number) => Node::Real(*number),
            Self::Text(it) => text(it),
            Self::List(items) => Node::List(items.iter().map(text).collect()),
            Self::Object(members) => Node::Object(
                members.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect(),
            ),
        }
    }
}

impl Row {
    const fn new(shape: Shape, preset: Preset) -> Self {
        Self { path: "", shape, preset, unit: "", meaning: "", memory: "" }
    }

    pub(super) const fn at(mut self, path: &'static str, meaning: &'static str) -> Self {
        self.path = path;
        self.meaning = meaning;
        self
    }

    pub(super) const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    pub(super) const fn memory(mut self, memory: &'static str) -> Self {
        self.memory = memory;
        self
    }

    /// Without a value unless given: for fields that inherit one.
    pub(super) const fn optional(mut self) -> Self {
        self.preset = Preset::Null;
        self
    }

    /// Zero is read as the greatest value.
    pub(super) const fn zero_is_no_limit(mut self) -> Self {
        if let Shape::Whole { max, .. } = self.shape {
            self.shape = Shape::Whole { min: 0, max, zero: Zero::NoLimit };
        }
        self
    }

    /// Group of the field: `cache` of `cache.ttl`, empty at the top level.
    #[must_use]
    pub fn group(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(group, _)| group)
    }

    /// Name within the group: `ttl` of `cache.ttl`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// Whether the value is never printed.
    #[must_use]
    pub const fn is_secret(&self) -> bool {
        matches!(self.shape, Shape::Secret | Shape::Keys)
    }

    /// Environment variable that sets a secret; `None` for other fields and within routes.
    #[must_use]
    pub fn environment(&self) -> Option<String> {
        let once = self.is_secret() && !self.path.contains('[');
        once.then(|| format!("APIPROXYD_{}", self.name().to_ascii_uppercase()))
    }

    /// The range in words, empty where the type says everything.
    #[must_use]
    pub fn range(&self) -> String {
        match self.shape {
            Shape::Whole { min, max, zero } => {
                let limit = if zero == Zero::NoLimit { ", 0 = no limit" } else { "" };
                if max >= LARGE {
                    format!(">= {min}{limit}")
                } else {
                    format!("{min}-{max}{limit}")
                }
            }
            Shape::Share => "0-1".to_owned(),
            Shape::Choice(words) => words.join(", "),
            _ => String::new(),
        }
    }
}

/// Upper ends from here on are "no limit" to a reader.
pub(super) const LARGE: u64 = 100_000_000;
/// Ten years in seconds: the greatest time, and what "no limit" is read as.
pub(super) const YEARS: u64 = 10 * 365 * 86_400;
/// 2^60 bytes: the greatest size, and what "no limit" is read as.
pub(super) const BYTES: u64 = 1 << 60;

pub(super) const fn flag(preset: bool) -> Row {
    Row::new(Shape::Flag, Preset::Flag(preset))
}

pub(super) const fn whole(preset: u64, min: u64, max: u64) -> Row {
    Row::new(Shape::Whole { min, max, zero: Zero::Zero }, Preset::Whole(preset))
}

pub(super) const fn seconds(preset: u64, min: u64) -> Row {
    whole(preset, min, YEARS).unit("s")
}

/// A time that 0 turns off.
pub(super) const fn timeout(preset: u64) -> Row {
    seconds(preset, 0).zero_is_no_limit()
}

pub(super) const fn bytes(preset: u64, min: u64) -> Row {
    whole(preset, min, BYTES).unit("bytes")
}

pub(super) const fn share(preset: f64) -> Row {
    Row::new(Shape::Share, Preset::Real(preset))
}

pub(super) const fn text(preset: &'static str) -> Row {
    Row::new(Shape::Text, Preset::Text(preset))
}

pub(super) const fn text_or_empty(preset: &'static str) -> Row {
    Row::new(Shape::TextOrEmpty, Preset::Text(preset))
}

pub(super) const fn path(preset: &'static str) -> Row {
    Row::new(Shape::Path, Preset::Text(preset))
}

pub(super) const fn secret() -> Row {
    Row::new(Shape::Secret, Preset::Text(""))
}

pub(super) const fn choice(preset: &'static str, words: &'static [&'static str]) -> Row {
    Row::new(Shape::Choice(words), Preset::Text(preset))
}

pub(super) const fn list(preset: &'static [&'static str]) -> Row {
    Row::new(Shape::List, Preset::List(preset))
}

pub(super) const fn cores() -> Row {
    Row::new(Shape::Cores, Preset::Text("auto"))
}

pub(super) const fn headers(preset: &'static [(&'static str, &'static str)]) -> Row {
    Row::new(Shape::Headers, Preset::Object(preset))
}

pub(super) const fn keys() -> Row {
    Row::new(Shape::Keys, Preset::List(&[]))
}

pub(super) const fn objects() -> Row {
    Row::new(Shape::Objects, Preset::List(&[]))
}

/// A settings group: `field: Type = row, "meaning";` makes the struct's field, its
/// documentation, its row of the schema and its reading.
macro_rules! group {
    ($(#[$doc:meta])* $name:ident $prefix:literal {
        $($field:ident: $type:ty = $row:expr, $meaning:literal;)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $(
                #[doc = $meaning]
                #[doc = ""]
                #[doc = concat!("Default and range: `", stringify!($row), "`.")]
                pub $field: $type,
            )*
        }

        impl $name {
            /// The schema's rows of this group.
            pub(super) const ROWS: &'static [Row] =
                &[$($row.at(concat!($prefix, stringify!($field)), $meaning),)*];

            pub(super) fn read(reader: &mut Reader<'_>) -> Self {
                Self {
                    $($field: {
                        const ROW: Row = $row.at(concat!($prefix, stringify!($field)), $meaning);
                        reader.read(&ROW)
                    },)*
                }
            }
        }
    };
}

pub(super) use group;
