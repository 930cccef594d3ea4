//! A TCP proxy that breaks the line between two parties: bytes vanish, wait, come late or slowly, both ways or one way;
//! connections are reset, half closed, refused. A switch acts on open and on new connections, and once it has returned
//! no byte passes against it. It runs on a thread of its own, so that tests without a runtime can use it too.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// What a socket of the proxy takes in: what it does not read waits with whoever sent it and not in this machine.
const WINDOW: u32 = 64 << 10;
/// What may be on its way through one connection in one direction.
const ON_ITS_WAY: usize = 16 << 10;
/// The same where it comes late.
const ON_ITS_LATE_WAY: usize = 1 << 20;
const CONNECT: Duration = Duration::from_secs(2);

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    #[default]
    Pass,
    /// They vanish, and so do ends and resets of a connection. A connection that lost something is reset as soon as the
    /// way is another one: no TCP stream has holes.
    BlackHole,
    /// They wait, as when packets are lost and sent again: once the way passes, everything comes.
    Hold,
    /// Each comes so much later; as many as before are on their way.
    Delay(Duration),
    /// So many in a second.
    Throttle(u64),
}

/// Who gets the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    Target,
    Client,
}

#[derive(Debug, Clone, Copy)]
struct Switches {
    target: SocketAddr,
    ways: [Way; 2],
    refuses: bool,
    /// How often all connections were reset, and half closed towards each side.
    resets: u64,
    half_closes: [u64; 2],
    ended: bool,
}

#[derive(Debug, Default)]
struct Counters {
    passed: [AtomicU64; 2],
    lost: [AtomicU64; 2],
    accepted: AtomicU64,
    open: AtomicU64,
}

/// What went through since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    pub to_target: u64,
    pub to_client: u64,
    pub lost_to_target: u64,
    pub lost_to_client: u64,
    /// Connections since the start, and those that are open.
    pub accepted: u64,
    pub open: u64,
}

pub struct Proxy {
    address: SocketAddr,
    switches: watch::Sender<Switches>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
    /// Keeps the port while nothing listens on it.
    _place: Socket,
}

impl Proxy {
    /// Listens on a free port of the loopback and passes everything on.
    pub fn start(target: SocketAddr) -> Proxy {
        let place = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = place.local_addr().expect("it is bound").as_socket().expect("it has an IP address");
        let switches =
            Switches { target, ways: [Way::Pass; 2], refuses: false, resets: 0, half_closes: [0; 2], ended: false };
        let (switches, watched) = watch::channel(switches);
        let counters = Arc::new(Counters::default());
        // Whoever connects after this function must meet a listener.
        let listener = listen(address);
        let thread = std::thread::spawn({
            let counters = counters.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(accept(listener, address, watched, counters));
            }
        });
        Proxy { address, switches, counters, thread: Some(thread), _place: place }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn redis_url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// What happens to the bytes in one direction from now on.
    pub fn set(&self, to: To, way: Way) {
        self.switches.send_modify(|s| s.ways[to as usize] = way);
    }

    /// What happens to the bytes in both directions from now on.
    pub fn set_both(&self, way: Way) {
        self.switches.send_modify(|s| s.ways = [way; 2]);
    }

    /// Everything passes, and new connections are taken.
    pub fn heal(&self) {
        self.switches.send_modify(|s| (s.ways, s.refuses) = ([Way::Pass; 2], false));
    }

    /// Whether new connections are refused, as where nothing listens.
    pub fn refuse(&self, refuses: bool) {
        self.switches.send_modify(|s| s.refuses = refuses);
    }

    /// Resets all open connections, towards both sides.
    pub fn reset(&self) {
        self.switches.send_modify(|s| s.resets += 1);
    }

    /// Ends all open connections towards one side only: it reads the end, what it sends still passes.
    pub fn half_close(&self, to: To) {
        self.switches.send_modify(|s| s.half_closes[to as usize] += 1);
    }

    /// Where new connections lead from now on. Open ones stay where they are: `reset` ends them.
    pub fn retarget(&self, target: SocketAddr) {
        self.switches.send_modify(|s| s.target = target);
    }

    pub fn traffic(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let Counters { passed, lost, accepted, open } = &*self.counters;
        Traffic {
            to_target: read(&passed[0]),
            to_client: read(&passed[1]),
            lost_to_target: read(&lost[0]),
            lost_to_client: read(&lost[1]),
            accepted: read(accepted),
            open: read(open),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.switches.send_modify(|s| s.ended = true);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("it is joined once").expect("a proxy does not panic");
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // The place and the listener share the port.
    socket.set_reuse_port(true)?;
    socket.set_recv_buffer_size(WINDOW as usize)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> Socket {
    let socket = bind(address).expect("the port is ours");
    socket.listen(1024).expect("the port is ours");
    socket
}

async fn accept(first: Socket, address: SocketAddr, mut watched: watch::Receiver<Switches>, counters: Arc<Counters>) {
    let mut first = Some(first);
    let mut listener: Option<TcpListener> = None;
    let mut connections = JoinSet::new();
    loop {
        let Switches { refuses, ended, .. } = *watched.borrow_and_update();
        if ended {
            break;
        }
        match refuses {
            true => (first, listener) = (None, None),
            false if listener.is_none() => {
                let socket = first.take().unwrap_or_else(|| listen(address));
                listener = Some(TcpListener::from_std(socket.into()).expect("a listening socket"));
            }
            false => {}
        }
        let accepting = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = watched.changed() => {}
            Some(ended) = connections.join_next() => ended.expect("a connection does not panic"),
            Ok((client, _)) = accepting => {
                counters.accepted.fetch_add(1, Ordering::SeqCst);
                counters.open.fetch_add(1, Ordering::SeqCst);
                let (watched, counters) = (watched.clone(), counters.clone());
                connections.spawn(async move {
                    connection(client, watched, &counters).await;
                    counters.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        }
    }
    // They see the end themselves and reset both sides.
    while connections.join_next().await.is_some() {}
}

async fn connection(client: TcpStream, mut watched: watch::Receiver<Switches>, counters: &Counters) {
    let begun = *watched.borrow();
    let cut = {
        let mut watched = watched.clone();
        async move { _ = watched.wait_for(|s| s.ended || s.resets != begun.resets).await }
    };
    let client = Arc::new(client);
    let through = async {
        let Ok(target) = reach(begun.target, &mut watched).await else {
            return reset(&client);
        };
        let (up, down) = (
            Pump::new(&client, &target, To::Target, &watched, counters),
            Pump::new(&target, &client, To::Client, &watched, counters),
        );
        let cut = async {
            cut.await;
            Err::<(), _>(Broken)
        };
        let both = async { tokio::try_join!(up.run(begun), down.run(begun)).map(drop) };
        let result = tokio::select! { result = both => result, result = cut => result };
        if result.is_err() {
            reset(&client);
            reset(&target);
        }
    };
    through.await;
}

/// Connects to the target when the ways are open: behind a closed one nothing is heard of it.
async fn reach(target: SocketAddr, watched: &mut watch::Receiver<Switches>) -> Result<Arc<TcpStream>, Broken> {
    let begun = *watched.borrow();
    if begun.ways.contains(&Way::BlackHole) {
        let healed = watched.wait_for(|s| s.ended || s.resets != begun.resets || !s.ways.contains(&Way::BlackHole));
        healed.await.map_err(|_| Broken)?;
        return Err(Broken);
    }
    let open = watched.wait_for(|s| s.ended || s.resets != begun.resets || !s.ways.contains(&Way::Hold));
    let now = *open.await.map_err(|_| Broken)?;
    if now.ended || now.resets != begun.resets || now.ways.contains(&Way::BlackHole) {
        return Err(Broken);
    }
    let socket = TcpSocket::new_v4().and_then(|socket| {
        socket.set_recv_buffer_size(WINDOW)?;
        Ok(socket)
    });
    let connecting = timeout(CONNECT, socket.map_err(|_| Broken)?.connect(target)).await;
    connecting.map_err(|_| Broken)?.map(Arc::new).map_err(|_| Broken)
}

fn reset(stream: &TcpStream) {
    // What follows is the drop of the last one who holds it.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// The connection cannot go on and is reset.
struct Broken;

/// One direction of one connection.
struct Pump<'a> {
    from: Arc<TcpStream>,
    to: Arc<TcpStream>,
    side: usize,
    watched: watch::Receiver<Switches>,
    counters: &'a Counters,
    /// What was read, with the moment from which it may be written.
    queue: VecDeque<(Instant, Bytes)>,
    queued: usize,
    /// No sooner may be written: the pace of a slow line.
    not_before: Instant,
    ended: bool,
    has_lost: bool,
    half_closed: bool,
}

impl<'a> Pump<'a> {
    fn new(
        from: &Arc<TcpStream>,
        to: &Arc<TcpStream>,
        side: To,
        watched: &watch::Receiver<Switches>,
        counters: &'a Counters,
    ) -> Pump<'a> {
        Pump {
            from: from.clone(),
            to: to.clone(),
            side: side as usize,
            watched: watched.clone(),
            counters,
            queue: VecDeque::new(),
            queued: 0,
            not_before: Instant::now(),
            ended: false,
            has_lost: false,
            half_closed: false,
        }
    }

    /// Until the sender ends it and everything is through.
    async fn run(mut self, begun: Switches) -> Result<(), Broken> {
        loop {
            let now = *self.watched.borrow_and_update();
            let way = now.ways[self.side];
            if !self.half_closed && now.half_closes[self.side] != begun.half_closes[self.side] {
                self.half_closed = true;
                self.lose(self.queued);
                let _ = SockRef::from(&*self.to).shutdown(Shutdown::Write);
            }
            match way {
                Way::BlackHole if self.queued > 0 => {
                    self.lose(self.queued);
                    self.has_lost = true;
                }
                Way::BlackHole | Way::Hold => {}
                _ if self.has_lost => return Err(Broken),
                _ if self.ended && self.queue.is_empty() => {
                    let _ = SockRef::from(&*self.to).shutdown(Shutdown::Write);
                    return Ok(());
                }
                _ => {}
            }
            let room = if matches!(way, Way::Delay(_)) { ON_ITS_LATE_WAY } else { ON_ITS_WAY };
            let may_read = !self.ended && way != Way::Hold && self.queued < room;
            let may_write = !matches!(way, Way::BlackHole | Way::Hold) && !self.queue.is_empty();
            let due = self.queue.front().map_or(self.not_before, |(due, _)| (*due).max(self.not_before));
            let writable = async {
                sleep_until(due).await;
                self.to.writable().await
            };
            tokio::select! {
                _ = self.watched.changed() => {}
                ready = self.from.readable(), if may_read => ready.map_err(|_| Broken).and_then(|()| self.read())?,
                ready = writable, if may_write => ready.map_err(|_| Broken).and_then(|()| self.write())?,
            }
        }
    }

    fn read(&mut self) -> Result<(), Broken> {
        let mut buffer = [0; 16 << 10];
        // The switches cannot change while this is held.
        let watched = self.watched.clone();
        let way = watched.borrow().ways[self.side];
        match self.from.try_read(&mut buffer) {
            // In a black hole nobody hears of an end, nor of a reset.
            Ok(0) => (self.ended, self.has_lost) = (true, way == Way::BlackHole),
            Ok(n) if way == Way::BlackHole || self.half_closed => {
                self.counters.lost[self.side].fetch_add(n as u64, Ordering::SeqCst);
                self.has_lost |= !self.half_closed;
            }
            Ok(n) => {
                let late = if let Way::Delay(late) = way { late } else { Duration::ZERO };
                self.queue.push_back((Instant::now() + late, Bytes::copy_from_slice(&buffer[..n])));
                self.queued += n;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) if way == Way::BlackHole => (self.ended, self.has_lost) = (true, true),
            Err(_) => return Err(Broken),
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Broken> {
        let watched = self.watched.clone();
        let switches = watched.borrow();
        let most = match switches.ways[self.side] {
            Way::BlackHole | Way::Hold => return Ok(()),
            // Twenty portions a second.
            Way::Throttle(rate) => (rate / 20).max(1) as usize,
            _ => usize::MAX,
        };
        let Some((_, chunk)) = self.queue.front_mut() else { return Ok(()) };
        let portion = chunk.len().min(most);
        match self.to.try_write(&chunk[..portion]) {
            Ok(n) => {
                chunk.advance(n);
                if chunk.is_empty() {
                    self.queue.pop_front();
                }
                self.queued -= n;
                self.counters.passed[self.side].fetch_add(n as u64, Ordering::SeqCst);
                if let Way::Throttle(rate) = switches.ways[self.side] {
                    self.not_before = Instant::now() + Duration::from_secs_f64(n as f64 / rate.max(1) as f64);
                }
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Broken),
        }
    }

    fn lose(&mut self, bytes: usize) {
        self.counters.lost[self.side].fetch_add(bytes as u64, Ordering::SeqCst);
        self.queue.clear();
        self.queued = 0;
    }
}
