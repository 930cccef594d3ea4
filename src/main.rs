//! Start and exit code.

use std::process::ExitCode;

use fanfare::config::{self, Mode};

fn main() -> ExitCode {
    let command = clap::Command::new("fanfare").args(config::arguments());
    let serve = clap::Command::new("serve").args(config::arguments());
    let demo = clap::Command::new("demo").args(config::arguments());
    let matches = command.subcommand(serve).subcommand(demo).get_matches();
    let (mode, flags) = match matches.subcommand() {
        Some(("serve", flags)) => (Mode::Serve, flags),
        Some((_, flags)) => (Mode::Demo, flags),
        None => (Mode::Demo, &matches),
    };
    match config::load(mode, flags, std::env::vars_os(), std::path::Path::new(".")) {
        Ok(config) => fanfare::server::run(&config, mode),
        Err(faults) => {
            eprintln!("{faults}");
            ExitCode::from(2)
        }
    }
}
