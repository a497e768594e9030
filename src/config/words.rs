//! The fields that take one of a few words.

macro_rules! words {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// The words a configuration may use, in the order of the variants.
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// The word of a configuration file.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The variant of a word; `None` for any other text.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

words! {
    /// What waits for the sockets.
    Driver {
        /// io_uring where the kernel allows it, else epoll.
        #[default]
        Auto = "auto",
        /// io_uring, or no start.
        IoUring = "io_uring",
        /// epoll.
        Epoll = "epoll",
    }
}

words! {
    /// The second cache tier.
    Backend {
        /// A file of this machine.
        #[default]
        Sqlite = "sqlite",
        /// A database shared by several instances.
        Postgres = "postgres",
        /// Memory only.
        None = "none",
    }
}

words! {
    /// The least severe level that is logged.
    LogLevel {
        /// What needs an operator.
        Error = "error",
        /// And what was survived.
        Warn = "warn",
        /// And starts, stops, changes of state.
        #[default]
        Info = "info",
        /// And decisions about single requests.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

words! {
    /// How a log line is written.
    LogFormat {
        /// For people.
        #[default]
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// Which requests get a line in the access log.
    AccessLog {
        /// None.
        #[default]
        Off = "off",
        /// Every one.
        All = "all",
        /// One in `log.access_sample`.
        Sampled = "sampled",
        /// Those answered with 5xx, and those whose answer was cut.
        Errors = "errors",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back() {
        for word in Driver::WORDS {
            assert_eq!(Driver::from_word(word).map(Driver::as_str), Some(*word));
        }
        for word in Backend::WORDS {
            assert_eq!(Backend::from_word(word).map(Backend::as_str), Some(*word));
        }
        assert_eq!(Driver::from_word("IO_URING"), None);
    }
}
