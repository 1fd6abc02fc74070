//! Names of clients, by reverse lookup, without holding up the loop.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use debugnet_core::time::Instant;
use mio::Waker;

use crate::core::SessionId;

/// A herald waits for its client's name no longer than this.
const PATIENCE_US: u64 = 2_000_000;

/// Lookups at a time; clients beyond go by their address.
const MAX_LOOKUPS: usize = 16;

pub(super) struct Resolver {
    waker: Arc<Waker>,
    sender: Sender<(SessionId, Option<String>)>,
    receiver: Receiver<(SessionId, Option<String>)>,
    waiting: HashMap<SessionId, Instant>,
}

impl Resolver {
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let (sender, receiver) = channel();
        Self { waker, sender, receiver, waiting: HashMap::new() }
    }

    /// Begins a lookup. `false`: there are too many; go on without a name.
    pub(super) fn begin(&mut self, now: Instant, session: SessionId, address: IpAddr) -> bool {
        if self.waiting.len() >= MAX_LOOKUPS {
            return false;
        }
        let (sender, waker) = (self.sender.clone(), Arc::clone(&self.waker));
        let lookup = move || {
            let name = dns_lookup::lookup_addr(&address).ok().and_then(|name| short_name(&name));
            // The server may be gone: then nobody wants the name.
            let _ = sender.send((session, name));
            let _ = waker.wake();
        };
        if std::thread::Builder::new().name("resolve".into()).spawn(lookup).is_err() {
            return false;
        }
        self.waiting.insert(session, now.after(PATIENCE_US));
        true
    }

    /// A session that need not wait any longer, with its client's name if it has one.
    pub(super) fn poll(&mut self, now: Instant) -> Option<(SessionId, Option<String>)> {
        while let Ok((session, name)) = self.receiver.try_recv() {
            if self.waiting.remove(&session).is_some() {
                return Some((session, name));
            }
        }
        let late = self.waiting.iter().find(|(_, deadline)| **deadline <= now);
        let session = late.map(|(session, _)| *session)?;
        self.waiting.remove(&session);
        Some((session, None))
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.values().min().copied()
    }
}

/// The name up to its first dot; an address is no name.
fn short_name(name: &str) -> Option<String> {
    if name.parse::<IpAddr>().is_ok() {
        return None;
    }
    name.split('.').next().filter(|short| !short.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_at_the_first_dot() {
        assert_eq!(short_name("victim.example.org").as_deref(), Some("victim"));
        assert_eq!(short_name("victim").as_deref(), Some("victim"));
        assert_eq!(short_name("10.0.0.1"), None);
        assert_eq!(short_name(".org"), None);
    }
}
