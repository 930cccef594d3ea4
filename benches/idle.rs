//! What a connection costs that does nothing: `./dev bench idle [--connections N] [--with PEER,…]`.
//!
//! Every server is a process of its own on one core; a process on the other core opens so many WebSockets, each with one
//! subscription, and then does nothing. Printed are the resident memory for each connection (the difference to the same
//! process before the first one), the processor time for each handshake with its subscription, and what the server spends
//! while all are idle. Kernel memory of the sockets comes on top, the same for all.
//!
//! Peers as in `./dev bench fanout`. Loopback only; it ends by itself.

#[allow(dead_code, reason = "each measurement uses its part of it")]
mod beside;

use std::time::{Duration, Instant};

use beside::target::{Server, Target, pin};

/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(10);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if beside::play(&arguments) {
        return;
    }
    let (mut connections, mut peers) = (10_000, "naive,uwebsockets".to_string());
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name == "--connections" => connections = value.parse().expect("a number"),
            [name, value] if name == "--with" => peers = value.clone(),
            _ => panic!(
                "unknown: {pair:?}; --connections N (1 to 18000, 10000), --with PEER,… (naive,uwebsockets; none)"
            ),
        }
    }
    assert!((1..=18_000).contains(&connections), "1 to 18000 connections: a process may open 20,000 files");
    pin(1);
    println!("{connections} connections with one subscription each\n");
    println!("| | KiB a connection | µs a handshake | handshakes/s a core | processor while idle |");
    println!("|---|--:|--:|--:|--:|");
    let servers = ["hub"].into_iter().chain(peers.split(',').filter(|peer| *peer != "none"));
    for name in servers {
        match if name == "hub" { Ok(Server::hub("memory")) } else { Server::peer(name) } {
            Ok(server) => measure(server, connections),
            Err(why) => println!("{name}: not measured: {why}"),
        }
    }
}

fn measure(server: Server, connections: usize) {
    // One crowd before, so that what a server sets up once is not counted for each.
    let mut first = Target::with(server, 100, 128);
    first.warm_up();
    let server = first.leave();
    let (memory, spent) = (server.resident(), server.spent());
    let target = Target::with(server, connections, 128);
    std::thread::sleep(Duration::from_secs(1));
    let each = (target.server.spent() - spent).as_secs_f64() * 1e6 / connections as f64;
    let (begun, spent) = (Instant::now(), target.server.spent());
    std::thread::sleep(IDLE);
    let idle = (target.server.spent() - spent).as_secs_f64() / begun.elapsed().as_secs_f64();
    println!(
        "| {} | {:.2} | {each:.0} | {:.0} | {:.2} % |",
        target.name(),
        (target.server.resident() - memory) / connections as f64,
        1e6 / each,
        idle * 100.0
    );
    target.end();
}
