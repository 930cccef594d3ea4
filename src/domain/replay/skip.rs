//! A subscriber that was too slow and goes on with the newest messages alone: what of a page it is not given, which it is told.

use super::{Gap, Replay};
use crate::domain::position::Position;
use crate::domain::store::{GapCause, Page};
use crate::domain::topic::Mode;

/// What of a page is passed over.
pub(super) enum Skipped {
    Nothing,
    /// What lies before it.
    Stretch(Gap),
    /// All of it.
    Page,
}

impl<T> Replay<T> {
    /// With how many of the newest messages it goes on.
    pub fn keeping(self, keeps: Option<u32>) -> Replay<T> {
        Replay { keeps, ..self }
    }

    /// Where only the newest messages are wanted: takes the others out of the page, or asks for another one. A change of life
    /// is never passed over.
    pub(super) fn skip(&mut self, at: Position, page: &mut Page) -> Skipped {
        let has_jumped = std::mem::take(&mut self.jumps);
        let Some(keeps) = self.keeps.filter(|_| page.mode == Mode::Log) else { return Skipped::Nothing };
        let is_one_life = [page.start, page.end, page.head].iter().all(|stands| stands.epoch == at.epoch);
        if has_jumped && !is_one_life {
            self.keeps = None;
            return Skipped::Page;
        }
        if !is_one_life || page.missing.is_some_and(|missing| missing.why != GapCause::Retention) {
            return Skipped::Nothing;
        }
        if !has_jumped && !page.is_last() && page.head.offset.saturating_sub(at.offset) > u64::from(keeps) {
            self.jumps = true;
            return Skipped::Page;
        }
        page.messages.retain(|message| message.at.is_past(at));
        let surplus = if page.is_last() { page.messages.len().saturating_sub(keeps as usize) } else { 0 };
        let resume = match page.messages.drain(..surplus).last() {
            Some(dropped) => dropped.at,
            None if page.start.is_past(at) && has_jumped => page.start,
            None => {
                page.start = if has_jumped { at } else { page.start };
                return Skipped::Nothing;
            }
        };
        let kept = page.missing.take().is_none();
        page.start = resume;
        Skipped::Stretch(Gap { after: at, resume, to: Some(resume), why: GapCause::Slow, kept })
    }
}
