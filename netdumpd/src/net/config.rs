//! How a server is set up, and stopped.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::Waker;

use crate::core::Limits;
use crate::store::StoreConfig;

/// How a server is to run.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where heralds are taken; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where dumps go.
    pub store: StoreConfig,
    /// What it puts up with.
    pub limits: Limits,
    /// Run for every dump that ends.
    pub script: Option<PathBuf>,
    /// How long the script may take.
    pub script_limit: Duration,
    /// Whether files are named by the client's name rather than its address.
    pub resolve: bool,
    /// End after one dump.
    pub once: bool,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be used.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The dump directory, or the default path below it, cannot be used.
    #[error("cannot use the dump directory: {0}")]
    Directory(io::Error),
    /// The system has no means to wait for sockets.
    #[error("cannot wait for sockets: {0}")]
    Poll(#[from] io::Error),
}

/// Ends a running server from another thread.
#[derive(Clone, Debug)]
pub struct Stopper {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Stopper {
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        Self { stop: Arc::default(), waker }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Has [`Server::run`](super::Server::run) close all dumps and return.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        // A loop that is not waiting sees the flag at its next turn.
        let _ = self.waker.wake();
    }
}
