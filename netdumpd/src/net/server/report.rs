//! What the loop tells: its log and its events.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::Server;
use crate::core::{End, Notice, Record, SessionId, State, Verdict};
use crate::net::event::{Event, Observer, Outcome};
use crate::net::handler::Ended;
use crate::store::{DumpPaths, Recovered, escape};

/// Of a dump of an earlier server; no session has this number.
const NO_SESSION: SessionId = SessionId(0);

impl Server {
    pub(super) fn report_session(
        &self,
        session: SessionId,
        peer: SocketAddr,
        observer: &mut dyn Observer,
    ) {
        if let Some(paths) = self.paths(session) {
            let (vmcore, info) = (self.full(&paths.vmcore), self.full(&paths.info));
            let shown = vmcore.display();
            tracing::info!("session {session}: dump from {peer} goes to {shown}");
            let host = paths.host;
            observer.event(&Event::Session { session, peer, host, vmcore, info });
        }
    }

    /// Says which dumps a server that died has left, and has the script run for them.
    pub(super) fn report_recovered(&mut self, observer: &mut dyn Observer) {
        for Recovered { peer, paths, reason, record } in self.store.recover() {
            let (vmcore, info) = (self.full(&paths.vmcore), self.full(&paths.info));
            let bytes = record.as_ref().map(|record| record.stats.covered_bytes);
            tracing::warn!(
                "{}: dump from {peer} found as a server that died had left it ({}{})",
                vmcore.display(),
                reason.as_str(),
                bytes.map_or(String::new(), |bytes| format!(", {bytes} bytes received")),
            );
            let (host, record) = (paths.host.clone(), self.full(&paths.sidecar));
            observer.event(&Event::Interrupted { peer, host, vmcore, info, record, reason, bytes });
            if let Some(handler) = &mut self.handler {
                handler.queue(NO_SESSION, reason, peer.ip(), &paths);
            }
        }
    }

    pub(super) fn report_end(
        &mut self,
        session: SessionId,
        record: &Record,
        observer: &mut dyn Observer,
    ) {
        let mut outcome = Outcome::new(session, record);
        if let Some(paths) = self.paths(session) {
            outcome.vmcore = Some(self.full(&paths.vmcore));
            outcome.info = Some(self.full(&paths.info));
            outcome.record = Some(self.full(&paths.sidecar));
            outcome.key = paths.key.map(|key| self.full(&key));
        }
        let Outcome { result, end, peer, bytes, missing_seqnos, .. } = outcome;
        tracing::info!(
            "session {session}: dump from {peer} {result} ({end}): {bytes} bytes, \
             {missing_seqnos} messages missing, {} bytes in {} holes, {} bytes not sent",
            record.holes.bytes,
            record.holes.count,
            record.not_sent.bytes
        );
        if let Some(error) = &outcome.error {
            tracing::error!("session {session}: {}", escape(error.as_bytes()));
        }
        // A client that began anew is still at it.
        if self.once && self.first.is_none() && record.end != End::Superseded {
            self.first = Some((session, record.verdict));
            self.core.set_accepting(false);
            if record.verdict == Verdict::Failed {
                self.stopper.stop();
            }
        }
        observer.event(&Event::Finished(Box::new(outcome)));
    }

    fn paths(&self, session: SessionId) -> Option<DumpPaths> {
        self.sessions.get(&session)?.paths.clone()
    }

    pub(super) fn report_scripts(&mut self, observer: &mut dyn Observer) {
        let Some(handler) = &mut self.handler else { return };
        for Ended { session, reason, status } in handler.poll() {
            tracing::info!("session {session}: handler script ({}): {status}", reason.as_str());
            observer.event(&Event::Script { session, reason, status });
        }
    }

    /// The path of a dump's file, without the `.` of the default directory.
    fn full(&self, path: &Path) -> PathBuf {
        self.store.dir().join(path).components().collect()
    }

    pub(super) fn report_progress(&mut self, observer: &mut dyn Observer) {
        for (session, status) in self.core.sessions() {
            let Some(io) = self.sessions.get_mut(&session) else { continue };
            let messages = status.stats.messages;
            if status.state != State::Receiving || messages == io.reported_messages {
                continue;
            }
            io.reported_messages = messages;
            observer.event(&Event::Progress {
                session,
                peer: status.peer,
                bytes: status.stats.covered_bytes,
                received_end: status.received_end,
                messages,
            });
        }
    }
}

pub(super) fn report_notice(
    session: Option<SessionId>,
    peer: SocketAddr,
    notice: &Notice,
    observer: &mut dyn Observer,
) {
    let message = match notice {
        Notice::TooManySessions => "herald refused: too many sessions".into(),
        Notice::TooManyHeralds => "heralds refused: too many in one second".into(),
        Notice::UnusablePath => "herald path cannot be used; using the default".into(),
        Notice::OffsetRefused { offset, len } => {
            format!("{len} bytes at offset {offset:#x} refused: beyond the largest dump allowed")
        }
        Notice::Provisional => {
            return tracing::info!("another herald from {peer}, whose last dump is still known");
        }
        Notice::ProvisionalExpired => {
            return tracing::info!("nothing followed that herald from {peer}");
        }
        Notice::CannotStart(fault) => {
            format!("herald not answered: {}", escape(fault.0.as_bytes()))
        }
    };
    tracing::warn!("{peer}: {message}");
    observer.event(&Event::Error { session, peer: Some(peer), message });
}
