//! The address of a client behind a reverse proxy. Only the log shows it.

use super::head::Fields;
use std::net::{IpAddr, SocketAddr};

/// The client's address: that of the peer, unless the peer is a trusted proxy. A proxy adds the address that it saw
/// to the end of `X-Forwarded-For`, or else of `Forwarded` (RFC 7239 section 4). If that is another trusted proxy,
/// the entry before it counts, and so on. Entries before that of an address that is not trusted may be made up.
pub fn client(fields: &Fields, peer: Option<IpAddr>, trusted: &[Option<IpAddr>]) -> Option<IpAddr> {
    let mut client = peer;
    if trusted.contains(&peer) {
        let mut nodes = nodes(fields);
        while trusted.contains(&client)
            && let Some(address) = nodes.pop().and_then(address)
        {
            client = Some(address.to_canonical());
        }
    }
    client
}

/// The nodes that proxies have added, the last one at the end. An entry without a node is an empty text.
fn nodes<'h>(fields: &Fields<'h>) -> Vec<&'h str> {
    let entries = |name| {
        let entries = fields.values(name).flat_map(|value| value.split(|byte| *byte == b','));
        entries.map(|entry| std::str::from_utf8(entry).unwrap_or_default())
    };
    if fields.values("X-Forwarded-For").next().is_some() {
        return entries("X-Forwarded-For").collect();
    }
    entries("Forwarded").map(|entry| node_of(entry).unwrap_or_default()).collect()
}

/// The value of `for` in an entry of `Forwarded`.
fn node_of(entry: &str) -> Option<&str> {
    for pair in entry.split(';') {
        if let Some((name, node)) = pair.trim().split_once('=')
            && name.eq_ignore_ascii_case("for")
        {
            return Some(node);
        }
    }
    None
}

/// The address of a node, which may be in quotes, in brackets or with a port.
fn address(node: &str) -> Option<IpAddr> {
    let node = node.trim().trim_matches('"');
    if let Ok(address) = node.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    node.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::client;
    use crate::gate::head::Fields;
    use std::net::IpAddr;

    #[test]
    fn the_clients_address_is_the_last_one_that_is_no_trusted_proxy() {
        let address = |text: &str| text.parse::<IpAddr>().ok();
        let (proxy, trusted) = (address("10.0.0.1"), [None, address("10.0.0.1"), address("10.0.0.3")]);
        for (peer, name, value, wanted) in [
            (address("10.0.0.2"), "X-Forwarded-For", "192.0.2.1", "10.0.0.2"),
            (proxy, "X-Forwarded-For", "192.0.2.1", "192.0.2.1"),
            (proxy, "x-forwarded-for", "192.0.2.1, 192.0.2.2", "192.0.2.2"),
            (proxy, "X-Forwarded-For", "192.0.2.1, unknown", "10.0.0.1"),
            (proxy, "X-Forwarded-For", "192.0.2.1, 192.0.2.2, 10.0.0.3", "192.0.2.2"),
            (proxy, "X-Forwarded-For", "192.0.2.2, 10.0.0.1,10.0.0.3", "192.0.2.2"),
            (proxy, "X-Forwarded-For", "192.0.2.2, unknown, 10.0.0.3", "10.0.0.3"),
            (proxy, "X-Forwarded-For", "10.0.0.3", "10.0.0.3"),
            (proxy, "Forwarded", "for=192.0.2.1, for=10.0.0.3", "192.0.2.1"),
            (proxy, "X-Forwarded-For", "::ffff:192.0.2.1", "192.0.2.1"),
            (proxy, "Forwarded", "for=192.0.2.1, by=10.0.0.1;for=\"[2001:db8::1]:80\"", "2001:db8::1"),
            (proxy, "Forwarded", "proto=https", "10.0.0.1"),
            (proxy, "Via", "192.0.2.1", "10.0.0.1"),
            (None, "X-Forwarded-For", "192.0.2.1", "192.0.2.1"),
        ] {
            let fields = [httparse::Header { name, value: value.as_bytes() }];
            assert_eq!(client(&Fields(&fields), peer, &trusted), address(wanted), "{name}: {value}");
        }
        assert_eq!(client(&Fields(&[]), None, &[]), None);
        // Entries that a client put before the proxy's, or into the other field, do not count.
        let forwarded = httparse::Header { name: "Forwarded", value: b"for=192.0.2.9" };
        for (value, wanted) in [(&b"\xe9, 192.0.2.1"[..], "192.0.2.1"), (b"192.0.2.1, \xe9", "10.0.0.1")] {
            let fields = [httparse::Header { name: "X-Forwarded-For", value }, forwarded];
            assert_eq!(client(&Fields(&fields), proxy, &trusted), address(wanted), "{value:?}");
        }
    }
}
