//! The hub's process: the real server, and the floor over the hub's own sockets.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::path::Path;

use fanfare::config::{self, Mode};
use fanfare::server::Server;

use super::target::pin;

/// `STORE`. Says its address; then each line, `LENGTH TIMES PORT…`, sends ready frames to all sockets but those of these peers.
pub fn run(arguments: &[String]) {
    pin(0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let server = runtime.block_on(start(&arguments[0]));
    println!("{}", server.http);
    let mut floor = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a text");
        let numbers: Vec<usize> = line.split(' ').map(|word| word.parse().expect("a number")).collect();
        let &[length, times, ref publishers @ ..] = &numbers[..] else { panic!("LENGTH TIMES PORT…: {line}") };
        if floor.is_empty() {
            floor = sockets(server.http, publishers);
        }
        write_all(&floor, &ready_frame(length), times);
        println!("{}", floor.len());
    }
    runtime.block_on(server.stop());
}

async fn start(store: &str) -> Server {
    let flags = ["fanfare", "--insecure", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--redis-listen=off"];
    let store = format!("--store={store}");
    let flags = flags.into_iter().chain([&store[..], "--shards=1", "--rate=1000000", "--burst=1000000", "--ping=5m"]);
    let matches = clap::Command::new("fanfare").args(config::arguments()).get_matches_from(flags);
    let config = config::load(Mode::Serve, &matches, [], Path::new("/nonexistent")).expect("good flags");
    Server::start(&config, Mode::Serve).await.expect("it starts")
}

/// The floor: a ready frame to each socket.
fn write_all(sockets: &[TcpStream], frame: &[u8], times: usize) {
    for _ in 0..times {
        for mut socket in sockets {
            // The windows of loopback hold a burst; a short write would be a fault of the measurement.
            let written = socket.write(frame).expect("an open socket");
            assert_eq!(written, frame.len(), "a burst is larger than the sockets' buffers; choose a smaller message");
        }
    }
}

/// The hub's ends of the subscribers' sockets: those of this process that belong to its address.
fn sockets(http: SocketAddr, publishers: &[usize]) -> Vec<TcpStream> {
    let entries = fs::read_dir("/proc/self/fd").expect("Linux");
    let numbers: Vec<i32> = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
    let mut found = BTreeMap::new();
    for socket in numbers.into_iter().filter_map(duplicate) {
        // A duplicate may take the number of the closed listing, so it is met again.
        if let (Ok(own), Ok(peer)) = (socket.local_addr(), socket.peer_addr())
            && own == http
            && !publishers.contains(&peer.port().into())
        {
            found.entry(peer).or_insert(socket);
        }
    }
    found.into_values().collect()
}

#[allow(
    unsafe_code,
    reason = "the hub owns the sockets and lends them to nobody; the floor writes to the very same ones"
)]
fn duplicate(number: i32) -> Option<TcpStream> {
    // SAFETY: the number was just listed as open, and is only duplicated; a number closed since gives an error.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    borrowed.try_clone_to_owned().ok().map(TcpStream::from)
}

/// A text frame of a given length on the wire, that counts as one message.
fn ready_frame(length: usize) -> Vec<u8> {
    let mut frame = match length {
        0..=127 => vec![0x81, (length - 2) as u8],
        128..=65_539 => [&[0x81, 126][..], &((length - 4) as u16).to_be_bytes()].concat(),
        _ => [&[0x81, 127][..], &((length - 10) as u64).to_be_bytes()].concat(),
    };
    frame.push(b'@');
    frame.resize(length, b'.');
    frame
}
