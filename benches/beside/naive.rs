//! The server of the kind people write: a task for each connection, and all of them receivers of one broadcast channel.

use futures::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::target::pin;

/// Messages that a receiver may be behind.
const ROOM: usize = 4_096;

pub fn run() {
    pin(0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("{}", listener.local_addr().expect("it listens"));
        let (sender, _) = broadcast::channel(ROOM);
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, sender.clone()));
        }
    });
}

async fn serve(stream: TcpStream, sender: broadcast::Sender<Message>) {
    let _ = stream.set_nodelay(true);
    let mut publishes = false;
    #[allow(clippy::result_large_err, reason = "the library's own type")]
    let look = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        publishes = request.uri().path() == "/pub";
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, look).await else { return };
    let mut receiver = sender.subscribe();
    loop {
        tokio::select! {
            came = socket.next() => match came {
                Some(Ok(message)) if message.is_text() => _ = sender.send(message),
                Some(Ok(_)) => {}
                _ => return,
            },
            message = receiver.recv(), if !publishes => match message {
                Ok(message) => if socket.send(message).await.is_err() { return },
                Err(_) => return,
            },
        }
    }
}
