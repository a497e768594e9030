//! The command `apiproxyd`.

use std::process::ExitCode;

fn main() -> ExitCode {
    apiproxyd::cli::main(std::env::args_os())
}
