//! The crowd of one server, in a process of its own on the second core: all its subscribers and publishers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::dialect::Dialect;
use super::target::pin;

/// Connections that publish.
pub const PUBLISHERS: usize = 16;
/// Connections that are opened at once.
const AT_ONCE: usize = 32;
/// How long a burst may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the subscribers have read of the present burst.
struct Read {
    awaited: Cell<usize>,
    messages: Cell<usize>,
    bytes: Cell<usize>,
    begun: Cell<Instant>,
    latencies: RefCell<Vec<u32>>,
    whole: Notify,
}

/// `NAME ADDRESS SUBSCRIBERS BYTES`. Says the ports of its publishers. Then, a line each: `publish PUBLISHERS WINDOW`, and `await
/// MESSAGES`, for those that somebody else sends, which are answered once every subscriber has them, with the bytes that one of them took; `latencies`, in µs since
/// the last time.
pub fn run(arguments: &[String]) {
    pin(1);
    let [name, address, subscribers, bytes] = arguments else { panic!("NAME ADDRESS SUBSCRIBERS BYTES") };
    let dialect: Dialect = name.parse().expect("a peer");
    let (subscribers, bytes) = (subscribers.parse().expect("a number"), bytes.parse().expect("a number"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a thread");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, serve(dialect, address, subscribers, bytes));
}

async fn serve(dialect: Dialect, address: &str, subscribers: usize, bytes: usize) {
    let read = Rc::new(Read {
        awaited: Cell::new(0),
        messages: Cell::new(0),
        bytes: Cell::new(0),
        begun: Cell::new(Instant::now()),
        latencies: RefCell::default(),
        whole: Notify::new(),
    });
    let mut sockets = stream::iter(0..subscribers).map(|_| connect(dialect, address, true)).buffer_unordered(AT_ONCE);
    while let Some(socket) = sockets.next().await {
        tokio::task::spawn_local(count(socket, read.clone()));
    }
    drop(sockets);
    let mut publishers = Vec::new();
    let mut ports = Vec::new();
    for _ in 0..PUBLISHERS {
        let socket = connect(dialect, address, false).await;
        ports.push(socket.local_addr().expect("it is connected").port().to_string());
        let (mut hear, say) = socket.into_split();
        tokio::task::spawn_local(async move { tokio::io::copy(&mut hear, &mut tokio::io::sink()).await });
        publishers.push(say);
    }
    println!("{}", ports.join(" "));

    let frame = dialect.message(bytes).framed();
    let mut orders = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(order)) = orders.next_line().await {
        let words: Vec<&str> = order.split(' ').collect();
        match words[..] {
            ["publish", count, window] => {
                let (count, window): (usize, usize) =
                    (count.parse().expect("a number"), window.parse().expect("a number"));
                begin(&read, subscribers * count * window);
                let burst = frame.repeat(window);
                for say in &mut publishers[..count] {
                    say.write_all(&burst).await.expect("an open socket");
                }
                finish(&read, subscribers).await;
            }
            ["await", count] => {
                begin(&read, subscribers * count.parse::<usize>().expect("a number"));
                println!("ready");
                finish(&read, subscribers).await;
            }
            ["latencies"] => {
                let latencies = std::mem::take(&mut *read.latencies.borrow_mut());
                println!("{}", latencies.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
            }
            _ => panic!("unknown order {order}"),
        }
    }
}

fn begin(read: &Read, awaited: usize) {
    read.awaited.set(awaited);
    read.messages.set(0);
    read.bytes.set(0);
    read.begun.set(Instant::now());
}

async fn finish(read: &Read, subscribers: usize) {
    let whole = tokio::time::timeout(PATIENCE, read.whole.notified()).await;
    let (came, awaited) = (read.messages.get(), read.awaited.get());
    whole.unwrap_or_else(|_| panic!("{came} of {awaited} messages came to {subscribers} subscribers in {PATIENCE:?}"));
    println!("{}", read.bytes.get().div_ceil(awaited));
}

async fn connect(dialect: Dialect, address: &str, subscribes: bool) -> TcpStream {
    let mut request = format!("ws://{address}{}", dialect.path(subscribes)).into_client_request().expect("an address");
    if let Some(subprotocol) = dialect.subprotocol() {
        request.headers_mut().insert("Sec-WebSocket-Protocol", subprotocol.parse().expect("a word"));
    }
    let (socket, _) = connect_async(request).await.expect("a handshake");
    let MaybeTlsStream::Plain(mut stream) = socket.into_inner() else { unreachable!("no TLS was asked for") };
    stream.set_nodelay(true).expect("a socket");
    for payload in dialect.opening(subscribes) {
        stream.write_all(&payload.framed()).await.expect("an open socket");
    }
    stream
}

/// Counts the messages that come.
async fn count(stream: TcpStream, read: Rc<Read>) {
    let mut room = vec![0; 64 * 1024];
    while stream.readable().await.is_ok() {
        let got = match stream.try_read(&mut room) {
            Ok(0) => panic!("the server closed a subscriber's socket"),
            Ok(got) => got,
            Err(_) => continue,
        };
        let messages = room[..got].iter().filter(|byte| **byte == b'@').count();
        read.bytes.set(read.bytes.get() + got);
        if messages == 0 {
            continue;
        }
        let took = read.begun.get().elapsed().as_micros() as u32;
        read.latencies.borrow_mut().extend(std::iter::repeat_n(took, messages));
        read.messages.set(read.messages.get() + messages);
        assert!(read.messages.get() <= read.awaited.get(), "more came than was sent");
        if read.messages.get() == read.awaited.get() {
            read.whole.notify_one();
        }
    }
}
