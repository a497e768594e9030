//! Checks across fields, once each is known to be of its type and within its range.

use crate::config::reader::{Reader, Sources};
use crate::config::settings::Settings;

/// Reports everything that single fields cannot show.
pub(super) fn check(_settings: &Settings, _reader: &mut Reader<'_>, _sources: &Sources<'_>) {}
