//! Writes an answer to its client: a whole body at once, a long list part by part.

use super::large_answers::{LargeAnswers, Share};
use crate::error::Error;
use crate::gate::{Connection, Request};
use crate::http::{Body, Part, Response, chunk, joined, last_chunk};
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
    share: Share,
    answers: &LargeAnswers,
    request: &Request,
    is_last: bool,
    connection: &Arc<Connection>,
) -> Result<(), Incomplete> {
    let head = response.head(request, is_last);
    if request.method == "HEAD" {
        return send(connection, head, &[]);
    }
    let mut parts = match response.body {
        Body::Whole(body) => {
            let sent = send(connection, head, &body);
            drop(body);
            drop(share);
            return sent;
        }
        Body::Parts(parts) => parts,
    };
    let (mut head, mut share) = (head, Some(share));
    while let Some(Part { json, turn }) = parts.next_part().map_err(Incomplete::Failed)? {
        let _share = match share.take() {
            Some(share) => share,
            None => answers.admit(json.len(), parts.user_id(), connection).map_err(Incomplete::Failed)?,
        };
        drop(turn);
        send(connection, std::mem::take(&mut head), &chunk(json, request))?;
    }
    send(connection, Vec::new(), last_chunk(request))
}

fn send(connection: &Connection, head: Vec<u8>, body: &[u8]) -> Result<(), Incomplete> {
    let (first, rest) = joined(head, body);
    connection.write(&first).map_err(|_| Incomplete::ClientGone)?;
    if rest.is_empty() {
        return Ok(());
    }
    connection.write(rest).map_err(|_| Incomplete::ClientGone)
}
