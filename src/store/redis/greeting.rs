//! The beginning of every connection for commands: is this a Redis that topics can be kept on, and is it prepared?
//!
//! It is the same at the start and after every outage, since another server may answer then.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::timeout;

use super::facts::{self, Facts};
use super::keys::Keys;
use super::lives::Lives;
use super::scripts::{Scripts, text_of};
use super::{OpenError, RedisOptions};
use crate::endpoint::{Endpoint, Link, Patience, Place, Use};

/// All that is needed to connect and to write commands.
pub(super) struct Host {
    pub endpoint: Endpoint,
    pub options: RedisOptions,
    pub names: Keys,
    pub scripts: Arc<Scripts>,
    pub lives: Arc<Lives>,
}

/// Whom we speak with.
#[derive(Debug, Clone)]
pub(super) struct Greeting {
    pub facts: Facts,
    /// Our number there.
    pub client: String,
}

impl Host {
    /// Connects and prepares; all that may take this long twice over.
    pub async fn greet(&self, patience: Duration, last: Option<&Greeting>) -> Result<(Link, Greeting), OpenError> {
        let patiences = Patience { connect: patience, ..self.options.patience() };
        let link = self.endpoint.connect(Use::commands(), patiences).await;
        let mut link = link.map_err(OpenError::Unreachable)?;
        match timeout(patience, self.introduce(&mut link, last)).await {
            Ok(greeting) => Ok((link, greeting?)),
            Err(_) => Err(OpenError::Unreachable(format!("{}: no answer within {patience:?}", self.endpoint.shown()))),
        }
    }

    async fn introduce(&self, link: &mut Link, last: Option<&Greeting>) -> Result<Greeting, OpenError> {
        let mut facts = Facts::read(&say(link, facts::ask()).await?).map_err(|text| self.unfit(text))?;
        facts.update(&say(link, facts::ask_settings()).await?);
        let sharded = self.scripts.sharded;
        if let Some(objection) = facts.objection() {
            return Err(self.unfit(objection));
        }
        if facts.is_cluster != sharded {
            return Err(self.unfit(match sharded {
                true => "it is no server of a cluster; write redis://HOST:PORT".to_string(),
                false => "it is a server of a cluster; write redis+cluster://HOST:PORT".to_string(),
            }));
        }
        // What the last connection left in the server's buffers must not be carried out after what we send now. (Numbers
        // of clients mean something only within one start of the server.)
        if let Some(last) = last.filter(|last| last.facts.run_id == facts.run_id) {
            let mut kill = redis::cmd("CLIENT");
            kill.arg("KILL").arg("ID").arg(&last.client);
            say(link, kill).await?;
        }
        self.agree_on_groups(link).await?;
        let mut whisper = redis::cmd(if sharded { "SPUBLISH" } else { "PUBLISH" });
        whisper.arg(self.names.wild_channel(0)).arg("");
        for necessary in self.scripts.load_all().into_iter().chain([whisper]) {
            if let Value::ServerError(error) = say(link, necessary).await?
                && !self.is_elsewhere(&error)
            {
                return Err(self.unfit(format!("it refuses what the store needs: {error}")));
            }
        }
        let mut id = redis::cmd("CLIENT");
        id.arg("ID");
        let client = match say(link, id).await? {
            Value::Int(id) => id.to_string(),
            _ => "0".into(),
        };
        Ok(Greeting { facts, client })
    }

    /// Whether a server of a cluster says that another one is to be asked, or nobody at this moment.
    fn is_elsewhere(&self, error: &redis::ServerError) -> bool {
        self.scripts.sharded && matches!(error.code(), "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN")
    }

    /// The same for one server of a cluster.
    pub fn of(&self, place: &Place) -> Host {
        Host {
            endpoint: self.endpoint.server(place.clone()),
            options: self.options.clone(),
            names: self.names.clone(),
            scripts: self.scripts.clone(),
            lives: self.lives.clone(),
        }
    }

    /// Whether the level `replica` is something that comes back where it cannot be given now.
    pub fn may_have_replicas(&self, facts: &Facts) -> bool {
        facts.replicas > 0 || self.endpoint.has_sentinels() || self.scripts.sharded
    }

    fn unfit(&self, text: String) -> OpenError {
        OpenError::Unfit(format!("{}: {text}", self.endpoint.shown()))
    }

    async fn agree_on_groups(&self, link: &mut Link) -> Result<(), OpenError> {
        let mut set = redis::cmd("SET");
        set.arg(self.names.groups()).arg(self.options.groups).arg("NX").arg("GET");
        match say(link, set).await? {
            Value::Nil => Ok(()),
            // The server that has this key is greeted too.
            Value::ServerError(error) if self.is_elsewhere(&error) => Ok(()),
            Value::ServerError(error) => Err(self.unfit(format!("it refuses a write: {error}"))),
            stored => match text_of(&stored) {
                Some(stored) if stored == self.options.groups.to_string() => Ok(()),
                stored => Err(OpenError::Groups {
                    key: self.names.groups(),
                    stored: stored.unwrap_or("something else").to_string(),
                    asked: self.options.groups,
                }),
            },
        }
    }
}

/// Asks one thing; an error answer is an answer.
async fn say(link: &mut Link, cmd: Cmd) -> Result<Value, OpenError> {
    link.connection.send_packed_command(&cmd).await.map_err(|error| OpenError::Unreachable(error.to_string()))
}
