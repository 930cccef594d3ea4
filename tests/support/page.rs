//! A page of `docs/` as a shell runs it: every line of its consoles against the built binary, and what it prints against
//! what the page says.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

struct Hub(Child, String);

impl Hub {
    fn start(folder: &std::path::Path) -> Hub {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(["serve", "--insecure", "--store=memory", "--listen=127.0.0.1:0"])
            .args(["--admin-listen=127.0.0.1:0", "--redis-listen=off"])
            .env_clear()
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let line = lines.find(|line| line.trim_start().starts_with("http ")).expect("it says where it listens");
        let address = line.split("http://").nth(1).unwrap().split(['/', ' ']).next().unwrap().to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        Hub(child, address)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The consoles of a page: each a list of commands with the lines that they print.
fn consoles(page: &str) -> Vec<Vec<(String, Vec<String>)>> {
    let blocks = page.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks
        .map(|block| {
            let mut commands: Vec<(String, Vec<String>)> = Vec::new();
            for line in block.lines() {
                match line.strip_prefix("$ ") {
                    Some(command) => commands.push((command.to_owned(), Vec::new())),
                    None => commands.last_mut().expect("a command comes first").1.push(line.to_owned()),
                }
            }
            commands
        })
        .collect()
}

/// Whether a printed line is the told one: `…` stands for anything, `k3` for any epoch.
pub fn is_like(told: &str, printed: &str) -> bool {
    let mut rest = printed;
    let told = told.replace("\"k3.", "\"…\u{0}.");
    for (i, part) in told.split('…').enumerate() {
        // An epoch holds nothing but letters and digits.
        let (is_epoch, part) = match part.strip_prefix('\u{0}') {
            Some(part) => (true, part),
            None => (false, part),
        };
        let Some(at) = (if i == 0 { rest.starts_with(part).then_some(0) } else { rest.find(part) }) else {
            return false;
        };
        if is_epoch && !rest[..at].bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            return false;
        }
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || told.ends_with('…')
}

/// Runs the page; it must have so many consoles.
pub fn run(path: &str, least: usize) {
    let page = std::fs::read_to_string(path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path());
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_fanfare")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let consoles = consoles(&page);
    assert!(consoles.len() >= least, "all parts of the page were found");
    for commands in consoles {
        let mut script = String::new();
        for (command, _) in &commands {
            // Without an end of its own, what curl prints would run into the next mark.
            script.push_str(&format!("{command}\nprintf '\\n<<<end>>>\\n'\n"));
        }
        let ran = Command::new("sh")
            .args(["-c", &script.replace("localhost:8080", &hub.1)])
            .env("PATH", &path)
            .env("FANFARE_URL", format!("http://{}", hub.1))
            .env("no_proxy", "*")
            .current_dir(folder.path())
            .output()
            .unwrap();
        let printed = String::from_utf8(ran.stdout).unwrap();
        let noted = String::from_utf8_lossy(&ran.stderr).into_owned();
        let outputs: Vec<&str> = printed.split("<<<end>>>\n").collect();
        for ((command, told), output) in commands.iter().zip(outputs) {
            let lines: Vec<&str> = output.lines().filter(|line| !line.is_empty()).collect();
            let fits = lines.len() == told.len() && told.iter().zip(&lines).all(|(told, line)| is_like(told, line));
            assert!(fits, "$ {command}\ntold {told:#?}\nprinted {lines:#?}\n{noted}");
        }
    }
}
