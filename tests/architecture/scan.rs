//! Reads Rust source as far as arrows need it: code without comments, strings and tests, and the paths it names, made
//! absolute. It knows no types; what a macro makes up is not seen.

use std::collections::HashMap;

/// A source file of the crate.
pub struct Source {
    /// `src/hub/registry.rs`
    pub path: String,
    pub text: String,
}

impl Source {
    /// The modules down to this file, `["hub", "registry"]`; empty for the root of the library.
    pub fn module(&self) -> Vec<String> {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut parts: Vec<String> = path.split('/').map(str::to_string).collect();
        if matches!(parts.last().map(String::as_str), Some("mod" | "lib")) {
            parts.pop();
        }
        parts
    }

    /// Whether the whole file is compiled for tests only.
    pub fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name == "tests.rs" || name.ends_with("_tests.rs") || self.path.contains("/tests/")
    }

    /// The code outside tests, with comments and literals blanked, line by line as in the file.
    pub fn code(&self) -> String {
        without_tests(&blanked(&self.text))
    }

    /// Lines outside tests, comments included.
    pub fn lines(&self) -> usize {
        let all = self.text.lines().count();
        let tests = blanked(&self.text).lines().count() - self.code().lines().count();
        if self.is_test() { 0 } else { all - tests }
    }

    /// Every path that the code names: in full where it begins in this crate (`crate`, `hub`, …), else as written.
    pub fn paths(&self) -> Vec<Vec<String>> {
        let module = self.module();
        let code = self.code();
        let tokens = tokens(&code);
        let (mut found, mut names) = (Vec::new(), HashMap::new());
        let mut i = 0;
        while i < tokens.len() {
            if tokens[i] == "use" {
                i += 1;
                for (path, name) in use_tree(&tokens, &mut i) {
                    let path = resolve(path, &module, &HashMap::new());
                    names.insert(name, path.clone());
                    found.push(path);
                }
            } else if is_name(tokens[i]) && (i == 0 || tokens[i - 1] != "::") {
                let mut path = vec![tokens[i].to_string()];
                while tokens.get(i + 1) == Some(&"::") && tokens.get(i + 2).is_some_and(|t| is_name(t)) {
                    path.push(tokens[i + 2].to_string());
                    i += 2;
                }
                if path.len() > 1 {
                    found.push(resolve(path, &module, &names));
                }
                i += 1;
            } else {
                i += 1;
            }
        }
        found
    }
}

/// The root of this crate in a path made absolute.
pub const ROOT: &str = "crate";

fn resolve(mut path: Vec<String>, module: &[String], names: &HashMap<String, Vec<String>>) -> Vec<String> {
    let mut base = match path[0].as_str() {
        "crate" | "fanfare" => Vec::new(),
        "self" | "super" => module.to_vec(),
        first => {
            if let Some(known) = names.get(first) {
                path.splice(0..1, known.clone());
            }
            return path;
        }
    };
    let mut rest = path.into_iter().peekable();
    while let Some(step) = rest.next_if(|s| matches!(s.as_str(), "crate" | "fanfare" | "self" | "super")) {
        if step == "super" {
            base.pop();
        }
    }
    std::iter::once(ROOT.to_string()).chain(base).chain(rest).collect()
}

/// The paths of a `use`, each with the name that it is known by afterwards.
fn use_tree(tokens: &[&str], i: &mut usize) -> Vec<(Vec<String>, String)> {
    let (mut path, mut found) = (Vec::new(), Vec::new());
    while let Some(&token) = tokens.get(*i) {
        *i += 1;
        match token {
            "{" => loop {
                for (rest, name) in use_tree(tokens, i) {
                    let mut whole: Vec<String> = path.clone();
                    whole.extend(rest.into_iter().filter(|r| path.is_empty() || r != "self"));
                    let name = if name == "self" { whole.last().cloned().unwrap_or_default() } else { name };
                    found.push((whole, name));
                }
                match tokens.get(*i) {
                    Some(&",") => *i += 1,
                    Some(&"}") => {
                        *i += 1;
                        return found;
                    }
                    _ => return found,
                }
            },
            "as" => {
                let name = tokens.get(*i).unwrap_or(&"_").to_string();
                *i += 1;
                return vec![(path, name)];
            }
            "," | "}" => {
                *i -= 1;
                break;
            }
            ";" => break,
            "*" => path.push("*".to_string()),
            "::" => {}
            name => path.push(name.to_string()),
        }
    }
    match path.last().cloned() {
        Some(name) if found.is_empty() => vec![(path, name)],
        _ => found,
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = if first.is_alphanumeric() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    tokens
}

/// The text with comments, strings and characters blanked; lines stay where they are.
fn blanked(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = literal_end(&chars, i);
        if end > i {
            out.extend(chars[i..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            i = end;
        } else {
            out.push(chars[i]);
            i += 1;
        }
    }
    out
}

/// Where the comment or literal that begins at `i` ends; `i` if none begins.
fn literal_end(chars: &[char], i: usize) -> usize {
    let at = |n: usize| chars.get(n).copied().unwrap_or('\0');
    let find = |from: usize, end: &[char]| {
        (from..chars.len()).find(|&n| chars[n..].starts_with(end)).map_or(chars.len(), |n| n + end.len())
    };
    match (at(i), at(i + 1)) {
        ('/', '/') => find(i, &['\n']).saturating_sub(1).max(i + 2),
        ('/', '*') => {
            let (mut depth, mut n) = (1, i + 2);
            while depth > 0 && n < chars.len() {
                match (at(n), at(n + 1)) {
                    ('/', '*') => (depth, n) = (depth + 1, n + 2),
                    ('*', '/') => (depth, n) = (depth - 1, n + 2),
                    _ => n += 1,
                }
            }
            n
        }
        ('r', '"' | '#') if i == 0 || !(at(i - 1).is_alphanumeric() && at(i - 1) != 'b') => {
            let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
            if at(i + 1 + hashes) != '"' {
                return i;
            }
            let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            find(i + 2 + hashes, &end)
        }
        ('"', _) => {
            let mut n = i + 1;
            while n < chars.len() && at(n) != '"' {
                n += if at(n) == '\\' { 2 } else { 1 };
            }
            (n + 1).min(chars.len())
        }
        ('\'', '\\') => find(i + 3, &['\'']),
        ('\'', _) if at(i + 2) == '\'' => i + 3,
        _ => i,
    }
}

/// Takes out every item under `#[cfg(test)]`, with its lines.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::new();
    let mut rest = code;
    while let Some(start) = rest.find(MARK) {
        out.push_str(&rest[..start]);
        let item = &rest[start + MARK.len()..];
        let (mut depth, mut end) = (0, item.len());
        for (n, c) in item.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 1 => {
                    end = n + 1;
                    break;
                }
                '}' => depth -= 1,
                ';' if depth == 0 => {
                    end = n + 1;
                    break;
                }
                _ => {}
            }
        }
        rest = &item[end..];
    }
    out.push_str(rest);
    out
}
