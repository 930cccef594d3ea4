//! `fanfare backup` and `fanfare restore`: from settings to what is said in the end.

use std::path::Path;

use crate::config::Config;
use crate::store::{self, Held};

/// Copies the store that the settings name into a file.
pub fn back_up(config: &Config, to: &Path) -> Result<String, String> {
    let url = &config.options.store;
    let Held { topics, messages } = store::back_up(url, to).map_err(|error| error.to_string())?;
    Ok(format!("{}: {messages} messages of {topics} topics, copied from {url}", to.display()))
}

/// Makes the store that the settings name from a backup.
pub fn restore(config: &Config, from: &Path) -> Result<String, String> {
    let url = &config.options.store;
    let Held { topics, messages } = store::restore(url, from).map_err(|error| error.to_string())?;
    Ok(format!("{url}: {messages} messages of {topics} topics, from {}; each topic begins a new life", from.display()))
}
