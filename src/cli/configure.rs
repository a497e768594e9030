//! `apiproxyd config init`, `show` and `fields`.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::load::{Loader, plain, usual_file};
use crate::cli::{failure, print, usage};
use crate::config::render;

/// How `config show` prints.
pub(super) enum Style {
    /// A line for each field, with what decided it.
    Listing,
    /// A configuration file.
    Json,
}

/// Writes the example file where none is.
pub(super) fn init(path: Option<PathBuf>) -> ExitCode {
    let home = std::env::home_dir().filter(|it| !it.as_os_str().is_empty());
    let Some(path) = path.or_else(|| home.as_deref().map(usual_file)) else {
        return usage("no home directory: name the file, as in `apiproxyd config init my.json`");
    };
    if path.as_os_str() == "-" {
        print(&render::example());
        return ExitCode::SUCCESS;
    }
    let shown = path.display();
    match write_new(&path, &render::example()) {
        Ok(()) => {
            print(&format!("wrote {shown}; check it with `apiproxyd check --config {shown}`\n"));
            ExitCode::SUCCESS
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            usage(format!("{shown} exists and is left as it is; name another file"))
        }
        Err(error) => failure(format!("cannot write {shown}: {}", plain(&error))),
    }
}

/// Folder 0700 and file 0600: secrets may be put there later.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|it| !it.as_os_str().is_empty() && !it.exists()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Prints the effective configuration.
pub(super) fn show(loader: &Loader, style: Style) -> ExitCode {
    match loader.load() {
        Ok(parsed) => {
            let text = match style {
                Style::Listing => render::listing(&parsed.shown),
                Style::Json => render::effective(&parsed.shown),
            };
            print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => usage(error),
    }
}

/// Prints the table of all fields.
pub(super) fn fields() -> ExitCode {
    print(&render::table());
    ExitCode::SUCCESS
}
