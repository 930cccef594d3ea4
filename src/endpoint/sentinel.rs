//! Which server is the master, by the word of its sentinels.
//!
//! Each sentinel is asked again and again over a connection of its own, from the first use on and for as long as somebody
//! is interested. They need not agree: one that is cut off from the others goes on naming the old master. Each new
//! configuration has a higher number (`config-epoch`), so the answer with the highest number counts, and outlives the
//! sentinel that gave it; a lower one is believed only where more than half of all name the same, as after somebody set them up
//! anew.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::{RedisConnectionInfo, Value};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::link::{self, Link, Use, text_of};
use super::{Place, list, told};

/// How often each sentinel is asked.
const LOOK: Duration = Duration::from_millis(250);
/// How long one may take to be connected to, and to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// How long the first answer waits for others, when nothing is known yet.
const GRACE: Duration = Duration::from_millis(200);

pub(super) struct Sentinels {
    asked: Arc<Asked>,
    said: OnceLock<watch::Receiver<Said>>,
}

struct Asked {
    places: Vec<Place>,
    master: String,
    login: RedisConnectionInfo,
}

/// What is known now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    answers: Vec<Answer>,
    /// The number of the configuration, and who is the master in it.
    master: Option<(u64, Place)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    NotYet,
    Silent(String),
    Master { number: u64, place: Place },
}

impl Sentinels {
    pub fn new(places: Vec<Place>, master: String, login: RedisConnectionInfo) -> Sentinels {
        Sentinels { asked: Arc::new(Asked { places, master, login }), said: OnceLock::new() }
    }

    /// The master, and a future that ends, saying so, when another server is named.
    pub async fn master(&self) -> Result<(Place, impl Future<Output = String> + Send + 'static), String> {
        let mut said = self.said.get_or_init(|| self.asked.begin()).clone();
        let is_clear = |said: &Said| said.master.is_some() || said.is_complete();
        let gone = |_| "the sentinels are not asked any more".to_string();
        let is_first = said.borrow().answers.contains(&Answer::NotYet);
        said.wait_for(is_clear).await.map_err(gone)?;
        if is_first {
            let _ = timeout(GRACE, said.wait_for(Said::is_complete)).await;
        }
        let place = match said.borrow().clone() {
            Said { master: Some((_, place)), .. } => place,
            Said { answers, .. } => return Err(format!("{self}: {}", complaints(&answers))),
        };
        let here = place.clone();
        let moved = async move {
            let is_other = |said: &Said| said.master.as_ref().is_some_and(|(_, master)| *master != here);
            match said.wait_for(is_other).await.as_deref() {
                Ok(Said { master: Some((_, master)), .. }) => format!("the sentinels name {master} as the master now"),
                _ => "the sentinels are not asked any more".to_string(),
            }
        };
        Ok((place, moved))
    }
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of the sentinels {}", self.asked.master, list(&self.asked.places))
    }
}

impl Asked {
    fn begin(self: &Arc<Asked>) -> watch::Receiver<Said> {
        let (sender, receiver) =
            watch::channel(Said { answers: vec![Answer::NotYet; self.places.len()], master: None });
        let sender = Arc::new(sender);
        for number in 0..self.places.len() {
            tokio::spawn(self.clone().follow(number, sender.clone()));
        }
        receiver
    }

    /// Asks one sentinel until nobody listens any more.
    async fn follow(self: Arc<Asked>, number: usize, said: Arc<watch::Sender<Said>>) {
        let mut link = None;
        loop {
            let answer = match timeout(ANSWER, self.ask(&self.places[number], &mut link)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(text)) => Answer::Silent(told(&self.places[number], text)),
                Err(_) => Answer::Silent(format!("{}: no answer within {ANSWER:?}", self.places[number])),
            };
            if let Answer::Silent(_) = answer {
                link = None;
            }
            said.send_if_modified(|said| said.take(number, answer));
            tokio::select! {
                () = sleep(LOOK) => {}
                () = said.closed() => return,
            }
        }
    }

    async fn ask(&self, place: &Place, link: &mut Option<Link>) -> Result<Answer, String> {
        let link = match link {
            Some(link) => link,
            None => {
                let opened = link::open(place, &self.login, Use::commands(), ANSWER, std::future::pending()).await;
                link.insert(opened?)
            }
        };
        let mut pipeline = redis::pipe();
        pipeline.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        pipeline.cmd("SENTINEL").arg("MASTER").arg(&self.master);
        let answers = link.connection.send_packed_commands(&pipeline, 0, 2).await.map_err(|error| error.to_string())?;
        let master = answers.first().and_then(read_place).zip(answers.get(1).and_then(read_number));
        match (master, answers.into_iter().next()) {
            (Some((place, number)), _) => Ok(Answer::Master { number, place }),
            (None, Some(Value::ServerError(error))) => Err(error.to_string()),
            (None, Some(Value::Nil)) => Err(format!("it knows no master called {:?}", self.master)),
            (None, _) => Err("it answers something that is not understood; is it a sentinel?".into()),
        }
    }
}

impl Said {
    /// `true` if that is news.
    fn take(&mut self, number: usize, answer: Answer) -> bool {
        if self.answers[number] == answer {
            return false;
        }
        self.answers[number] = answer;
        let known = self.answers.iter().filter_map(|answer| match answer {
            Answer::Master { number, place } => Some((*number, place)),
            _ => None,
        });
        let is_agreed =
            |one: &(u64, &Place)| known.clone().filter(|other| other == one).count() > self.answers.len() / 2;
        let newest = known.clone().max_by_key(|(number, _)| *number);
        let is_new = |(number, _): &(u64, &Place)| self.master.as_ref().is_none_or(|(held, _)| number >= held);
        if let Some((number, place)) = newest.filter(is_new).or_else(|| known.clone().find(is_agreed)) {
            self.master = Some((number, place.clone()));
        }
        true
    }

    fn is_complete(&self) -> bool {
        !self.answers.contains(&Answer::NotYet)
    }
}

fn complaints(answers: &[Answer]) -> String {
    let silent = answers.iter().filter_map(|answer| match answer {
        Answer::Silent(text) => Some(text.as_str()),
        _ => None,
    });
    silent.collect::<Vec<_>>().join("; ")
}

fn read_place(answer: &Value) -> Option<Place> {
    let Value::Array(parts) = answer else { return None };
    let [host, port] = parts.as_slice() else { return None };
    Some(Place::Tcp(text_of(host)?, text_of(port)?.parse().ok()?))
}

/// Which configuration of this master it is that a sentinel speaks of.
fn read_number(answer: &Value) -> Option<u64> {
    let Value::Array(parts) = answer else { return None };
    let number = parts.chunks_exact(2).find(|pair| text_of(&pair[0]).as_deref() == Some("config-epoch"))?;
    text_of(&number[1])?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(port: u16) -> Place {
        Place::Tcp("10.0.0.1".into(), port)
    }

    #[test]
    fn the_newest_configuration_counts_and_outlives_its_sentinel() {
        let mut said = Said { answers: vec![Answer::NotYet; 3], master: None };
        let names = |number, port| Answer::Master { number, place: place(port) };
        let silent = || Answer::Silent("gone".into());
        assert!(said.take(0, names(1, 1)));
        assert_eq!(said.master, Some((1, place(1))));
        assert!(said.take(1, names(2, 2)));
        assert!(!said.take(1, names(2, 2)));
        // One that was cut off comes back with what it knew.
        assert!(said.take(2, names(1, 1)));
        assert_eq!(said.master, Some((2, place(2))));
        said.take(0, silent());
        said.take(1, silent());
        assert_eq!(said.master, Some((2, place(2))));
        // Most of them answer, and do not agree.
        said.take(0, names(0, 3));
        assert_eq!(said.master, Some((2, place(2))));
        said.take(1, names(0, 4));
        assert_eq!(said.master, Some((2, place(2))));
        // Set up anew, they begin to count anew.
        said.take(1, names(0, 3));
        assert_eq!(said.master, Some((0, place(3))));
    }
}
