//! Framing: which bytes are a request, where it ends, and what becomes of bytes that are none
//! (RFC 9112). What is ambiguous is refused, and nothing that follows it is read.

mod noise;
mod refused;
mod served;
