//! What a connection puts into queues, and the replies that it waits for.

use std::rc::Rc;

use super::connection::Connection;
use super::shard::Shard;
use crate::domain::command::{Asking, RequestId, Subject};
use crate::domain::error::Problem;
use crate::domain::event::Event;
use crate::domain::queue::{Put, PutAnswer};
use crate::domain::store::StoreError;
use crate::hub::queues::{self, Reply};

impl Shard {
    pub(super) fn put(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        id: Option<RequestId>,
        put: Put,
        ignored: Vec<String>,
    ) {
        let queue = put.queue.clone();
        // The work starts here, so that jobs are put in the order of their frames.
        let stored = match self.hub.queues() {
            Ok(_) => Ok(self.hub.put(vec![put])),
            Err(problem) => Err(problem),
        };
        let shard = self.clone();
        self.answer_later(connection, async move {
            let answer = match stored {
                Ok(stored) => stored.await.pop().unwrap_or_else(|| Err(no_answer())).map_err(Problem::from),
                Err(problem) => Err(problem),
            };
            match answer {
                Ok(PutAnswer::Stored { job, durability, .. }) => {
                    Event::Put { id, queue, job, durability, repeated: false, ignored }
                }
                Ok(PutAnswer::Repeated { job, durability }) => {
                    Event::Put { id, queue, job, durability, repeated: true, ignored }
                }
                Ok(PutAnswer::Skipped) => shard.refused(id, "put", Subject::queue(&queue), no_answer().into()),
                Err(problem) => shard.refused(id, "put", Subject::queue(&queue), problem),
            }
        });
    }

    pub(super) fn request(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        id: Option<RequestId>,
        asking: Asking,
        ignored: Vec<String>,
    ) {
        let Asking { put, timeout, reply_to } = asking;
        let (shard, hub, queue) = (self.clone(), self.hub.clone(), put.queue.clone());
        self.answer_later(connection, async move {
            let (answer, request) = match reply_to {
                None => (hub.request(put, timeout).await.map(|Reply { job, body }| (job, Some(body))), None),
                Some(reply_to) => {
                    let name = id.as_ref().map_or_else(queues::request_name, name_of);
                    let put = hub.request_to(put, &reply_to, &name).await;
                    (put.map(|job| (job, None)), Some(name))
                }
            };
            match answer {
                Ok((job, reply)) => Event::Replied { id, queue, job, reply, request, ignored },
                Err(problem) => shard.refused(id, "request", Subject::queue(&queue), problem),
            }
        });
    }
}

/// An id as the name of a request: the text of a string, or the number.
fn name_of(RequestId(raw): &RequestId) -> Box<str> {
    serde_json::from_str(raw).unwrap_or_else(|_| raw.clone())
}

fn no_answer() -> StoreError {
    StoreError::Broken("no answer for this job".into())
}
