//! The nodes of a fault: started, killed, stalled, started again; whoever looks for a living one is told where it is.

use crate::listener::Nodes;
use crate::node::Node;
use crate::timepiece::Timepiece;

pub struct Fleet {
    pub running: Vec<Node>,
    pub addresses: Nodes,
    pub kills: u32,
    pub pauses: u32,
}

impl Fleet {
    pub fn start(count: usize, store: &str, settings: &[&str]) -> Fleet {
        let running: Vec<Node> = (0..count).map(|n| Node::start(&format!("node {n}"), store, settings)).collect();
        let addresses = Nodes::new(running.iter().map(|node| node.http));
        Fleet { running, addresses, kills: 0, pauses: 0 }
    }

    /// Nodes whose clocks can be set.
    pub fn with_clocks(clocks: &[Timepiece], store: &str, settings: &[&str]) -> Fleet {
        let start = |(n, clock): (usize, &Timepiece)| {
            Node::start_with(&format!("node {n}"), store, settings, clock.variables())
        };
        let running: Vec<Node> = clocks.iter().enumerate().map(start).collect();
        let addresses = Nodes::new(running.iter().map(|node| node.http));
        Fleet { running, addresses, kills: 0, pauses: 0 }
    }

    pub fn kill(&mut self, node: usize) {
        self.addresses.set(node, None);
        self.running[node].kill();
        self.kills += 1;
    }

    pub fn restart(&mut self, node: usize) {
        tokio::task::block_in_place(|| self.running[node].restart());
        self.addresses.set(node, Some(self.running[node].http));
    }

    pub fn pause(&mut self, node: usize) {
        self.addresses.set(node, None);
        self.running[node].pause();
        self.pauses += 1;
    }

    pub fn resume(&mut self, node: usize) {
        self.running[node].resume();
        self.addresses.set(node, Some(self.running[node].http));
    }
}
