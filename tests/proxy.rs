//! The proxy that breaks lines for other tests does what its switches say, on open and on new connections.

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/redis.rs"]
mod server;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use proxy::{Proxy, To, Traffic, Way};
use server::RedisServer;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// So long is listened to find out that nothing comes: the length of the injected fault.
const SILENCE: Duration = Duration::from_millis(150);

/// Both ends of connections through a proxy.
struct Line {
    proxy: Proxy,
    accepted: mpsc::Receiver<TcpStream>,
}

impl Line {
    fn new() -> Line {
        let (address, accepted) = target();
        Line { proxy: Proxy::start(address), accepted }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.proxy.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A connection, from both sides.
    fn pair(&self) -> (TcpStream, TcpStream) {
        (self.connect(), self.accepted.recv_timeout(PATIENCE).expect("it reaches the target"))
    }

    fn until(&self, what: &str, is_so: impl Fn(Traffic) -> bool) {
        let begun = Instant::now();
        while !is_so(self.proxy.traffic()) {
            assert!(begun.elapsed() < PATIENCE, "{what}: {:?}", self.proxy.traffic());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn target() -> (std::net::SocketAddr, mpsc::Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, accepted) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            if sender.send(stream).is_err() {
                break;
            }
        }
    });
    (address, accepted)
}

#[track_caller]
fn hears(stream: &mut TcpStream, text: &str) {
    let mut buffer = vec![0; text.len()];
    stream.read_exact(&mut buffer).unwrap();
    assert_eq!(String::from_utf8_lossy(&buffer), text);
}

#[track_caller]
fn hears_nothing(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    let heard = stream.read(&mut [0]);
    assert_eq!(heard.map_err(|e| e.kind()), Err(ErrorKind::WouldBlock), "nothing was expected");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
}

#[track_caller]
fn is_reset(stream: &mut TcpStream) {
    let heard = stream.read(&mut [0]);
    assert_eq!(heard.map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset), "a reset was expected");
}

#[test]
fn it_passes_both_ways_counts_and_hands_on_the_end_of_one_direction() {
    let line = Line::new();
    let (mut client, mut target) = line.pair();
    client.write_all(b"ask").unwrap();
    hears(&mut target, "ask");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(target.read(&mut [0]).unwrap(), 0);
    target.write_all(b"answer").unwrap();
    hears(&mut client, "answer");
    drop(target);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    line.until("the connection is over", |t| t.open == 0);
    let expected = Traffic { to_target: 3, to_client: 6, accepted: 1, ..Traffic::default() };
    assert_eq!(line.proxy.traffic(), expected);
}

#[test]
fn much_passes_through_whole_whatever_the_reader_does() {
    let line = Line::new();
    let (mut client, mut target) = line.pair();
    let bytes: Vec<u8> = (0..4 << 20).map(|n: u32| (n ^ (n >> 8)) as u8).collect();
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || client.write_all(&sent).map(|()| client));
    let mut heard = vec![0; bytes.len()];
    target.read_exact(&mut heard).unwrap();
    assert!(heard == bytes);
    drop(sender.join().unwrap());
}

#[test]
fn a_black_hole_swallows_both_ways_and_the_connection_that_lost_bytes_is_reset_afterwards() {
    let line = Line::new();
    let (mut client, mut target) = line.pair();
    let (mut quiet, mut quiet_target) = line.pair();
    line.proxy.set_both(Way::BlackHole);
    client.write_all(b"lost").unwrap();
    target.write_all(b"too").unwrap();
    line.until("it vanishes", |t| (t.lost_to_target, t.lost_to_client) == (4, 3));
    hears_nothing(&mut client);
    hears_nothing(&mut target);
    // A new connection stands, and leads nowhere.
    let mut late = line.connect();
    late.write_all(b"hello?").unwrap();
    hears_nothing(&mut late);
    assert!(line.accepted.try_recv().is_err());
    line.proxy.heal();
    for stream in [&mut client, &mut target, &mut late] {
        is_reset(stream);
    }
    quiet.write_all(b"all is well").unwrap();
    hears(&mut quiet_target, "all is well");
}

#[test]
fn one_way_may_be_black_while_the_other_passes() {
    let line = Line::new();
    let (mut client, mut target) = line.pair();
    line.proxy.set(To::Client, Way::BlackHole);
    client.write_all(b"ask").unwrap();
    hears(&mut target, "ask");
    target.write_all(b"answer").unwrap();
    line.until("it vanishes", |t| t.lost_to_client == 6);
    // Nor does the client hear of the target's end.
    drop(target);
    hears_nothing(&mut client);
    line.proxy.heal();
    is_reset(&mut client);
}

#[test]
fn what_is_held_comes_later_and_whole() {
    let line = Line::new();
    let (mut client, mut target) = line.pair();
    line.proxy.set(To::Target, Way::Hold);
    client.write_all(b"patience").unwrap();
    hears_nothing(&mut target);
    target.write_all(b"other way").unwrap();
    hears(&mut client, "other way");
    let mut late = line.connect();
    late.write_all(b"late").unwrap();
    assert!(line.accepted.recv_timeout(SILENCE).is_err());
    line.proxy.heal();
    hears(&mut target, "patience");
    hears(&mut line.accepted.recv_timeout(PATIENCE).unwrap(), "late");
}

#[test]
fn a_delayed_way_is_late_and_not_narrow() {
    let line = Line::new();
    let (mut client, mut target) = line.pair();
    line.proxy.set(To::Target, Way::Delay(Duration::from_millis(200)));
    let begun = Instant::now();
    for _ in 0..20 {
        client.write_all(b"0123456789").unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    hears(&mut target, &"0123456789".repeat(20));
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(200), "{took:?}");
    // Were each late in turn, it would take four seconds.
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_throttled_way_passes_so_many_bytes_a_second_and_lets_the_sender_wait() {
    let line = Line::new();
    let (mut client, mut target) = line.pair();
    line.proxy.set(To::Target, Way::Throttle(1024));
    let begun = Instant::now();
    client.write_all(&[b'x'; 512]).unwrap();
    target.read_exact(&mut [0; 512]).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    // More than all that lies between the two: the sender is held up.
    client.set_write_timeout(Some(SILENCE)).unwrap();
    let held = (0..64).any(|_| client.write_all(&[b'x'; 1 << 20]).is_err());
    assert!(held, "64 MiB were taken");
}

#[test]
fn a_reset_ends_what_is_open_and_not_what_comes() {
    let line = Line::new();
    let (mut client, mut target) = line.pair();
    line.proxy.reset();
    is_reset(&mut client);
    is_reset(&mut target);
    let (mut client, mut target) = line.pair();
    client.write_all(b"again").unwrap();
    hears(&mut target, "again");
}

#[test]
fn a_half_closed_connection_still_passes_the_other_way() {
    let line = Line::new();
    let (mut client, mut target) = line.pair();
    line.proxy.half_close(To::Client);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    target.write_all(b"into nothing").unwrap();
    line.until("it vanishes", |t| t.lost_to_client == 12);
    client.write_all(b"are you there").unwrap();
    hears(&mut target, "are you there");
}

#[test]
fn new_connections_are_refused_while_open_ones_go_on() {
    let line = Line::new();
    let (mut client, mut target) = line.pair();
    line.proxy.refuse(true);
    let begun = Instant::now();
    let refused = loop {
        match TcpStream::connect(line.proxy.address()) {
            Err(error) => break error.kind(),
            Ok(_) => assert!(begun.elapsed() < PATIENCE, "it takes connections"),
        }
    };
    // One that arrives while the listener goes is reset.
    assert!(matches!(refused, ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset), "{refused}");
    client.write_all(b"still").unwrap();
    hears(&mut target, "still");
    line.proxy.refuse(false);
    let begun = Instant::now();
    while TcpStream::connect(line.proxy.address()).is_err() {
        assert!(begun.elapsed() < PATIENCE, "it refuses connections");
    }
}

#[test]
fn a_new_target_is_for_new_connections() {
    let line = Line::new();
    let (mut client, mut first) = line.pair();
    let (address, accepted) = target();
    line.proxy.retarget(address);
    client.write_all(b"old").unwrap();
    hears(&mut first, "old");
    let mut client = line.connect();
    let mut second = accepted.recv_timeout(PATIENCE).unwrap();
    client.write_all(b"new").unwrap();
    hears(&mut second, "new");
}

#[test]
fn a_target_that_is_not_there_resets_the_client() {
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::start(nowhere);
    let mut client = TcpStream::connect(proxy.address()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    is_reset(&mut client);
}

#[test]
fn a_replica_behind_a_black_hole_falls_behind_and_catches_up() {
    let master = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
    let proxy = Proxy::start(([127, 0, 0, 1], master.port()).into());
    let port = proxy.address().port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
    let (mut writes, mut reads) = (master.connection(), replica.connection());
    let read = |reads: &mut redis::Connection| redis::cmd("GET").arg("n").query::<Option<u64>>(reads).unwrap();
    let mut until = |n: u64| {
        let begun = Instant::now();
        while read(&mut reads) != Some(n) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{n} does not come");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let set = |writes: &mut redis::Connection, n: u64| redis::cmd("SET").arg("n").arg(n).exec(writes).unwrap();
    set(&mut writes, 1);
    until(1);
    // The first may have come with the copy; this one shows that the link carries what is written.
    set(&mut writes, 2);
    until(2);
    proxy.set_both(Way::BlackHole);
    set(&mut writes, 3);
    let begun = Instant::now();
    while proxy.traffic().lost_to_client == 0 {
        assert!(begun.elapsed() < PATIENCE, "nothing vanishes");
        std::thread::sleep(Duration::from_millis(1));
    }
    until(2);
    proxy.heal();
    until(3);
}
