//! Lines to standard output for programs, notices to standard error for people.

use std::io::{ErrorKind, Write};

use super::{Exit, Stop};

/// Writes one line and sends it off. A reader that has gone (`| head -1`) is no failure: there is nothing more to do.
pub fn line(text: &str) -> Result<(), Stop> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Stop::unheard(),
        _ => Stop::new(Exit::Failed, format!("standard output: {error}")),
    })
}

/// Tells the person; nobody may be listening.
pub fn notice(text: &str) {
    let mut out = std::io::stderr().lock();
    for text in text.lines() {
        let _ = writeln!(out, "fanfare: {text}");
    }
}

/// Passes on what a program says to people.
pub fn pass(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
