//! What is wrong with settings that are well each by itself.

use super::{Config, Ingest, QueueRule};
use crate::domain::webhook::{self, Hosts};

pub fn judge_serve(config: &Config, faults: &mut Vec<String>) {
    if !config.options.insecure {
        faults.push(format!(
            "--insecure: this version has no keys yet, so whoever reaches the hub may publish and subscribe; if that is \
             what you want, say so: fanfare serve --insecure (or FANFARE_INSECURE=true, or insecure = true in \
             fanfare.toml). It would listen on {}; choose with --listen",
            config.options.listen
        ));
    }
}

pub fn judge_demo(config: &mut Config, faults: &mut Vec<String>) {
    config.options.insecure = true;
    let options = &config.options;
    let listeners = [
        ("listen", Some(options.listen)),
        ("admin_listen", options.admin_listen),
        ("redis_listen", options.redis_listen),
    ];
    for (name, address) in listeners {
        if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
            faults.push(format!(
                "{}: the demo listens on this machine only, not on {address}; to let others in: fanfare serve \
                 --insecure --{} {address}",
                config.place(name),
                name.replace('_', "-")
            ));
        }
    }
    if options.store != "memory" && !options.store.starts_with("disk:") {
        let place = config.place("store");
        faults.push(format!("{place}: the demo keeps its messages itself; with a Redis: fanfare serve --insecure"));
    }
}

/// What is wrong only in its company.
pub fn judge_together(config: &Config, faults: &mut Vec<String>) {
    let options = &config.options;
    let mut fault = |name: &str, text: String| faults.push(format!("{}: {text}", config.place(name)));
    if let Some(rule) =
        options.queues.iter().find(|rule| webhook_of(rule).is_some() && options.webhook_secret.is_empty())
    {
        let text = format!(
            "queues of {} name a webhook, and nothing signs what is posted there: set webhook_secret (FANFARE_WEBHOOK_SECRET); \
             make one with: echo whsec_$(openssl rand -base64 32)",
            rule.pattern
        );
        fault("queue", text);
    }
    let hosts = Hosts::read(&options.webhook_hosts).unwrap_or_default();
    for (pattern, webhook) in options.queues.iter().filter_map(|rule| Some((&rule.pattern, webhook_of(rule)?))) {
        if let Err(why) = webhook::read(&webhook).and_then(|url| hosts.judge(&url)) {
            fault("queue", format!("queues of {pattern}: {why}"));
        }
    }
    let listeners = [
        ("listen", Some(options.listen)),
        ("admin_listen", options.admin_listen),
        ("redis_listen", options.redis_listen.filter(|_| options.ingest() == Ingest::Door)),
    ];
    for (i, (name, address)) in listeners.iter().enumerate() {
        let Some(address) = address.filter(|a| a.port() != 0) else { continue };
        if let Some((other, _)) = listeners[..i].iter().find(|(_, a)| *a == Some(address)) {
            let same = if *name == "admin_listen" { "; to use one port for both write \"same\"" } else { "" };
            fault(name, format!("{address} is the address of `{other}` already{same}"));
        }
    }
    if options.ingest == "door" && options.redis_listen.is_none() {
        fault("ingest", "\"door\" needs an address for it, but `redis_listen` is off".into());
    }
    if options.durability == "replica" && options.replicas == 0 {
        fault("durability", "\"replica\" needs at least one of `replicas`".into());
    }
    let limits = &options.limits;
    if limits.outbox < limits.frame {
        fault("outbox", format!("one frame (`max_frame`, {} bytes) must fit in", limits.frame));
    }
    if limits.batch_body < limits.frame {
        fault("max_batch_body", format!("one message (`max_frame`, {} bytes) must fit in", limits.frame));
    }
    if limits.burst < limits.rate {
        fault("burst", format!("is below `rate` ({}), which then is never reached", limits.rate));
    }
    if options.ingest_stream == options.ingest_list {
        fault("ingest_list", format!("{:?} is the name of the stream already", options.ingest_list));
    }
    let too_short = "must be at least twice `ingest_keep`, or entries are applied twice after a failover";
    let least = options.ingest_keep * 2;
    if options.retention.record < least {
        fault("record_age", too_short.into());
    }
    for rule in options.rules.iter().filter(|rule| rule.record.is_some_and(|record| record < least)) {
        fault("topic", format!("{}: record_age: {too_short}", rule.pattern));
    }
}

fn webhook_of(rule: &QueueRule) -> Option<Box<str>> {
    rule.settings().start_when?.webhook
}
