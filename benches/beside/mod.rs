//! Servers under test beside one another: ours, those that people write, and those that they choose instead. Each is a process
//! of its own on one core, with its crowd of subscribers and publishers in another process on the second core.

pub mod crowd;
pub mod dialect;
pub mod hub;
pub mod naive;
pub mod stats;
pub mod target;

/// Runs one of those processes, if that is what this program was started for.
pub fn play(arguments: &[String]) -> bool {
    match arguments.first().map(String::as_str) {
        Some("crowd") => crowd::run(&arguments[1..]),
        Some("hub") => hub::run(&arguments[1..]),
        Some("naive") => naive::run(),
        _ => return false,
    }
    true
}
