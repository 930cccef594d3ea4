//! One socket's life at its edges: a peer that comes back with much to catch up on, breaks the protocol, or may not come in.

#[path = "support/hub.rs"]
mod hub;

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use hub::{Client, Heard, PATIENCE, number, publish, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

#[tokio::test(flavor = "multi_thread")]
async fn many_topics_with_history_come_back_on_one_socket_within_its_outbox() {
    let server = hub::start(&["--outbox=256KiB", "--max-frame=64KiB"]).await;
    let mut starts = Vec::new();
    for t in 0..30 {
        let topic = format!("t{t}");
        starts.push(publish(server.http, &topic, "0").await);
        for n in 1..=20 {
            publish(server.http, &topic, &text(4_000, n)).await;
        }
    }
    let mut client = Client::connect(server.http, "").await;
    client.next().await;
    let subs: Vec<String> =
        starts.iter().enumerate().map(|(t, at)| format!(r#"{{"sub":"t{t}","after":"{at}"}}"#)).collect();
    client.say(&format!("[{}]", subs.join(","))).await;
    let mut seen = vec![0; 30];
    while seen.iter().sum::<u64>() < 30 * 20 {
        let frame = client.next().await;
        let topic: usize = frame["topic"].as_str().unwrap()[1..].parse().unwrap();
        match frame.get("data") {
            Some(_) => {
                seen[topic] += 1;
                assert_eq!(number(&frame, 4_000), seen[topic]);
            }
            None => assert_eq!(frame["resumed"], true, "{frame}"),
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_for_arrays_hears_what_came_together_in_one_frame() {
    let server = hub::start(&["--rate=100000", "--burst=100000"]).await;
    let mut client = Client::connect(server.http, "?sub=a&batch=1").await;
    let mut publisher = Client::connect(server.http, "").await;
    publisher.next().await;
    client.next().await;
    client.next().await;
    let (mut heard, mut arrays) = (0u64, 0);
    // What is ready at once depends on the machine; sooner or later several are.
    while arrays < 3 {
        let round: Vec<String> = (0..50).map(|n| format!(r#"{{"pub":"a","data":{}}}"#, heard + n)).collect();
        publisher.say(&format!("[{}]", round.join(","))).await;
        let end = heard + 50;
        while heard < end {
            let frame = client.next().await;
            let messages = match frame.as_array() {
                Some(messages) => {
                    arrays += 1;
                    assert!(messages.len() > 1, "an array of one");
                    messages.clone()
                }
                None => vec![frame],
            };
            for message in messages {
                assert_eq!(message["data"], heard);
                heard += 1;
            }
        }
        for _ in 0..50 {
            assert_eq!(publisher.next().await["ok"], "pub");
        }
    }
    drop((client, publisher));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_closes_with_the_code_that_asks_to_come_back() {
    let server = hub::start(&[]).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect(server.http, "?sub=a").await;
        client.next().await;
        client.next().await;
        clients.push(client);
    }
    let stored = publish(server.http, "a", "1").await;
    let stop = tokio::spawn(server.stop());
    for mut client in clients {
        // What was stored before is given before the close.
        assert_eq!(client.next().await["at"], stored.as_str());
        assert_eq!(client.hear().await, Heard::Closed(4000, "drain".into()));
    }
    tokio::time::timeout(Duration::from_secs(9), stop).await.expect("within its bound").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_ends_does_not_keep_the_store_from_closing() {
    let server = hub::start(&["--shutdown=4s"]).await;
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[",
        server.http
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The same listener has taken that connection before this one.
    let mut client = Client::connect(server.http, "").await;
    client.next().await;
    let begun = std::time::Instant::now();
    let stop = tokio::spawn(server.stop());
    assert_eq!(client.hear().await, Heard::Closed(4000, "drain".into()));
    drop(client);
    stop.await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(3_900), "the bound was used up: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_says_so_and_takes_the_next_when_one_has_left() {
    let server = hub::start(&["--max-connections=2"]).await;
    let mut first = Client::connect(server.http, "").await;
    let _second = Client::connect(server.http, "").await;
    let browser = [("sec-websocket-protocol", "fanfare.v1")];
    let mut third = Client::connect_with(server.http, "", &browser).await.unwrap();
    assert_eq!(third.hear().await, Heard::Closed(4504, "too-many".into()));
    let plain = Client::connect_with(server.http, "", &[]).await.err().unwrap().to_string();
    assert!(plain.contains("503"), "{plain}");
    first.0.close(None).await.unwrap();
    while !matches!(first.hear().await, Heard::Gone) {}
    drop(third);
    let again = async {
        loop {
            let mut client = Client::connect_with(server.http, "", &browser).await.unwrap();
            if let Heard::Text(_) = client.hear().await {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("a place is free");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_come_in_reads_why() {
    let server = hub::start(&["--origins=https://app.example"]).await;
    let with = |headers: &'static [(&'static str, &'static str)]| Client::connect_with(server.http, "", headers);
    for origin in ["https://evil.example", "https://app.example.evil.com", "http://app.example", "null"] {
        let mut client = Client::connect_with(server.http, "?sub=a", &[("origin", origin)]).await.unwrap();
        assert_eq!(client.hear().await, Heard::Closed(4502, "origin".into()), "{origin}");
    }
    for headers in [
        &[("origin", "https://app.example")][..],
        &[("origin", "http://localhost:3000"), ("host", "localhost:8080")],
        &[("sec-websocket-protocol", "chat, fanfare.v1")],
        &[],
    ] {
        let mut client = with(Box::leak(headers.into())).await.unwrap();
        assert_eq!(client.next().await["hello"], "fanfare.v1");
    }
    let error = with(&[("host", "evil.example")]).await.err().unwrap().to_string();
    assert!(error.contains("421"), "{error}");

    let http = reqwest::Client::new();
    let url = format!("http://{}/ws", server.http);
    let answer = http.get(&url).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["upgrade"].to_str().unwrap()), (426, "websocket"));
    assert!(answer.text().await.unwrap().contains("new WebSocket("));
    for (missing, status) in [("sec-websocket-version", 426), ("sec-websocket-key", 400), ("connection", 400)] {
        let mut request = http.get(&url);
        for (name, value) in [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            if name != missing {
                request = request.header(name, value);
            }
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{missing}");
        let problem = answer.text().await.unwrap();
        assert!(problem.to_lowercase().contains(missing), "{problem}");
    }
    server.stop().await;
}

/// A socket after a handshake by hand, its `hello` read.
async fn raw(http: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(http).await.unwrap();
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: {http}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"}") {
        seen.push(stream.read_u8().await.unwrap());
    }
    stream
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_websocket_frames_are_closed_with_the_standard_code() {
    let server = hub::start(&["--max-frame=64KiB"]).await;
    let huge = [&[0x81, 0x80 | 127][..], &(70_000u64).to_be_bytes(), &[0; 4]].concat();
    let endless = [&[0x81, 0x80 | 127][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    let fragments = [masked(0x01, &vec![b'a'; 60_000]), masked(0x80, &vec![b'a'; 60_000])].concat();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("unmasked", vec![0x81, 2, b'{', b'}'], 1002),
        ("reserved bit 1", masked(0xc1, b"{}"), 1002),
        ("reserved bit 2", masked(0xa1, b"{}"), 1002),
        ("reserved bit 3", masked(0x91, b"{}"), 1002),
        ("unknown data opcode", masked(0x83, b"{}"), 1002),
        ("unknown control opcode", masked(0x8b, b""), 1002),
        ("a ping in fragments", masked(0x09, b""), 1002),
        ("a ping of 126 bytes", masked(0x89, &[b'a'; 126]), 1002),
        ("a continuation of nothing", masked(0x80, b"{}"), 1002),
        ("a new message inside another", [masked(0x01, b"{"), masked(0x81, b"}")].concat(), 1002),
        ("a close of one byte", masked(0x88, &[3]), 1002),
        ("text that is not UTF-8", masked(0x81, b"\xff\xfe"), 1007),
        ("text cut inside a character", masked(0x81, &"안".as_bytes()[..2]), 1007),
        ("a frame that is too large", huge, 4503),
        ("a frame without end", endless, 4503),
        ("fragments that are too large together", fragments, 4503),
    ];
    for (what, bytes, code) in cases {
        let mut stream = raw(server.http).await;
        stream.write_all(&bytes).await.unwrap();
        let mut answer = [0; 4];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect(what).expect(what);
        assert_eq!((answer[0], u16::from_be_bytes([answer[2], answer[3]])), (0x88, code), "{what}");
    }
    let url = format!("http://{}/metrics", server.admin.unwrap());
    let counted = async {
        loop {
            let text = reqwest::get(&url).await.unwrap().text().await.unwrap();
            if [1002, 1007, 4503].iter().all(|code| text.contains(&format!("fanfare_closed_total{{code=\"{code}\"}}")))
            {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("closes are counted by their code");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_on_breaking_the_protocol_does_not_put_the_end_off() {
    let server = hub::start(&["--max-frame=64KiB"]).await;
    let mut stream = raw(server.http).await;
    for _ in 0..2 {
        stream.write_all(&masked(0x81, b"\xff")).await.unwrap();
        let mut seen = [0; 4];
        let _ = tokio::time::timeout(PATIENCE, stream.read_exact(&mut seen)).await.expect("a close or the end");
    }
    // Less than the time that a well-behaved peer gets for its part of the closing handshake.
    let rest = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut Vec::new())).await;
    rest.expect("the socket is dropped").ok();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_on_the_root_is_judged_like_any_other_and_other_upgrades_get_the_page() {
    let server = hub::start(&[]).await;
    let handshake = |origin: &str| {
        let mut request = format!("ws://{}/?sub=a", server.http).into_client_request().unwrap();
        request.headers_mut().insert("origin", origin.parse().unwrap());
        tokio_tungstenite::connect_async(request)
    };
    let mut client = Client(handshake("http://localhost:3000").await.unwrap().0);
    assert_eq!(client.next().await["hello"], "fanfare.v1");
    let mut client = Client(handshake("https://evil.example").await.expect("a browser reads only close codes").0);
    assert_eq!(client.hear().await, Heard::Closed(4502, "origin".into()));
    // `curl --http2`
    let request = reqwest::Client::new().get(format!("http://{}/", server.http));
    let answer = request.header("connection", "Upgrade").header("upgrade", "h2c").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_may_come_in_any_pieces() {
    let server = hub::start(&[]).await;
    let mut stream = raw(server.http).await;
    let whole =
        [masked(0x01, b"{\"pi"), masked(0x89, b"?"), masked(0x80, b"ng\":1}"), masked(0x81, b"{\"ping\":2}")].concat();
    for byte in whole {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    let mut heard = Vec::new();
    while !heard.ends_with(b"{\"pong\":2}") {
        let mut room = [0; 256];
        let count = tokio::time::timeout(PATIENCE, stream.read(&mut room)).await.unwrap().unwrap();
        assert!(count > 0, "{heard:?}");
        heard.extend(&room[..count]);
    }
    let expected = [&[0x8a, 1, b'?'][..], b"\x81\x0a{\"pong\":1}", b"\x81\x0a{\"pong\":2}"].concat();
    assert_eq!(heard, expected);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_closing_handshake_is_answered() {
    let server = hub::start(&[]).await;
    let mut client = Client::connect(server.http, "?sub=a").await;
    client.next().await;
    let frame = CloseFrame { code: 1000.into(), reason: Utf8Bytes::from_static("bye") };
    client.0.close(Some(frame)).await.unwrap();
    let mut last = None;
    while let Some(Ok(message)) = client.0.next().await {
        last = Some(message);
    }
    assert!(matches!(last, Some(Message::Close(Some(frame))) if u16::from(frame.code) == 1000));
    server.stop().await;
}
