//! How a server is set up, and stopped.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::Waker;

use crate::core::Limits;
use crate::store::{DiskLimits, StoreConfig};

/// How a server is to run.
#[derive(Debug)]
pub struct ServerConfig {
    /// Where heralds are taken; port 0 picks a free one. At most 64 with those inherited.
    pub listen: Vec<SocketAddr>,
    /// Bound sockets on which heralds are taken as well.
    pub inherited: Vec<UdpSocket>,
    /// Where dumps go.
    pub store: StoreConfig,
    /// What it puts up with.
    pub limits: Limits,
    /// Received payload that may wait to be written, in bytes, for all sessions
    /// together; none has more than a 64th of it, or 64 KiB.
    pub memory_len: usize,
    /// Whether files are named by the client's name rather than its address.
    pub resolve: bool,
    /// End after one dump.
    pub once: bool,
}

impl ServerConfig {
    /// 64 MiB.
    pub const DEFAULT_MEMORY_LEN: usize = 64 << 20;

    /// Heralds at `listen`, dumps below `dir`, all else as the daemon does by default.
    pub fn new(listen: SocketAddr, dir: PathBuf) -> Self {
        Self {
            listen: vec![listen],
            inherited: Vec::new(),
            store: StoreConfig {
                dir,
                default_path: PathBuf::from("."),
                time_zone: jiff::tz::TimeZone::system(),
                disk: DiskLimits::default(),
            },
            limits: Limits::default(),
            memory_len: Self::DEFAULT_MEMORY_LEN,
            resolve: false,
            once: false,
        }
    }
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
    /// No address to listen on, or too many.
    #[error("cannot listen on {count} addresses: one to {most} are expected")]
    ListenCount {
        /// How many.
        count: usize,
        /// The most there can be.
        most: usize,
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
