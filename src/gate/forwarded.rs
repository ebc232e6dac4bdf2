//! The address of a client behind a reverse proxy. Only the log shows it.

use super::head::Fields;
use std::net::{IpAddr, SocketAddr};

/// The client's address. If the peer is a trusted proxy, this is the address in the last entry of
/// `X-Forwarded-For`, or else of `Forwarded`: the proxy itself has added that entry, with the address that
/// it saw (RFC 7239 section 4). In all other cases it is the peer's own address.
pub fn client(fields: &Fields, peer: Option<IpAddr>, trusted: &[Option<IpAddr>]) -> Option<IpAddr> {
    if !trusted.contains(&peer) {
        return peer;
    }
    let node = match last_entry(fields, "X-Forwarded-For") {
        Some(entry) => Some(entry),
        None => last_entry(fields, "Forwarded").and_then(node_of),
    };
    match node.and_then(address) {
        Some(address) => Some(address.to_canonical()),
        None => peer,
    }
}

/// The last entry of a list. The client may have made up the earlier ones.
fn last_entry<'h>(fields: &Fields<'h>, name: &str) -> Option<&'h str> {
    let value = fields.values(name).last()?;
    let entry = value.rsplit(|byte| *byte == b',').next()?;
    // An entry that is not UTF-8 is an entry without an address.
    Some(std::str::from_utf8(entry).unwrap_or_default())
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
    fn the_clients_address_is_the_last_one_that_a_trusted_proxy_names() {
        let address = |text: &str| text.parse::<IpAddr>().ok();
        let (proxy, trusted) = (address("10.0.0.1"), [None, address("10.0.0.1")]);
        for (peer, name, value, wanted) in [
            (address("10.0.0.2"), "X-Forwarded-For", "192.0.2.1", "10.0.0.2"),
            (proxy, "X-Forwarded-For", "192.0.2.1", "192.0.2.1"),
            (proxy, "x-forwarded-for", "192.0.2.1, 192.0.2.2", "192.0.2.2"),
            (proxy, "X-Forwarded-For", "192.0.2.1, unknown", "10.0.0.1"),
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
