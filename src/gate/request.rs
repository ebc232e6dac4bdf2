//! The only thing that leaves the gate towards the handlers: a request that is whole, small and well-formed.

use super::head::OTHER_METHOD;
use std::net::IpAddr;
use std::sync::OnceLock;

/// A request. If the gate refuses it, it holds the parts that were understood, which the answer needs.
pub struct Request {
    /// A method that some route has, or `_OTHER`, so that the log never repeats a method that a client made up.
    pub method: &'static str,
    /// In origin-form (RFC 9112 section 3.2.1), as sent.
    pub target: String,
    /// Name and value of the fields that the service reads, each name in one spelling.
    pub fields: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// The address that a trusted proxy has named, or else the peer's. None if the peer is on a Unix socket and
    /// no address was named.
    pub client: Option<IpAddr>,
    /// True if the connection ends after the answer, because the client wants that or the gate refuses the
    /// request.
    pub is_last: bool,
    /// True for HTTP/1.0, which has no chunked coding.
    pub is_http_1_0: bool,
    /// Only for the log and the bounds on memory; it gives no access to tasks. Private, so that only the gate can
    /// make a request.
    verified_user: OnceLock<String>,
}

impl Request {
    /// A request of which nothing has been read: only the client's address is known.
    pub(super) fn unread(client: Option<IpAddr>) -> Self {
        Self {
            method: OTHER_METHOD,
            target: String::new(),
            fields: Vec::new(),
            body: Vec::new(),
            client,
            is_last: false,
            is_http_1_0: false,
            verified_user: OnceLock::new(),
        }
    }

    /// Records the user of the request's token after it was verified, for every thread that may answer the request.
    pub fn note_user(&self, user_id: &str) {
        self.verified_user.get_or_init(|| user_id.to_owned());
    }

    /// The verified user. An empty text before [`Self::note_user`].
    pub fn user_id(&self) -> &str {
        self.verified_user.get().map_or("", String::as_str)
    }

    /// The values of all fields of that name.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |field| field.0 == name).map(|(_, value)| value.trim())
    }

    /// The value of the only field of that name. None where there is none, or more than one.
    pub fn single(&self, name: &str) -> Option<&str> {
        let mut values = self.values(name);
        let first = values.next();
        if values.next().is_some() { None } else { first }
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }

    /// The query without its question mark, empty where there is none.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }
}
