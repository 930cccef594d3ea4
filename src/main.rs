//! Start and exit code.

use std::process::ExitCode;

use fanfare::config::{self, Mode};
use fanfare::server::Server;

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
    let config = match config::load(mode, flags, std::env::vars_os(), std::path::Path::new(".")) {
        Ok(config) => config,
        Err(faults) => {
            eprintln!("{faults}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    runtime.block_on(async {
        fanfare::telemetry::start_log(&config.options.log, false);
        let server = match Server::start(&config, mode).await {
            Ok(server) => server,
            Err(error) => {
                eprintln!("fanfare: {error}");
                return ExitCode::FAILURE;
            }
        };
        println!("http://{}", server.http);
        let _ = tokio::signal::ctrl_c().await;
        server.stop().await;
        ExitCode::SUCCESS
    })
}
