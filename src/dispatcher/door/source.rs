//! The door as a `Source`: what its connections wrote, and letters that were sent back to be read again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::commands::Names;
use super::queue::{Answer, Request};
use crate::dispatcher::{
    Batch, Board, Content, Entry, Outcome, Settled, Source, SourceError, Target, parse_id, write_id,
};
use crate::domain::dead::{DeadLetter, DeadLetterBox};
use crate::domain::error::Problem;

/// How long a retried letter waits that the store did not take.
const AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct DoorSource {
    requests: mpsc::Receiver<Request>,
    retried: BoxStream<'static, DeadLetter>,
    dead: Arc<dyn DeadLetterBox>,
    names: Names,
    board: Arc<Board>,
    /// Who waits for the entries of the batch, in their order.
    waiting: Vec<Waiter>,
    again: VecDeque<(Instant, DeadLetter)>,
}

enum Waiter {
    Publisher { entries: usize, answer: oneshot::Sender<Vec<Answer>> },
    Letter(DeadLetter),
}

impl DoorSource {
    pub(super) fn new(
        requests: mpsc::Receiver<Request>,
        dead: Arc<dyn DeadLetterBox>,
        names: Names,
        board: Arc<Board>,
    ) -> DoorSource {
        let retried = dead.retried().chain(futures::stream::pending()).boxed();
        DoorSource { requests, retried, dead, names, board, waiting: Vec::new(), again: VecDeque::new() }
    }

    async fn next(&mut self, most: usize) -> Option<Batch> {
        let mut entries = Vec::new();
        let again = self.again.front().map(|(when, _)| *when);
        tokio::select! {
            biased;
            request = self.requests.recv() => self.take(request?, &mut entries),
            Some(letter) = self.retried.next() => self.take_letter(letter, &mut entries),
            () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                if let Some((_, letter)) = self.again.pop_front() {
                    self.take_letter(letter, &mut entries);
                }
            }
        }
        while entries.len() < most {
            let Ok(request) = self.requests.try_recv() else { break };
            self.take(request, &mut entries);
        }
        self.board.lag(entries.len() as u64, Duration::ZERO);
        Some(Batch { life: None, later: None, entries })
    }

    fn take(&mut self, request: Request, entries: &mut Vec<Entry>) {
        self.waiting.push(Waiter::Publisher { entries: request.entries.len(), answer: request.answer });
        entries.extend(request.entries);
    }

    fn take_letter(&mut self, letter: DeadLetter, entries: &mut Vec<Entry>) {
        let bytes = |part: &Vec<u8>| Bytes::from(part.clone());
        let content = match letter.fields.first() {
            Some((_, text)) if letter.source == self.names.list => Content::Document(bytes(text)),
            _ => Content::Fields(letter.fields.iter().map(|(name, value)| (bytes(name), bytes(value))).collect()),
        };
        entries.push(Entry { id: parse_id(&letter.entry).unwrap_or_default(), content });
        self.waiting.push(Waiter::Letter(letter));
    }

    async fn answer(&mut self, settled: Vec<Settled>) {
        self.board.lag(0, Duration::ZERO);
        // Letters are handed in all together, in order; the store keeps them in one commit.
        let burials: Vec<_> = settled.iter().map(|settled| self.burial(settled)).collect();
        let buried = join_all(burials.into_iter().map(|burial| async {
            match burial {
                Some(keeping) => keeping.await.map(|_| ()),
                None => Ok(()),
            }
        }))
        .await;
        let mut answers = settled.into_iter().zip(buried).map(|(settled, buried)| match (settled.outcome, buried) {
            (Outcome::Applied(_), _) | (Outcome::Dead(_), Ok(())) => Ok(()),
            (Outcome::Failed(error), _) | (Outcome::Dead(_), Err(error)) => {
                let problem = Problem::from(error);
                Err(format!("ERR {}: {}", problem.reason, problem.text))
            }
        });
        for waiter in std::mem::take(&mut self.waiting) {
            match waiter {
                Waiter::Publisher { entries, answer } => {
                    // A publisher that is gone needs no answer.
                    let _ = answer.send(answers.by_ref().take(entries).collect());
                }
                Waiter::Letter(letter) => match answers.next() {
                    Some(Ok(())) => {
                        if let Err(error) = self.dead.settle(&letter.id).await {
                            tracing::warn!(letter = letter.id, %error, "a retried letter will come once more");
                        }
                    }
                    _ => self.again.push_back((Instant::now() + AGAIN, letter)),
                },
            }
        }
    }

    fn burial(
        &self,
        settled: &Settled,
    ) -> Option<BoxFuture<'static, Result<String, crate::domain::store::StoreError>>> {
        let Outcome::Dead(problem) = &settled.outcome else { return None };
        let (source, fields) = match &settled.entry.content {
            Content::Fields(fields) => {
                (&self.names.stream, fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect())
            }
            Content::Document(text) => (&self.names.list, vec![(b"document".to_vec(), text.to_vec())]),
            Content::Oversize { .. } => (&self.names.stream, Vec::new()),
        };
        let id = settled.entry.id;
        Some(self.dead.bury(DeadLetter {
            id: String::new(),
            source: source.clone(),
            entry: write_id(id),
            time: id.ms,
            reason: problem.reason,
            text: problem.text.clone(),
            fields,
        }))
    }
}

impl Source for DoorSource {
    fn name(&self) -> &str {
        super::SOURCE
    }

    fn repeats(&self) -> bool {
        false
    }

    fn read(&mut self, most: usize, _: Target) -> BoxFuture<'_, Result<Option<Batch>, SourceError>> {
        self.next(most).map(Ok).boxed()
    }

    fn commit(&mut self, settled: Vec<Settled>) -> BoxFuture<'_, Result<(), SourceError>> {
        self.answer(settled).map(Ok).boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}
