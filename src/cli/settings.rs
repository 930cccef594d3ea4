//! `fanfare config`: the settings in effect, or the page about all of them; and reading them for the hub's commands.

use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Exit, Stop, output};
use crate::config::{self, Config, Mode};

pub fn command() -> Command {
    let markdown = Arg::new("markdown").long("markdown").action(ArgAction::SetTrue);
    Command::new("config")
        .about("Check the settings and show what is in effect, as a fanfare.toml to start from")
        .arg(markdown.help("Print docs/config.md instead, the page about all settings"))
        .args(config::arguments())
}

pub fn show(flags: &ArgMatches) -> Result<(), Stop> {
    let text = match flags.get_flag("markdown") {
        true => config::markdown(),
        false => config::toml(&load(Mode::Show, flags)?),
    };
    output::line(text.trim_end())
}

pub fn load(mode: Mode, flags: &ArgMatches) -> Result<Config, Stop> {
    config::load(mode, flags, std::env::vars_os(), Path::new(".")).map_err(|faults| {
        let count = match faults.0.len() {
            1 => "a fault".to_string(),
            many => format!("{many} faults"),
        };
        Stop::new(Exit::Usage, format!("{count} in the settings\n{faults}"))
    })
}
