//! What the door does with bytes that are no commands, or too many of them: a named error each, and the connection kept
//! unless the protocol forbids it.

use std::time::Duration;

use crate::ingest::{House, until};
use crate::raw::{Raw, command};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_the_protocol_gets_its_error_and_is_closed() {
    let (house, door) = House::with_door(|_| {}).await;
    let protocol = |text: &str| Some(format!("(error) ERR Protocol error: {text}"));
    let cases: [(&[u8], Option<String>); 22] = [
        (b"POST /v1/messages HTTP/1.1\r\nHost: x\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\n\r\n", None),
        (b"PING\r\n", None),
        (b"XADD fanfare:in * topic t data 1\r\n", None),
        (b"\r\n", None),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", None),
        (b"{\"topic\":\"t\",\"data\":1}\r\n", None),
        (b"$4\r\nPING\r\n", None),
        (b"+PING\r\n", None),
        (b"\x00\x00\x00\x00", None),
        (b"*x\r\n", protocol("invalid multibulk length")),
        (b"*1 \r\n$4\r\nPING\r\n", protocol("invalid multibulk length")),
        (b"*99999999\r\n", protocol("invalid multibulk length")),
        (b"*--1\r\n", protocol("invalid multibulk length")),
        (b"*111111111111111111111111111", protocol("too big mbulk count string")),
        (b"*1\r\n:4\r\n", protocol("expected '$', got ':'")),
        (b"*2\r\n*1\r\n$1\r\nx\r\n", protocol("expected '$', got '*'")),
        (b"*1\r\n$-1\r\n", protocol("invalid bulk length")),
        (b"*1\r\n$x\r\n", protocol("invalid bulk length")),
        (b"*1\r\n$999999999999\r\n", protocol("invalid bulk length")),
        (b"*1\r\n$2\r\nPING\r\n", protocol("a bulk string is longer than it says")),
        (b"*1\r\n$111111111111111111111111111", protocol("too big bulk count string")),
    ];
    for (bytes, error) in cases {
        for piece in [1, bytes.len()] {
            let mut client = Raw::connect(door.door().unwrap()).await;
            assert_eq!(client.ask(&["PING"]).await, "PONG");
            for part in bytes.chunks(piece) {
                client.try_send(part).await;
            }
            // What follows in the same connection is not looked at.
            client.try_send(&command(&["XADD", "fanfare:in", "*", "topic", "t", "data", "1"])).await;
            assert_eq!(client.reply().await, error, "{}", bytes.escape_ascii());
            if error.is_some() {
                assert_eq!(client.reply().await, None, "{}", bytes.escape_ascii());
            }
        }
    }
    assert!(house.bodies("t").await.is_empty(), "no state was touched");
    door.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_cannot_be_done_get_a_named_error_and_the_connection_goes_on() {
    let (house, door) = House::with_door(|options| {
        options.arguments = 10;
        options.argument_bytes = 100_000;
        options.command_bytes = 150_000;
        options.queued = 3;
    })
    .await;
    let mut client = Raw::connect(door.door().unwrap()).await;
    let long = "x".repeat(100_001);
    let half = "x".repeat(90_000);
    let many: Vec<&str> = ["XADD", "fanfare:in", "*"].into_iter().chain(["x"; 8]).collect();
    let cases: [(&[&str], &str); 24] = [
        (&["XADD", "laravel_database_fanfare:in", "*", "topic", "t", "data", "1"], "REDIS_PREFIX="),
        (
            &["XADD", "laravel_database_fanfare:in", "*", "topic", "t", "data", "1"],
            "--ingest-stream laravel_database_fanfare:in",
        ),
        (
            &["XADD", "other", "*", "topic", "t", "data", "1"],
            "ERR XADD is taken for the key fanfare:in only, not other",
        ),
        (&["RPUSH", "other", "{}"], "--ingest-list other"),
        (&["XLEN", "other"], "fanfare:in only"),
        (&["LLEN", "other"], "fanfare:list only"),
        (&["XADD", "fanfare:list", "*", "topic", "t", "data", "1"], "WRONGTYPE"),
        (&["XADD", "fanfare:in", "1-1", "topic", "t", "data", "1"], "write * in place of 1-1"),
        (&["XADD", "fanfare:in", "99-*", "topic", "t", "data", "1"], "write * in place of 99-*"),
        (&["PUBLISH", "news", "hi"], "XADD fanfare:in * topic news"),
        (&["LPUSH", "fanfare:list", "{}"], "use RPUSH fanfare:list"),
        (&["SET", "a", "b"], "unknown command 'SET', with args beginning with: 'a' 'b'"),
        (&["FLUSHALL"], "unknown command 'FLUSHALL'"),
        (&["EVAL", "return 1", "0"], "unknown command 'EVAL'"),
        (&["CONFIG", "SET", "dir", "/"], "settings of the hub"),
        (&["CLIENT", "REPLY", "OFF"], "every command is answered"),
        (&["SELECT", "1"], "DB index is out of range"),
        (&["", ""], "unknown command ''"),
        (&["\r\n-OK\r\n", "x"], "unknown command"),
        (&["ECHO", &long], "too-large: an argument has 100001 bytes, at most 100000"),
        (&["XADD", "fanfare:in", "*", "topic", &half, &half], "too-large: this command has more than 150000 bytes"),
        (&many, "too-large: this command has 11 arguments, at most 10"),
        (&["HELLO", "3", "SETNAME", "a b"], "Client names cannot contain"),
        (&["COMMAND", "GETKEYS", "x"], "unknown subcommand"),
    ];
    for (args, shows) in cases {
        let reply = client.ask(args).await;
        assert!(reply.starts_with("(error) ") && reply.contains(shows), "{shows}: {reply}");
        assert_eq!(client.ask(&["PING"]).await, "PONG");
    }
    let java = [
        &b"*7\r\n$4\r\nXADD\r\n$17\r\n\xac\xed\x00\x05t\x00\x0afanfare:in\r\n"[..],
        b"$1\r\n*\r\n",
        b"$1\r\nx\r\n".repeat(4).as_slice(),
    ]
    .concat();
    client.send(&java).await;
    assert!(client.reply().await.unwrap().contains("StringRedisTemplate"));

    // A transaction that is too long, or that had a command too large, is not run in part.
    for spoiling in [vec!["PING"; 4], vec!["ECHO", long.as_str()]] {
        assert_eq!(client.ask(&["MULTI"]).await, "OK");
        assert_eq!(client.ask(&["XADD", "fanfare:in", "*", "topic", "t", "data", "1"]).await, "QUEUED");
        if spoiling[0] == "PING" {
            for _ in 0..2 {
                assert_eq!(client.ask(&["PING"]).await, "QUEUED");
            }
            assert!(client.ask(&["PING"]).await.contains("too many commands since MULTI: at most 3"));
        } else {
            assert!(client.ask(&spoiling).await.contains("too-large"));
        }
        assert!(client.ask(&["EXEC"]).await.contains("EXECABORT"));
    }
    assert!(house.bodies("t").await.is_empty());
    door.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_over_the_limit_are_told_and_closed_and_a_free_place_is_given_again() {
    let (_house, door) = House::with_door(|options| options.connections = 2).await;
    let address = door.door().unwrap();
    let (mut first, mut second) = (Raw::connect(address).await, Raw::connect(address).await);
    assert_eq!(first.ask(&["PING"]).await, "PONG");
    assert_eq!(second.ask(&["PING"]).await, "PONG");
    let mut third = Raw::connect(address).await;
    assert_eq!(third.reply().await.as_deref(), Some("(error) ERR max number of clients reached"));
    assert_eq!(third.reply().await, None);
    drop(first);
    until("a place is free", || async {
        let mut another = Raw::connect(address).await;
        another.try_send(&command(&["PING"])).await;
        another.reply().await.as_deref() == Some("PONG")
    })
    .await;
    door.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_never_ends_is_cut_and_a_silent_client_is_not() {
    let (_house, door) = House::with_door(|options| options.command = Duration::from_millis(200)).await;
    let mut silent = Raw::connect(door.door().unwrap()).await;
    let mut slow = Raw::connect(door.door().unwrap()).await;
    slow.send(b"*1\r\n$4\r\nPI").await;
    assert_eq!(slow.reply().await, None);
    assert_eq!(silent.ask(&["PING"]).await, "PONG");
    door.stop().await;
}
