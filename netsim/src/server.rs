//! Servers at the far end of a simulated wire.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use bytes::Bytes;
use debugnet_core::time::Instant;
use debugnet_core::wire::debugnet::NETDUMP_HERALD_PORT;
use netdumpd::core::{Action, Core, Limits, Record, SessionId, Socket};
use netdumpd::store::{Executor, MemStore};

use crate::host::Datagram;

/// A datagram a server sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The server's port.
    pub from_port: u16,
    /// Where to.
    pub to: SocketAddrV4,
    /// What.
    pub payload: Vec<u8>,
}

/// A server in virtual time.
pub trait Server {
    /// A datagram came.
    fn datagram(&mut self, now: Instant, datagram: Datagram<'_>);
    /// A reply that is due.
    fn poll_reply(&mut self, now: Instant) -> Option<Reply>;
    /// When something is due without a further datagram.
    fn poll_timeout(&self) -> Option<Instant>;
    /// Time has passed.
    fn handle_timeout(&mut self, now: Instant);
    /// The image as it is now, and whether the server holds the dump complete.
    fn image(&self) -> Option<(&[u8], bool)>;
}

/// netdumpd's own protocol core over files in memory.
pub struct CoreServer {
    core: Core,
    executor: Executor,
    /// The dumps.
    pub store: MemStore,
    ports: HashMap<u16, SessionId>,
    /// Answers nothing while set, as a stopped process: datagrams are lost.
    pub is_dead: bool,
    /// Session ports opened so far.
    pub bound: u16,
}

impl CoreServer {
    /// A server with these limits.
    pub fn new(limits: Limits) -> Self {
        Self {
            core: Core::new(limits),
            executor: Executor::default(),
            store: MemStore::default(),
            ports: HashMap::new(),
            is_dead: false,
            bound: 0,
        }
    }

    /// The record of the last dump that ended.
    pub fn record(&self) -> Option<&Record> {
        self.store.dumps().filter_map(|(_, dump)| dump.record.as_ref()).last()
    }

    const FIRST_PORT: u16 = 40_000;
}

impl Default for CoreServer {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Server for CoreServer {
    fn datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        if self.is_dead {
            return;
        }
        let socket = match self.ports.get(&datagram.to_port) {
            _ if datagram.to_port == NETDUMP_HERALD_PORT => Socket::Herald,
            Some(session) => Socket::Session(*session),
            None => return,
        };
        let local = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let bytes = Bytes::copy_from_slice(datagram.payload);
        self.core.handle_datagram(now, socket, SocketAddr::V4(datagram.from), local, &bytes);
    }

    fn poll_reply(&mut self, now: Instant) -> Option<Reply> {
        while let Some(action) = self.executor.next(&mut self.core, &mut self.store, now) {
            match action {
                Action::Bind { session, .. } => {
                    self.ports.insert(Self::FIRST_PORT + self.bound, session);
                    self.bound += 1;
                    self.core.bound(now, session, Ok(()));
                }
                Action::Reply { session, peer: SocketAddr::V4(to), ack } => {
                    let (&from_port, _) = self.ports.iter().find(|(_, id)| **id == session)?;
                    if !self.is_dead {
                        let payload = ack.seqno.to_bytes().to_vec();
                        return Some(Reply { from_port, to, payload });
                    }
                }
                Action::Release { session } => self.ports.retain(|_, id| *id != session),
                _ => {}
            }
        }
        None
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.core.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.core.handle_timeout(now);
    }

    fn image(&self) -> Option<(&[u8], bool)> {
        let (_, dump) = self.store.dumps().last()?;
        Some((&dump.vmcore, dump.is_finished))
    }
}
