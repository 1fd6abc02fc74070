//! What a herald leads to: an answer from a known session, a new one, or nothing.

use std::net::{IpAddr, SocketAddr};

use debugnet_core::time::Instant;
use debugnet_core::wire::debugnet::MessageHeader;

use super::Core;
use super::action::{Action, Notice, SessionId};
use super::herald::{HeraldPath, Identity};
use super::rate::Admission;
use super::record::End;
use super::session::{Context, Phase, Session};

/// Provisional sessions of one client at a time; the oldest makes room.
const MAX_PROVISIONAL: usize = 4;

impl Core {
    pub(super) fn herald(
        &mut self,
        now: Instant,
        from: SocketAddr,
        local: IpAddr,
        header: &MessageHeader,
        payload: &[u8],
    ) {
        let identity = Identity::of(header);
        let meant = self.table.of_peer(from).rev().find(|session| session.is_meant_by(identity));
        if let Some(id) = meant.map(|session| session.id) {
            if let Some((session, mut context)) = self.session(now, id) {
                session.herald_again(header.seqno.get(), &mut context);
            }
            return self.rearm(id);
        }
        // With another dump of this client about, running or just ended, this
        // may be a late copy of an old herald: it gets an answer, but no files
        // until it is followed by something.
        let provisional = self.table.of_peer(from).next().is_some();
        let others = self.table.of_peer(from).filter(|other| other.phase == Phase::Provisional);
        let others: Vec<SessionId> = others.map(|other| other.id).collect();
        if let Some(oldest) = others.first().filter(|_| others.len() >= MAX_PROVISIONAL) {
            self.release(*oldest);
        }
        let is_full = self.table.len() >= self.limits.max_sessions
            || self.table.count_from(from.ip()) >= self.limits.max_sessions_per_source;
        if is_full || !self.accepting {
            self.counters.refused_heralds += 1;
            if is_full {
                let notice = Notice::TooManySessions;
                self.out.push_back(Action::Notice { session: None, peer: from, notice });
            }
            return;
        }
        match self.heralds.admit(now, from.ip(), self.limits.max_heralds_per_s) {
            Admission::Granted => {}
            refused => {
                self.counters.refused_heralds += 1;
                if refused == Admission::FirstRefused {
                    let notice = Notice::TooManyHeralds;
                    self.out.push_back(Action::Notice { session: None, peer: from, notice });
                }
                return;
            }
        }
        let id = SessionId(self.next_id);
        self.next_id += 1;
        let path = match header.offset.get() {
            0 => HeraldPath::parse(payload),
            // A later fragment of a path that did not fit one message.
            _ => HeraldPath::Unusable,
        };
        let mut context = Context { now, limits: &self.limits, out: &mut self.out };
        let session = Session::new(id, from, header, path, provisional, &context);
        if provisional {
            session.notice(Notice::Provisional, &mut context);
        }
        self.out.push_back(Action::Bind { session: id, peer: from, local });
        self.table.insert(session, &self.limits);
    }

    /// The client goes on with a provisional session: its other dump is over.
    pub(super) fn promote(&mut self, now: Instant, id: SessionId) {
        let Some(peer) = self.table.get(id).map(|session| session.peer) else { return };
        let running = self.table.of_peer(peer).filter(|other| other.is_running());
        for other in running.map(|other| other.id).collect::<Vec<_>>() {
            if let Some((session, mut context)) = self.session(now, other) {
                session.close(End::Superseded, &mut context);
            }
            self.release(other);
        }
        if let Some((session, mut context)) = self.session(now, id) {
            session.promote(&mut context);
        }
    }
}
