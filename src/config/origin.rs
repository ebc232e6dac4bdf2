//! Origins as browsers write them (RFC 6454).

use std::net::Ipv6Addr;

/// Parses a comma-separated list of origins, or `*` alone. None if an element is not an origin.
pub fn origins(text: &str) -> Option<Vec<String>> {
    match text {
        "*" => Some(vec!["*".to_owned()]),
        _ => text.split(',').map(|part| origin(part.trim())).collect(),
    }
}

/// An origin as browsers write it (RFC 6454 section 6.2): in lower case, without a default port, an IPv6 address in
/// its short form.
fn origin(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://")?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse::<u16>().ok()?)),
        _ => (authority, None),
    };
    let is_name = |part: &str, signs: &str| {
        !part.is_empty() && part.chars().all(|char| char.is_ascii_alphanumeric() || signs.contains(char))
    };
    let host = match host.strip_prefix('[') {
        Some(rest) => format!("[{}]", ipv6(rest.strip_suffix(']')?)?),
        None if is_name(host, "-._") => host.to_owned(),
        None => return None,
    };
    if !is_name(scheme, "+-.") {
        return None;
    }
    match port {
        Some(port) if !matches!((scheme, port), ("http", 80) | ("https", 443)) => {
            Some(format!("{scheme}://{host}:{port}"))
        }
        _ => Some(format!("{scheme}://{host}")),
    }
}

/// An IPv6 address as browsers write it (WHATWG URL, IPv6 serializer): in its short form, and never with an IPv4
/// address in it.
fn ipv6(text: &str) -> Option<String> {
    let address: Ipv6Addr = text.parse().ok()?;
    match (address.to_ipv4_mapped(), address.segments()) {
        (Some(_), [.., high, low]) => Some(format!("::ffff:{high:x}:{low:x}")),
        _ => Some(address.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::origin;

    #[test]
    fn origins_are_written_as_browsers_do() {
        for (given, wanted) in [
            ("http://localhost:3000", Some("http://localhost:3000")),
            ("HTTPS://App.Example.org", Some("https://app.example.org")),
            ("https://a.example:443", Some("https://a.example")),
            ("http://a.example:80", Some("http://a.example")),
            ("http://a.example:443", Some("http://a.example:443")),
            ("http://[::1]:3000", Some("http://[::1]:3000")),
            ("http://[::1]", Some("http://[::1]")),
            ("http://[0:0::1]:3000", Some("http://[::1]:3000")),
            ("http://[2001:DB8:0:0::1]", Some("http://[2001:db8::1]")),
            ("https://a.example:0444", Some("https://a.example:444")),
            ("http://[::ffff:127.0.0.1]", Some("http://[::ffff:7f00:1]")),
            ("http://[::ffff:7f00:1]:3000", Some("http://[::ffff:7f00:1]:3000")),
            ("http://[::1", None),
            ("http://[a.example]", None),
            ("http://::1", None),
            ("http://a]b", None),
            ("capacitor://localhost", Some("capacitor://localhost")),
            ("https://a.example/", None),
            ("https://a.example/path", None),
            ("https://user@a.example", None),
            ("https://*.example", None),
            ("https://a.example?", None),
            ("https://", None),
            ("https://a.example:", None),
            ("https://a.example:65536", None),
            ("a.example", None),
            ("://a.example", None),
            ("null", None),
            ("", None),
        ] {
            assert_eq!(origin(given).as_deref(), wanted, "{given}");
        }
    }
}
