//! Start and exit code.

use std::process::ExitCode;

use fanfare::cli::Acts;
use fanfare::server;

fn main() -> ExitCode {
    fanfare::cli::run(Acts { serve: server::run, back_up: server::back_up, restore: server::restore })
}
