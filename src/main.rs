//! Start and exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanfare::cli::run(fanfare::server::run)
}
