//! The forms in which a Redis is named. No I/O.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

use super::sentinel::Sentinels;
use super::{Form, Place};

/// What a URL may look like, for help and errors.
pub const FORMS: &str = "redis://[USER:PASSWORD@]HOST[:PORT][/DB], unix:/PATH[?db=N], \
                         redis+sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]/MASTER[/DB] or \
                         redis+cluster://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]";

const SENTINEL_PORT: u16 = 26379;
const REDIS_PORT: u16 = 6379;

/// Hosts in one URL.
const MOST_HOSTS: usize = 64;

/// Whether a text is the URL of a Redis, good or bad, and not the name of something else.
pub fn is_redis(text: &str) -> bool {
    matches!(
        text.split_once(':').map(|(scheme, _)| scheme),
        Some("redis" | "rediss" | "valkey" | "valkeys" | "unix" | "redis+unix" | "redis+sentinel" | "redis+cluster")
    )
}

pub(super) fn parse(url: &str) -> Result<(Form, RedisConnectionInfo), String> {
    let wrong = || format!("not the URL of a Redis; it takes {FORMS}");
    if url.contains(char::is_whitespace) {
        return Err(wrong());
    }
    match url.split_once(':').map_or(url, |(scheme, _)| scheme) {
        "rediss" | "valkeys" => {
            Err("TLS to Redis is not in this version; use redis:// over a network you trust or a tunnel".into())
        }
        "redis+sentinel" => parse_sentinels(url.strip_prefix("redis+sentinel://").ok_or_else(wrong)?),
        "redis+cluster" => parse_cluster(url.strip_prefix("redis+cluster://").ok_or_else(wrong)?),
        "redis" | "valkey" | "unix" | "redis+unix" => {
            let info = read(url).ok_or_else(wrong)?;
            let place = place(&info).filter(has_host).ok_or_else(wrong)?;
            Ok((Form::Single(place), info.redis_settings().clone()))
        }
        _ => Err(wrong()),
    }
}

fn parse_sentinels(rest: &str) -> Result<(Form, RedisConnectionInfo), String> {
    const FORM: &str = "sentinels are written redis+sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]/MASTER[/DB]; USER \
                        and PASSWORD are those of the Redis, those of the sentinels follow as \
                        ?sentinel_user=U&sentinel_password=P";
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').ok_or(FORM)?;
    let (master, database) = path.split_once('/').unwrap_or((path, "0"));
    // What Sentinel itself takes as a name.
    let is_name = !master.is_empty() && master.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let database: i64 = database.parse().ok().filter(|db| *db >= 0).ok_or(FORM)?;
    if !is_name {
        return Err(FORM.into());
    }
    let (login, sentinels) = read_hosts(authority, SENTINEL_PORT).ok_or(FORM)?;
    let mut own = RedisConnectionInfo::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        own = match &*name {
            "sentinel_user" => own.set_username(value),
            "sentinel_password" => own.set_password(value),
            _ => return Err(FORM.into()),
        };
    }
    Ok((Form::Sentinel(Sentinels::new(sentinels, master.to_owned(), own)), login.set_db(database)))
}

fn parse_cluster(rest: &str) -> Result<(Form, RedisConnectionInfo), String> {
    const FORM: &str = "a cluster is written redis+cluster://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]: some of its \
                        servers, no database, for it has but one";
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?']) {
        return Err(FORM.into());
    }
    let (login, seeds) = read_hosts(authority, REDIS_PORT).ok_or(FORM)?;
    Ok((Form::Cluster(seeds), login))
}

/// Reads `[user:password@]host[:port],host[:port]`. The crate reads each as a URL of its own, so that all forms agree on
/// what must be escaped.
fn read_hosts(authority: &str, port: u16) -> Option<(RedisConnectionInfo, Vec<Place>)> {
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (format!("{login}@"), hosts),
        None => (String::new(), authority),
    };
    let mut found = (RedisConnectionInfo::default(), Vec::new());
    for host in hosts.split(',') {
        let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
        let port = if has_port { String::new() } else { format!(":{port}") };
        let info = read(&format!("redis://{login}{host}{port}"))?;
        found.0 = info.redis_settings().clone();
        found.1.push(place(&info).filter(has_host)?);
    }
    Some(found).filter(|(_, places)| places.len() <= MOST_HOSTS)
}

fn read(url: &str) -> Option<ConnectionInfo> {
    // The error of the crate may show the URL, and with it a password.
    url.into_connection_info().ok()
}

fn place(info: &ConnectionInfo) -> Option<Place> {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) => {
            // Brackets belong to the URL, not to the address.
            let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
            Some(Place::Tcp(host.to_owned(), *port))
        }
        ConnectionAddr::Unix(path) => Some(Place::Unix(path.clone())),
        _ => None,
    }
}

fn has_host(place: &Place) -> bool {
    match place {
        Place::Tcp(host, _) => !host.is_empty(),
        Place::Unix(path) => !path.as_os_str().is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Endpoint;
    use super::*;

    #[test]
    fn forms_of_the_url() {
        for (url, shown) in [
            ("redis://localhost", "localhost:6379"),
            ("redis://:secret@10.0.0.1:7000/3", "10.0.0.1:7000"),
            ("redis://user:secret@example.org/0", "example.org:6379"),
            ("redis://[::1]:7000", "[::1]:7000"),
            ("unix:/run/redis.sock", "/run/redis.sock"),
            ("unix:///run/redis.sock?db=2", "/run/redis.sock"),
            ("redis+sentinel://a,b:7000/main", "main of the sentinels a:26379, b:7000"),
            (
                "redis+sentinel://u:secret@[::1]:7000,b/main/4?sentinel_password=secret",
                "main of the sentinels [::1]:7000, b:26379",
            ),
            ("redis+cluster://a,b:7000", "the cluster of a:6379, b:7000"),
            ("redis+cluster://u:secret@a,b:7000/", "the cluster of a:6379, b:7000"),
        ] {
            assert_eq!(Endpoint::parse(url).map(|e| e.shown()), Ok(shown.to_string()), "{url}");
            assert!(is_redis(url));
        }
        let (_, login) = parse("redis+sentinel://us%40r:secret@a,b/main/4").unwrap();
        assert_eq!((login.db(), login.username(), login.password()), (4, Some("us@r"), Some("secret")));
    }

    #[test]
    fn what_is_no_address_is_refused_without_showing_a_password() {
        for (url, says) in [
            ("", "redis://["),
            ("redis:/", "redis://["),
            ("http://localhost", "redis://["),
            ("localhost:6379", "redis://["),
            ("redis://:secret@host:port", "redis://["),
            ("redis://:secret@:7000", "redis://["),
            ("redis://:secret@a b", "redis://["),
            ("rediss://:secret@host", "TLS"),
            ("redis+sentinel://:secret@a", "/MASTER"),
            ("redis+sentinel://:secret@a/", "/MASTER"),
            ("redis+sentinel://:secret@a/ma$ter", "/MASTER"),
            ("redis+sentinel://:secret@a/main/x", "/MASTER"),
            ("redis+sentinel://:secret@a,,b/main", "/MASTER"),
            ("redis+sentinel://:secret@a/main?sentinal_password=x", "sentinel_password"),
            ("redis+cluster://:secret@a/1", "no database"),
            ("redis+cluster://", "no database"),
        ] {
            let text = Endpoint::parse(url).map(|e| e.shown()).unwrap_err();
            assert!(text.contains(says) && !text.contains("secret"), "{url}: {text}");
        }
    }
}
