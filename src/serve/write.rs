//! Writes an answer to its client: a whole body at once, a long list part by part.

use super::large_answers::{LargeAnswers, Share};
use crate::error::Error;
use crate::gate::{Connection, Request};
use crate::http::{Body, Part, Response};
use crate::limits::COPY_BYTES_MAX;
use std::sync::Arc;

/// Why an answer could not be written completely. The connection must then be closed, so that the client
/// notices.
pub enum Incomplete {
    /// The client has closed the connection, or read too slowly.
    ClientGone,
    /// A later part of a list could not be made.
    Failed(Error),
}

/// Writes a response; the response to a HEAD request has no body. `share` is the memory of a whole body, or of
/// the first part of a list. Each later part takes a share of its own from `answers`.
pub fn write(
    response: Response,
    share: Option<Share>,
    answers: &LargeAnswers,
    request: &Request,
    is_last: bool,
    connection: &Arc<Connection>,
) -> Result<(), Incomplete> {
    let head = response.head(request, is_last);
    if request.method == "HEAD" {
        return send(connection, head, &[]);
    }
    let (first, mut rest) = match response.body {
        // Here the body is freed before the share, because a parameter is dropped last.
        Body::Whole(body) => return send(connection, head, &body),
        Body::Parts { first, rest } => (first, rest),
    };
    send(connection, head, &chunk(first, request))?;
    drop(share);
    while let Some(Part { json, turn }) = rest.next_part().map_err(Incomplete::Failed)? {
        let _share = answers.admit(json.len(), rest.user_id(), connection).map_err(Incomplete::Failed)?;
        drop(turn);
        send(connection, Vec::new(), &chunk(json, request))?;
    }
    send(connection, Vec::new(), last_chunk(request))
}

/// One chunk (RFC 9112 section 7.1); for HTTP/1.0 the data alone.
fn chunk(data: Vec<u8>, request: &Request) -> Vec<u8> {
    if request.is_http_1_0 {
        return data;
    }
    [format!("{:x}\r\n", data.len()).as_bytes(), &data, b"\r\n"].concat()
}

/// The bytes that end a chunked body; none for HTTP/1.0, which has no chunks.
fn last_chunk(request: &Request) -> &'static [u8] {
    if request.is_http_1_0 { b"" } else { b"0\r\n\r\n" }
}

/// Writes a head and a body. A small body is copied behind the head, because a second system call costs more.
fn send(connection: &Connection, mut head: Vec<u8>, body: &[u8]) -> Result<(), Incomplete> {
    let is_small = head.len() + body.len() <= COPY_BYTES_MAX;
    if is_small {
        head.extend_from_slice(body);
    }
    connection.write(&head).map_err(|_| Incomplete::ClientGone)?;
    if is_small {
        return Ok(());
    }
    connection.write(body).map_err(|_| Incomplete::ClientGone)
}
