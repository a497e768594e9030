//! The command line: arguments, commands, exit codes.
//!
//! Called by `main` alone. Gathers what `config` needs (file, environment, arguments), prints
//! what came of it, and hands validated settings to the server. Decides nothing else.
//!
//! Every error is one line on stderr; `check` prints one for each fault.

mod args;
mod check;
mod configure;
mod demo;
mod explain;
pub mod load;
mod run;

use std::ffi::OsString;
use std::fmt::Display;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Arguments, Command, ConfigCommand};
use load::Loader;

/// Arguments or configuration are wrong (`EX_USAGE` of sysexits).
pub const EXIT_USAGE: u8 = 64;
/// The daemon could not start or ended by a fault of its own (`EX_SOFTWARE`).
pub const EXIT_FAILURE: u8 = 70;

/// Runs the command that `arguments` (the program's name first) ask for.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => return usage(args::one_line(&error)),
        Err(help) => {
            // Help or version; a reader that went away is no failure.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    match arguments.command.unwrap_or(Command::Run(arguments.choices)) {
        Command::Run(choices) => run(choices),
        Command::Check(choices) => check::check(&Loader::new(choices)),
        Command::Config(ConfigCommand::Init { path }) => configure::init(path),
        Command::Config(ConfigCommand::Show { choices, json }) => {
            let style = if json { configure::Style::Json } else { configure::Style::Listing };
            configure::show(&Loader::new(choices), style)
        }
        Command::Config(ConfigCommand::Fields) => configure::fields(),
        Command::Explain { target, method, header, body, choices } => {
            let asked = explain::Asked { target, method, header, body };
            explain::explain(&Loader::new(choices), &asked)
        }
        Command::Demo { port } => demo::demo(port),
    }
}

fn run(choices: args::Choices) -> ExitCode {
    match Loader::new(choices).load() {
        Ok(parsed) => {
            for note in &parsed.notes {
                eprintln!("apiproxyd: note: {note}");
            }
            run::run(parsed.settings)
        }
        Err(error) => usage(error),
    }
}

/// Prints one line and gives the exit code of a wrong command line or configuration.
fn usage(error: impl Display) -> ExitCode {
    eprintln!("apiproxyd: {error}");
    ExitCode::from(EXIT_USAGE)
}

/// Prints one line and gives the exit code of a failure.
fn failure(error: impl Display) -> ExitCode {
    eprintln!("apiproxyd: {error}");
    ExitCode::from(EXIT_FAILURE)
}

/// Prints to stdout; a reader that went away (`| head`) is no failure, and no panic.
fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
