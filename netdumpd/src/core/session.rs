//! One dump: messages in, actions out.

mod acks;
mod ending;
mod incoming;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;

use bytes::Bytes;
use debugnet_core::time::Instant;
use debugnet_core::wire::debugnet::{EKCD_KEY, FINISHED, HERALD, KDH, MessageHeader, VMCORE};

use super::action::{Action, DumpFile, Fault, Notice, Reason, SessionId};
use super::herald::{Herald, HeraldPath, Identity};
use super::holdings::Holdings;
use super::limits::Limits;
use super::seqnos::Place;
use super::shield::{Carried, Shield};

/// Kernel dump headers written to one info file: a client that sends ever new ones must not fill it.
const MAX_HEADERS: u32 = 4;

/// Where a session is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Socket and files are being opened; the herald is not yet answered.
    Opening,
    /// It has a socket and no files: its herald came while another dump of the same client ran.
    Provisional,
    /// Messages are taken.
    Receiving,
    /// FINISHED came; writes are still under way.
    Draining { finished: u32 },
    /// The files are being made durable.
    Finishing { finished: u32, reason: Reason },
    /// Files are closed. What was acked is acked again. `finished` is FINISHED's number, if it was acked.
    Ended { until: Instant, finished: Option<u32>, failed: bool },
}

#[derive(Debug)]
enum Pending {
    /// Of so many messages in sequence.
    Payload {
        file: DumpFile,
        count: u32,
        range: Range<u64>,
    },
    Header,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) peer: SocketAddr,
    pub(super) phase: Phase,
    pub(super) holdings: Holdings,
    shield: Shield,
    /// Acks that are due, for a moment.
    due: Vec<Place>,
    pub(super) started: Instant,
    path: HeraldPath,
    bound: bool,
    has_files: bool,
    has_data: bool,
    owed_herald: Option<u32>,
    /// What is being written, by the number of its first message.
    pending: BTreeMap<Place, Pending>,
    /// The highest number that was ever pending.
    highest_pending: Place,
    /// FINISHED's number from its arrival until it is acked.
    unacked_finish: Option<u32>,
    headers_recorded: u32,
    refusal_told: bool,
    last_activity: Instant,
    first_data: Option<Instant>,
    last_data: Option<Instant>,
}

/// What a session works with: the time, the limits, and where its actions go.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) limits: &'a Limits,
    pub(super) out: &'a mut VecDeque<Action>,
}

impl Session {
    /// A session for a herald that has just come.
    pub(super) fn new(
        id: SessionId,
        peer: SocketAddr,
        header: &MessageHeader,
        path: HeraldPath,
        provisional: bool,
        context: &Context<'_>,
    ) -> Self {
        let seqno = header.seqno.get();
        let herald = Herald { seqno, identity: Identity::of(header) };
        let mut holdings = Holdings::new(herald, context.limits);
        holdings.stats.messages = 1;
        Self {
            id,
            peer,
            phase: if provisional { Phase::Provisional } else { Phase::Opening },
            holdings,
            shield: Shield::new(&herald, context.limits.shield),
            due: Vec::new(),
            started: context.now,
            path,
            bound: false,
            has_files: false,
            has_data: false,
            owed_herald: Some(seqno),
            pending: BTreeMap::new(),
            highest_pending: 0,
            unacked_finish: None,
            headers_recorded: 0,
            refusal_told: false,
            last_activity: context.now,
            first_data: None,
            last_data: None,
        }
    }

    /// Whether a herald of the same identity is a copy of this session's own.
    pub(super) fn is_meant_by(&self, identity: Identity) -> bool {
        match identity {
            Identity::Ours { .. } => self.holdings.identity == identity,
            // A stock client's next herald looks like its last: before any
            // data there is nothing to lose by taking it for a copy.
            Identity::Stock => {
                self.holdings.identity == Identity::Stock
                    && !self.has_data
                    && matches!(self.phase, Phase::Opening | Phase::Provisional | Phase::Receiving)
            }
        }
    }

    /// When something is to be done if nothing comes.
    pub(super) fn deadline(&self, limits: &Limits) -> Instant {
        let idle = self.idle_deadline(limits);
        // What is still being written has come: a slow disk is not a silent client.
        if self.phase == Phase::Receiving && self.pending.is_empty() {
            idle.min(self.shield.deadline())
        } else {
            idle
        }
    }

    /// When it is over if nothing comes.
    pub(super) fn idle_deadline(&self, limits: &Limits) -> Instant {
        match self.phase {
            Phase::Provisional => self.last_activity.after(limits.provisional_us),
            Phase::Opening | Phase::Receiving | Phase::Draining { .. } => {
                self.last_activity.after(limits.idle_us)
            }
            Phase::Finishing { .. } => Instant::NEVER,
            Phase::Ended { until, .. } => until,
        }
    }

    /// Whether it is a dump under way, which a new one of the same client would replace.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Opening | Phase::Receiving)
    }

    /// Whether the client knows of this session, but has not said anything in it.
    pub(super) fn is_answered_provisional(&self) -> bool {
        self.bound && self.phase == Phase::Provisional
    }

    /// One past the highest byte of the vmcore received.
    pub(super) fn received_end(&self) -> u64 {
        self.holdings.vmcore.end()
    }

    /// Length of the image, once a sound header has told it.
    pub(super) fn length(&self) -> Option<u64> {
        self.holdings.length()
    }

    /// Another herald of this session: a copy, or a further fragment of a long path.
    pub(super) fn herald_again(&mut self, seqno: u32, context: &mut Context<'_>) {
        self.holdings.stats.messages += 1;
        self.holdings.stats.duplicates += 1;
        self.last_activity = context.now;
        match self.phase {
            Phase::Ended { failed: true, .. } => {}
            Phase::Opening => self.owed_herald = Some(seqno),
            Phase::Provisional if !self.bound => self.owed_herald = Some(seqno),
            _ => self.ack_herald(seqno, context),
        }
    }

    pub(super) fn bound(&mut self, context: &mut Context<'_>) {
        if self.bound {
            return;
        }
        self.bound = true;
        match self.phase {
            Phase::Provisional => self.ack_owed_herald(context),
            _ => self.open(context),
        }
    }

    pub(super) fn opened(&mut self, context: &mut Context<'_>) {
        if self.phase == Phase::Opening {
            self.phase = Phase::Receiving;
            self.ack_owed_herald(context);
        }
    }

    /// The files could not be opened after the client had begun to send.
    pub(super) fn open_failed(&mut self, fault: Fault, context: &mut Context<'_>) {
        self.notice(Notice::CannotStart(fault), context);
        self.pending.clear();
        self.end(None, true, context);
    }

    /// A provisional session becomes the client's dump.
    pub(super) fn promote(&mut self, context: &mut Context<'_>) {
        self.phase = Phase::Receiving;
        self.open(context);
    }

    /// A message from the client to this session's socket.
    fn message(&mut self, header: &MessageHeader, payload: Bytes, context: &mut Context<'_>) {
        self.holdings.stats.messages += 1;
        self.last_activity = context.now;
        let seqno = header.seqno.get();
        let kind = header.kind.get();
        match self.phase {
            Phase::Opening | Phase::Provisional => {}
            Phase::Receiving => {
                if kind != HERALD {
                    self.has_data = true;
                    self.shield.begin(self.holdings.seqnos.runs().end());
                }
                match kind {
                    HERALD => self.repeat_ack(header, context),
                    VMCORE => self.payload(DumpFile::Vmcore, header, payload, context),
                    EKCD_KEY => self.payload(DumpFile::Key, header, payload, context),
                    KDH => self.dump_header(seqno, &payload, context),
                    FINISHED => {
                        self.unacked_finish = Some(seqno);
                        self.lower_shield(context);
                        self.phase = Phase::Draining { finished: seqno };
                        self.finish_if_drained(context);
                    }
                    _ => self.holdings.stats.unknown += 1,
                }
            }
            Phase::Draining { .. } | Phase::Finishing { .. } => match kind {
                FINISHED => self.holdings.stats.duplicates += 1,
                _ => self.repeat_ack(header, context),
            },
            Phase::Ended { finished, failed, .. } => match kind {
                FINISHED if finished == Some(seqno) => self.duplicate(seqno, context),
                FINISHED => self.holdings.stats.refused += 1,
                HERALD if failed => {}
                _ => self.repeat_ack(header, context),
            },
        }
    }

    pub(super) fn written(
        &mut self,
        seqno: u32,
        result: Result<(), Fault>,
        context: &mut Context<'_>,
    ) {
        match (self.pending.remove(&self.holdings.seqnos.place(seqno)), result) {
            (None, _) => {}
            (Some(Pending::Payload { file, count, range }), Ok(())) => {
                self.holdings.payload(file, seqno, count, &range);
                let (offset, len) = (range.start, range.end - range.start);
                self.ack_stored(seqno, count, &Carried::Payload { file, offset, len }, context);
                self.finish_if_drained(context);
            }
            (Some(Pending::Header), Ok(())) => {
                self.holdings.seqnos.record(seqno, None);
                self.ack_stored(seqno, 1, &Carried::Single, context);
                self.finish_if_drained(context);
            }
            (Some(pending), Err(fault)) => {
                let offset = match pending {
                    Pending::Payload { range, .. } => Some(range.start),
                    Pending::Header => None,
                };
                self.store_failed(fault, offset, context);
            }
        }
    }

    pub(super) fn notice(&self, notice: Notice, context: &mut Context<'_>) {
        context.out.push_back(Action::Notice { session: Some(self.id), peer: self.peer, notice });
    }

    fn open(&mut self, context: &mut Context<'_>) {
        self.has_files = true;
        if self.path == HeraldPath::Unusable {
            self.notice(Notice::UnusablePath, context);
        }
        let (session, peer, path) = (self.id, self.peer, self.path.clone());
        let Holdings { herald, identity, .. } = self.holdings;
        let herald = Herald { seqno: herald as u32, identity };
        context.out.push_back(Action::Open { session, peer, path, herald });
    }
}
