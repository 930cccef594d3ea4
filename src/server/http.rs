//! Accepts TCP connections and speaks HTTP/1.1 on them until they end or are upgraded.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::web::{self, Socket};

/// Waiting handshakes that the kernel keeps.
const BACKLOG: u32 = 4096;
/// How long accepting rests when there are no more files.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a request's head.
const HEAD: usize = 16 * 1024;

/// A port that listens and does not answer yet.
pub struct Listener {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl Listener {
    /// Binds an address; with `tries` above one, the next free port after it.
    pub fn bind(address: SocketAddr, tries: u16) -> io::Result<Listener> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for port in candidates(address.port(), tries) {
            match listen(SocketAddr::new(address.ip(), port)) {
                Ok(listener) => return Ok(Listener { address: listener.local_addr()?, listener }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Serves until `stop`; then no connection is accepted, and those that are open finish their request. The task
    /// ends when all have.
    pub fn serve(self, router: Router, head_wait: Duration, stop: CancellationToken) -> JoinHandle<()> {
        tokio::spawn(async move {
            let open = TaskTracker::new();
            loop {
                let accepted = tokio::select! {
                    accepted = self.listener.accept() => accepted,
                    () = stop.cancelled() => break,
                };
                let stream = match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // A connection that was gone before it was accepted, or no files left: both pass.
                        tracing::debug!(%error, "accept");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                };
                let _ = stream.set_nodelay(true);
                let (socket, router) = (Socket::new(stream), router.clone());
                let under = socket.clone();
                let service = service_fn(move |request: hyper::Request<Incoming>| {
                    web::answer(router.clone(), under.clone(), request.map(Body::new))
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(head_wait)
                    .max_buf_size(HEAD)
                    .serve_connection(TokioIo::new(socket), service)
                    .with_upgrades();
                let stop = stop.clone();
                open.spawn(async move {
                    let mut connection = std::pin::pin!(connection);
                    let ended = tokio::select! {
                        ended = &mut connection => ended,
                        () = stop.cancelled() => {
                            connection.as_mut().graceful_shutdown();
                            connection.await
                        }
                    };
                    if let Err(error) = ended {
                        tracing::trace!(%error, "an HTTP connection ended");
                    }
                });
            }
            drop(self.listener);
            open.close();
            open.wait().await;
        })
    }
}

/// A wished-for port and those after it; port 0 is any free one.
pub fn candidates(port: u16, tries: u16) -> impl Iterator<Item = u16> {
    let tries = if port == 0 { 1 } else { tries.max(1) };
    (0..tries).filter_map(move |i| port.checked_add(i))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { tokio::net::TcpSocket::new_v6()? } else { tokio::net::TcpSocket::new_v4()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
