//! How the masters of a cluster are, put together into how the store is.

use std::sync::Arc;

use super::Router;
use super::lane::Lane;
use crate::store::redis::levels::Levels;

impl Router {
    /// Sees how the masters are.
    pub(super) fn note(&mut self) {
        let (mut trouble, mut least) = (None, None::<Levels>);
        // What else is wrong with a server is no reason to ask all of them who serves what.
        let mut is_doubtful = false;
        let uncovered = self.lanes.iter().filter(|lane| lane.home.is_none()).count();
        if uncovered > 0 {
            is_doubtful = true;
            trouble = Some(format!("no server of the cluster has the slots of {uncovered} groups of topics or queues"));
        }
        for (place, node) in &self.nodes {
            let condition = node.state.condition();
            if let Some(away) = &condition.away {
                is_doubtful = true;
                trouble = Some(format!("{place} is away, its topics wait: {away}"));
            } else if node.is_new() {
                continue;
            } else {
                let levels = (*condition.levels).clone();
                least = Some(match least {
                    Some(least) => least.least(levels),
                    None => levels,
                });
                trouble = trouble.or_else(|| condition.objection.clone());
            }
        }
        self.note_lives();
        let mut condition = self.state.condition();
        if let Some(least) = least {
            condition.levels = Arc::new(least);
        }
        if is_doubtful {
            self.chart.doubt();
        }
        condition.objection = trouble;
    }

    /// A group whose server is not known or not there yet stays in the life that it was in.
    fn note_lives(&self) {
        let known = self.host.lives.known();
        let life_of = |(lane, last): (&Lane, &String)| {
            let node = lane.home.as_ref().and_then(|home| self.nodes.get(home))?;
            node.state.condition().life.clone().or_else(|| Some(last.clone()))
        };
        let lives = self.lanes.iter().zip(known.all()).map(|pair| life_of(pair).unwrap_or_else(|| pair.1.clone()));
        self.host.lives.set(lives.collect());
    }
}
