//! The loop around the core: one thread, all sockets.
//!
//! A turn takes at most one batch from each socket that has something, so that
//! one client cannot keep the others waiting, and sends all acks of a batch at
//! once.

mod report;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use debugnet_core::time::Instant;
use mio::{Events, Interest, Poll, Token, Waker};

use super::clock::{Clock, micros};
use super::config::{ServerConfig, StartError, Stopper};
use super::event::{Event, Observer};
use super::resolve::Resolver;
use super::script::Scripts;
use super::socket::{Buffers, Datagram, Socket};
use crate::core::{self, Action, Core, Fault, SessionId, State, Verdict};
use crate::store::{Executor, FileStore};

const HERALD: Token = Token(0);
const WAKER: Token = Token(1);
/// Session n has token n + 1.
const FIRST_SESSION: usize = 1;

/// Between two progress events of one session.
const PROGRESS_US: u64 = 500_000;

/// Between two looks at running scripts.
const SCRIPT_POLL_US: u64 = 50_000;

/// Between two attempts to send acks the system did not take.
const RETRY_SEND_US: u64 = 1_000;

/// How long a server that ends after one dump waits for the digest of its image.
const DIGEST_WAIT: Duration = Duration::from_secs(600);

/// How long a stopping server waits for handler scripts.
const STOP_WAIT_US: u64 = 10_000_000;

/// A server with its sockets.
pub struct Server {
    core: Core,
    executor: Executor,
    store: FileStore,
    clock: Clock,
    poll: Poll,
    herald: Socket,
    listen: SocketAddr,
    sessions: HashMap<SessionId, Session>,
    buffers: Buffers,
    /// Sockets that may have something, in turn.
    ready: VecDeque<Token>,
    /// Sessions with acks to send.
    unsent: Vec<SessionId>,
    scripts: Option<Scripts>,
    resolver: Option<Resolver>,
    stopper: Stopper,
    once: bool,
    /// The first dump that ended, for `once`, and whether there is anything left to do for it.
    first: Option<(SessionId, Verdict)>,
    next_progress: Instant,
}

struct Session {
    socket: Socket,
    peer: SocketAddr,
    is_queued: bool,
    reported_messages: u64,
}

impl Server {
    /// Opens the dump directory and the socket for heralds.
    ///
    /// # Errors
    /// [`StartError`], naming what cannot be used.
    pub fn bind(config: ServerConfig) -> Result<Self, StartError> {
        let listen_error = |error| StartError::Listen { address: config.listen, error };
        let store = FileStore::new(config.store).map_err(StartError::Directory)?;
        let mut herald = Socket::bind(config.listen).map_err(listen_error)?;
        let listen = herald.local_addr().map_err(listen_error)?;
        let poll = Poll::new()?;
        poll.registry().register(&mut herald.io, HERALD, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let limit_us = micros(config.script_limit);
        Ok(Self {
            core: Core::new(config.limits),
            executor: Executor::default(),
            clock: Clock::new(),
            scripts: config.script.map(|script| Scripts::new(script, store.dir(), limit_us)),
            resolver: config.resolve.then(|| Resolver::new(Arc::clone(&waker))),
            store,
            poll,
            herald,
            listen,
            sessions: HashMap::new(),
            buffers: Buffers::new(),
            ready: VecDeque::from([HERALD]),
            unsent: Vec::new(),
            stopper: Stopper::new(waker),
            once: config.once,
            first: None,
            next_progress: Instant::ZERO,
        })
    }

    /// Where heralds are taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.listen
    }

    /// The means to end it.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Serves until it is stopped, or with `once` until the first dump is over.
    /// Returns how the first dump ended.
    ///
    /// # Errors
    /// If the system can no longer wait for sockets.
    pub fn run(&mut self, observer: &mut dyn Observer) -> io::Result<Option<Verdict>> {
        observer.event(&Event::Listening { address: self.listen });
        self.report_recovered(observer);
        let mut events = Events::with_capacity(1024);
        while !self.is_over() {
            let now = self.clock.now();
            match self.poll.poll(&mut events, self.timeout(now)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                self.mark_ready(event.token());
            }
            for _ in 0..self.ready.len() {
                if let Some(token) = self.ready.pop_front() {
                    self.receive(token, observer);
                }
            }
            self.tick(observer);
        }
        self.core.stop(self.clock.now());
        self.settle(observer);
        self.wait_for_scripts(observer);
        if self.once && !self.stopper.is_stopped() {
            self.store.wait_for_digests(DIGEST_WAIT);
        }
        Ok(self.first.map(|(_, verdict)| verdict))
    }

    fn is_over(&self) -> bool {
        let dump_is_over =
            self.first.is_some_and(|(session, _)| !self.sessions.contains_key(&session));
        self.stopper.is_stopped() || self.once && dump_is_over
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let scripts = self.scripts.as_ref().filter(|scripts| scripts.is_busy());
        let deadlines = [
            self.core.poll_timeout(),
            self.resolver.as_ref().and_then(Resolver::next_deadline),
            scripts.map(|_| now.after(SCRIPT_POLL_US)),
            (!self.unsent.is_empty()).then(|| now.after(RETRY_SEND_US)),
        ];
        let next = deadlines.into_iter().flatten().min()?;
        // Rounded up: a timeout that comes early would only come again.
        Some(Duration::from_micros(next.since_us(now).saturating_add(1)))
    }

    fn mark_ready(&mut self, token: Token) {
        match token {
            WAKER => {}
            HERALD if self.ready.contains(&HERALD) => {}
            HERALD => self.ready.push_back(token),
            _ => {
                if let Some(session) = self.sessions.get_mut(&session_of(token))
                    && !session.is_queued
                {
                    session.is_queued = true;
                    self.ready.push_back(token);
                }
            }
        }
    }

    /// One batch from one socket, and all that follows from it.
    fn receive(&mut self, token: Token, observer: &mut dyn Observer) {
        let id = session_of(token);
        let (socket, on) = match token {
            HERALD => (&self.herald, core::Socket::Herald),
            _ => match self.sessions.get_mut(&id) {
                Some(session) => {
                    session.is_queued = false;
                    (&session.socket, core::Socket::Session(id))
                }
                None => return,
            },
        };
        let now = self.clock.now();
        let listen = self.listen.ip();
        let (core, buffers) = (&mut self.core, &mut self.buffers);
        let received = socket.receive(buffers, |Datagram { from, to, bytes }| {
            core.handle_datagram(now, on, from, to.unwrap_or(listen), &bytes);
        });
        match received {
            Ok(false) => {}
            Ok(true) => self.mark_ready(token),
            // What a socket reports here belongs to one datagram, not to the
            // socket; the next may well be there.
            Err(error) => {
                tracing::warn!("receiving: {error}");
                self.mark_ready(token);
            }
        }
        self.settle(observer);
    }

    fn tick(&mut self, observer: &mut dyn Observer) {
        let now = self.clock.now();
        self.core.handle_timeout(now);
        while let Some((session, name)) = self.resolver.as_mut().and_then(|r| r.poll(now)) {
            if let Some(name) = name {
                self.store.set_host(session, &name);
            }
            self.core.bound(now, session, Ok(()));
        }
        self.poll_scripts(now, observer);
        self.settle(observer);
        if now >= self.next_progress {
            self.next_progress = now.after(PROGRESS_US);
            self.report_progress(observer);
        }
    }

    /// Carries out all there is to do, then sends the acks.
    fn settle(&mut self, observer: &mut dyn Observer) {
        let now = self.clock.now();
        while let Some(action) = self.executor.next(&mut self.core, &mut self.store, now) {
            self.perform(now, action, observer);
        }
        for id in std::mem::take(&mut self.unsent) {
            self.flush(id);
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
                if let Some(scripts) = &mut self.scripts
                    && let Some(paths) = self.store.paths(session)
                    && let Some(io) = self.sessions.get(&session)
                {
                    scripts.queue(session, reason, io.peer.ip(), paths);
                }
            }
            Action::Release { session } => {
                self.flush(session);
                self.sessions.remove(&session);
                self.store.forget(session);
            }
            Action::Notice { session, peer, notice } => {
                report::report_notice(session, peer, &notice, observer)
            }
            // The executor keeps these to itself.
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
            let mut socket = Socket::bind(SocketAddr::new(local, 0))?;
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
        let io = Session { socket, peer, is_queued: false, reported_messages: 0 };
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

    fn flush(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id)
            && !session.socket.flush(session.peer)
        {
            self.unsent.push(id);
        }
    }

    fn poll_scripts(&mut self, now: Instant, observer: &mut dyn Observer) {
        let Some(scripts) = &mut self.scripts else { return };
        for ended in scripts.poll(now) {
            let (session, reason, status) = (ended.session, ended.reason, ended.status);
            tracing::info!("session {session}: handler script ({}): {status}", reason.as_str());
            observer.event(&Event::Script { session, reason, status });
        }
    }

    fn wait_for_scripts(&mut self, observer: &mut dyn Observer) {
        let until = self.clock.now().after(STOP_WAIT_US);
        while self.scripts.as_ref().is_some_and(Scripts::is_busy) {
            let now = self.clock.now();
            if now >= until {
                tracing::warn!("handler scripts still run; they are ended");
                return;
            }
            self.poll_scripts(now, observer);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn session_of(token: Token) -> SessionId {
    SessionId(token.0.saturating_sub(FIRST_SESSION) as u64)
}
