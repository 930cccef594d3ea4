//! A WebSocket to a hub as the client commands see it: connecting, what a close means, and the waits between attempts.

use std::time::Duration;

use reqwest::Url;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tungstenite::Error;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;

use super::hub::Address;
use super::{Exit, Stop};
use crate::protocol::NATIVE;

pub const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Waits between attempts to come back, doubled each time, with chance added so that many do not come at once.
pub const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A line is dead when this many of the hub's pings did not come.
const PINGS: f64 = 2.5;

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How a connection ended.
pub enum Ended {
    Done,
    /// Come back.
    Lost(String),
}

/// Where the hub's WebSocket is.
pub fn address(address: &Address) -> Result<Url, Stop> {
    let mut url = address.url()?.join("ws").map_err(|e| Stop::new(Exit::Usage, e.to_string()))?;
    url.set_scheme("ws").map_err(|()| Stop::new(Exit::Usage, "the address cannot be one of a WebSocket"))?;
    Ok(url)
}

pub async fn connect(url: &Url) -> Result<Socket, Stop> {
    let unreachable = |why: String| Stop::new(Exit::Unreachable, format!("{url} was not reached: {why}"));
    let mut request = url.as_str().into_client_request().map_err(|e| Stop::new(Exit::Usage, e.to_string()))?;
    // With our subprotocol the hub tells a refusal by a close code.
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, NATIVE.parse().expect("its name is a token"));
    match timeout(CONNECT_TIME, connect_async(request)).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(Error::Http(answer))) => {
            let body = answer.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            let exit = if answer.status().is_server_error() { Exit::Unreachable } else { Exit::Failed };
            Err(Stop::new(exit, format!("{url} answers {}: {body:.300}", answer.status())))
        }
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_) => Err(unreachable(format!("no answer within {} s", CONNECT_TIME.as_secs()))),
    }
}

/// 4500 and above are final; anything else invites back.
pub fn on_close(code: u16, reason: &str) -> Result<Ended, Stop> {
    let text = format!("the hub closed the connection: {code} {reason}");
    if (4500..5000).contains(&code) { Err(Stop::new(Exit::Failed, text)) } else { Ok(Ended::Lost(text)) }
}

/// Time without a frame after which the line is dead, by the `ping` of `hello`.
pub fn patience(ping: Option<f64>) -> Duration {
    Duration::from_secs_f64((ping.unwrap_or(60.0) * PINGS).clamp(1.0, 3600.0))
}

/// The next wait before coming back.
pub struct Waits(Duration);

impl Waits {
    pub fn new() -> Waits {
        Waits(FIRST_WAIT)
    }

    /// A connection stood: the next wait is the first again.
    pub fn begin_again(&mut self) {
        self.0 = FIRST_WAIT;
    }

    pub fn next(&mut self) -> Duration {
        let wait = self.0.mul_f64(0.5 + chance());
        self.0 = (self.0 * 2).min(LONGEST_WAIT);
        wait
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX)
}
