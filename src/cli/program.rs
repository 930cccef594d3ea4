//! One run of the program that works on jobs: its jobs on standard input, its answers from standard output, and how it ended.

use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::output;
use crate::domain::queue::MAX_ERROR;

/// Bytes of one line of the program; a longer one counts as several.
const LINE: u64 = 1024 * 1024;

/// What the program is told beside its jobs.
#[derive(Debug, Clone)]
pub struct About {
    pub queue: String,
    pub url: String,
    /// Of its first job.
    pub job: String,
    pub tries: u64,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Done,
    /// With what is to be kept with its jobs.
    Failed(String),
}

/// Starts the program in a process group of its own, so that a Ctrl-C in the terminal is for us to judge.
pub fn start(command: &str, about: &About) -> std::io::Result<Child> {
    Command::new("sh")
        .args(["-c", command])
        .env("FANFARE_URL", &about.url)
        .env("FANFARE_JOB_QUEUE", &about.queue)
        .env("FANFARE_JOB", &about.job)
        .env("FANFARE_JOB_TRY", about.tries.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Feeds the program its lines, hands on what it prints, and waits until it has ended.
pub async fn attend(mut child: Child, lines: String, printed: mpsc::Sender<String>) -> End {
    let (input, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut input) = input {
            // It need not read them all.
            let _ = input.write_all(lines.as_bytes()).await;
        }
    };
    let read = async move {
        let Some(out) = out else { return };
        let mut out = BufReader::new(out);
        while let Some(line) = next_line(&mut out).await {
            let _ = printed.send(line).await;
        }
    };
    let mut last = String::new();
    let complain = async {
        let Some(err) = err else { return };
        let mut err = BufReader::new(err);
        while let Some(line) = next_line(&mut err).await {
            output::pass(&line);
            if !line.trim().is_empty() {
                last = line;
            }
        }
    };
    tokio::join!(feed, read, complain);
    match child.wait().await {
        Ok(status) if status.success() => End::Done,
        Ok(status) => End::Failed(if last.is_empty() { told(status) } else { bounded(last.trim()) }),
        Err(error) => End::Failed(error.to_string()),
    }
}

/// Ends a program with all that it has started.
pub fn kill(group: u32) {
    let group = i32::try_from(group).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

async fn next_line(from: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    match from.take(LINE).read_until(b'\n', &mut line).await {
        Ok(0) | Err(_) => None,
        Ok(_) => {
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            Some(String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned())
        }
    }
}

fn told(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("the program ended with exit code {code}"),
        None => format!("the program was ended: {status}"),
    }
}

/// The first bytes that a job keeps of an error.
fn bounded(text: &str) -> String {
    let mut end = text.len().min(MAX_ERROR);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(command: &str, lines: &str) -> (End, Vec<String>) {
        let about = About { queue: "jobs".into(), url: "http://h".into(), job: "k.1".into(), tries: 2 };
        let (sender, mut lines_out) = mpsc::channel(100);
        let end = attend(start(command, &about).unwrap(), lines.into(), sender).await;
        let mut printed = Vec::new();
        while let Ok(line) = lines_out.try_recv() {
            printed.push(line);
        }
        (end, printed)
    }

    #[tokio::test]
    async fn a_program_gets_its_jobs_and_its_end_is_told() {
        let (end, printed) = run("cat; echo $FANFARE_JOB_QUEUE $FANFARE_JOB $FANFARE_JOB_TRY", "{\"a\":1}\n").await;
        assert_eq!((end, printed), (End::Done, vec!["{\"a\":1}".into(), "jobs k.1 2".into()]));
        assert_eq!(run("echo no >&2; echo why >&2; exit 3", "").await.0, End::Failed("why".into()));
        let told = End::Failed("the program ended with exit code 3".into());
        assert_eq!(run("exit 3", "").await.0, told);
        assert!(matches!(run("kill -9 $$", "").await.0, End::Failed(text) if text.contains("signal")));
        // One that reads nothing is no failure.
        assert_eq!(run("true", &"x".repeat(1 << 20)).await.0, End::Done);
    }

    #[test]
    fn an_error_is_cut_between_letters() {
        let text = "é".repeat(MAX_ERROR);
        assert_eq!(bounded(&text).len(), MAX_ERROR);
        assert_eq!(bounded(&format!("x{text}")).len(), MAX_ERROR - 1);
    }
}
