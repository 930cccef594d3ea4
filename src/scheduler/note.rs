//! Notes of what ran, on the topic of the schedule, which keeps the newest.

use crate::document;
use crate::domain::name::Topic;
use crate::domain::store::{Append, Appended, EntryId, Fence, ReadFrom, ReadLimit, StoreError};
use crate::hub::Hub;

/// What the notes say.
pub struct Noted {
    /// The last run; or since when there is such a schedule, by the store's clock.
    pub since: u64,
    pub run: Option<u64>,
}

/// Reads the last note; the first to ask writes that the schedule begins.
pub async fn last(hub: &Hub, name: &str) -> Result<Noted, StoreError> {
    match write(hub, name, 0, document::data("{\"run\":null}")).await? {
        Appended::Stored { time, .. } => Ok(Noted { since: time, run: None }),
        Appended::Repeated { .. } | Appended::Skipped => {
            let page = hub.read(&topic(name)?, ReadFrom::Last(1), ReadLimit::default()).await?;
            let note = page.messages.last();
            let run = note.and_then(|note| document::read_run(&note.body));
            // Pushed out of a full store with all that is as old.
            let since = run.or(note.map(|note| note.time)).unwrap_or(0);
            Ok(Noted { since, run })
        }
    }
}

/// Notes a run, and the job or the message that it was.
pub async fn run(hub: &Hub, name: &str, due: u64, led_to: Option<(&'static str, String)>) -> Result<(), StoreError> {
    let body = document::run(due, led_to.as_ref().map(|(what, id)| (*what, id.as_str())));
    write(hub, name, due, body).await.map(drop)
}

async fn write(hub: &Hub, name: &str, ms: u64, body: crate::domain::message::Body) -> Result<Appended, StoreError> {
    let fence = Some(Fence::new("schedule", "1", EntryId { ms, seq: 1 }));
    let publication = super::plain(topic(name)?, body);
    let answer = hub.append(vec![Append { publication, fence }]).await.pop();
    answer.unwrap_or_else(|| Err(StoreError::Broken("no answer".into())))
}

fn topic(name: &str) -> Result<Topic, StoreError> {
    Topic::parse(&format!("$schedule.{name}"))
        .map_err(|error| StoreError::Broken(format!("schedule {name:?}: {error}")))
}
