//! A Redis as settings name it, and the way to it: one server, a master that sentinels name, or the seeds of a cluster.
//!
//! An endpoint answers one question: where do I connect now, and is it the right server? It opens connections and knows
//! when one of them leads to the wrong place. What is said on them, and what is tried again, is up to the parts that use
//! it: the store and the dispatcher.

mod chart;
mod link;
mod replicas;
mod sentinel;
mod slots;
mod url;

use std::fmt;
use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redis::{PushInfo, RedisConnectionInfo};
use tokio::time::timeout;

pub use chart::Chart;
pub use link::{Link, Use};
pub use replicas::replicas_in_step;
use sentinel::Sentinels;
pub use slots::{Slots, crc16, slot_of};
pub use url::{FORMS, is_redis};

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Finding the server, connecting and logging in, together.
    pub connect: Duration,
    /// Each answer on the connection.
    pub response: Duration,
}

/// Where a Redis is, and how to log in there. Clones share what they know.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    form: Form,
    login: RedisConnectionInfo,
}

enum Form {
    Single(Place),
    Sentinel(Sentinels),
    Cluster(Vec<Place>),
}

impl Endpoint {
    /// Takes a URL of one of the `FORMS`. The error never shows the URL, which may hold a password.
    pub fn parse(url: &str) -> Result<Endpoint, String> {
        let (form, login) = url::parse(url)?;
        Ok(Endpoint(Arc::new(Inner { form, login })))
    }

    /// The address without the password.
    pub fn shown(&self) -> String {
        match &self.0.form {
            Form::Single(place) => place.to_string(),
            Form::Sentinel(sentinels) => sentinels.to_string(),
            Form::Cluster(seeds) => format!("the cluster of {}", list(seeds)),
        }
    }

    pub fn database(&self) -> i64 {
        self.0.login.db()
    }

    /// The known servers of a cluster, if this is one.
    pub fn seeds(&self) -> Option<&[Place]> {
        match &self.0.form {
            Form::Cluster(seeds) => Some(seeds),
            _ => None,
        }
    }

    /// One server of this cluster as an endpoint of its own.
    pub fn server(&self, place: Place) -> Endpoint {
        Endpoint(Arc::new(Inner { form: Form::Single(place), login: self.0.login.clone() }))
    }

    pub fn has_sentinels(&self) -> bool {
        matches!(self.0.form, Form::Sentinel(_))
    }

    /// Connects to the master and logs in. Where sentinels name it, the server itself must agree that it is a master, and
    /// the connection ends by itself as soon as they name another one: a master that was cut off goes on taking writes.
    pub async fn connect<F>(&self, used: Use<F>, patience: Patience) -> Result<Link, String>
    where
        F: Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
    {
        let opening = async {
            match &self.0.form {
                Form::Single(place) => {
                    let opened = link::open(place, &self.0.login, used, patience.response, pending()).await;
                    opened.map_err(|text| told(place, text))
                }
                Form::Sentinel(sentinels) => {
                    let (place, moved) = sentinels.master().await?;
                    let opened = link::open(&place, &self.0.login, used, patience.response, moved).await;
                    let mut link = opened.map_err(|text| told(&place, text))?;
                    link.verify_master().await.map_err(|text| told(&place, text))?;
                    Ok(link)
                }
                Form::Cluster(_) => Err("a cluster has many masters; ask for one of its servers".to_string()),
            }
        };
        match timeout(patience.connect, opening).await {
            Ok(result) => result,
            Err(_) => Err(format!("{}: no answer within {:?}", self.shown(), patience.connect)),
        }
    }

    /// Connects to this server and logs in, whatever it is.
    pub async fn connect_to<F>(&self, place: &Place, used: Use<F>, patience: Patience) -> Result<Link, String>
    where
        F: Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
    {
        let opening = link::open(place, &self.0.login, used, patience.response, pending());
        match timeout(patience.connect, opening).await {
            Ok(result) => result.map_err(|text| told(place, text)),
            Err(_) => Err(format!("{place}: no answer within {:?}", patience.connect)),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Place::Tcp(host, port) => write!(f, "{host}:{port}"),
            Place::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

fn told(place: &Place, text: String) -> String {
    format!("{place}: {text}")
}

fn list(places: &[Place]) -> String {
    places.iter().map(Place::to_string).collect::<Vec<_>>().join(", ")
}
