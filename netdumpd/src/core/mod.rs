//! The server's protocol core: datagrams in, actions out.
//!
//! It has no socket, no file and no clock. The same core serves the daemon and
//! a simulator in virtual time. The caller
//!
//! 1. gives it every datagram ([`Core::handle_datagram`]) and the time
//!    ([`Core::handle_timeout`] at [`Core::poll_timeout`]),
//! 2. carries out what [`Core::poll_action`] returns until that is `None`, and
//! 3. reports what came of it ([`Core::bound`], [`Core::opened`],
//!    [`Core::written`], [`Core::header_recorded`], [`Core::finished`]), at
//!    once or later, in batches, from wherever the work was done.
//!
//! Nothing is acked before its write is reported as done. FINISHED is acked
//! only after [`Action::Finish`] is reported as done, and never once a write
//! has failed.
//!
//! [`Executor`](crate::store::Executor) does steps 2 and 3 for all actions that
//! concern files, over any [`Store`](crate::store::Store); what is left for the
//! caller is `Bind`, `Reply`, `Handle`, `Release` and `Notice`:
//!
//! ```
//! use std::net::{IpAddr, SocketAddr};
//!
//! use bytes::Bytes;
//! use debugnet_core::time::Instant;
//! use debugnet_core::wire::debugnet::{FINISHED, HERALD, MessageHeader, VMCORE};
//! use netdumpd::core::{Action, Core, Limits, SessionId, Socket, Verdict};
//! use netdumpd::store::{Executor, MemStore};
//! use zerocopy::IntoBytes;
//!
//! /// Carries out all there is to do; returns the acks sent and the session they came from.
//! fn drive(core: &mut Core, executor: &mut Executor, store: &mut MemStore, now: Instant) -> Vec<(SessionId, u32)> {
//!     let mut acks = Vec::new();
//!     while let Some(action) = executor.next(core, store, now) {
//!         match action {
//!             // A simulator picks any free port: what comes to it is `Socket::Session(session)`.
//!             Action::Bind { session, .. } => core.bound(now, session, Ok(())),
//!             Action::Reply { session, ack, .. } => acks.push((session, ack.seqno.get())),
//!             _ => {}
//!         }
//!     }
//!     acks
//! }
//!
//! fn message(kind: u32, seqno: u32, offset: u64, payload: &[u8]) -> Bytes {
//!     let header = MessageHeader {
//!         kind: kind.into(),
//!         seqno: seqno.into(),
//!         offset: offset.into(),
//!         len: (payload.len() as u32).into(),
//!         aux2: 0.into(),
//!     };
//!     [header.as_bytes(), payload].concat().into()
//! }
//!
//! let client: SocketAddr = "192.0.2.1:20024".parse()?;
//! let server: IpAddr = "192.0.2.2".parse()?;
//! let (mut core, mut executor, mut store) = (Core::new(Limits::default()), Executor::default(), MemStore::default());
//!
//! let now = Instant::from_micros(1_000);
//! core.handle_datagram(now, Socket::Herald, client, server, &message(HERALD, 1, 0, b""));
//! let acks = drive(&mut core, &mut executor, &mut store, now);
//! let (session, 1) = acks[0] else { panic!("the herald is acked from the new session") };
//!
//! let socket = Socket::Session(session);
//! core.handle_datagram(now, socket, client, server, &message(VMCORE, 2, 4096, &[7; 512]));
//! core.handle_datagram(now, socket, client, server, &message(FINISHED, 3, 0, b""));
//! assert_eq!(drive(&mut core, &mut executor, &mut store, now), [(session, 2), (session, 3)]);
//!
//! let dump = store.dump(session).unwrap();
//! assert_eq!(dump.vmcore[4096..], [7; 512]);
//! let record = dump.record.as_ref().unwrap();
//! assert_eq!(record.verdict, Verdict::Complete);
//! assert_eq!(record.not_sent.listed, [0..4096]);
//!
//! // It lingers: a late copy of FINISHED is acked again. Then the session goes.
//! core.handle_datagram(now, socket, client, server, &message(FINISHED, 3, 0, b""));
//! assert_eq!(drive(&mut core, &mut executor, &mut store, now), [(session, 3)]);
//! let end = core.poll_timeout().unwrap();
//! core.handle_timeout(end);
//! assert!(matches!(core.poll_action(), Some(Action::Release { .. })));
//! # Ok::<(), std::net::AddrParseError>(())
//! ```

mod action;
mod admission;
mod header;
mod herald;
mod holdings;
mod limits;
mod rate;
mod record;
mod runs;
mod salvage;
mod seqnos;
mod series;
mod session;
mod shield;
mod table;
mod verdict;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use debugnet_core::time::Instant;
use debugnet_core::wire::debugnet::{HERALD, MessageHeader};
use serde::Serialize;

pub use action::{Action, DumpFile, Fault, Notice, Reason, SessionId, Socket};
pub use header::{Compression, DumpHeader, HEADER_LEN, HeaderProblem, KeyInfo};
pub use herald::{Herald, HeraldPath, Identity, PATH_MAX_LEN};
pub use limits::Limits;
pub use record::{Basis, End, Note, RangeList, Record, Stats, Verdict};
pub use runs::{Full, RunMap, RunSet};
pub use salvage::Salvage;
pub use series::Series;

use rate::HeraldRate;
use session::{Context, Phase, Session};
use table::Table;

/// Numbers over all sessions, for datagrams that belong to none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counters {
    /// Heralds, copies included.
    pub heralds: u64,
    /// Heralds refused by a limit.
    pub refused_heralds: u64,
    /// Datagrams to the herald port that are no herald.
    pub stray: u64,
    /// Datagrams shorter than a header or with a wrong length field, on any socket.
    pub malformed: u64,
    /// Datagrams to a session's socket that did not come from its client.
    pub foreign: u64,
}

/// Where a session is, for those who watch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its herald is not yet answered.
    Opening,
    /// Answered; a dump only if the client goes on with it.
    Provisional,
    /// Taking messages.
    Receiving,
    /// FINISHED came; not yet acked.
    Finishing,
    /// Over; late retransmits are acked.
    Lingering,
}

/// A look at one session.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Its client.
    pub peer: SocketAddr,
    /// Who that says it is.
    pub identity: Identity,
    /// Where it is.
    pub state: State,
    /// When its herald came.
    pub started: Instant,
    /// Numbers.
    pub stats: Stats,
    /// One past the highest byte of the vmcore received.
    pub received_end: u64,
    /// Length of the image in bytes, once the client has told it.
    pub length: Option<u64>,
}

/// The protocol state of one server.
#[derive(Debug)]
pub struct Core {
    limits: Limits,
    table: Table,
    out: VecDeque<Action>,
    next_id: u64,
    counters: Counters,
    accepting: bool,
    heralds: HeraldRate,
}

impl Core {
    /// A server without sessions.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            table: Table::default(),
            out: VecDeque::new(),
            next_id: 1,
            counters: Counters::default(),
            accepting: true,
            heralds: HeraldRate::default(),
        }
    }

    /// Takes one datagram that came to `socket` from `from`, sent to our address `local`.
    ///
    /// The payload is not copied: a [`Action::Write`] holds a slice of `datagram`.
    /// Anything may be in it; what is no message of the protocol is counted.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        socket: Socket,
        from: SocketAddr,
        local: IpAddr,
        datagram: &Bytes,
    ) {
        match MessageHeader::parse(datagram) {
            Ok((header, _)) => {
                let payload = datagram.slice(MessageHeader::LEN..);
                self.handle_series(now, socket, from, local, &Series::new(header), payload);
            }
            Err(_) => self.handle_malformed(socket, from),
        }
    }

    /// Takes messages whose headers the caller has parsed: the same as
    /// [`Core::handle_datagram`] for each, at the price of one. `payload` is
    /// that of all, one behind the other, without headers; it is not copied.
    pub fn handle_series(
        &mut self,
        now: Instant,
        socket: Socket,
        from: SocketAddr,
        local: IpAddr,
        series: &Series,
        payload: Bytes,
    ) {
        debug_assert_eq!(payload.len() as u64, series.payload_len());
        match socket {
            Socket::Herald if series.first().kind.get() == HERALD => {
                self.counters.heralds += 1;
                self.herald(now, from, local, series.first(), &payload);
            }
            Socket::Herald => self.counters.stray += u64::from(series.count()),
            Socket::Session(id) => self.messages(now, id, from, series, payload),
        }
    }

    /// Takes note of a datagram that is no message.
    pub fn handle_malformed(&mut self, socket: Socket, from: SocketAddr) {
        self.counters.malformed += 1;
        if let Socket::Session(id) = socket
            && let Some(session) = self.table.get_mut(id)
            && session.peer == from
        {
            session.holdings.stats.malformed += 1;
        }
    }

    /// The next thing to do, or `None` until something else happens.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.out.pop_front()
    }

    /// When [`Core::handle_timeout`] is to be called, if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.table.next_deadline()
    }

    /// Ends what is over at `now`. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(id) = self.table.expired(now, &self.limits) {
            let limits = self.limits;
            let Some((session, mut context)) = self.session(now, id) else { continue };
            if now < session.idle_deadline(&limits) {
                session.silent(&mut context);
                continue;
            }
            match session.phase {
                Phase::Provisional => session.notice(Notice::ProvisionalExpired, &mut context),
                Phase::Ended { .. } | Phase::Finishing { .. } => {}
                _ => session.close(End::TimedOut, &mut context),
            }
            self.release(id);
        }
    }

    /// What came of [`Action::Bind`].
    pub fn bound(&mut self, now: Instant, session: SessionId, result: Result<(), Fault>) {
        let Some((state, mut context)) = self.session(now, session) else { return };
        match result {
            Ok(()) => state.bound(&mut context),
            Err(fault) => self.cannot_start(session, fault),
        }
    }

    /// What came of [`Action::Open`].
    pub fn opened(&mut self, now: Instant, session: SessionId, result: Result<(), Fault>) {
        let Some((state, mut context)) = self.session(now, session) else { return };
        match result {
            Ok(()) => state.opened(&mut context),
            Err(fault) if state.phase == Phase::Opening => self.cannot_start(session, fault),
            Err(fault) => state.open_failed(fault, &mut context),
        }
        self.rearm(session);
    }

    /// What came of the [`Action::Write`] that begins with this `seqno`. Its acks follow.
    ///
    /// A failure ends the dump for good: nothing new is acked, FINISHED never.
    pub fn written(
        &mut self,
        now: Instant,
        session: SessionId,
        seqno: u32,
        result: Result<(), Fault>,
    ) {
        self.written_together(now, session, &[seqno], result);
    }

    /// What came of several [`Action::Write`] that were carried out as one.
    pub fn written_together(
        &mut self,
        now: Instant,
        session: SessionId,
        seqnos: &[u32],
        result: Result<(), Fault>,
    ) {
        let Some((state, mut context)) = self.session(now, session) else { return };
        for seqno in seqnos {
            state.written(*seqno, result.clone(), &mut context);
        }
        self.rearm(session);
    }

    /// What came of the [`Action::RecordHeader`] with this `seqno`. Its ack follows.
    pub fn header_recorded(
        &mut self,
        now: Instant,
        session: SessionId,
        seqno: u32,
        result: Result<(), Fault>,
    ) {
        self.written(now, session, seqno, result);
    }

    /// What came of [`Action::Finish`]. The ack of FINISHED follows, if all is durable.
    pub fn finished(&mut self, now: Instant, session: SessionId, result: Result<(), Fault>) {
        let Some((state, mut context)) = self.session(now, session) else { return };
        state.finished(result, &mut context);
        self.rearm(session);
    }

    /// Whether heralds of new dumps are answered from now on. Running ones go on.
    pub fn set_accepting(&mut self, accepting: bool) {
        self.accepting = accepting;
    }

    /// Ends every dump that is not being finished, as if its client had fallen
    /// silent, and answers no herald any more.
    pub fn stop(&mut self, now: Instant) {
        self.accepting = false;
        for id in self.table.ids() {
            let Some((session, mut context)) = self.session(now, id) else { continue };
            if matches!(session.phase, Phase::Finishing { .. }) {
                continue;
            }
            if !matches!(session.phase, Phase::Ended { .. }) {
                session.close(End::Stopped, &mut context);
            }
            self.release(id);
        }
    }

    /// A look at one session.
    pub fn status(&self, session: SessionId) -> Option<Status> {
        self.table.get(session).map(status)
    }

    /// All sessions, in no order.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, Status)> + '_ {
        self.table.iter().map(|session| (session.id, status(session)))
    }

    /// Numbers over all sessions.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn messages(
        &mut self,
        now: Instant,
        id: SessionId,
        from: SocketAddr,
        series: &Series,
        payload: Bytes,
    ) {
        let Some(session) = self.table.get(id) else { return };
        if session.peer != from {
            self.counters.foreign += u64::from(series.count());
            return;
        }
        if session.is_answered_provisional() && series.first().kind.get() != HERALD {
            self.promote(now, id);
        }
        if let Some((session, mut context)) = self.session(now, id) {
            session.series(series, payload, &mut context);
        }
        self.rearm(id);
    }

    fn cannot_start(&mut self, id: SessionId, fault: Fault) {
        if let Some(peer) = self.table.get(id).map(|session| session.peer) {
            let notice = Notice::CannotStart(fault);
            self.out.push_back(Action::Notice { session: Some(id), peer, notice });
            self.release(id);
        }
    }

    fn release(&mut self, id: SessionId) {
        self.table.remove(id);
        self.out.push_back(Action::Release { session: id });
    }

    fn rearm(&mut self, id: SessionId) {
        self.table.rearm(id, &self.limits);
    }

    fn session(&mut self, now: Instant, id: SessionId) -> Option<(&mut Session, Context<'_>)> {
        let session = self.table.get_mut(id)?;
        Some((session, Context { now, limits: &self.limits, out: &mut self.out }))
    }
}

fn status(session: &Session) -> Status {
    Status {
        peer: session.peer,
        identity: session.holdings.identity,
        state: match session.phase {
            Phase::Opening => State::Opening,
            Phase::Provisional => State::Provisional,
            Phase::Receiving => State::Receiving,
            Phase::Draining { .. } | Phase::Finishing { .. } => State::Finishing,
            Phase::Ended { .. } => State::Lingering,
        },
        started: session.started,
        stats: session.holdings.stats,
        received_end: session.received_end(),
        length: session.length(),
    }
}
