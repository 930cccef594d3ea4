//! The beginning at a cluster: all of its masters, looked at before anything is stored on one of them.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::join_all;

use crate::endpoint::{Chart, Place};
use crate::store::redis::OpenError;
use crate::store::redis::greeting::{Greeting, Host};
use crate::store::redis::levels::Levels;

/// Greets every master that can be reached: one that must not be used is found before anything is stored on the others.
pub async fn greet(host: &Arc<Host>, chart: &Chart) -> Result<(Greeting, Levels), OpenError> {
    let slots = chart.slots();
    let masters: Vec<Place> = slots.masters().into_iter().cloned().collect();
    let greeting = masters.iter().map(|place| async move {
        host.of(place).greet(host.options.connect_timeout, None).await.map(|(_, greeting)| greeting)
    });
    let mut least: Option<(Greeting, Levels)> = None;
    let (mut unreachable, mut lives) = (None, HashMap::new());
    for (place, greeted) in masters.iter().zip(join_all(greeting).await) {
        match greeted {
            Ok(greeting) => {
                lives.insert(place, greeting.facts.life.to_string());
                let levels = Levels::new(&greeting.facts, &host.options, true);
                least = Some(match least {
                    Some((first, least)) => (first, least.least(levels)),
                    None => (greeting, levels),
                });
            }
            Err(OpenError::Unreachable(why)) => {
                tracing::warn!(%why, "a master of the cluster is away");
                unreachable = Some(OpenError::Unreachable(why));
            }
            Err(error) => return Err(error),
        }
    }
    let life_of = |group| slots.owner(host.names.slot_of(group)).and_then(|place| lives.get(place)).cloned();
    host.lives.set((0..host.names.count()).map(|group| life_of(group).unwrap_or_default()).collect());
    match (least, unreachable) {
        (Some(least), _) => Ok(least),
        (None, error) => Err(error.unwrap_or_else(|| OpenError::Unreachable("the cluster has no masters".into()))),
    }
}
