//! All sessions, by number, by client and by deadline.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use debugnet_core::time::Instant;

use super::action::SessionId;
use super::limits::Limits;
use super::session::Session;

#[derive(Debug, Default)]
pub(super) struct Table {
    sessions: foldhash::HashMap<SessionId, Entry>,
    /// Sessions of one client, oldest first.
    peers: HashMap<SocketAddr, Vec<SessionId>>,
    sources: HashMap<IpAddr, usize>,
    /// Deadlines move with every message; an entry here may be earlier than
    /// the session's real one, and is put right when it comes up.
    deadlines: BTreeSet<(Instant, SessionId)>,
}

#[derive(Debug)]
struct Entry {
    session: Session,
    armed: Instant,
}

impl Table {
    pub(super) fn insert(&mut self, session: Session, limits: &Limits) {
        let (id, peer) = (session.id, session.peer);
        let armed = session.deadline(limits);
        self.peers.entry(peer).or_default().push(id);
        *self.sources.entry(peer.ip()).or_default() += 1;
        self.deadlines.insert((armed, id));
        self.sessions.insert(id, Entry { session, armed });
    }

    pub(super) fn remove(&mut self, id: SessionId) {
        let Some(Entry { session, armed }) = self.sessions.remove(&id) else { return };
        self.deadlines.remove(&(armed, id));
        if let Some(ids) = self.peers.get_mut(&session.peer) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.peers.remove(&session.peer);
            }
        }
        if let Some(count) = self.sources.get_mut(&session.peer.ip()) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&session.peer.ip());
            }
        }
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id).map(|entry| &entry.session)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&id).map(|entry| &mut entry.session)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values().map(|entry| &entry.session)
    }

    /// All numbers, oldest first.
    pub(super) fn ids(&self) -> Vec<SessionId> {
        let mut ids: Vec<_> = self.sessions.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Sessions of a client, oldest first.
    pub(super) fn of_peer(&self, peer: SocketAddr) -> impl DoubleEndedIterator<Item = &Session> {
        self.peers.get(&peer).into_iter().flatten().filter_map(|id| self.get(*id))
    }

    /// Sessions of all clients at one address.
    pub(super) fn count_from(&self, source: IpAddr) -> usize {
        self.sources.get(&source).copied().unwrap_or_default()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at).filter(|at| *at != Instant::NEVER)
    }

    /// Takes note of a deadline that came closer.
    pub(super) fn rearm(&mut self, id: SessionId, limits: &Limits) {
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        let deadline = entry.session.deadline(limits);
        if deadline < entry.armed {
            self.deadlines.remove(&(entry.armed, id));
            entry.armed = deadline;
            self.deadlines.insert((deadline, id));
        }
    }

    /// A session whose deadline has passed; call until `None`.
    pub(super) fn expired(&mut self, now: Instant, limits: &Limits) -> Option<SessionId> {
        loop {
            let &(at, id) = self.deadlines.first().filter(|(at, _)| *at <= now)?;
            let Some(entry) = self.sessions.get_mut(&id) else {
                self.deadlines.remove(&(at, id));
                continue;
            };
            let deadline = entry.session.deadline(limits);
            if deadline <= now {
                return Some(id);
            }
            self.deadlines.remove(&(at, id));
            entry.armed = deadline;
            self.deadlines.insert((deadline, id));
        }
    }
}
