//! A server for crash dumps over FreeBSD's netdump protocol.
//!
//! | module | is |
//! |---|---|
//! | [`core`] | the protocol, without sockets, files or a clock |
//! | [`store`] | the dump's files, and the trait behind which they are |
//! | [`net`] | sockets, the loop, and what the daemon tells the world |
//! | [`options`] | the daemon's command line and configuration file |
//! | [`inspect`] | what a file that a server has left tells |
#![forbid(unsafe_code)]

pub mod core;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod inspect;
pub mod net;
pub mod options;
pub mod store;
