//! Where webhooks may go. Who sets a queue's settings chooses a URL that the hub posts to, and the hub may reach what others
//! do not: so a host must be one of a list, and an address a public one unless the operator has named it.
//!
//! Names are judged when a webhook is set, addresses when a post is made, each that a name leads to then. Pure; whoever
//! posts resolves and asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

/// Bytes of a webhook's URL.
const MOST: usize = 2000;
/// What stands for the part of a URL that is not shown.
const HIDDEN: &str = "***";

/// Reads a webhook's URL. The fault never shows it: it may hold a secret.
pub fn read(text: &str) -> Result<Url, String> {
    let takes = format!("a webhook is a URL that begins with https:// or http://, of at most {MOST} bytes");
    let mut url = Url::parse(text).map_err(|error| format!("{takes}; this one does not fit ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") || text.len() > MOST {
        return Err(takes);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("{takes}, without user and password; a token can stand in its path or query"));
    }
    if text.contains(HIDDEN) {
        return Err(format!("a webhook is shown with {HIDDEN} for what may be secret in it; write it whole"));
    }
    url.set_fragment(None);
    Ok(url)
}

/// What may be shown of a webhook: scheme, host and port. Tokens stand in the path with some receivers, in the query with
/// others.
pub fn shown(text: &str) -> String {
    match Url::parse(text) {
        Ok(url) if url.has_host() => {
            let has_more = url.path() != "/" || url.query().is_some();
            format!("{}/{}", url.origin().ascii_serialization(), if has_more { HIDDEN } else { "" })
        }
        _ => HIDDEN.into(),
    }
}

/// The hosts that webhooks may go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    any: bool,
    /// `hooks.example.com`, at whatever address.
    names: Vec<String>,
    /// `.example.com`, of `*.example.com`.
    suffixes: Vec<String>,
    networks: Vec<IpNet>,
}

/// All, at public addresses.
impl Default for Hosts {
    fn default() -> Hosts {
        Hosts { any: true, names: Vec::new(), suffixes: Vec::new(), networks: Vec::new() }
    }
}

impl Hosts {
    /// Each is `*`, a host, `*.` and a domain, an address, or a network as `10.1.0.0/16`.
    pub fn read(list: &[String]) -> Result<Hosts, String> {
        let mut hosts = Hosts { any: false, ..Hosts::default() };
        for text in list {
            let text = text.trim();
            let bare = text.trim_start_matches('[').trim_end_matches(']');
            if text == "*" {
                hosts.any = true;
            } else if let Ok(network) = bare.parse::<IpNet>() {
                hosts.networks.push(network.trunc());
            } else if let Ok(address) = bare.parse::<IpAddr>() {
                hosts.networks.push(address.into());
            } else if let Some(domain) = text.strip_prefix("*.") {
                hosts.suffixes.push(format!(".{}", name_of(domain)?));
            } else {
                hosts.names.push(name_of(text)?);
            }
        }
        Ok(hosts)
    }

    /// Judges what can be judged without looking a name up.
    pub fn judge(&self, url: &Url) -> Result<(), String> {
        match url.host() {
            Some(Host::Ipv4(address)) => self.judge_address(&address.to_string(), address.into()),
            Some(Host::Ipv6(address)) => self.judge_address(&address.to_string(), address.into()),
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.');
                // A name may be of an address that is listed: that is seen when it is looked up.
                match self.lists(name) || !self.networks.is_empty() {
                    true => Ok(()),
                    false => Err(format!("webhooks may not go to {name}: it is not among webhook_hosts")),
                }
            }
            None => Err("a webhook names a host".into()),
        }
    }

    /// Judges an address that a host has. An address is a host of its own name.
    pub fn judge_address(&self, host: &str, address: IpAddr) -> Result<(), String> {
        let address = address.to_canonical();
        if self.networks.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if self.names.contains(&host) {
            return Ok(());
        }
        if !is_public(address) {
            return Err(format!(
                "webhooks may not go to {host}: {address} is not a public address; to allow it add {address} to webhook_hosts"
            ));
        }
        match self.lists(&host) {
            true => Ok(()),
            false => Err(format!("webhooks may not go to {host} ({address}): it is not among webhook_hosts")),
        }
    }

    fn lists(&self, host: &str) -> bool {
        self.any
            || self.names.iter().any(|name| name.eq_ignore_ascii_case(host))
            || self.suffixes.iter().any(|suffix| host.to_ascii_lowercase().ends_with(suffix.as_str()))
    }
}

/// A host name as URLs have it.
fn name_of(text: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "{text:?} is no host; it takes names (hooks.example.com, *.example.com), addresses, networks (10.1.0.0/16), or *"
        )
    };
    match Host::parse(text) {
        Ok(Host::Domain(name)) if !text.contains('*') => Ok(name.trim_end_matches('.').to_string()),
        _ => Err(wrong()),
    }
}

/// Whether an address belongs to the whole internet: none of the registries of special addresses has it.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224.., ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (198, 18..=19, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // Addresses of IPv4 behind a translator, and tunnels to them.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Protocol assignments with Teredo, and documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(list: &[&str]) -> Hosts {
        Hosts::read(&list.iter().map(|text| text.to_string()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn urls_by_table() {
        for text in
            ["https://a.example/x?token=1", "http://a.example", "https://[2606:4700::1]:8443/", "http://é.example/"]
        {
            read(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
        }
        for (text, shows) in [
            ("", "begins with https://"),
            ("ftp://a.example/hunter2", "begins with https://"),
            ("hooks.example/hunter2", "begins with https://"),
            ("https://ann:hunter2@a.example/", "without user and password"),
            ("https://a.example/***", "write it whole"),
        ] {
            let fault = read(text).unwrap_err();
            assert!(fault.contains(shows) && !fault.contains("hunter2"), "{text}: {fault}");
        }
        assert!(read(&format!("https://a.example/{}", "x".repeat(2000))).is_err());
    }

    #[test]
    fn nothing_that_may_be_secret_is_shown_of_a_webhook() {
        for (text, show) in [
            ("https://hooks.example/services/T0/secret?key=secret", "https://hooks.example/***"),
            ("http://a.example:8080/?key=secret", "http://a.example:8080/***"),
            ("http://a.example", "http://a.example/"),
            ("secret", "***"),
        ] {
            assert_eq!(shown(text), show);
        }
    }

    #[test]
    fn addresses_that_are_not_public_are_known_however_they_are_written() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.8",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "[::1]",
            "[::]",
            "[::ffff:10.0.0.1]",
            "[fe80::1]",
            "[fd00::1]",
            "[ff02::1]",
            "[64:ff9b::a00:1]",
            "[2002:7f00:1::]",
            "[2001:db8::1]",
            "[2001::1]",
            "[::7f00:1]",
        ] {
            let url = read(&format!("http://{host}/")).unwrap();
            let fault = Hosts::default().judge(&url).expect_err(host);
            assert!(fault.contains("not a public address") && fault.contains("webhook_hosts"), "{fault}");
        }
        for host in
            ["1.1.1.1", "172.32.0.1", "100.128.0.1", "[2606:4700::1111]", "[64:ff9b::101:101]", "[::ffff:1.1.1.1]"]
        {
            Hosts::default().judge(&read(&format!("http://{host}/")).unwrap()).unwrap();
        }
    }

    #[test]
    fn hosts_are_allowed_by_table() {
        let private: IpAddr = "10.1.2.3".parse().unwrap();
        let public: IpAddr = "1.1.1.1".parse().unwrap();
        for (list, host, address, may) in [
            (&["*"][..], "a.example", public, true),
            (&["*"], "a.example", private, false),
            (&["*", "10.1.0.0/16"], "a.example", private, true),
            (&["*", "10.2.0.0/16"], "a.example", private, false),
            (&["10.1.2.3"], "a.example", private, true),
            (&["10.1.2.3"], "a.example", public, false),
            (&["a.example"], "A.example.", private, true),
            (&["a.example"], "b.example", public, false),
            (&["a.example"], "x.a.example", public, false),
            (&["*.example"], "a.b.example", public, true),
            (&["*.example"], "a.b.example", private, false),
            (&["*.example"], "example", public, false),
            (&["*.example"], "badexample", public, false),
            (&[], "a.example", public, false),
        ] {
            assert_eq!(hosts(list).judge_address(host, address).is_ok(), may, "{list:?} {host} {address}");
        }
        let url = read("https://b.example/").unwrap();
        assert!(hosts(&["a.example"]).judge(&url).unwrap_err().contains("webhook_hosts"));
        hosts(&["a.example", "10.0.0.0/8"]).judge(&url).unwrap();
        for wrong in ["a b", "http://a", "a.*"] {
            assert!(Hosts::read(&[wrong.to_string()]).unwrap_err().contains("*.example.com"), "{wrong}");
        }
    }
}
