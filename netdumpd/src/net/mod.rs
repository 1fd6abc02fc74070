//! Sockets, the loop around the core, the handler script, and what the daemon tells the world.

mod clock;
mod config;
mod event;
mod handler;
mod memory;
mod resolve;
mod script;
mod seat;
mod server;
mod socket;
mod writers;

pub use config::{ServerConfig, StartError, Stopper};
pub use event::{Event, Observer, Outcome};
pub use handler::{Handler, HandlerHelper};
pub use server::Server;
