//! Writes the table for people: `docs/config.md`, and the settings in effect as a file to start from.

use std::fmt::Write;

use super::table::SETTINGS;
use super::{Config, Options};
use crate::domain::queue::fields::FIELDS;
use crate::domain::secret;
use crate::domain::webhook;

/// What stands before the webhook of a rule for queues.
const WEBHOOK: &str = " to ";

const HEAD: &str = "\
# Settings

This page is made from the table in the code by `fanfare config --markdown > docs/config.md`; a test compares them.

Every setting can be given in three ways, of which the first one found counts: as a flag of `fanfare serve`
(`--outbox-age 5s`), as an environment variable (`FANFARE_OUTBOX_AGE=5s`), or in a file (`outbox_age = \"5s\"` in
`./fanfare.toml`, or in the file that `--config` or `FANFARE_CONFIG` names). An empty variable counts as not set. Lists
are joined by commas; in the file they may be arrays, on the command line the flag may be repeated. Durations have a
unit (`500ms`, `5s`, `10m`, `1h`, `7d`), sizes may have one (`512`, `64KiB`, `1MiB`).

All faults are named together at start, with their place; a setting or a `FANFARE_` variable that does not exist is a
fault. `fanfare config` shows what is in effect and where it came from.

`fanfare demo` takes the same settings, but stays on this machine: loopback, in memory unless a store on disk is named,
without keys, and on the next free ports where none are given. It reads a file only when `--config` names one. `fanfare`
alone is the same with the usual store, on disk.

One thing is no setting but a word of the command line: `--accept-loss` opens a store on disk that has lost or damaged data,
with what is whole of it. Without it such a store is refused, and what is missing is told.
";

const ACCESS: &str = "\
A browser tells in the `Origin` header which site's page asks, and the hub answers pages of its own origin, of the listed
`origins`, and, where it listens on loopback and is reached under a loopback name, pages of this machine. `*` lets every
site in but those without an origin (files, sandboxed frames), which are listed as `null`. Besides, the `Host` of a
request must be an address, `localhost`, the host of a listed origin or one of `hosts`, so that no foreign name can be
pointed at the hub (DNS rebinding). A hub behind a proxy, or reached by a service name, lists that name in `hosts`. Each
refusal holds the line that would allow it.
";

const RULES: &str = "\
Each topic is kept by the settings above unless a rule says otherwise. A rule names topics by the pattern of their names:
`*` stands for one segment, `**` at the end for one or more; names that begin with `$` are met only by patterns that do.
The first rule that a topic meets counts, and only that one; what it does not say is as for every topic. In the file each
rule is a table, on the command line a flag, in a variable the rules are joined by semicolons:

```toml
[topics.\"chat.typing.*\"]
mode = \"live\"

[topics.\"chat.**\"]
history_messages = 50
history_age = \"1h\"
```

`--topic 'chat.typing.*: mode=live' --topic 'chat.**: messages=50, age=1h'`

| Mode | What is kept |
|---|---|
| `log` | The history, as far as `messages`, `bytes` and `age` reach. |
| `live` | Nothing. Positions, idempotency keys and marks of ingest work all the same. |
| `latest` | The newest message of each `key`, and the newest of those without one: `messages` bounds the keys, of which those written longest ago go first. `age` counts here too. |

`slow` says what becomes of a subscriber that was in the live stream and for whose next message there is no room in its outbox:

| `slow` | What a slow subscriber gets |
|---|---|
| `resume` | Everything that history still has, read on from the store as it takes it (the usual). |
| `drop-oldest` | When it has room again the newest 100 messages, and before them a `gap` with `why:\"slow\"`. |
| `conflate` | When it has room again the newest message, and before it such a `gap`. |
| `cut` | Its connection is closed with 4002; it may come back and resume. |

In mode `latest` a slow subscriber gets the newest of each key and is told of no gap; in mode `live` there is nothing to read on
from, and the `gap` has `why:\"slow\"` too. Who only catches up with what it missed while it was away is not slow.

Rules may change over a restart. What the new ones do not keep goes, and whoever comes back for it is told `retention`
(or `live`). From `latest` to `log` what is left is the stretch of messages without a hole that ends at the newest. All
nodes of one store must have the same rules: each keeps and reads topics by its own, so that a node which keeps less than
another takes away what the other would have kept, and a topic that is `log` to one and `live` or `latest` to another
loses its history with every change of hands. Nobody is told anything wrong: what is gone is told as gone.
";

const QUEUES: &str = "\
A queue is kept by settings of its own where it has been given some (`fanfare queue create`, `PUT /v1/queues/NAME`), else by the
first rule whose pattern its name meets, else by the defaults of this table. What a rule does not say is as in the preset
that it names with `like` (`sqs-standard`, `sqs-fifo`, `kinesis`, `kafka-group`, `jms-queue`, `simple-broker`), or as the
default; a last rule for `**` speaks for all other queues. What each setting does, and its bounds, is told in
[queues.md](queues.md).

```toml
[queues.\"orders.*\"]
like = \"sqs-fifo\"
lease = \"60s\"
backoff = [\"1s\", \"10s\", \"1m\"]

[queues.\"nightly\"]
start_when = { any = [{ count = 10 }, { count = 3, min_priority = 7 }, { oldest = \"60s\" }], batch = 100 }
```

`--queue 'orders.*: like=sqs-fifo, lease=60s, backoff=1s 10s 1m' --queue 'nightly: start_when=10 or 3 of 7 or 60s batch 100'`

In one line `start_when` is its conditions joined by `or`: so many jobs (`10`), so many of a priority or a higher one
(`3 of 7`), the age of the oldest (`60s`); behind them, where wanted, `notify` (tell, and give out as ever), `batch N` and
`to URL` (a webhook; a comma in it is written `%2C`, a semicolon `%3B`).

";

/// `docs/config.md`.
pub fn markdown() -> String {
    let defaults = Options::default();
    let mut out = String::from(HEAD);
    let mut section = "";
    for setting in SETTINGS {
        if setting.section != section {
            section = setting.section;
            let _ = write!(out, "\n## {section}\n\n");
            if section == "Who may use it" {
                let _ = writeln!(out, "{ACCESS}");
            }
            out.push_str("| Setting | Default | What it is | It takes |\n|---|---|---|---|\n");
        }
        let default = match setting.shown(&defaults) {
            text if text.is_empty() => "none".to_string(),
            text => format!("`{text}`"),
        };
        let takes = setting.kind.takes().replace('*', "\\*");
        let _ = writeln!(out, "| `{}` | {default} | {} | {takes} |", setting.name, setting.help);
        if setting.name == "topic" {
            let _ = write!(out, "\n### Rules for topics\n\n{RULES}");
        }
        if setting.name == "queue" {
            let _ = write!(
                out,
                "\n### Rules for queues\n\n{QUEUES}| Setting of a queue | Default | It takes |\n|---|---|---|\n"
            );
            for field in FIELDS {
                let default = super::queues::shown_default(field);
                let _ = writeln!(out, "| `{}` | `{default}` | {} |", field.name, super::queues::takes(field));
            }
        }
    }
    out
}

/// The settings in effect as `fanfare.toml`, each with where it came from. Passwords are left out.
pub fn toml(config: &Config) -> String {
    let mut out = String::new();
    let mut section = "";
    for setting in SETTINGS {
        if setting.section != section {
            section = setting.section;
            let _ = writeln!(out, "{}# {section}", if out.is_empty() { "" } else { "\n" });
        }
        let text = redacted(&setting.shown(&config.options));
        let plain = text == "true" || text == "false" || text.parse::<u64>().is_ok();
        let value = if plain { text } else { format!("{text:?}") };
        let place = config.places.get(setting.name).map_or("default".to_string(), |place| place.to_string());
        let _ = writeln!(out, "{} = {value}  # {place}", setting.name);
    }
    out
}

/// A URL without its passwords: the one before the host, and those in its query. Of a secret nothing but that it is one.
pub fn redacted(text: &str) -> String {
    if text.starts_with(secret::PREFIX) {
        return format!("{}***", secret::PREFIX);
    }
    if let Some((before, rest)) = text.split_once(WEBHOOK).filter(|(_, rest)| rest.starts_with("http")) {
        let end = rest.find(|c: char| c.is_whitespace() || ",;".contains(c)).unwrap_or(rest.len());
        return format!("{before}{WEBHOOK}{}{}", webhook::shown(&rest[..end]), redacted(&rest[end..]));
    }
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_string() };
    let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    // What is not a plain user may be part of a password.
    let user = login.and_then(|login| login.split_once(':')).map_or("", |(user, _)| user);
    let user = if user.contains(['/', '?']) { "" } else { user };
    let mut out = match login {
        Some(_) => format!("{scheme}://{user}:***@{rest}"),
        None => format!("{scheme}://{rest}"),
    };
    for (i, field) in query.split('&').filter(|field| !field.is_empty()).enumerate() {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        let value = if name.contains("password") { "***" } else { value };
        let _ = write!(out, "{}{name}={value}", if i == 0 { '?' } else { '&' });
    }
    out
}
