//! The Dockerfile without an engine: it is read as an engine would, each RUN is executed by a shell in a scratch folder that
//! stands for its stage, each COPY copies, and what comes out is run as the image would run it. Not shown: that the base
//! images hold what the steps need, and that the image runs as the user it names.
//!
//! The build argument `PROFILE` is `dev`, and the compiled libraries are shared with the other tests: a release build of
//! everything would take minutes and show nothing more of the file.

#[path = "support/dockerfile.rs"]
mod dockerfile;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dockerfile::{Image, Instruction, Stage};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn image() -> Image {
    Image::parse(&fs::read_to_string(root().join("Dockerfile")).unwrap())
}

/// Every stage in a folder of its own; the last one's folder is the answer.
fn build(image: &Image, scratch: &Path) -> PathBuf {
    let mut folders = BTreeMap::new();
    let mut last = PathBuf::new();
    for (number, stage) in image.stages.iter().enumerate() {
        last = scratch.join(number.to_string());
        fs::create_dir(&last).unwrap();
        build_stage(stage, &last, &folders);
        folders.insert(stage.name.clone(), last.clone());
    }
    last
}

fn build_stage(stage: &Stage, folder: &Path, others: &BTreeMap<String, PathBuf>) {
    let inside = |path: &str, base: &str| {
        let path = Path::new(base).join(path);
        folder.join(path.strip_prefix("/").unwrap())
    };
    let mut work = "/".to_string();
    let mut environment = BTreeMap::new();
    for instruction in &stage.instructions {
        match instruction {
            Instruction::Workdir(path) => {
                work = Path::new(&work).join(path).to_str().unwrap().to_string();
                fs::create_dir_all(inside("", &work)).unwrap();
            }
            Instruction::Arg(name, default) => {
                let value = if name == "PROFILE" { "dev" } else { default };
                environment.insert(name.clone(), value.to_string());
            }
            Instruction::Env(name, value) => drop(environment.insert(name.clone(), value.clone())),
            Instruction::Copy { from, sources, to } => {
                for source in sources {
                    let path = match from {
                        Some(stage) => others[stage].join(source.trim_start_matches('/')),
                        None => root().join(source),
                    };
                    let mut target = inside(to, &work);
                    if to.ends_with('/') {
                        target.push(path.file_name().unwrap());
                    }
                    copy(&path, &target);
                }
            }
            Instruction::Run(line) => {
                let run = Command::new("sh")
                    .args(["-c", line])
                    .current_dir(inside("", &work))
                    .envs(&environment)
                    .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap())
                    .env("CARGO_NET_OFFLINE", "true")
                    .output()
                    .unwrap();
                let said = String::from_utf8_lossy(&run.stderr);
                assert!(run.status.success(), "RUN {line}\n{said}");
            }
            Instruction::Other(..) => {}
        }
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap_or_else(|error| panic!("COPY {}: {error}", from.display()));
    }
}

/// The command that the image runs, with the environment that it sets and no other.
fn in_image(image: &Image, folder: &Path, words: &[String], more: &[(&str, &str)]) -> Command {
    let stage = image.stages.last().unwrap();
    let program = folder.join("usr/local/bin").join(&words[0]);
    let mut command = Command::new(program);
    command.args(&words[1..]).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut work = "/";
    for instruction in &stage.instructions {
        match instruction {
            Instruction::Env(name, value) => drop(command.env(name, value)),
            Instruction::Workdir(path) => work = path,
            _ => {}
        }
    }
    command.current_dir(folder.join(work.trim_start_matches('/'))).envs(more.iter().copied());
    command
}

#[test]
fn every_step_runs_and_what_comes_out_serves_and_is_found_healthy() {
    let image = image();
    let scratch = tempfile::tempdir().unwrap();
    let folder = build(&image, scratch.path());
    let stage = image.stages.last().unwrap();
    let start = [stage.words("ENTRYPOINT"), stage.words("CMD")].concat();

    // As it is, it refuses, and says what to type in a container's terms too.
    let refused = in_image(&image, &folder, &start, &[]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("serve --insecure") && said.contains("FANFARE_INSECURE=true"), "{said}");

    // Told so it serves, on all addresses as the image says; only the ports are free ones here.
    let listen = stage.value("ENV", "FANFARE_LISTEN").unwrap();
    let (address, port) = listen.rsplit_once(':').unwrap();
    assert_eq!((address, port.to_string()), ("0.0.0.0", stage.value("EXPOSE", "").unwrap()));
    let settings = [
        ("FANFARE_INSECURE", "true"),
        ("FANFARE_LISTEN", "0.0.0.0:0"),
        ("FANFARE_ADMIN_LISTEN", "127.0.0.1:0"),
        ("FANFARE_REDIS_LISTEN", "127.0.0.1:0"),
    ];
    let mut hub = Ended(in_image(&image, &folder, &start, &settings).spawn().unwrap());
    let mut lines = BufReader::new(hub.0.stdout.take().unwrap()).lines();
    let http = lines.find_map(|line| line.unwrap().split_once("http://").map(|(_, rest)| rest.trim().to_string()));
    let http = http.expect("it says where it listens");
    let port = http.trim_end_matches('/').rsplit_once(':').unwrap().1;
    let check = stage.words("HEALTHCHECK");
    let healthy =
        in_image(&image, &folder, &check, &[("FANFARE_LISTEN", &format!("0.0.0.0:{port}"))]).output().unwrap();
    assert!(healthy.status.success(), "{}", String::from_utf8_lossy(&healthy.stderr));
    let stopped = Command::new("kill").args(["-TERM", &hub.0.id().to_string()]).status().unwrap();
    assert!(stopped.success() && hub.0.wait().unwrap().success());
    let sick = in_image(&image, &folder, &check, &[("FANFARE_LISTEN", &format!("0.0.0.0:{port}"))]).output().unwrap();
    assert_eq!(sick.status.code(), Some(1));
}

/// A process that does not outlive its test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_runs_as_nobody_special_and_keeps_what_it_must_outside() {
    let image = image();
    let [build, run] = &image.stages[..] else { panic!("two stages") };
    assert!(build.from.starts_with("rust:") && run.from.ends_with("-slim"), "{} {}", build.from, run.from);
    // Both are of the same Debian, so that the binary finds its C library.
    assert!(build.from.ends_with("-bookworm") && run.from.contains("bookworm"));
    let user = run.value("USER", "").unwrap();
    let ids: Vec<u32> = user.split(':').map(|id| id.parse().unwrap()).collect();
    assert!(ids.len() == 2 && ids.iter().all(|id| *id > 0), "{user}");
    let volume = run.value("VOLUME", "").unwrap();
    let is_owned =
        run.lines.iter().any(|l| l.starts_with(&format!("COPY --from=build --chown={user} ")) && l.ends_with(&volume));
    assert!(is_owned, "{volume} is not the user's");
    assert!(run.instructions.iter().any(|i| matches!(i, Instruction::Workdir(path) if *path == volume)));
}

#[test]
fn the_build_sees_what_it_copies_and_nothing_else() {
    let ignore = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let mut lines = ignore.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(lines.next(), Some("*"));
    let mut seen: Vec<&str> = lines.map(|line| line.strip_prefix('!').expect("an exception")).collect();
    let image = image();
    let mut copied: Vec<&str> = image
        .stages
        .iter()
        .flat_map(|stage| &stage.instructions)
        .filter_map(|i| match i {
            Instruction::Copy { from: None, sources, .. } => Some(sources),
            _ => None,
        })
        .flatten()
        .map(String::as_str)
        .collect();
    seen.sort_unstable();
    copied.sort_unstable();
    assert_eq!(seen, copied);
}
