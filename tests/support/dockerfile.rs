//! Reads a Dockerfile as far as ours goes: stages, their instructions, continued lines. What it does not know it refuses.

pub struct Image {
    pub stages: Vec<Stage>,
}

pub struct Stage {
    pub from: String,
    pub name: String,
    pub instructions: Vec<Instruction>,
    /// The instructions as they were written, each on one line.
    pub lines: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Instruction {
    Arg(String, String),
    Env(String, String),
    Workdir(String),
    Copy {
        from: Option<String>,
        sources: Vec<String>,
        to: String,
    },
    Run(String),
    /// What an engine keeps with the image: keyword and the rest.
    Other(String, String),
}

impl Image {
    pub fn parse(text: &str) -> Image {
        let mut stages: Vec<Stage> = Vec::new();
        for line in logical_lines(text) {
            let (keyword, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            let rest = rest.trim();
            if keyword == "FROM" {
                let (from, name) = rest.split_once(" AS ").unwrap_or((rest, ""));
                stages.push(Stage { from: from.into(), name: name.into(), instructions: vec![], lines: vec![] });
                continue;
            }
            let stage = stages.last_mut().expect("FROM comes first");
            stage.instructions.push(instruction(keyword, rest));
            stage.lines.push(line);
        }
        Image { stages }
    }
}

impl Stage {
    /// The words of an instruction in JSON form, the last one of its kind.
    pub fn words(&self, wanted: &str) -> Vec<String> {
        let found = self.instructions.iter().rev().find_map(|i| match i {
            Instruction::Other(keyword, rest) if keyword == wanted => Some(rest),
            _ => None,
        });
        let text = found.unwrap_or_else(|| panic!("no {wanted}"));
        let json = text.find('[').map(|at| &text[at..]).unwrap_or_else(|| panic!("{wanted} {text}: not the JSON form"));
        serde_json::from_str(json).unwrap()
    }

    /// What an instruction says, of `name` where it names something.
    pub fn value(&self, wanted: &str, name: &str) -> Option<String> {
        self.instructions.iter().rev().find_map(|i| match i {
            Instruction::Env(n, value) if wanted == "ENV" && n == name => Some(value.clone()),
            Instruction::Other(keyword, rest) if keyword == wanted => Some(rest.clone()),
            _ => None,
        })
    }
}

fn instruction(keyword: &str, rest: &str) -> Instruction {
    let pair = |what: &str| {
        let (name, value) = rest.split_once('=').unwrap_or_else(|| panic!("{what} {rest}: name=value"));
        assert!(!value.contains(char::is_whitespace), "{what} {rest}: one at a time");
        (name.to_string(), value.to_string())
    };
    match keyword {
        "ARG" => {
            let (name, value) = pair("ARG");
            Instruction::Arg(name, value)
        }
        "ENV" => {
            let (name, value) = pair("ENV");
            Instruction::Env(name, value)
        }
        "WORKDIR" => Instruction::Workdir(rest.into()),
        "RUN" => Instruction::Run(rest.into()),
        "COPY" => {
            let (flags, mut paths): (Vec<&str>, Vec<&str>) =
                rest.split_whitespace().partition(|word| word.starts_with("--"));
            let from = flags.iter().find_map(|f| f.strip_prefix("--from=")).map(String::from);
            let known = |f: &&str| f.starts_with("--from=") || f.starts_with("--chown=");
            assert!(flags.iter().all(known), "COPY {rest}");
            let to = paths.pop().expect("a destination").to_string();
            let sources = paths.into_iter().map(String::from).collect();
            Instruction::Copy { from, sources, to }
        }
        "VOLUME" | "USER" | "EXPOSE" | "HEALTHCHECK" | "ENTRYPOINT" | "CMD" => {
            Instruction::Other(keyword.into(), rest.into())
        }
        _ => panic!("{keyword} is not known here"),
    }
}

/// Lines without comments, those that end in a backslash joined with the next.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        match line.strip_suffix('\\') {
            Some(begun) => open.push_str(begun),
            None => {
                open.push_str(line);
                let whole = std::mem::take(&mut open);
                if !whole.trim().is_empty() {
                    lines.push(whole.trim().to_string());
                }
            }
        }
    }
    lines
}
