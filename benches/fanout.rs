//! What a delivery costs over the operating system's own price, beside other servers: `./dev bench fanout`.
//!
//! Every server under test is a process of its own on one core; on the other one a process holds its subscribers and
//! publishers, and counts what they read. Three ways of publishing: **one**, a message, and the next once every subscriber has
//! it; **paced**, the same at 10,000 deliveries a second; **flood**, 16 publishers with 16 messages each at once. Turns go through
//! all servers in the order A B C C B A. The **floor** is one `send` of a ready frame of the same length to each socket, in a
//! plain loop: by the hub's own process, over the very sockets that the hub writes to. The **hub** is the real one: history on,
//! positions, every message through parsing, store, feed and shards.
//!
//! Printed is the median of the ratios of each server's processor time to the floor's in the same turn, with its 95 % interval
//! (by order statistics), what a server adds for each delivery, and how long deliveries took.
//!
//! Loopback only; it ends by itself. Peers: `naive` is built in, `uwebsockets` and `socketio` come from npm (`./dev bench
//! fanout` installs them), `nchan`, `nats` and `mosquitto` run where they are installed.

#[allow(dead_code, reason = "each measurement uses its part of it")]
mod beside;

use std::time::Duration;

use beside::crowd::PUBLISHERS;
use beside::stats::{self, Figures};
use beside::target::{Server, Target, pin};

/// Deliveries a second of the paced form.
const PACE: usize = 10_000;
/// Messages in a turn.
const ONE: usize = 4;
const PACED: usize = 10;
/// Messages of each publisher in a burst of the flood.
const WINDOW: usize = 16;

const USAGE: &str = "--subscribers N (1 to 9000, 1000), --bytes N (16 to 65536, 128), --pairs N (15), \
                     --mode one|paced|flood|all, --with PEER,… (naive,uwebsockets; none), --store memory|disk:PATH|redis://…";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    One,
    Paced,
    Flood,
}

struct Plan {
    subscribers: usize,
    bytes: usize,
    pairs: usize,
    forms: Vec<Form>,
    peers: Vec<String>,
    store: String,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if !beside::play(&arguments) {
        measure(&plan(&arguments));
    }
}

fn plan(arguments: &[String]) -> Plan {
    let mut plan = Plan {
        subscribers: 1_000,
        bytes: 128,
        pairs: 15,
        forms: vec![Form::One, Form::Paced, Form::Flood],
        peers: vec!["naive".into(), "uwebsockets".into()],
        store: "memory".into(),
    };
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let value = rest.next().unwrap_or_else(|| panic!("a value follows {name}; {USAGE}"));
        let number = || value.parse().unwrap_or_else(|_| panic!("{name} is a number; {USAGE}"));
        match name.as_str() {
            "--subscribers" => plan.subscribers = number(),
            "--bytes" => plan.bytes = number(),
            "--pairs" => plan.pairs = number(),
            "--store" => plan.store = value.clone(),
            "--with" => plan.peers = value.split(',').filter(|peer| *peer != "none").map(String::from).collect(),
            "--mode" => {
                plan.forms = match value.as_str() {
                    "one" => vec![Form::One],
                    "paced" => vec![Form::Paced],
                    "flood" => vec![Form::Flood],
                    "all" => plan.forms,
                    _ => panic!("unknown form {value}; {USAGE}"),
                }
            }
            _ => panic!("unknown: {name}; {USAGE}"),
        }
    }
    assert!((1..=9_000).contains(&plan.subscribers) && (16..=65_536).contains(&plan.bytes), "{USAGE}");
    plan
}

fn measure(plan: &Plan) {
    pin(1);
    let mut targets = vec![Target::with(Server::hub(&plan.store), plan.subscribers, plan.bytes)];
    for peer in &plan.peers {
        match Server::peer(peer) {
            Ok(server) => targets.push(Target::with(server, plan.subscribers, plan.bytes)),
            Err(why) => println!("{peer}: not measured: {why}"),
        }
    }
    for target in &mut targets {
        target.warm_up();
    }
    for form in &plan.forms {
        let each = match form {
            Form::One => ONE,
            Form::Paced => PACED,
            Form::Flood => PUBLISHERS * WINDOW,
        };
        println!(
            "\n{}: {} subscribers, {} bytes of data ({} on the wire from the hub), {each} messages a turn, {} turns of each",
            match form {
                Form::One => "one outstanding",
                Form::Paced => "paced, 10,000 deliveries a second",
                Form::Flood => "flood, 16 publishers with 16 messages each",
            },
            plan.subscribers,
            plan.bytes,
            targets[0].frame(),
            plan.pairs
        );
        let mut figures: Vec<Figures> = Vec::new();
        figures.push(Figures::new("floor"));
        figures.extend(targets.iter().map(|target| Figures::new(target.name())));
        for pair in 0..plan.pairs {
            let mut order: Vec<usize> = (0..figures.len()).collect();
            if pair % 2 == 1 {
                order.reverse();
            }
            for index in order {
                let is_floor = index == 0;
                let target = &mut targets[index.saturating_sub(1)];
                let (cost, latencies) = turn(target, *form, is_floor, plan);
                figures[index].add(cost, (plan.subscribers * each) as f64, latencies);
            }
        }
        stats::print(&figures);
    }
    targets.into_iter().for_each(Target::end);
}

/// One turn of a server: its processor time, and how long its deliveries took.
fn turn(target: &mut Target, form: Form, is_floor: bool, plan: &Plan) -> (Duration, Vec<Duration>) {
    let mut publish = |publishers: usize, window: usize| match is_floor {
        true => target.floor(publishers * window),
        false => target.publish(publishers, window),
    };
    match form {
        Form::One => (0..ONE).for_each(|_| publish(1, 1)),
        Form::Paced => {
            let pause = Duration::from_secs_f64(plan.subscribers as f64 / PACE as f64);
            let begun = std::time::Instant::now();
            for n in 1..=PACED as u32 {
                publish(1, 1);
                std::thread::sleep((begun + pause * n).saturating_duration_since(std::time::Instant::now()));
            }
        }
        Form::Flood => publish(PUBLISHERS, WINDOW),
    }
    target.spent()
}
