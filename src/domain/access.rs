//! Who may speak to the hub out of a browser: one judgement of the `Host` and `Origin` headers for every door.
//!
//! Two attacks are held off. A page of another site may open sockets and send requests from its visitor's browser: it is
//! known by its `Origin`. And a name of an attacker may be made to point at this machine (DNS rebinding), so that his page
//! counts as the same origin: it is known by a `Host` that is a name nobody configured. Programs that are no browsers
//! send what they like; keeping them out is the task of keys, not of this.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a listener lets in. Pure: made of settings once, asked on every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    loopback: bool,
    any_origin: bool,
    null_origin: bool,
    origins: Vec<Origin>,
    any_host: bool,
    hosts: Vec<Name>,
}

/// Which header is refused, and what would let it in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Host(String),
    #[error("{0}")]
    Origin(String),
}

/// `scheme://host[:port]` as browsers write it, lower case, without a default port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: String,
    authority: Authority,
}

/// `host[:port]`, the value of a `Host` header.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    name: Name,
    port: Option<u16>,
}

/// A host: an address or a name, lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Name {
    Address(IpAddr),
    Named(String),
}

impl Access {
    /// `listener` is the address that is listened on; `origins` and `hosts` are settings as they were written.
    /// Origins are exact, `scheme://host[:port]`; `*` is every origin but `null`; `null` must be listed as such.
    /// Hosts are names without a port; `*` is every name.
    pub fn new(listener: IpAddr, origins: &[String], hosts: &[String]) -> Result<Access, String> {
        let mut access = Access {
            loopback: listener.to_canonical().is_loopback(),
            any_origin: false,
            null_origin: false,
            origins: Vec::new(),
            any_host: false,
            hosts: Vec::new(),
        };
        for origin in origins {
            match origin.trim() {
                "*" => access.any_origin = true,
                "null" => access.null_origin = true,
                other => access.origins.push(Origin::parse(other)?),
            }
        }
        for host in hosts {
            match host.trim() {
                "*" => access.any_host = true,
                other => access.hosts.push(Name::parse(other)?),
            }
        }
        Ok(access)
    }

    /// Judges one request by its `Host` and `Origin`, each absent or as it came.
    pub fn judge(&self, host: Option<&str>, origin: Option<&str>) -> Result<(), Refusal> {
        let reached = host.map(|host| self.judge_host(host)).transpose()?;
        origin.map_or(Ok(()), |origin| self.judge_origin(reached.as_ref(), origin))
    }

    /// Without a `Host` (HTTP/1.0: health checks of load balancers) there is no browser to be deceived.
    fn judge_host(&self, host: &str) -> Result<Authority, Refusal> {
        let authority = Authority::parse(host).ok_or_else(|| {
            Refusal::Host(format!("the Host header is a name or an address and perhaps a port, not {}", shown(host)))
        })?;
        let name = &authority.name;
        let known = self.any_host
            || matches!(name, Name::Address(_))
            || name.is_loopback()
            || self.hosts.contains(name)
            || self.origins.iter().any(|origin| origin.authority.name == *name);
        if known {
            return Ok(authority);
        }
        Err(Refusal::Host(format!(
            "this hub does not answer under the name {name}, so that no foreign name can be pointed at it (DNS rebinding); \
             to allow it start the hub with: --hosts {name}"
        )))
    }

    fn judge_origin(&self, host: Option<&Authority>, origin: &str) -> Result<(), Refusal> {
        if origin == "null" {
            return match self.null_origin {
                true => Ok(()),
                false => Err(Refusal::Origin(
                    "the origin \"null\" (a file, a sandboxed frame) says nothing about who asks; serve the page over \
                     HTTP, or, to allow every such page, start the hub with: --origins null"
                        .into(),
                )),
            };
        }
        let judged = Origin::parse(origin).map_err(Refusal::Origin)?;
        let listed = self.any_origin || self.origins.contains(&judged);
        if listed || host.is_some_and(|host| judged.is_same(host) || self.is_local(host, &judged)) {
            return Ok(());
        }
        Err(Refusal::Origin(format!(
            "pages of {judged} may not use this hub; to allow them start it with: --origins {}",
            judged.in_shell()
        )))
    }

    /// A page of this machine that speaks to a hub of this machine: development servers on their own ports.
    fn is_local(&self, host: &Authority, origin: &Origin) -> bool {
        let web = matches!(origin.scheme.as_str(), "http" | "https");
        self.loopback && host.name.is_loopback() && web && origin.authority.name.is_loopback()
    }
}

impl Origin {
    pub fn parse(text: &str) -> Result<Origin, String> {
        let bad = |why: &str| format!("{} is not an origin (scheme://host[:port]){why}", shown(text));
        let (scheme, authority) = text.split_once("://").ok_or_else(|| bad(""))?;
        let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b));
        if !scheme_ok {
            return Err(bad("; its scheme is like \"https\""));
        }
        if authority.contains(['/', '?', '#']) {
            return Err(bad("; it ends before the path, without a '/'"));
        }
        if authority.contains('@') {
            return Err(bad("; it holds no user name"));
        }
        if !authority.is_ascii() {
            return Err(bad("; write the host as browsers send it, in its xn-- form"));
        }
        let mut authority = Authority::parse(authority).ok_or_else(|| bad("; this host or port cannot be"))?;
        let scheme = scheme.to_ascii_lowercase();
        if authority.port == default_port(&scheme) {
            authority.port = None;
        }
        Ok(Origin { scheme, authority })
    }

    /// Whether a page of this origin that asks `host` asks where it came from. The hub may stand behind a proxy that
    /// ends TLS, so the scheme cannot be compared; a missing port is the one of the page's scheme.
    fn is_same(&self, host: &Authority) -> bool {
        let default = default_port(&self.scheme);
        self.authority.name == host.name && self.authority.port.or(default) == host.port.or(default)
    }

    /// As a word of a shell.
    fn in_shell(&self) -> String {
        match self.authority.name {
            Name::Address(IpAddr::V6(_)) => format!("'{self}'"),
            _ => self.to_string(),
        }
    }
}

impl Authority {
    pub fn parse(text: &str) -> Option<Authority> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                (Name::Address(address.parse::<Ipv6Addr>().ok()?.into()), port)
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                (Name::named(&text[..end])?, &text[end..])
            }
        };
        let port = match port.strip_prefix(':') {
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            Some(_) => return None,
            None if port.is_empty() => None,
            None => return None,
        };
        Some(Authority { name, port })
    }
}

impl Name {
    /// A host as the setting `hosts` takes it: no port, IPv6 with or without brackets.
    pub fn parse(text: &str) -> Result<Name, String> {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<Ipv6Addr>() {
            return Ok(Name::Address(address.into()));
        }
        Name::named(text).ok_or_else(|| {
            format!("{} is not a host; write a name or an address without scheme, port and path", shown(text))
        })
    }

    fn named(text: &str) -> Option<Name> {
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Name::Address(address.into()));
        }
        let fits = (1..=253).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            && !text.starts_with(['.', '-']);
        fits.then(|| Name::Named(text.to_ascii_lowercase()))
    }

    fn is_loopback(&self) -> bool {
        match self {
            Name::Address(address) => address.is_loopback(),
            Name::Named(name) => name == "localhost" || name.ends_with(".localhost"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.port) {
            (Name::Address(IpAddr::V6(address)), None) => write!(f, "[{address}]"),
            (Name::Address(IpAddr::V6(address)), Some(port)) => write!(f, "[{address}]:{port}"),
            (name, None) => write!(f, "{name}"),
            (name, Some(port)) => write!(f, "{name}:{port}"),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Address(address) => write!(f, "{address}"),
            Name::Named(name) => f.write_str(name),
        }
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// What somebody sent, made harmless for a message: quoted, escaped, short.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(80).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const EVERYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    fn access(listener: IpAddr, origins: &[&str], hosts: &[&str]) -> Access {
        let owned = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        Access::new(listener, &owned(origins), &owned(hosts)).unwrap()
    }

    #[derive(Debug, PartialEq)]
    enum Verdict {
        In,
        Host,
        Origin,
    }
    use Verdict::*;

    fn verdict(access: &Access, host: &str, origin: &str) -> Verdict {
        let present = |text| Some(text).filter(|t| *t != "-");
        match access.judge(present(host), present(origin)) {
            Ok(()) => In,
            Err(Refusal::Host(_)) => Host,
            Err(Refusal::Origin(_)) => Origin,
        }
    }

    #[test]
    fn origins_are_judged_by_table() {
        let hub = access(EVERYWHERE, &["https://app.example", "https://xn--bcher-kva.example:8443"], &["hub.example"]);
        for (host, origin, expected) in [
            // Not from a page.
            ("hub.example", "-", In),
            ("-", "-", In),
            // Listed, and what only looks like it.
            ("hub.example", "https://app.example", In),
            ("hub.example", "https://app.example:443", In),
            ("hub.example", "HTTPS://App.Example", In),
            ("-", "https://app.example", In),
            ("hub.example", "http://app.example", Origin),
            ("hub.example", "https://app.example:8443", Origin),
            ("hub.example", "https://sub.app.example", Origin),
            ("hub.example", "https://evil-app.example", Origin),
            ("hub.example", "https://app.example.evil.com", Origin),
            ("hub.example", "https://app.example.", Origin),
            ("hub.example", "https://app.example@evil.com", Origin),
            ("hub.example", "https://evil.com/https://app.example", Origin),
            ("hub.example", "https://app.example/", Origin),
            ("hub.example", "https://app.example https://evil.com", Origin),
            ("hub.example", "app.example", Origin),
            ("hub.example", "null", Origin),
            ("hub.example", "", Origin),
            ("hub.example", "https://xn--bcher-kva.example:8443", In),
            ("hub.example", "https://bücher.example:8443", Origin),
            ("hub.example", "chrome-extension://abcdef", Origin),
            // The same origin, and what only looks like it.
            ("hub.example", "https://hub.example", In),
            ("hub.example:8080", "http://hub.example:8080", In),
            ("hub.example:443", "https://hub.example", In),
            ("hub.example:8080", "http://hub.example", Origin),
            ("hub.example", "http://hub.example:8080", Origin),
            ("10.0.0.7:8080", "http://10.0.0.7:8080", In),
            ("10.0.0.7:8080", "http://10.0.0.8:8080", Origin),
            ("[fd00::7]:8080", "http://[fd00::7]:8080", In),
            ("[fd00::7]:8080", "http://[fd00:0::7]:8080", In),
            ("[fd00::7]:8080", "http://[fd00::8]:8080", Origin),
            // Not on loopback: a page on the visitor's own machine is a stranger.
            ("10.0.0.7:8080", "http://localhost:3000", Origin),
            ("localhost:8080", "http://localhost:3000", Origin),
            ("localhost:8080", "http://localhost:8080", In),
        ] {
            assert_eq!(verdict(&hub, host, origin), expected, "host {host:?} origin {origin:?}");
        }
    }

    #[test]
    fn on_loopback_pages_of_this_machine_come_in() {
        for listener in [LOOPBACK, IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let hub = access(listener, &[], &["hub.example"]);
            for (host, origin, expected) in [
                ("localhost:8080", "http://localhost:3000", In),
                ("127.0.0.1:8080", "http://localhost:3000", In),
                ("127.0.0.1:8080", "https://app.localhost", In),
                ("[::1]:8080", "http://127.9.9.9", In),
                ("localhost:8080", "http://[::1]:5173", In),
                ("localhost:8080", "http://notlocalhost", Origin),
                ("localhost:8080", "http://localhost.evil.com", Origin),
                ("localhost:8080", "http://10.0.0.7:3000", Origin),
                ("localhost:8080", "capacitor://localhost", Origin),
                ("localhost:8080", "null", Origin),
                // A proxy brings strangers to a loopback listener; their own machine is not ours.
                ("hub.example", "http://localhost:3000", Origin),
            ] {
                assert_eq!(verdict(&hub, host, origin), expected, "host {host:?} origin {origin:?}");
            }
        }
    }

    #[test]
    fn hosts_are_judged_by_table() {
        let hub = access(LOOPBACK, &["https://app.example:8443"], &["Hub.Example", "[fd00::7]"]);
        for (host, expected) in [
            ("localhost", In),
            ("LOCALHOST:8080", In),
            ("a.localhost:8080", In),
            ("127.0.0.1:8080", In),
            ("192.168.0.9", In),
            ("[::1]:8080", In),
            ("hub.example:9999", In),
            ("app.example", In),
            ("evil.com", Host),
            ("localhost.evil.com", Host),
            ("evil-localhost", Host),
            ("sub.hub.example", Host),
            ("127.0.0.1.evil.com", Host),
            ("127.1", Host),
            ("hub.example@evil.com", Host),
            ("hub.example:", Host),
            ("hub.example:99999", Host),
            ("hub.example:+80", Host),
            ("[::1", Host),
            ("[::1]x", Host),
            ("", Host),
            ("a b", Host),
        ] {
            assert_eq!(verdict(&hub, host, "-"), expected, "{host:?}");
            // A name that is pointed here is refused although its page is of the same origin.
            if expected == Host {
                assert_eq!(verdict(&hub, host, &format!("http://{host}")), Host, "{host:?}");
            }
        }
    }

    #[test]
    fn a_star_and_null_are_said_each_for_itself() {
        let star = access(EVERYWHERE, &["*"], &[]);
        assert_eq!(verdict(&star, "10.0.0.7", "https://any.example"), In);
        assert_eq!(verdict(&star, "10.0.0.7", "null"), Origin);
        assert_eq!(verdict(&star, "evil.com", "http://evil.com"), Host);
        assert_eq!(verdict(&access(EVERYWHERE, &["null"], &[]), "10.0.0.7", "null"), In);
        assert_eq!(verdict(&access(EVERYWHERE, &[], &["*"]), "any.example", "http://any.example"), In);
    }

    #[test]
    fn settings_that_match_nothing_are_refused() {
        for origin in ["app.example", "https://app.example/", "https://*.example", "https://bücher.example", "https://"]
        {
            assert!(Access::new(LOOPBACK, &[origin.to_string()], &[]).is_err(), "{origin}");
        }
        for host in ["http://hub.example", "hub.example:8080", "*.example", "", "a/b"] {
            assert!(Access::new(LOOPBACK, &[], &[host.to_string()]).is_err(), "{host}");
        }
    }

    #[test]
    fn a_refusal_holds_the_line_that_would_allow_it() {
        let hub = access(EVERYWHERE, &[], &[]);
        let text = |host, origin| hub.judge(host, origin).unwrap_err().to_string();
        assert!(text(None, Some("https://app.example")).ends_with(" --origins https://app.example"));
        assert!(text(None, Some("http://[::1]:3000")).ends_with(" --origins 'http://[::1]:3000'"));
        assert!(text(None, Some("null")).ends_with(" --origins null"));
        assert!(text(Some("hub.example:8080"), None).ends_with(" --hosts hub.example"));
    }

    proptest! {
        #[test]
        fn following_the_advice_lets_the_page_in(host in "[a-z]{1,8}(\\.[a-z]{2,5}){0,2}", port in proptest::option::of(1u16..), tls: bool) {
            let port = port.map(|p| format!(":{p}")).unwrap_or_default();
            let origin = format!("{}://{host}{port}", if tls { "https" } else { "http" });
            let hub = access(EVERYWHERE, &[], &[]);
            let refused = hub.judge(Some("10.0.0.7"), Some(&origin)).unwrap_err().to_string();
            let advice = refused.rsplit(' ').next().unwrap();
            prop_assert!(access(EVERYWHERE, &[advice], &[]).judge(Some("10.0.0.7"), Some(&origin)).is_ok());
        }

        #[test]
        fn no_header_makes_the_judge_panic(host in "\\PC{0,30}", origin in "\\PC{0,30}") {
            let _ = access(LOOPBACK, &["https://app.example"], &[]).judge(Some(&host), Some(&origin));
        }
    }
}
