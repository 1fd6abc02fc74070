//! Sockets, the loop around the core, the handler script, and what the daemon tells the world.

mod clock;
mod config;
mod event;
mod pool;
mod resolve;
mod script;
mod server;
mod socket;

pub use config::{ServerConfig, StartError, Stopper};
pub use event::{Event, Observer, Outcome};
pub use server::Server;
