//! What a person who wrote the name of a setting wrongly may have meant.

use super::table::{SETTINGS, Setting};

/// The known name that is most like a wrong one, to be offered.
pub(super) fn nearest(wrong: &str, name: impl Fn(&Setting) -> String) -> String {
    let candidates = SETTINGS.iter().map(name).map(|name| (distance(wrong, &name), name));
    match candidates.min().filter(|(distance, name)| *distance <= name.len() / 3 + 1) {
        Some((_, name)) => format!("; did you mean {name}?"),
        None => "; fanfare serve --help lists them".to_string(),
    }
}

/// Edits between two words (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let changed = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = changed.min(corner + 1).min(row[j] + 1);
        }
    }
    row[row.len() - 1]
}
