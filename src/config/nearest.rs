//! What a person who wrote the name of a setting wrongly may have meant.

use super::table::{SETTINGS, Setting};
use crate::domain::nearest;

/// The known name that is most like a wrong one, to be offered.
pub(super) fn nearest(wrong: &str, name: impl Fn(&Setting) -> String) -> String {
    match nearest::nearest(wrong, SETTINGS.iter().map(name)) {
        Some(name) => format!("; did you mean {name}?"),
        None => "; fanfare serve --help lists them".to_string(),
    }
}
