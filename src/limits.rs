//! Every duration, size and count that bounds a client, a wait or memory, with its unit and its
//! reason. The sums that must hold between them are asserted at compile time, at the end of each
//! group. No other file defines such a number.

// Clients: bytes, connections and deadlines of the gate.

// Answers: what is made and written for clients.

// Tokens and files that are followed.

// The database.

// The log.

// The life of the process.
