//! Tests of the whole server: recorded exchanges, sessions in virtual time, real files, real sockets.

mod replay;
mod support;
