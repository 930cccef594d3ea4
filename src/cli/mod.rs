//! The command line: what can be said, and what the exit codes mean. One file a command; client commands speak to a hub
//! from outside, over HTTP and WebSocket, like any other client.

mod answers;
mod commits;
mod copy;
mod cursor;
mod dead;
mod doctor;
mod health;
mod hub;
mod output;
mod program;
mod publish;
mod queue;
mod schedules;
mod settings;
mod signals;
mod socket;
mod subscribe;
mod work;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::config::{self, Config, Mode};

/// How a command ends. The numbers are a promise to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Unreachable = 3,
    Gap = 4,
}

impl Exit {
    pub const ALL: [(Exit, &str); 5] = [
        (Exit::Done, "done as asked"),
        (Exit::Failed, "the hub refused it, or it failed"),
        (Exit::Usage, "the command line or a setting is wrong"),
        (Exit::Unreachable, "no hub was reached"),
        (Exit::Gap, "subscribe --strict: messages were missed"),
    ];
}

/// Why a command stopped before it was done.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stop {
    exit: Exit,
    /// For standard error; nothing if there is nothing to say.
    text: String,
}

impl Stop {
    fn new(exit: Exit, text: impl Into<String>) -> Stop {
        Stop { exit, text: text.into() }
    }

    /// Whoever read our output wants no more of it.
    fn unheard() -> Stop {
        Stop::new(Exit::Done, "")
    }
}

/// What the command line can have done by parts that it does not know.
pub struct Acts {
    /// Runs a hub, for `serve`, `demo` and nothing at all.
    pub serve: fn(&Config, Mode) -> ExitCode,
    pub back_up: CopyStore,
    pub restore: CopyStore,
}

/// Copies a store to or from a file; answers what to say, or why not.
pub type CopyStore = fn(&Config, &Path) -> Result<String, String>;

/// Reads the command line and does what it says.
pub fn run(acts: Acts) -> ExitCode {
    run_with(std::env::args_os(), acts)
}

fn run_with(arguments: impl IntoIterator<Item = OsString>, acts: Acts) -> ExitCode {
    let serve = acts.serve;
    let matches = command().get_matches_from(arguments);
    let done = match matches.subcommand() {
        Some(("serve", flags)) => return start(Mode::Serve, flags, serve),
        Some(("demo", flags)) => return start(Mode::Demo, flags, serve),
        None => return start(Mode::Alone, &hub_command("demo").get_matches_from(["demo"]), serve),
        Some(("config", flags)) => settings::show(flags),
        Some(("backup", flags)) => copy::run(flags, acts.back_up),
        Some(("restore", flags)) => copy::run(flags, acts.restore),
        Some(("publish", flags)) => client(flags, publish::run),
        Some(("subscribe", flags)) => client(flags, subscribe::run),
        Some(("cursor", flags)) => client(flags, cursor::run),
        Some(("queue", flags)) => client(flags, queue::run),
        Some(("work", flags)) => client(flags, work::run),
        Some(("schedules", flags)) => client(flags, schedules::run),
        Some(("health", flags)) => client(flags, health::run),
        Some(("doctor", flags)) => client(flags, doctor::run),
        Some(("ingest", flags)) => client(dead_flags(flags), dead::run),
        Some((other, _)) => unreachable!("{other} is in the tree of commands"),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop { exit, text }) => {
            if !text.is_empty() {
                output::notice(&text);
            }
            ExitCode::from(exit as u8)
        }
    }
}

fn command() -> Command {
    let codes: Vec<String> = Exit::ALL.iter().map(|(exit, text)| format!("  {}  {text}", *exit as u8)).collect();
    Command::new("fanfare")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A real-time notification hub. Without a command: the demo, kept on disk.")
        .after_help(format!("Exit codes:\n{}", codes.join("\n")))
        .subcommand(hub_command("demo").about("Run a hub on this machine to look at, in memory, on free ports"))
        .subcommand(hub_command("serve").about("Run a hub"))
        .subcommand(client_command::<publish::Arguments>("publish", "Publish one message, or one for each line"))
        .subcommand(client_command::<subscribe::Arguments>(
            "subscribe",
            "Print messages as they come, one JSON line each",
        ))
        .subcommand(client_command::<cursor::Arguments>(
            "cursor",
            "Places in topics that a hub remembers: list, show, set, delete",
        ))
        .subcommand(client_command::<queue::Arguments>(
            "queue",
            "Queues and their jobs: create, put, take, look, send dead letters back",
        ))
        .subcommand(client_command::<work::Arguments>("work", "Take jobs of a queue and have a program do them"))
        .subcommand(client_command::<schedules::Arguments>(
            "schedules",
            "Print the schedules of a hub with their last and next runs",
        ))
        .subcommand(client_command::<health::Arguments>("health", "Ask a hub how it is; exit 0 if it lives, else 1"))
        .subcommand(client_command::<doctor::Arguments>(
            "doctor",
            "Say what a store really guarantees and what to change; exit 1 when something is wrong",
        ))
        .subcommand(
            Command::new("ingest")
                .about("What back ends hand in with a Redis client")
                .subcommand_required(true)
                .subcommand(client_command::<dead::Arguments>(
                    "dead",
                    "Entries that could not be used: list, retry, drop",
                )),
        )
        .subcommand(settings::command())
        .subcommand(copy::backup())
        .subcommand(copy::restore())
}

fn hub_command(name: &'static str) -> Command {
    Command::new(name).args(config::arguments())
}

fn client_command<A: Args>(name: &'static str, about: &'static str) -> Command {
    A::augment_args(Command::new(name).about(about))
}

fn dead_flags(flags: &ArgMatches) -> &ArgMatches {
    flags.subcommand().expect("a subcommand is required").1
}

fn start(mode: Mode, flags: &ArgMatches, serve: impl FnOnce(&Config, Mode) -> ExitCode) -> ExitCode {
    match settings::load(mode, flags) {
        Ok(config) => serve(&config, mode),
        Err(Stop { exit, text }) => {
            output::notice(&text);
            ExitCode::from(exit as u8)
        }
    }
}

/// Runs a client command on a small runtime of its own.
fn client<A: FromArgMatches, F: Future<Output = Result<(), Stop>>>(
    flags: &ArgMatches,
    run: impl FnOnce(A) -> F,
) -> Result<(), Stop> {
    let arguments = A::from_arg_matches(flags).map_err(|error| Stop::new(Exit::Usage, error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Stop::new(Exit::Failed, error.to_string()))?;
    let done = runtime.block_on(run(arguments));
    // A thread may still wait for a line of standard input.
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound_and_tells_its_exit_codes() {
        command().debug_assert();
        let help = command().render_help().to_string();
        let page = include_str!("../../docs/cli.md");
        for (exit, text) in Exit::ALL {
            assert!(help.contains(&format!("  {}  {text}", exit as u8)), "{help}");
            assert!(page.contains(&format!("| {} | {text} |", exit as u8)), "docs/cli.md");
        }
    }
}
