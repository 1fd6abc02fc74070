//! What the core asks for, carried out: files by the writers, sockets here.

use std::io;
use std::net::{IpAddr, SocketAddr};

use debugnet_core::time::Instant;
use mio::{Interest, Token};

use super::{FIRST_SESSION, Server, Session, report};
use crate::core::{Action, Fault, SessionId, State};
use crate::net::event::{Event, Observer};
use crate::net::socket::Socket;
use crate::net::writers::{Batch, Job};
use crate::store::FileStore;

impl Server {
    /// Carries out all there is to do, or has it begun, then sends the acks.
    pub(super) fn settle(&mut self, observer: &mut dyn Observer) {
        let now = self.clock.now();
        while let Some(action) = self.core.poll_action() {
            if let Some(action) = self.writers.stage(action) {
                self.perform(now, action, observer);
            }
        }
        self.writers.submit(now);
        for id in std::mem::take(&mut self.unsent) {
            self.flush(id);
        }
    }

    /// Tells the core what the writers have done.
    pub(super) fn collect(&mut self, observer: &mut dyn Observer) {
        let batches = self.writers.take_done();
        if batches.is_empty() {
            return;
        }
        for batch in batches {
            self.tell(batch, observer);
        }
    }

    /// A job of the loop's own is done.
    pub(super) fn has_written(
        &mut self,
        job: Job<FileStore>,
        batch: Batch,
        began: Instant,
        observer: &mut dyn Observer,
    ) {
        self.writers.end_own(job, began, self.clock.now());
        // What a thread has done for the session before comes first.
        self.collect(observer);
        self.tell(batch, observer);
    }

    fn tell(&mut self, batch: Batch, observer: &mut dyn Observer) {
        let now = self.clock.now();
        if let Some(session) = self.sessions.get_mut(&batch.session)
            && batch.paths.is_some()
        {
            session.paths = batch.paths;
        }
        for done in batch.done {
            if let Some(action) = done.tell(&mut self.core, now) {
                self.perform(now, action, observer);
            }
        }
        // There may be room now for what they have to say.
        for token in std::mem::take(&mut self.held_back) {
            self.mark_ready(token);
        }
    }

    fn perform(&mut self, now: Instant, action: Action, observer: &mut dyn Observer) {
        match action {
            Action::Bind { session, peer, local } => {
                self.bind_session(now, session, peer, local, observer);
            }
            Action::Open { session, peer, .. } => self.report_session(session, peer, observer),
            Action::Reply { session, ack, .. } => {
                if let Some(io) = self.sessions.get_mut(&session) {
                    io.socket.queue(ack);
                    if self.unsent.last() != Some(&session) {
                        self.unsent.push(session);
                    }
                }
            }
            Action::Finish { session, record } | Action::Close { session, record } => {
                self.report_end(session, &record, observer);
            }
            Action::Handle { session, reason } => {
                if let Some(handler) = &mut self.handler
                    && let Some(io) = self.sessions.get(&session)
                    && let Some(paths) = &io.paths
                {
                    handler.queue(session, reason, io.peer.ip(), paths);
                }
            }
            Action::Release { session } => {
                self.flush(session);
                self.sessions.remove(&session);
            }
            Action::Notice { session, peer, notice } => {
                report::report_notice(session, peer, &notice, observer)
            }
            // The writers keep these to themselves.
            Action::Write { .. } | Action::RecordHeader { .. } | Action::Digest { .. } => {}
        }
    }

    fn bind_session(
        &mut self,
        now: Instant,
        session: SessionId,
        peer: SocketAddr,
        local: IpAddr,
        observer: &mut dyn Observer,
    ) {
        let token = Token(session.0 as usize + FIRST_SESSION);
        let open = || -> io::Result<(Socket, SocketAddr)> {
            let mut socket = Socket::bind_session(SocketAddr::new(local, 0))?;
            self.poll.registry().register(&mut socket.io, token, Interest::READABLE)?;
            let address = socket.local_addr()?;
            Ok((socket, address))
        };
        let (socket, address) = match open() {
            Ok(opened) => opened,
            Err(error) => {
                let fault = Fault(format!("no socket on {local}: {error}"));
                return self.core.bound(now, session, Err(fault));
            }
        };
        let share = self.memory.share();
        let (is_queued, reported_messages, paths) = Default::default();
        let io = Session { socket, peer, share, is_queued, reported_messages, paths };
        self.sessions.insert(session, io);
        let state = self.core.status(session).map(|status| status.state);
        let provisional = state == Some(State::Provisional);
        tracing::info!("session {session}: herald from {peer}, answered from {address}");
        observer.event(&Event::Herald { session, peer, address, provisional });
        let waits = self.resolver.as_mut().is_some_and(|r| r.begin(now, session, peer.ip()));
        if !waits {
            self.core.bound(now, session, Ok(()));
        }
    }

    pub(super) fn flush(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id)
            && !session.socket.flush(session.peer)
        {
            self.unsent.push(id);
        }
    }
}
