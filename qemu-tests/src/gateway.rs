//! The wire between QEMU and the real server: a [`netsim::link::Link`] each
//! way, driven in real time, with the [far end](crate::far_end) behind it.
//!
//! ```text
//!  QEMU  -- unix datagrams, one frame each -->  up link  -->  far end  -- UDP -->  netdumpd
//!        <--         backlog (bounded)     <-- down link <--           <-- UDP --  or answerer
//! ```
//!
//! One thread polls both sockets. It never blocks on QEMU: what QEMU's socket
//! does not take waits in a bounded backlog, and what does not fit there is a
//! counted drop, so that a guest that is not reading cannot stop a guest that
//! is writing. The capture shows the guest's end of the link: frames before
//! the up link's losses and after the down link's.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use netsim::link::{Counters, LinkConfig};
use netsim::pcap::Capture;

use self::answerer::Answerer;
use self::pump::{Pump, Sockets};
use self::relay::Relay;
use self::wire::Prepared;
pub use self::wire::WireConfig;
use crate::far_end::{CLIENT_PORT, Network};
use crate::live;
use crate::traffic::Traffic;

/// What a gateway connects, and how badly.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The way to QEMU.
    pub wire: WireConfig,
    /// Addresses on the guest's link.
    pub network: Network,
    /// Loopback address that the guest's datagrams come from, port 20024.
    pub relay_ip: Ipv4Addr,
    /// Where the real server listens for heralds.
    pub herald: SocketAddrV4,
    /// What each direction of the link does.
    pub link: LinkConfig,
    /// Seed of the link.
    pub seed: u64,
    /// Capture file, if one is wanted.
    pub pcap: Option<PathBuf>,
    /// Broadcast frames a second sent to the guest, 0 for none; see [`Gateway::set_noise`].
    pub noise_per_s: u32,
    /// Whether the guest is shown acks that are for another station: of messages
    /// that may yet be lost on their way to the server.
    pub decoys: bool,
}

/// Counts of a gateway so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Guest to server.
    pub up: Counters,
    /// Server to guest, noise included.
    pub down: Counters,
    /// Frames that QEMU's full socket did not take.
    pub socket_full: u64,
    /// Frames that arrived at the far end broken: bad checksum or length.
    pub malformed: u64,
    /// Datagrams to ports that the server had not opened, or from strangers.
    pub unroutable: u64,
    /// Datagrams that the relay socket refused.
    pub relay_errors: u64,
    /// Datagrams of the guest without a UDP checksum.
    pub unsummed: u64,
    /// Noise frames offered.
    pub noise: u64,
    /// Frames that were not written to the capture because it was full or failed.
    pub uncaptured: u64,
    /// Acks for another station that the guest was shown.
    pub decoys: u64,
    /// The living kernel as seen at the guest's end.
    pub live: live::Counts,
    /// The dump as seen at the guest's end.
    pub traffic: Traffic,
}

impl Stats {
    /// Frames lost on the way to the server.
    pub const fn drops_up(&self) -> u64 {
        self.up.dropped()
    }

    /// Frames lost on the way to the guest.
    pub const fn drops_down(&self) -> u64 {
        self.down.dropped() + self.socket_full
    }
}

/// A running gateway. It stops when it is dropped.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    link_up: AtomicBool,
    noise_per_s: AtomicU32,
    hold_at: AtomicU64,
    stats: Mutex<Stats>,
}

impl Gateway {
    /// Binds both sockets and starts the thread.
    ///
    /// # Errors
    /// A socket or the capture file cannot be made.
    pub fn start(config: GatewayConfig) -> io::Result<Self> {
        let wire = Prepared::new(config.wire.clone())?;
        let answerer = Answerer::start(config.relay_ip, config.network.gateway.mac)?;
        let relay = Relay::bind(SocketAddrV4::new(config.relay_ip, CLIENT_PORT))?;
        let capture = config.pcap.as_deref().map(Capture::create).transpose()?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            link_up: AtomicBool::new(true),
            noise_per_s: AtomicU32::new(config.noise_per_s),
            hold_at: AtomicU64::new(u64::MAX),
            stats: Mutex::default(),
        });
        let its_shared = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("gateway".into()).spawn(move || {
            let sockets = Sockets { guest: wire.open()?, relay, answerer };
            Pump::new(config, sockets, capture, its_shared).run()
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The counts, at most a few milliseconds old.
    pub fn stats(&self) -> Stats {
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends `per_s` broadcast frames a second to the guest from now on.
    pub fn set_noise(&self, per_s: u32) {
        self.shared.noise_per_s.store(per_s, Ordering::Relaxed);
    }

    /// Leaves the guest's frames where they are from when it has sent so many bytes of data,
    /// until another number is given: nothing that is to happen in the middle of a dump can
    /// come too late.
    pub fn hold_at(&self, data_bytes: u64) {
        self.shared.hold_at.store(data_bytes, Ordering::Relaxed);
    }

    /// Cuts the link in both directions, or joins it again.
    pub fn set_link_up(&self, up: bool) {
        self.shared.link_up.store(up, Ordering::Relaxed);
    }

    /// Stops the thread, closes the capture, and gives the final counts.
    ///
    /// # Errors
    /// What made the thread end early, or what the capture file said.
    pub fn finish(mut self) -> io::Result<Stats> {
        self.join()?;
        Ok(self.stats())
    }

    fn join(&mut self) -> io::Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the gateway's thread panicked")),
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // `finish` has taken the thread, or nobody wants to know.
        let _ = self.join();
    }
}

/// A loopback address on which nobody holds the client's port: derived from
/// the process and `salt`, so that runs beside each other do not meet.
///
/// # Errors
/// None of 64 candidates is free.
pub fn free_loopback(salt: u32) -> io::Result<Ipv4Addr> {
    let mut rng = netsim::rng::Rng::stream(u64::from(std::process::id()), u64::from(salt));
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..64 {
        let [a, b, c, ..] = rng.next_u64().to_be_bytes();
        let ip = Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254));
        match UdpSocket::bind((ip, CLIENT_PORT)) {
            Ok(_) => return Ok(ip),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Both paths of a gateway's unix sockets in `dir`: ours, then QEMU's.
pub fn socket_paths(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("wire.host"), dir.join("wire.guest"))
}

mod answerer;
mod pump;
mod relay;
#[cfg(test)]
mod tests;
mod wire;
