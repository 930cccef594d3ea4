//! `fanfare backup` and `fanfare restore`: a copy of a store on disk, and a store from a copy. They work on the folder
//! itself, where it lies; a hub may be running.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::{CopyStore, Exit, Stop, output, settings};
use crate::config::{self, Mode};

/// The settings that say where the store is; the others are read too, and not shown.
const SHOWN: [&str; 3] = ["config", "store", "data"];

pub fn backup() -> Command {
    command("backup", "Copy the store on disk into one file, also while a hub uses it", "The file to make")
}

pub fn restore() -> Command {
    command("restore", "Make a store on disk from a backup; every topic begins a new life", "The backup")
}

fn command(name: &'static str, about: &'static str, path: &'static str) -> Command {
    let path = Arg::new("path").value_name("PATH").help(path).required(true).value_parser(value_parser!(PathBuf));
    let shown = |arg: Arg| if SHOWN.contains(&arg.get_id().as_str()) { arg } else { arg.hide(true) };
    Command::new(name).about(about).arg(path).args(config::arguments().into_iter().map(shown))
}

/// Copies, and says what the copy holds.
pub fn run(flags: &ArgMatches, copy: CopyStore) -> Result<(), Stop> {
    let config = settings::load(Mode::Show, flags)?;
    let path: &PathBuf = flags.get_one("path").expect("it is required");
    match copy(&config, path) {
        Ok(done) => output::line(&done),
        Err(why) => Err(Stop::new(Exit::Failed, why)),
    }
}
