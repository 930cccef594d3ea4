#[path = "../../tests/support/tls_receiver.rs"]
mod tls_receiver;

use std::net::Ipv4Addr;
use std::path::Path;

use tls_receiver::Authority;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

fn secret() -> Secret {
    Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap()
}

fn hosts(list: &[&str]) -> Hosts {
    Hosts::read(&list.iter().map(|text| text.to_string()).collect::<Vec<_>>()).unwrap()
}

/// The example of the specification of Standard Webhooks.
#[test]
fn a_post_is_signed_as_the_specification_shows() {
    let body = br#"{"test": 2432232314}"#;
    let signature = sign(&secret(), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

async fn post(poster: &Poster, url: &str) -> Posted {
    poster.post(url, "id", Bytes::from_static(b"{}")).await
}

const YES: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn receivers_by_https_are_posted_to_where_somebody_known_vouches_for_them() {
    let authority = Authority::new();
    let (local, loopback) = (hosts(&["localhost"]), hosts(&["127.0.0.1"]));
    let trust = || Trust::default().with_file(authority.file.path()).unwrap();
    let (right, _) = authority.receiver("localhost", YES).await;
    let url = format!("https://localhost:{}/hook", right.port());
    assert_eq!(post(&Poster::new(secret(), local.clone(), trust()), &url).await, Posted::Accepted);

    let (by_address, _) = authority.receiver("127.0.0.1", YES).await;
    let poster = Poster::new(secret(), loopback, trust());
    assert_eq!(post(&poster, &format!("https://{by_address}/hook")).await, Posted::Accepted);

    // Of an authority that is not known, of another name, and no TLS at all.
    let unknown = post(&Poster::new(secret(), local.clone(), Trust::default()), &url).await;
    let (other, _) = authority.receiver("other.example", YES).await;
    let other =
        post(&Poster::new(secret(), local.clone(), trust()), &format!("https://localhost:{}/", other.port())).await;
    for failed in [unknown, other] {
        assert!(matches!(&failed, Posted::Failed(why) if why.contains("certificate")), "{failed:?}");
    }
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("https://localhost:{}/", plain.local_addr().unwrap().port());
    tokio::spawn(async move { plain.accept().await.unwrap().0.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await });
    let spoken = post(&Poster::new(secret(), local, trust()), &url).await;
    assert!(matches!(spoken, Posted::Failed(_)), "{spoken:?}");
}

#[tokio::test]
async fn a_redirection_is_a_failure_and_is_not_followed() {
    let authority = Authority::new();
    let trust = Trust::default().with_file(authority.file.path()).unwrap();
    let elsewhere = "HTTP/1.1 307 Temporary Redirect\r\nlocation: https://localhost/\r\ncontent-length: 0\r\n\r\n";
    let (address, _) = authority.receiver("localhost", elsewhere).await;
    let poster = Poster::new(secret(), hosts(&["localhost"]), trust);
    let posted = post(&poster, &format!("https://localhost:{}/", address.port())).await;
    assert_eq!(posted, Posted::Failed("the receiver answered 307 Temporary Redirect".into()));
}

#[tokio::test]
async fn what_a_name_leads_to_is_judged_when_a_post_is_made() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for (list, host, shows) in [
        (&["*"][..], "localhost", "not a public address"),
        (&["*"], "127.0.0.1", "not a public address"),
        (&["*"], "[::ffff:127.0.0.1]", "not a public address"),
        (&["*", "10.0.0.0/8"], "localhost", "not a public address"),
        (&["hooks.example"], "localhost", "not among webhook_hosts"),
    ] {
        let poster = Poster::new(secret(), hosts(list), Trust::default());
        let posted = post(&poster, &format!("http://{host}:{port}/hook?token=secret")).await;
        let Posted::Never(why) = posted else { panic!("{list:?} {host}: {posted:?}") };
        assert!(why.contains(shows) && why.contains("webhook_hosts") && !why.contains("token"), "{host}: {why}");
    }
    let nobody = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(nobody.is_err(), "it was connected to");
}

#[test]
fn a_file_without_certificates_is_refused_by_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (path, text) in [(file.path(), "holds none"), (Path::new("/nowhere/ca.pem"), "PEM")] {
        let fault = Trust::default().with_file(path).unwrap_err();
        assert!(fault.contains(text) && fault.contains(path.to_str().unwrap()), "{fault}");
    }
}
