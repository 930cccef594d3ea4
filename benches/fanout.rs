//! What a delivery costs over the operating system's own price: `./dev bench fanout`.
//!
//! One process runs the real hub (in memory, history on) on one core; another holds the subscribers and a publisher on
//! the other. Bursts alternate in the order A B B A between two ways of bringing a message to every subscriber over the
//! very same sockets: **hub**, a `pub` frame from a client through parsing, store, feed and shards; **floor**, one
//! `send` of a ready frame of the same length to each socket, in a plain loop. The processor time of the hub's process is
//! taken from the start of a burst until the subscribers have read it all. Printed is the median of the ratios of the
//! pairs with its 95 % interval (by order statistics), and what the hub adds for each delivery.
//!
//! Loopback only; it ends by itself.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use fanfare::config::{self, Mode};
use fanfare::server::Server;
use futures::{SinkExt, StreamExt};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::AsyncBufReadExt;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, connect_async};

struct Plan {
    subscribers: usize,
    bytes: usize,
    window: usize,
    pairs: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [role, rest @ ..] = &arguments[..]
        && role == "subscribers"
    {
        let number = |i: usize| rest[i].parse().expect("a number");
        pin(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a thread");
        let http = rest[3].parse().expect("an address");
        let local = tokio::task::LocalSet::new();
        return local.block_on(&runtime, crowd(number(0), number(1), number(2), http));
    }
    let number = |name: &str, default: usize| {
        let at = arguments.iter().position(|a| a == name);
        at.and_then(|i| arguments.get(i + 1)).map_or(default, |v| v.parse().expect("a number"))
    };
    let plan = Plan {
        subscribers: number("--subscribers", 1000),
        bytes: number("--bytes", 128),
        window: number("--window", 1),
        pairs: number("--pairs", 40),
    };
    assert!((1..=9_000).contains(&plan.subscribers) && (1..=64).contains(&plan.window), "within bounds");
    pin(0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let server = runtime.block_on(start());
    measure(&plan, &server);
    runtime.block_on(server.stop());
}

async fn start() -> Server {
    let flags = ["fanfare", "--insecure", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--redis-listen=off"];
    let flags = flags.into_iter().chain(["--shards=1", "--rate=100000", "--burst=100000"]);
    let matches = clap::Command::new("fanfare").args(config::arguments()).get_matches_from(flags);
    let config = config::load(Mode::Serve, &matches, [], Path::new("/nonexistent")).expect("good flags");
    Server::start(&config, Mode::Serve).await.expect("it starts")
}

fn measure(plan: &Plan, server: &Server) {
    let mut crowd = Crowd::start(plan, server.http);
    let floor = sockets(server.http, crowd.publisher);
    assert_eq!(floor.len(), plan.subscribers, "every subscriber's socket was found");
    for _ in 0..4 {
        crowd.publish();
    }
    let (mut hub_costs, mut floor_costs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..plan.pairs {
        let mut costs = [Duration::ZERO; 2];
        for way in if pair % 2 == 0 { [0, 1] } else { [1, 0] } {
            costs[way] = match way {
                0 => cpu(|| crowd.publish()),
                _ => cpu(|| write_all(&mut crowd, &floor, plan.window)),
            };
        }
        hub_costs.push(costs[0]);
        floor_costs.push(costs[1]);
        ratios.push(costs[0].as_secs_f64() / costs[1].as_secs_f64());
    }
    let deliveries = (plan.subscribers * plan.window) as f64;
    let each = |costs: &mut Vec<Duration>| {
        costs.sort();
        costs[costs.len() / 2].as_secs_f64() * 1e6 / deliveries
    };
    let (hub, floor) = (each(&mut hub_costs), each(&mut floor_costs));
    let (low, median, high) = interval(&mut ratios);
    println!(
        "fanout: {} subscribers, {} bytes of data ({} on the wire), {} in a burst, {} pairs",
        plan.subscribers, plan.bytes, crowd.frame, plan.window, plan.pairs
    );
    println!("  floor  {floor:6.2} µs of processor time a delivery");
    println!("  hub    {hub:6.2} µs, {:+.2} µs over the floor", hub - floor);
    println!("  ratio  {median:.3}  (95 % interval {low:.3} to {high:.3})");
    crowd.end();
}

/// The floor: a ready frame to each socket.
fn write_all(crowd: &mut Crowd, sockets: &[TcpStream], window: usize) {
    let frame = ready_frame(crowd.frame);
    for _ in 0..window {
        for mut socket in sockets {
            // The windows of loopback hold a burst; a short write would be a fault of the measurement.
            let written = socket.write(&frame).expect("an open socket");
            assert_eq!(written, frame.len(), "a burst is larger than the sockets' buffers; choose a smaller window");
        }
    }
    crowd.wait();
}

/// Processor time of this process while `work` runs.
fn cpu(work: impl FnOnce()) -> Duration {
    let before = clock_gettime(ClockId::ProcessCPUTime);
    work();
    let after = clock_gettime(ClockId::ProcessCPUTime);
    let nanos = (after.tv_sec - before.tv_sec) * 1_000_000_000 + (after.tv_nsec - before.tv_nsec);
    Duration::from_nanos(nanos as u64)
}

/// The median and the order statistics between which it lies with 95 %.
fn interval(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let half = 1.96 * n.sqrt() / 2.0;
    let at = |i: f64| values[(i.max(0.0) as usize).min(values.len() - 1)];
    (at((n / 2.0 - half).floor()), at(n / 2.0), at((n / 2.0 + half).ceil()))
}

/// The hub's ends of the subscribers' sockets: those of this process that belong to its address.
fn sockets(http: SocketAddr, publisher: u16) -> Vec<TcpStream> {
    let entries = fs::read_dir("/proc/self/fd").expect("Linux");
    let numbers: Vec<i32> = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
    let mut found = BTreeMap::new();
    for socket in numbers.into_iter().filter_map(duplicate) {
        // A duplicate may take the number of the closed listing, so it is met again.
        if let (Ok(own), Ok(peer)) = (socket.local_addr(), socket.peer_addr())
            && own == http
            && peer.port() != publisher
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

fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    // On a machine of one core both share it.
    let _ = sched_setaffinity(None, &set);
}

/// The other process, as the measuring one sees it.
struct Crowd {
    child: Child,
    orders: ChildStdin,
    reports: BufReader<ChildStdout>,
    /// Bytes of one frame on the wire.
    frame: usize,
    /// The publisher's port: its socket is no subscriber's.
    publisher: u16,
}

impl Crowd {
    fn start(plan: &Plan, http: SocketAddr) -> Crowd {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .arg("subscribers")
            .args([&plan.subscribers, &plan.bytes, &plan.window].map(usize::to_string))
            .arg(http.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a second process");
        let orders = child.stdin.take().expect("a pipe");
        let reports = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut crowd = Crowd { child, orders, reports, frame: 0, publisher: 0 };
        crowd.publisher = crowd.wait() as u16;
        crowd
    }

    /// Has a burst published, and waits until every subscriber has it.
    fn publish(&mut self) {
        writeln!(self.orders, "publish").expect("the crowd listens");
        self.frame = self.wait();
    }

    /// The crowd reports when every subscriber has a burst; the number is the length of a frame.
    fn wait(&mut self) -> usize {
        let mut line = String::new();
        self.reports.read_line(&mut line).expect("the crowd answers");
        line.trim().parse().expect("a number")
    }

    fn end(mut self) {
        drop(self.orders);
        let _ = self.child.wait();
    }
}

/// What the subscribers of the crowd have read.
#[derive(Default)]
struct Read {
    frames: Cell<usize>,
    length: Cell<usize>,
    whole: Notify,
}

/// The crowd's process: connects, then counts frames; publishes a burst for each line on its standard input.
async fn crowd(subscribers: usize, bytes: usize, window: usize, http: SocketAddr) {
    let read = Rc::new(Read::default());
    for _ in 0..subscribers {
        let (mut socket, _) = connect_async(format!("ws://{http}/ws?sub=bench")).await.expect("a handshake");
        // hello, and the answer to the subscription
        for _ in 0..2 {
            socket.next().await.expect("a frame").expect("a frame");
        }
        let MaybeTlsStream::Plain(stream) = socket.into_inner() else { unreachable!("no TLS was asked for") };
        tokio::task::spawn_local(count(stream, read.clone(), subscribers * window));
    }
    let (publisher, _) = connect_async(format!("ws://{http}/ws")).await.expect("a handshake");
    let MaybeTlsStream::Plain(stream) = publisher.get_ref() else { unreachable!("no TLS was asked for") };
    println!("{}", stream.local_addr().expect("it is connected").port());
    let (mut say, mut hear) = publisher.split();
    tokio::task::spawn_local(async move { while hear.next().await.is_some() {} });
    let mut orders = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    let frame = Message::text(format!(r#"{{"pub":"bench","data":"{}"}}"#, "x".repeat(bytes.saturating_sub(2))));
    loop {
        tokio::select! {
            order = orders.next_line() => {
                let Ok(Some(_)) = order else { return };
                for _ in 0..window {
                    say.feed(frame.clone()).await.expect("an open socket");
                }
                say.flush().await.expect("an open socket");
            }
            () = read.whole.notified() => println!("{}", read.length.get()),
        }
    }
}

/// Counts the text frames that come.
async fn count(stream: tokio::net::TcpStream, read: Rc<Read>, burst: usize) {
    let mut room = vec![0; 64 * 1024];
    let mut rest: Vec<u8> = Vec::new();
    while stream.readable().await.is_ok() {
        let got = match stream.try_read(&mut room) {
            Ok(0) => return,
            Ok(got) => got,
            Err(_) => continue,
        };
        rest.extend_from_slice(&room[..got]);
        while let Some(length) = whole_frame(&rest) {
            if rest[0] == 0x81 {
                read.length.set(length);
                read.frames.set(read.frames.get() + 1);
            }
            rest.drain(..length);
        }
        if read.frames.get() == burst {
            read.frames.set(0);
            read.whole.notify_one();
        }
    }
}

/// The length of the first frame, if it is all there.
fn whole_frame(bytes: &[u8]) -> Option<usize> {
    let length = match *bytes.get(1)? {
        126 => 4 + usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
        127 => 10 + u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize,
        short => 2 + usize::from(short),
    };
    (bytes.len() >= length).then_some(length)
}

/// A text frame of a given length on the wire.
fn ready_frame(length: usize) -> Vec<u8> {
    let mut frame = match length {
        0..=127 => vec![0x81, (length - 2) as u8],
        128..=65_539 => [&[0x81, 126][..], &((length - 4) as u16).to_be_bytes()].concat(),
        _ => [&[0x81, 127][..], &((length - 10) as u64).to_be_bytes()].concat(),
    };
    frame.resize(length, b'.');
    frame
}
