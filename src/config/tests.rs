use std::path::Path;

use clap::Command;

use super::*;
use crate::domain::queue::{Queue, QueueSettings};

const EMPTY: &str = "/nonexistent";

fn load_with(mode: Mode, flags: &[&str], variables: &[(&str, &str)], file: Option<&str>) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    if let Some(text) = file {
        std::fs::write(folder.path().join("fanfare.toml"), text).unwrap();
    }
    let directory = if file.is_some() { folder.path() } else { Path::new(EMPTY) };
    let matches = Command::new("serve").args(arguments()).no_binary_name(true).get_matches_from(flags);
    let variables = variables.iter().chain(&[("HOME", "/home/ann")]);
    let environment = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    load(mode, &matches, environment, directory)
        .map_err(|faults| faults.to_string().replace(&folder.path().display().to_string(), "."))
}

fn serve(flags: &[&str], variables: &[(&str, &str)], file: Option<&str>) -> Result<Options, String> {
    let flags: Vec<&str> = flags.iter().copied().chain(["--insecure"]).collect();
    load_with(Mode::Serve, &flags, variables, file).map(|config| config.options)
}

#[test]
fn the_defaults_are_those_of_the_parts() {
    let options = serve(&[], &[], None).unwrap();
    assert_eq!((options.limits, options.retention), (Limits::default(), Retention::default()));
}

#[test]
fn a_flag_goes_before_a_variable_before_the_file_before_the_default() {
    let file = Some("rate = 11\nburst = 1000\nping = \"11s\"\npong = \"3s\"\n");
    let variables = [("FANFARE_RATE", "22"), ("FANFARE_PING", "22s"), ("FANFARE_STRIKES", "")];
    let options = serve(&["--rate", "33"], &variables, file).unwrap();
    let limits = options.limits;
    assert_eq!((limits.rate, limits.ping, limits.pong), (33, Duration::from_secs(22), Duration::from_secs(3)));
    assert_eq!(limits.strikes, 3, "an empty variable is not set");
}

#[test]
fn every_setting_can_be_given_in_every_way() {
    let other = |setting: &Setting| -> String {
        let default = setting.shown(&Options::default());
        match (setting.name, setting.kind) {
            ("listen" | "admin_listen" | "redis_listen", _) => format!("127.0.0.1:1{}", setting.name.len()),
            ("store" | "ingest", _) => "redis://r:6379/1".into(),
            ("data", _) => "/var/lib/elsewhere".into(),
            ("log", _) => "debug".into(),
            ("log_format", _) => "json".into(),
            ("redis_fsync", _) => "always".into(),
            ("durability", _) => "disk".into(),
            ("origins", _) => "https://a.example,null".into(),
            ("hosts", _) => "a.example,b.example".into(),
            ("topic", _) => "a.*: mode=live; **: messages=5, age=1h".into(),
            ("queue", _) => "orders.*: like=sqs-fifo, lease=1m; **: start_when=10 or 3 of 7 or 1m".into(),
            ("binding", _) => r#"[{"name":"a","topics":"a.**","queue":"q","filter":{"key":"*"}}]"#.into(),
            ("schedule", _) => {
                r#"[{"name":"a","cron":"0 2 * * *","timezone":"UTC","queue":"q","data":1,"catch_up":true}]"#.into()
            }
            ("webhook_hosts", _) => "*.a.example,10.1.0.0/16".into(),
            ("webhook_ca", _) => "/etc/ssl/ca.pem".into(),
            ("webhook_secret", _) => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into(),
            ("prefix" | "ingest_stream" | "ingest_list", _) => format!("x:{}", setting.name),
            // No larger than what they must stay below.
            ("max_frame", _) => "32KiB".into(),
            ("rate" | "max_credit", _) => "7".into(),
            ("ingest_keep", _) => "59s".into(),
            (_, unit::Kind::Flag) => "true".into(),
            (_, unit::Kind::Duration { most, .. }) => setting.kind.write(&unit::Value::Duration(most)),
            (_, unit::Kind::Count { .. } | unit::Kind::Size { .. }) => {
                let text = setting.kind.write(&match setting.kind {
                    unit::Kind::Count { most, .. } | unit::Kind::Size { most, .. } => unit::Value::Number(most),
                    _ => unreachable!(),
                });
                assert_ne!(text, default);
                text
            }
            (name, _) => panic!("say another value of {name}"),
        }
    };
    for setting in SETTINGS {
        let value = other(setting);
        let flag = format!("--{}={value}", setting.flag());
        let quoted = format!("{} = {value:?}", setting.name);
        let ways = [
            load_with(Mode::Serve, &[&flag], &[("FANFARE_INSECURE", "true")], None),
            serve(&[], &[(&setting.variable(), &value)], None)
                .map(|options| Config { options, places: BTreeMap::new() }),
            load_with(Mode::Serve, &[], &[("FANFARE_INSECURE", "true")], Some(&quoted)),
        ];
        for config in ways {
            let options = config.unwrap_or_else(|faults| panic!("{}: {faults}", setting.name)).options;
            assert_eq!(setting.shown(&options), value, "{}", setting.name);
        }
    }
}

#[test]
fn all_faults_are_named_together_with_their_place_and_what_is_possible() {
    let file = "rat = 5\nping = 25\nmax_frame = \"64KB\"\n\n[limits]\nx = 1\n";
    let variables = [
        ("FANFARE_OUTBOXAGE", "5s"),
        ("FANFARE_LISTEN", "8080"),
        ("FANFARE_STORE", "disk:"),
        ("FANFARE_WHATEVER_ELSE", "1"),
        ("PATH", "/bin"),
    ];
    let faults = serve(&["--shards", "many", "--origins", "app.example", "--log", "loud"], &variables, Some(file));
    let faults = faults.unwrap_err();
    for part in [
        "./fanfare.toml line 1, rat: there is no such setting; did you mean rate?",
        "./fanfare.toml line 2, ping: \"25\" has no unit: write \"25s\"",
        "./fanfare.toml line 3, max_frame: \"64KB\" does not fit; it takes bytes from 1KiB to 16MiB",
        "./fanfare.toml line 5, limits: settings stand at the top",
        "FANFARE_OUTBOXAGE: there is no such setting; did you mean FANFARE_OUTBOX_AGE?",
        "FANFARE_LISTEN: \"8080\" does not fit; it takes IP:PORT",
        "FANFARE_STORE: names no folder; write disk:PATH",
        "FANFARE_WHATEVER_ELSE: there is no such setting; fanfare serve --help",
        "--shards: \"many\" does not fit; it takes a number from 0 to 1024",
        "--origins: \"app.example\" is not an origin",
        "--log: \"loud\" does not fit; it takes error, warn",
    ] {
        assert!(faults.contains(part), "{part}\nis not in\n{faults}");
    }
    assert_eq!(faults.lines().count(), 11, "{faults}");
}

#[test]
fn rules_for_topics_are_given_in_every_way_and_keep_their_order() {
    let file = "rate = 5\n[topics.\"z.*\"]\nmode = \"live\"\n[topics.\"a.**\"]\nhistory_messages = 50\nage = \"1h\"\n";
    let written = |options: &Options| SETTINGS.iter().find(|s| s.name == "topic").unwrap().shown(options);
    let from_file = serve(&[], &[], Some(file)).unwrap();
    assert_eq!(written(&from_file), "z.*: mode=live; a.**: messages=50, age=1h");
    let flags = ["--topic", "z.*: mode=live", "--topic=a.**: messages=50, age=1h"];
    assert_eq!(serve(&flags, &[], None).unwrap().rules, from_file.rules);
    let variable = [("FANFARE_TOPIC", "z.*: mode=live; a.**: messages=50, age=1h")];
    assert_eq!(serve(&[], &variable, None).unwrap().rules, from_file.rules);
    // What shows the settings can be read again.
    let shown = toml(&load_with(Mode::Serve, &["--insecure"], &variable, None).unwrap());
    assert_eq!(serve(&[], &[], Some(&shown)).unwrap().rules, from_file.rules);
    let file = "[topics.\"a*\"]\nmode = \"live\"\n[topics.b]\nmode = \"lively\"\n[topics.c]\n[topics]\nd = 5\n";
    let faults = serve(&["--topic=x: record_age=60s", "--ingest-keep=1h"], &[], Some(file)).unwrap_err();
    for part in [
        "./fanfare.toml line 1, topics.\"a*\": `*` stands for a whole segment",
        "./fanfare.toml line 3, topics.\"b\": mode: \"lively\" does not fit",
        "./fanfare.toml line 5, topics.\"c\": a rule says at least one thing",
        "./fanfare.toml line 7, topics.\"d\": it takes a table",
        "--topic: x: record_age: must be at least twice `ingest_keep`",
    ] {
        assert!(faults.contains(part), "{part}\nis not in\n{faults}");
    }
    let short = serve(&["--topic=x: record_age=3m; y: record_age=2d"], &[], None).unwrap();
    assert_eq!(short.shortest_record(), std::time::Duration::from_secs(180));
    let both = "topic = \"a: mode=live\"\n[topics.b]\nmode = \"live\"\n";
    assert!(serve(&[], &[], Some(both)).unwrap_err().contains("say it in one way"));
}

#[test]
fn what_contradicts_itself_is_a_fault() {
    for (flags, part) in [
        (
            &["--admin-listen=127.0.0.1:8080"][..],
            "--admin-listen: 127.0.0.1:8080 is the address of `listen` already; to use one",
        ),
        (&["--redis-listen=127.0.0.1:9090"], "--redis-listen: 127.0.0.1:9090 is the address of `admin_listen`"),
        (&["--ingest=door", "--redis-listen=off"], "--ingest: \"door\" needs an address"),
        (&["--max-frame=2MiB"], "outbox: one frame"),
        (&["--max-frame=8MiB", "--outbox=8MiB"], "max_batch_body: one message"),
        (&["--burst=5"], "--burst: is below `rate` (100)"),
        (&["--ingest-list=fanfare:in"], "--ingest-list: \"fanfare:in\" is the name of the stream"),
        (&["--record-age=119m", "--ingest-keep=1h"], "--record-age: must be at least twice `ingest_keep`"),
        (&["--store=redis://:6379"], "--store: not the URL of a Redis; it takes redis://"),
        (&["--store=rediss://r"], "--store: TLS to Redis is not in this version"),
        (&["--store=postgres://r"], "is no store"),
        (&["--rate=5", "--rate=6"], "--rate: takes one value, 2 are given"),
        (&["--config=/nonexistent/f.toml"], "/nonexistent/f.toml: cannot be read"),
    ] {
        let faults = serve(flags, &[], None).err().unwrap_or_default();
        assert!(faults.contains(part), "{flags:?}: {part}\nis not in\n{faults}");
    }
    let broken = serve(&[], &[], Some("rate = 5\nping = = 3\n")).unwrap_err();
    assert!(broken.contains("./fanfare.toml line 2: not TOML"), "{broken}");
}

#[test]
fn serving_without_keys_wants_to_be_said() {
    let faults = load_with(Mode::Serve, &[], &[], None).err().unwrap();
    assert!(faults.contains("fanfare serve --insecure"), "{faults}");
    assert!(serve(&[], &[], None).unwrap().listen.ip().is_loopback());
    let everywhere = serve(&["--listen", "0.0.0.0:80"], &[], None).unwrap();
    assert_eq!(everywhere.listen.to_string(), "0.0.0.0:80");
}

#[test]
fn the_demo_stays_on_this_machine() {
    let demo = |flags: &[&str], variables: &[(&str, &str)], file| load_with(Mode::Demo, flags, variables, file);
    let config = demo(&["--listen=127.0.0.1:8088"], &[], Some("store = \"redis://r\"")).unwrap();
    assert!(config.options.insecure && config.options.store == "memory", "the usual file is not read");
    assert!(config.is_given("listen") && !config.is_given("redis_listen"));
    let faults = demo(&["--listen=0.0.0.0:8080"], &[("FANFARE_STORE", "redis://r")], None).err().unwrap();
    assert!(faults.contains("fanfare serve --insecure --listen 0.0.0.0:8080"), "{faults}");
    assert!(faults.contains("FANFARE_STORE: the demo keeps its messages itself"), "{faults}");
}

#[test]
fn a_store_on_disk_is_the_usual_one_and_lies_where_it_was_said() {
    let store = |mode, flags: &[&str], variables: &[(&str, &str)]| {
        let flags: Vec<&str> = flags.iter().copied().chain(["--insecure"]).collect();
        load_with(mode, &flags, variables, None).unwrap().options.store
    };
    for (mode, flags, variables, expected) in [
        (Mode::Serve, &[][..], &[][..], "disk:/home/ann/.local/state/fanfare"),
        (Mode::Alone, &[], &[], "disk:/home/ann/.local/state/fanfare"),
        (Mode::Demo, &[], &[], "memory"),
        (Mode::Demo, &["--store=disk:/a"], &[], "disk:/a"),
        (Mode::Serve, &[], &[("XDG_STATE_HOME", "/state")], "disk:/state/fanfare"),
        (Mode::Serve, &[], &[("XDG_STATE_HOME", "not/absolute")], "disk:/home/ann/.local/state/fanfare"),
        (Mode::Serve, &[], &[("FANFARE_DATA", "/data"), ("XDG_STATE_HOME", "/state")], "disk:/data"),
        (Mode::Serve, &["--data=/flag"], &[("FANFARE_DATA", "/data")], "disk:/flag"),
        (Mode::Serve, &["--store=disk:/a"], &[("FANFARE_DATA", "/data")], "disk:/a"),
        (Mode::Serve, &["--store=memory"], &[("FANFARE_DATA", "/data")], "memory"),
    ] {
        assert_eq!(store(mode, flags, variables), expected, "{flags:?} {variables:?}");
    }
    let matches = Command::new("serve").args(arguments()).no_binary_name(true).get_matches_from(["--insecure"]);
    let faults = load(Mode::Serve, &matches, [], Path::new(EMPTY)).unwrap_err().to_string();
    assert!(faults.contains("FANFARE_DATA") && faults.contains("--store memory"), "{faults}");
}

#[test]
fn variables_that_others_set_for_a_service_of_our_name_are_no_faults() {
    let kubernetes = [
        ("FANFARE_SERVICE_HOST", "10.0.0.1"),
        ("FANFARE_SERVICE_PORT", "8080"),
        ("FANFARE_PORT", "tcp://10.0.0.1:8080"),
        ("FANFARE_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("FANFARE_URL", "http://localhost:8080"),
    ];
    serve(&[], &kubernetes, None).unwrap();
    for setting in SETTINGS {
        assert!(!is_other_variable(&setting.variable()), "{}", setting.name);
    }
}

#[test]
fn ingest_follows_the_store_and_its_names_the_prefix() {
    let ingest = |flags: &[&str]| serve(flags, &[], None).unwrap().ingest();
    assert_eq!(ingest(&[]), Ingest::Door);
    assert_eq!(ingest(&["--redis-listen=off"]), Ingest::Off);
    assert_eq!(ingest(&["--store=redis://r"]), Ingest::Redis("redis://r".into()));
    assert_eq!(ingest(&["--store=redis://r", "--ingest=redis://i/2"]), Ingest::Redis("redis://i/2".into()));
    assert_eq!(ingest(&["--store=redis://r", "--ingest=off"]), Ingest::Off);
    let options = serve(&["--prefix=acme", "--ingest-list=jobs"], &[], None).unwrap();
    assert_eq!((options.ingest_stream.as_str(), options.ingest_list.as_str()), ("acme:in", "jobs"));
}

#[test]
fn lists_join_by_commas_repetition_and_arrays() {
    let expected = ["https://a.example", "https://b.example"];
    assert_eq!(serve(&["--origins=https://a.example, https://b.example"], &[], None).unwrap().origins, expected);
    assert_eq!(
        serve(&["--origins=https://a.example", "--origins=https://b.example"], &[], None).unwrap().origins,
        expected
    );
    let file = "origins = [\"https://a.example\", \"https://b.example\"]";
    assert_eq!(serve(&[], &[], Some(file)).unwrap().origins, expected);
}

#[test]
fn the_settings_in_effect_are_shown_with_their_place_and_without_passwords() {
    let config =
        load_with(Mode::Serve, &["--insecure", "--store=redis://ann:secret@r:6379"], &[("FANFARE_RATE", "5")], None);
    let text = toml(&config.unwrap());
    assert!(text.contains("rate = 5  # FANFARE_RATE\n"), "{text}");
    assert!(text.contains("store = \"redis://ann:***@r:6379\"  # --store\n"), "{text}");
    assert!(text.contains("ping = \"25s\"  # default\n"), "{text}");
    text.parse::<::toml::Table>().unwrap();
}

#[test]
fn the_page_of_settings_is_up_to_date() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.md")).unwrap_or_default();
    assert!(page == markdown(), "docs/config.md is old: fanfare config --markdown > docs/config.md");
}

#[test]
fn help_shows_each_setting_once() {
    let help = Command::new("serve").args(arguments()).render_long_help().to_string();
    for setting in SETTINGS {
        assert_eq!(
            help.matches(&format!("--{} ", setting.flag())).count()
                + help.matches(&format!("--{}[", setting.flag())).count(),
            1,
            "{}",
            setting.name
        );
        assert!(help.contains(&setting.variable()), "{}", setting.name);
    }
}

#[test]
fn bindings_and_schedules_are_tables_of_the_file_or_json() {
    let file = r#"
[bindings.paid]
topics = "orders.**"
queue = "jobs"
filter = { name = "order.*", tags.region = "eu", key = true }

[schedules.nightly]
cron = "0 2 * * *"
timezone = "Asia/Seoul"
queue = "jobs"
data = { report = "all", days = [1, 2.5, true] }
"#;
    let options = serve(&[], &[], Some(file)).unwrap();
    let binding = r#"{"name":"paid","topics":"orders.**","queue":"jobs","filter":{"key":"*","name":"order.*","tags.region":"eu"}}"#;
    let schedule = r#"{"name":"nightly","cron":"0 2 * * *","timezone":"Asia/Seoul","queue":"jobs","data":{"report":"all","days":[1,2.5,true]}}"#;
    let said = serve(&["--binding", binding], &[("FANFARE_SCHEDULE", schedule)], None).unwrap();
    assert_eq!((&options.bindings, options.bindings.len()), (&said.bindings, 1));
    assert_eq!(
        (&options.schedules[0].name, &options.schedules[0].cron),
        (&said.schedules[0].name, &said.schedules[0].cron)
    );

    let file = "\n[bindings.a]\ntopics = \"a\"\n[schedules.b]\ncron = \"x\"\nqueue = \"q\"\n[schedules]\nc = 5\n";
    let faults = serve(&["--schedule", "tonight"], &[], Some(file)).unwrap_err();
    for part in [
        "./fanfare.toml line 2, bindings.a:",
        "./fanfare.toml line 4, schedules.b:",
        "schedules.c: it takes a table, as in [schedules.NAME]",
        "--schedule: \"tonight\" is not JSON",
    ] {
        assert!(faults.contains(part), "{part}\nis not in\n{faults}");
    }
}

#[test]
fn a_webhook_without_a_secret_is_refused_and_the_secret_is_never_shown() {
    let queue = "jobs: start_when=10 to http://a.example/hook";
    let faults = serve(&["--queue", queue], &[], None).unwrap_err();
    assert!(faults.contains("queues of jobs name a webhook") && faults.contains("FANFARE_WEBHOOK_SECRET"), "{faults}");
    let secret = ("FANFARE_WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let config = load_with(Mode::Serve, &["--queue", queue, "--insecure"], &[secret], None).unwrap();
    for shown in [toml(&config), format!("{:?}", config.options)] {
        assert!(shown.contains("whsec_***") && !shown.contains("MfKQ9"), "{shown}");
    }
    let faults = serve(&[], &[("FANFARE_WEBHOOK_SECRET", "hunter2")], None).unwrap_err();
    assert!(faults.contains("openssl") && !faults.contains("hunter2"), "{faults}");
    let queue = "jobs: start_when=10 to https://hooks.example/hunter2?key=hunter2; b: start_when=5";
    let config = load_with(Mode::Serve, &["--queue", queue, "--insecure"], &[secret], None).unwrap();
    for shown in [toml(&config), format!("{:?}", config.options)] {
        assert!(
            shown.contains("to https://hooks.example/***; b: start_when=5") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}

#[test]
fn a_webhook_that_may_not_go_where_it_should_is_refused_with_what_would_allow_it() {
    let secret = "--webhook-secret=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    for (webhook, hosts, shows) in [
        ("http://10.0.0.1/hook", "*", Some("add 10.0.0.1 to webhook_hosts")),
        ("https://b.example/hook", "a.example", Some("b.example: it is not among webhook_hosts")),
        ("https://b.example/***", "*", Some("write it whole")),
        ("http://10.0.0.1/hook", "*,10.0.0.0/8", None),
        ("https://a.example/hook", "a.example", None),
    ] {
        let queue = format!("jobs: start_when=10 to {webhook}");
        let loaded = serve(&["--queue", &queue, secret, "--webhook-hosts", hosts], &[], None);
        match (loaded, shows) {
            (Ok(_), None) => {}
            (Err(faults), Some(shows)) => assert!(faults.contains(shows), "{webhook}: {faults}"),
            (other, _) => panic!("{webhook} with {hosts}: {:?}", other.map(drop)),
        }
    }
    let faults = serve(&["--webhook-hosts", "a b"], &[], None).unwrap_err();
    assert!(faults.contains("*.example.com"), "{faults}");
}

#[test]
fn rules_for_queues_are_tables_of_the_file_or_a_flag() {
    let file = r#"
webhook_secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

[queues."orders.*"]
like = "sqs-fifo"
lease = "60s"
backoff = ["1s", "10s"]

[queues."nightly"]
start_when = { any = [{ count = 10 }, { count = 3, min_priority = 7 }, { oldest = "60s" }], batch = 20, webhook = "http://a.example/x,y" }
"#;
    let options = serve(&[], &[], Some(file)).unwrap();
    let secret = "--webhook-secret=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let line = "orders.*: like=sqs-fifo, lease=60s, backoff=1s 10s; \
                nightly: start_when=10 or 3 of 7 or 60s batch 20 to http://a.example/x%2Cy";
    assert_eq!(options.queues, serve(&["--queue", line, secret], &[], None).unwrap().queues);
    assert_eq!(options.queues, serve(&[secret], &[("FANFARE_QUEUE", line)], None).unwrap().queues);
    let rules = options.queue_rules();
    let of = |name: &str| rules.of(&Queue::parse(name).unwrap()).clone();
    assert!(of("orders.eu").dedupe_content && of("orders.eu").lease.as_secs() == 60);
    assert_eq!(of("orders.eu").backoff.len(), 2);
    assert_eq!(of("nightly").start_when.unwrap().batch, Some(20));
    assert_eq!(of("other"), QueueSettings::default());
}

#[test]
fn all_faults_of_rules_for_queues_are_told_with_their_line() {
    let file = "\n[queues.\"a\"]\nleese = \"1s\"\nlease = \"1ms\"\n[queues.\"b\"]\nstart_when = { count = 1 }\n[queues]\nc = 5\n";
    let faults = serve(&["--queue", "d: ttl=x"], &[], Some(file)).unwrap_err();
    for part in [
        "./fanfare.toml line 2, queues.\"a\": \"leese\" is no setting of a queue; did you mean lease?; lease is 1ms",
        "./fanfare.toml line 5, queues.\"b\": start_when: \"count\" is not known; it takes any = [",
        "--queue: \"d: ttl=x\": ttl:",
    ] {
        assert!(faults.contains(part), "{part}\nis not in\n{faults}");
    }
}

#[test]
fn the_demo_brings_rules_for_its_lab_and_those_of_its_user_go_before() {
    let of = |mode, flags: &[&str]| load_with(mode, flags, &[], None).unwrap().options.rules;
    let rules = of(Mode::Demo, &["--topic", "lab.**: mode=log"]);
    let patterns: Vec<String> = rules.iter().map(|rule| rule.pattern.to_string()).collect();
    assert_eq!(patterns, ["lab.**", "lab.*.live", "lab.*.kinesis"]);
    assert_eq!(of(Mode::Alone, &[]).len(), 2, "its page has the lab too");
    assert_eq!(of(Mode::Serve, &["--insecure"]), []);
}
