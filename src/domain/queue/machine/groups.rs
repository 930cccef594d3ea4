//! The groups of one queue: the head of each, and who is parked behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use slab::Slab;

use super::index::GroupId;

#[derive(Debug, Clone, Default)]
pub struct Groups {
    by_name: BTreeMap<Arc<str>, GroupId>,
    groups: Slab<Group>,
}

#[derive(Debug, Clone)]
struct Group {
    name: Arc<str>,
    head: Option<u64>,
    parked: BTreeSet<u64>,
    /// Jobs of this group, the dead too: it stays as long as there are any.
    jobs: u32,
}

impl Groups {
    /// The group of this name, with one job more.
    pub fn join(&mut self, name: &str) -> GroupId {
        let id = match self.by_name.get(name) {
            Some(id) => *id,
            None => {
                let name: Arc<str> = name.into();
                let group = Group { name: name.clone(), head: None, parked: BTreeSet::new(), jobs: 0 };
                let place = self.groups.insert(group) as u32;
                let id = GroupId::new(place + 1).expect("it is more than 0");
                self.by_name.insert(name, id);
                id
            }
        };
        self.group(id).jobs += 1;
        id
    }

    /// A job of it is gone, out of which it must be neither head nor parked.
    pub fn leave(&mut self, id: GroupId) {
        let group = self.group(id);
        group.jobs -= 1;
        if group.jobs == 0 {
            let group = self.groups.remove(id.get() as usize - 1);
            self.by_name.remove(&group.name);
        }
    }

    pub fn name(&self, id: GroupId) -> &Arc<str> {
        &self.groups[id.get() as usize - 1].name
    }

    pub fn head(&self, id: GroupId) -> Option<u64> {
        self.groups[id.get() as usize - 1].head
    }

    pub fn set_head(&mut self, id: GroupId, head: Option<u64>) {
        self.group(id).head = head;
    }

    pub fn park(&mut self, id: GroupId, number: u64) {
        self.group(id).parked.insert(number);
    }

    pub fn unpark(&mut self, id: GroupId, number: u64) {
        self.group(id).parked.remove(&number);
    }

    /// The first one that is parked; it is not any more.
    pub fn next(&mut self, id: GroupId) -> Option<u64> {
        self.group(id).parked.pop_first()
    }

    /// All that are parked: by group, then number.
    pub fn parked(&self) -> impl Iterator<Item = u64> {
        self.by_name.values().flat_map(|id| self.groups[id.get() as usize - 1].parked.iter().copied())
    }

    /// Groups with their heads.
    pub fn heads(&self) -> impl Iterator<Item = (GroupId, Option<u64>)> {
        self.by_name.values().map(|id| (*id, self.head(*id)))
    }

    fn group(&mut self, id: GroupId) -> &mut Group {
        &mut self.groups[id.get() as usize - 1]
    }
}
