//! A server for crash dumps over FreeBSD's netdump protocol.
//!
//! | module | is |
//! |---|---|
//! | [`core`] | the protocol, without sockets, files or a clock |
//! | [`store`] | the dump's files, and the trait behind which they are |
//! | [`net`] | sockets, the loop, and what the daemon tells the world |
#![forbid(unsafe_code)]

pub mod core;
pub mod net;
pub mod store;
