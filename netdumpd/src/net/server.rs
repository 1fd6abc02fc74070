//! The loop around the core: one thread at a time, all sockets, no files.
//!
//! A turn takes a few batches at most from one socket that has something, so that
//! one client cannot keep the others waiting, gives what is to be written to
//! the writers, tells the core what they have done, and sends all acks of a
//! session at once. What came in is written while it is still in the
//! processor's caches. A turn never waits for anything but its next event; what
//! may wait for a disk is done between turns, out of the seat ([`leader`]).

mod actions;
mod leader;
mod report;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use debugnet_core::time::Instant;
use mio::{Events, Interest, Poll, Token, Waker};

use super::clock::Clock;
use super::config::{ServerConfig, StartError, Stopper};
use super::event::{Event, Observer};
use super::handler::Handler;
use super::memory::{Memory, Share};
use super::resolve::Resolver;
use super::socket::{Buffers, Incoming, Received, Socket};
use super::writers::Writers;
use crate::core::{self, Core, SessionId, Verdict};
use crate::store::{DumpPaths, FileStore};

const WAKER: Token = Token(0);
/// Herald sockets have the tokens from 1 to this.
const MAX_LISTEN: usize = 64;
/// Session n has token n + this; sessions begin with 1.
const FIRST_SESSION: usize = MAX_LISTEN;

/// Events taken with one call.
const MAX_EVENTS: usize = 1024;

/// Receive calls for one socket in a turn: the other sockets wait for them.
const MAX_CALLS: usize = 8;

/// Between two progress events of one session.
const PROGRESS_US: u64 = 500_000;

/// Between two attempts to send acks the system did not take.
const RETRY_SEND_US: u64 = 1_000;

/// How long a server that ends after one dump waits for the digest of its image.
const DIGEST_WAIT: Duration = Duration::from_secs(600);

/// How long a stopping server waits for handler scripts.
const STOP_WAIT_US: u64 = 10_000_000;

/// How long a stopping server waits for its writers: for disks, that is.
const WRITERS_WAIT_US: u64 = 60_000_000;

/// Between two looks while it stops.
const STOP_LOOK: Duration = Duration::from_millis(10);

/// A server with its sockets.
pub struct Server {
    core: Core,
    writers: Writers<FileStore>,
    /// Over the files of no session.
    store: FileStore,
    clock: Clock,
    poll: Poll,
    events: Events,
    heralds: Vec<Herald>,
    sessions: foldhash::HashMap<SessionId, Session>,
    memory: Memory,
    buffers: Buffers,
    /// Sockets that may have something, in turn.
    ready: VecDeque<Token>,
    /// Those of them that have a turn before the next look.
    turns_left: usize,
    /// Sockets that are not read from because too much of theirs waits to be written.
    held_back: Vec<Token>,
    /// Sessions with acks to send.
    unsent: Vec<SessionId>,
    handler: Option<Handler>,
    resolver: Option<Resolver>,
    waker: Arc<Waker>,
    stopper: Stopper,
    once: bool,
    /// The first dump that ended, for `once`, and whether there is anything left to do for it.
    first: Option<(SessionId, Verdict)>,
    next_progress: Instant,
}

struct Herald {
    socket: Socket,
    address: SocketAddr,
    share: Share,
    is_queued: bool,
}

struct Session {
    socket: Socket,
    peer: SocketAddr,
    share: Share,
    is_queued: bool,
    reported_messages: u64,
    /// Its files, from their opening on.
    paths: Option<DumpPaths>,
}

impl Server {
    /// Opens the dump directory and the sockets for heralds.
    ///
    /// # Errors
    /// [`StartError`], naming what cannot be used.
    pub fn bind(config: ServerConfig) -> Result<Self, StartError> {
        let store = FileStore::new(config.store).map_err(StartError::Directory)?;
        let spare = store.another();
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let memory = Memory::new(config.memory_len);
        let mut sockets = Vec::new();
        for socket in config.inherited {
            let address = socket.local_addr()?;
            let error = |error| StartError::Listen { address, error };
            sockets.push((address, Socket::adopt(socket).map_err(error)?));
        }
        for address in config.listen {
            let error = |error| StartError::Listen { address, error };
            sockets.push((address, Socket::bind(address).map_err(error)?));
        }
        if sockets.is_empty() || sockets.len() > MAX_LISTEN {
            return Err(StartError::ListenCount { count: sockets.len(), most: MAX_LISTEN });
        }
        let mut heralds = Vec::new();
        for (n, (address, mut socket)) in sockets.into_iter().enumerate() {
            let error = |error| StartError::Listen { address, error };
            poll.registry()
                .register(&mut socket.io, Token(n + 1), Interest::READABLE)
                .map_err(error)?;
            let address = socket.local_addr().map_err(error)?;
            heralds.push(Herald { socket, address, share: memory.share(), is_queued: true });
        }
        Ok(Self {
            core: Core::new(config.limits),
            writers: Writers::new(Arc::clone(&waker), move || spare.another()),
            store,
            clock: Clock::new(),
            handler: None,
            resolver: config.resolve.then(|| Resolver::new(Arc::clone(&waker))),
            poll,
            events: Events::with_capacity(MAX_EVENTS),
            ready: (1..=heralds.len()).map(Token).collect(),
            turns_left: 0,
            heralds,
            sessions: foldhash::HashMap::default(),
            memory,
            buffers: Buffers::new(),
            held_back: Vec::new(),
            unsent: Vec::new(),
            stopper: Stopper::new(Arc::clone(&waker)),
            waker,
            once: config.once,
            first: None,
            next_progress: Instant::ZERO,
        })
    }

    /// Has the handler script run for every dump that ends.
    pub fn set_handler(&mut self, mut handler: Handler) {
        handler.begin(Arc::clone(&self.waker));
        self.handler = Some(handler);
    }

    /// Where heralds are taken.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.heralds.iter().map(|herald| herald.address).collect()
    }

    /// The means to end it.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Before the first turn.
    fn begin(&mut self, observer: &mut dyn Observer) {
        for address in self.local_addrs() {
            observer.event(&Event::Listening { address });
        }
        self.report_recovered(observer);
    }

    /// Waits for the next event and does what there is to do, but for the
    /// writers' own jobs. `false`: it is over.
    fn turn(&mut self, observer: &mut dyn Observer) -> io::Result<bool> {
        if self.is_over() {
            return Ok(false);
        }
        // Everyone has a turn before anyone has another.
        if self.turns_left == 0 {
            self.look(observer)?;
            self.turns_left = self.ready.len();
        }
        if self.turns_left > 0 {
            self.turns_left -= 1;
            if let Some(token) = self.ready.pop_front() {
                self.receive(token);
            }
        }
        if self.turns_left == 0 {
            self.tick();
        }
        self.settle(observer);
        Ok(true)
    }

    /// Waits for the next event.
    fn look(&mut self, observer: &mut dyn Observer) -> io::Result<()> {
        let now = self.clock.now();
        let timeout = self.timeout(now);
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            self.mark_ready(event.token());
        }
        self.events = events;
        self.collect(observer);
        self.report_scripts(observer);
        let now = self.clock.now();
        if now >= self.next_progress {
            self.next_progress = now.after(PROGRESS_US);
            self.report_progress(observer);
        }
        Ok(())
    }

    /// Closes all dumps and waits for what is still to be done.
    fn end(&mut self, observer: &mut dyn Observer) -> Option<Verdict> {
        self.writers.have_no_own();
        self.core.stop(self.clock.now());
        self.settle(observer);
        self.wait_for_writers(observer);
        self.wait_for_scripts(observer);
        if self.once && !self.stopper.is_stopped() {
            self.store.wait_for_digests(DIGEST_WAIT);
        }
        self.first.map(|(_, verdict)| verdict)
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
        let deadlines = [
            self.core.poll_timeout(),
            self.writers.next_deadline(),
            self.resolver.as_ref().and_then(Resolver::next_deadline),
            (!self.unsent.is_empty()).then(|| now.after(RETRY_SEND_US)),
        ];
        let next = deadlines.into_iter().flatten().min()?;
        // Rounded up: a timeout that comes early would only come again.
        Some(Duration::from_micros(next.since_us(now).saturating_add(1)))
    }

    fn mark_ready(&mut self, token: Token) {
        let is_queued = match token {
            WAKER => return,
            Token(n) if n <= MAX_LISTEN => {
                self.heralds.get_mut(n - 1).map(|herald| &mut herald.is_queued)
            }
            _ => self.sessions.get_mut(&session_of(token)).map(|session| &mut session.is_queued),
        };
        if let Some(is_queued) = is_queued
            && !std::mem::replace(is_queued, true)
        {
            self.ready.push_back(token);
        }
    }

    /// What one socket has, up to [`MAX_CALLS`] calls: it is written as one.
    fn receive(&mut self, token: Token) {
        let id = session_of(token);
        let (socket, share, on, is_queued, local) = match token {
            Token(n) if n <= MAX_LISTEN => {
                let Some(herald) = self.heralds.get_mut(n - 1) else { return };
                let Herald { socket, share, is_queued, address } = herald;
                (socket, share, core::Socket::Herald, is_queued, address.ip())
            }
            _ => {
                let Some(session) = self.sessions.get_mut(&id) else { return };
                let Session { socket, share, is_queued, peer, .. } = session;
                (socket, share, core::Socket::Session(id), is_queued, peer.ip())
            }
        };
        *is_queued = false;
        let now = self.clock.now();
        let core = &mut self.core;
        let mut calls = 0;
        let received = loop {
            let take = |Incoming { from, to, messages }| match messages {
                Some((series, payload)) => {
                    core.handle_series(now, on, from, to.unwrap_or(local), &series, payload);
                }
                None => core.handle_malformed(on, from),
            };
            let received = socket.receive(&mut self.buffers, share, take);
            calls += 1;
            if calls == MAX_CALLS || !matches!(received, Ok(Received::Some)) {
                break received;
            }
        };
        match received {
            Ok(Received::All) => {}
            Ok(Received::Some) => self.mark_ready(token),
            Ok(Received::NoRoom) => self.held_back.push(token),
            // What a socket reports here belongs to one datagram, not to the
            // socket; the next may well be there.
            Err(error) => {
                tracing::warn!("receiving: {error}");
                self.mark_ready(token);
            }
        }
    }

    /// What is to be done at its time.
    fn tick(&mut self) {
        let now = self.clock.now();
        self.core.handle_timeout(now);
        self.writers.relieve(now);
        while let Some((session, name)) = self.resolver.as_mut().and_then(|r| r.poll(now)) {
            // A session may have ended meanwhile.
            if let Some(name) = name.filter(|_| self.sessions.contains_key(&session)) {
                self.writers.set_host(session, &name);
            }
            self.core.bound(now, session, Ok(()));
        }
    }

    fn wait_for_writers(&mut self, observer: &mut dyn Observer) {
        let until = self.clock.now().after(WRITERS_WAIT_US);
        while !self.writers.is_idle() {
            let now = self.clock.now();
            if now >= until {
                tracing::error!("files cannot be written; their records say `receiving`");
                return;
            }
            self.collect(observer);
            self.writers.relieve(now);
            self.settle(observer);
            std::thread::sleep(STOP_LOOK);
        }
        self.collect(observer);
        self.settle(observer);
    }

    fn wait_for_scripts(&mut self, observer: &mut dyn Observer) {
        let until = self.clock.now().after(STOP_WAIT_US);
        while self.handler.as_ref().is_some_and(Handler::is_busy) {
            if self.clock.now() >= until {
                tracing::warn!("handler scripts still run; they are ended");
                return;
            }
            self.report_scripts(observer);
            std::thread::sleep(STOP_LOOK);
        }
    }
}

fn session_of(token: Token) -> SessionId {
    SessionId(token.0.saturating_sub(FIRST_SESSION) as u64)
}
