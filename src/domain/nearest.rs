//! What a person who wrote a name wrongly may have meant.

/// The known name that is most like a wrong one, to be offered; none if none is like it.
pub fn nearest<T: AsRef<str> + Ord>(wrong: &str, names: impl IntoIterator<Item = T>) -> Option<T> {
    // What is much longer than any name is like none of them, and costs nothing to refuse.
    let wrong: String = wrong.chars().take(100).collect();
    let candidates = names.into_iter().map(|name| (distance(&wrong, name.as_ref()), name));
    let (distance, name) = candidates.min()?;
    (distance <= name.as_ref().len() / 3 + 1).then_some(name)
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

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_name_that_is_a_letter_off_is_offered_and_a_strange_one_is_not() {
        let names = ["lease", "max_lease", "ttl"];
        assert_eq!(nearest("leese", names), Some("lease"));
        assert_eq!(nearest("maxlease", names), Some("max_lease"));
        assert_eq!(nearest("colour", names), None);
        assert_eq!(nearest(&"x".repeat(1_000_000), names), None);
    }
}
