//! Hosts and origins, read strictly: what two parsers could read differently is neither.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use anyhow::{Context as _, ensure};
use axum::http::HeaderValue;

/// A DNS name in lower case without its final dot, or an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Name {
    Dns(String),
    Ip(IpAddr),
}

/// `host` or `host:port`, as in the `Host` header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Authority {
    pub(crate) name: Name,
    pub(crate) port: Option<u16>,
}

impl Authority {
    /// Reads a header. No user name, no percent-encoding, no zone of an IPv6 address.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match port.strip_prefix(':') {
            // An empty port is the default one (RFC 3986, section 3.2.3).
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            None if port.is_empty() => None,
            _ => return None,
        };
        let name = match text.starts_with('[') {
            true => Name::of(host.parse::<Ipv6Addr>().ok()?.into()),
            false => Name::read(host)?,
        };
        Some(Self { name, port })
    }
}

/// As a flag: an IPv6 address may also come without its brackets.
impl FromStr for Authority {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(Self { name: Name::of(address.into()), port: None });
        }
        Self::read(text).context("not HOST or HOST:PORT")
    }
}

impl Name {
    fn of(address: IpAddr) -> Self {
        // `::ffff:127.0.0.1` is 127.0.0.1.
        Self::Ip(address.to_canonical())
    }

    fn read(host: &str) -> Option<Self> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if let Ok(address) = host.parse() {
            return Some(Self::of(address));
        }
        let is_label = |label: &str| {
            let mut bytes = label.bytes();
            !label.is_empty() && bytes.all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        host.split('.').all(is_label).then_some(Self::Dns(host))
    }

    /// Whether this is the machine itself: what a page elsewhere cannot have as its name.
    pub(crate) fn is_loopback(&self) -> bool {
        match self {
            Self::Dns(name) => name == "localhost",
            Self::Ip(address) => {
                [[127, 0, 0, 1].into(), Ipv6Addr::LOCALHOST.into()].contains(address)
            }
        }
    }
}

/// `scheme://host[:port]`, as in the `Origin` header. The port of `http` and `https` is always there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Origin {
    pub(crate) scheme: String,
    pub(crate) at: Authority,
}

impl Origin {
    /// Reads a header. `null` is no origin: every sandboxed page has it.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (scheme, host) = text.split_once("://")?;
        let mut letters = scheme.bytes();
        if !letters.next()?.is_ascii_alphabetic()
            || !letters.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let mut at = Authority::read(host)?;
        at.port = at.port.or(default_port(&scheme));
        Some(Self { scheme, at })
    }

    /// As a browser sends it.
    pub(crate) fn header(&self) -> anyhow::Result<HeaderValue> {
        Ok(HeaderValue::from_str(&self.to_string())?)
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

impl FromStr for Origin {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ensure!(text != "null", "every sandboxed page has the origin null: none can be allowed");
        Self::read(text).context("not SCHEME://HOST[:PORT], without a path")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, at: Authority { name, port } } = self;
        match name {
            Name::Dns(name) => write!(f, "{scheme}://{name}")?,
            Name::Ip(IpAddr::V4(address)) => write!(f, "{scheme}://{address}")?,
            Name::Ip(IpAddr::V6(address)) => write!(f, "{scheme}://[{address}]")?,
        }
        match port.filter(|port| Some(*port) != default_port(scheme)) {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}
