//! The socket under an HTTP/1.1 connection, in a form that lets it be taken out: for a WebSocket, and for a response
//! whose body somebody else writes for as long as it likes.
//!
//! A WebSocket's socket comes out of hyper's own upgrade. For a response there is no such way, so it is marked with a
//! `HandOver`: once all layers have added their headers, `answer` writes the head, and gives it away with the socket.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use axum::http::response::Parts;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower::ServiceExt;

/// Clones are the same socket.
#[derive(Clone)]
pub struct Socket(Arc<Mutex<Inner>>);

struct Inner {
    /// `None`: taken.
    stream: Option<TcpStream>,
    /// The last write found no room: something of an earlier answer still waits.
    blocked: bool,
}

/// Marks a response: its socket goes to this function, with the response's head, which is still to be written. The
/// function gives the socket up where it cannot use it.
#[derive(Clone)]
pub struct HandOver(Arc<Mutex<Option<Taker>>>);

type Taker = Box<dyn FnOnce(TcpStream, Bytes) + Send>;

/// Why the HTTP server has nothing more to do with a connection.
#[derive(Debug, thiserror::Error)]
pub enum Taken {
    #[error("the socket was handed over")]
    HandedOver,
    #[error("the socket could not be handed over: an earlier answer still waits")]
    Blocked,
}

impl HandOver {
    pub fn new(take: impl FnOnce(TcpStream, Bytes) + Send + 'static) -> HandOver {
        HandOver(Arc::new(Mutex::new(Some(Box::new(take)))))
    }
}

/// Has the routes answer a request that came in on a socket.
pub async fn answer(router: Router, socket: Socket, request: Request<Body>) -> Result<Response, Taken> {
    let Ok(mut response) = router.oneshot(request).await;
    let Some(over) = response.extensions_mut().remove::<HandOver>() else { return Ok(response) };
    // The server has its turn: what it still had to write of earlier answers is written, or the socket is blocked.
    let mut is_second = false;
    poll_fn(|cx| match std::mem::replace(&mut is_second, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
    let stream = socket.take().ok_or(Taken::Blocked)?;
    let take = over.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(take) = take {
        take(stream, head(&response.into_parts().0));
    }
    Err(Taken::HandedOver)
}

/// The head of a response whose body ends with the connection.
fn head(parts: &Parts) -> Bytes {
    let mut out = BytesMut::with_capacity(512);
    let reason = parts.status.canonical_reason().unwrap_or_default();
    out.put_slice(format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_u16()).as_bytes());
    let own = [CONNECTION, DATE, CONTENT_LENGTH];
    for (name, value) in parts.headers.iter().filter(|(name, _)| !own.contains(name)) {
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    let date = httpdate::fmt_http_date(SystemTime::now());
    out.put_slice(format!("connection: close\r\ndate: {date}\r\n\r\n").as_bytes());
    out.freeze()
}

impl Socket {
    pub fn new(stream: TcpStream) -> Socket {
        Socket(Arc::new(Mutex::new(Inner { stream: Some(stream), blocked: false })))
    }

    /// Takes the stream out; the HTTP server then finds the connection closed.
    pub fn take(&self) -> Option<TcpStream> {
        let mut inner = self.lock();
        if inner.blocked { None } else { inner.stream.take() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nobody waits for it: the server and a taker of one connection have their turns one after the other.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(&self, write: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let inner = &mut *self.lock();
        let Some(stream) = &mut inner.stream else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let written = write(Pin::new(stream));
        inner.blocked = written.is_pending();
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.lock().stream {
            Some(stream) => Pin::new(stream).poll_read(cx, room),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(|stream| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.lock().stream {
            Some(stream) => Pin::new(stream).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(|stream| stream.poll_shutdown(cx))
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("taken", &self.lock().stream.is_none()).finish()
    }
}
