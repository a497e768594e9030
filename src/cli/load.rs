//! Finds and reads the configuration: the only place that touches files for it.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::cli::args::Choices;
use crate::config::{self, Faults, Override, Parsed, Sources};

/// Where a configuration is read from; reading again is a reload.
#[derive(Clone, Debug)]
pub struct Loader {
    file: Option<PathBuf>,
    overrides: Vec<Override>,
    home: Option<PathBuf>,
}

/// Why there is no configuration. Prints as one line.
#[derive(Debug)]
pub enum LoadError {
    /// The file can't be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why, in words.
        why: String,
    },
    /// The configuration has faults.
    Faulty {
        /// Where most of it stands: the file, or `configuration` without one.
        name: String,
        /// All faults.
        faults: Faults,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, why } => {
                write!(f, "cannot read {}: {why}", file.display())
            }
            Self::Faulty { name, faults } => {
                let Some(first) = faults.faults.first() else { return f.write_str(name) };
                write!(f, "{name}: {first}")?;
                match faults.faults.len() {
                    0 | 1 => Ok(()),
                    count => write!(f, " (and {} more, see `apiproxyd check`)", count - 1),
                }
            }
        }
    }
}

impl std::error::Error for LoadError {}

impl Loader {
    pub(super) fn new(choices: Choices) -> Self {
        let home = std::env::home_dir().filter(|it| !it.as_os_str().is_empty());
        let named = choices.config.clone().or_else(|| {
            std::env::var_os("APIPROXYD_CONFIG").filter(|it| !it.is_empty()).map(PathBuf::from)
        });
        let usual = || home.as_deref().map(usual_file).filter(|it| it.exists());
        Self { file: named.or_else(usual), overrides: choices.overrides(), home }
    }

    /// Without a file and the environment of this user: these overrides over the defaults.
    pub(super) const fn bare(overrides: Vec<Override>) -> Self {
        Self { file: None, overrides, home: None }
    }

    /// The file, if there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// What faults are reported of: the file's name, or `configuration`.
    #[must_use]
    pub fn name(&self) -> String {
        self.file
            .as_ref()
            .map_or_else(|| "configuration".to_owned(), |file| file.display().to_string())
    }

    /// Reads and checks the configuration. Blocks on files.
    ///
    /// # Errors
    ///
    /// The file can't be read, or has faults: then all of them.
    pub fn load(&self) -> Result<Parsed, LoadError> {
        let text = match &self.file {
            None => None,
            Some(file) => Some(read(file).map_err(|why| {
                let file = file.clone();
                LoadError::Unreadable { file, why }
            })?),
        };
        config::parse(&Sources {
            text: text.as_deref(),
            environment: &|name| std::env::var_os(name).map(|it| it.to_string_lossy().into_owned()),
            read_file: &read,
            home: self.home.as_deref(),
            overrides: &self.overrides,
        })
        .map_err(|faults| LoadError::Faulty { name: self.name(), faults })
    }
}

/// The file that is read when none is named.
pub(super) fn usual_file(home: &Path) -> PathBuf {
    home.join(".apiproxy/config.json")
}

fn read(file: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut opened = File::open(file).map_err(|error| plain(&error))?;
    opened.by_ref().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|it| plain(&it))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(format!("larger than {FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned())
}

/// The system's words without `(os error 2)`.
pub(super) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// Far more than any configuration; keeps a mistaken `--config /dev/zero` from filling the memory.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
