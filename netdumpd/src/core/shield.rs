//! Keeps FreeBSD's client from fooling itself.
//!
//! That client sends up to 64 KiB as one burst of packets and waits until each
//! of them is acked. It keeps the acks as bits of a 64-bit set, but makes the
//! bit by shifting a 32-bit one: packet k and packet k + 32 of a burst share a
//! bit, and on 32-bit ARM packets from the 32nd on have none. If one of two such
//! partners is lost and the other is acked, the client takes both for received,
//! and the dump has a hole that nobody notices.
//!
//! Sequence numbers are contiguous, so this server sees the gap. It withholds
//! the ack of a packet as long as its partner is missing, or may be: then the
//! bit is not set, and after a second the client sends both again.
//!
//! Where a burst ends is seen by a packet shorter than the others, by 64 KiB
//! being full, or, where packets divide the block size, by a pause.
//!
//! It must do no harm to anyone else. It acts only while all that comes is what
//! such a client sends; the first thing that is not ends it for the session
//! ([`Shield::disarm`]). A packet that comes for the third time is acked,
//! whatever is missing.

mod chunk;

use debugnet_core::time::Instant;

use super::action::DumpFile;
use super::herald::{Herald, Identity};
use super::seqnos::Place;
use chunk::{Chunk, Misfit};

/// Receptions after which a withheld ack is given all the same.
const MAX_RECEPTIONS: u8 = 3;

/// Silence after which a burst that may be over is taken to be over. A client
/// sends it without a pause; this allows for slow lines.
const PAUSE_US: u64 = 50_000;

/// Silence after which a client that is not yet known to be a stock one gets
/// its acks whatever may be missing.
const UNSURE_US: u64 = 100_000;

/// A stock client sends again what was not acked after a second, and nothing before that.
const RETRANSMIT_US: u64 = 500_000;

/// Times that a client may go on sooner before it is taken for another one.
const MAX_STRIKES: u8 = 3;

/// What a message carries, as far as it matters here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Carried {
    /// Payload for a file.
    Payload { file: DumpFile, offset: u64, len: u64 },
    /// Anything else: a message that is a burst by itself.
    Single,
}

/// What a copy of a stored message gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Copied {
    /// Its ack.
    Ack,
    /// Nothing.
    Withhold,
    /// Its ack, although a partner is missing.
    FailOpen,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// No burst has been seen to its end.
    Unsure,
    /// The client has sent a burst as a stock client does, and waited for its acks.
    Armed,
    Off,
}

#[derive(Debug)]
pub(super) struct Shield {
    state: State,
    /// Payload of all packets of a burst but the last; 0 as long as it is not known.
    payload_len: u64,
    /// Number of the first packet of the next burst, or of the present one.
    base: Option<Place>,
    chunk: Option<Chunk>,
    strikes: u8,
    /// When the last packet was stored.
    last: Instant,
    /// When acks were given because of silence.
    opened: Option<Instant>,
}

impl Shield {
    /// For the client that sent this herald.
    pub(super) fn new(herald: &Herald, is_wanted: bool) -> Self {
        let state = match herald.identity {
            Identity::Stock if is_wanted => State::Unsure,
            _ => State::Off,
        };
        Self {
            state,
            payload_len: 0,
            base: None,
            chunk: None,
            strikes: 0,
            last: Instant::ZERO,
            opened: None,
        }
    }

    /// The first message after the herald is about to come: its number.
    pub(super) fn begin(&mut self, base: Place) {
        self.base.get_or_insert(base);
    }

    /// A message is stored. Its number, and others', are put to `due` if they may be acked now.
    pub(super) fn stored(
        &mut self,
        now: Instant,
        place: Place,
        carried: &Carried,
        due: &mut Vec<Place>,
    ) {
        let is_late = self.base.is_none_or(|base| place < base);
        if self.state == State::Off || is_late {
            due.push(place);
            return;
        }
        let paused_us = now.since_us(self.last);
        self.last = now;
        let (file, offset, len) = match carried {
            Carried::Payload { file, offset, len } => (*file, *offset, *len),
            Carried::Single => {
                // A burst of one: whatever was before is over.
                if self.is_withholding() {
                    self.disarm(due);
                } else {
                    (self.base, self.chunk) = (Some(place.saturating_add(1)), None);
                }
                due.push(place);
                return;
            }
        };
        let packet = chunk::Packet { place, file, offset, len };
        self.end_if_followed(&packet, paused_us, due);
        match self.place(now, &packet) {
            Ok(()) => self.settle(due),
            Err(Misfit) => {
                due.push(place);
                self.disarm(due);
            }
        }
    }

    /// A copy of a stored message came.
    pub(super) fn again(&mut self, now: Instant, place: Place) -> Copied {
        let Some(chunk) = self.chunk.as_mut() else { return Copied::Ack };
        let Some(receptions) = chunk.again(place) else { return Copied::Ack };
        self.last = now;
        if receptions < MAX_RECEPTIONS {
            return Copied::Withhold;
        }
        chunk.acked(place);
        Copied::FailOpen
    }

    /// Whether every ack is given at once, for the rest of the session.
    pub(super) fn is_off(&self) -> bool {
        self.state == State::Off
    }

    /// Acks withheld at the moment.
    pub(super) fn is_withholding(&self) -> bool {
        self.chunk.as_ref().is_some_and(Chunk::is_withholding)
    }

    /// When [`Self::timeout`] is to be called.
    pub(super) fn deadline(&self) -> Instant {
        match &self.chunk {
            Some(chunk) if chunk.is_withholding() => {
                if chunk.may_be_over() {
                    self.last.after(PAUSE_US)
                } else if self.state == State::Unsure && !chunk.is_near_aliases() {
                    self.last.after(UNSURE_US)
                } else {
                    Instant::NEVER
                }
            }
            _ => Instant::NEVER,
        }
    }

    /// The client is silent; `due` gets what may be acked now.
    pub(super) fn timeout(&mut self, now: Instant, due: &mut Vec<Place>) {
        if self.deadline() > now {
            return;
        }
        let Some(chunk) = self.chunk.as_mut() else { return };
        if chunk.may_be_over() {
            chunk.end_here();
            return self.settle(due);
        }
        // Not a stock client, or one whose last packet was lost: it sends that
        // again, and so short a burst has no partners.
        chunk.open(due);
        self.opened = Some(now);
    }

    /// Gives all acks, now and from now on.
    pub(super) fn disarm(&mut self, due: &mut Vec<Place>) {
        if let Some(mut chunk) = self.chunk.take() {
            chunk.open(due);
        }
        self.state = State::Off;
    }

    /// A client that has all its acks goes on at once with the next burst. Had
    /// this one more packets, they would come after a second.
    fn end_if_followed(&mut self, packet: &chunk::Packet, paused_us: u64, due: &mut Vec<Place>) {
        if let Some(chunk) = &mut self.chunk
            && chunk.is_all_acked()
            && chunk.may_be_over()
            && chunk.is_new(packet)
            && paused_us < RETRANSMIT_US
        {
            chunk.end_here();
            self.settle(due);
        }
    }

    /// Finds the packet's place in the present burst, or in the next.
    fn place(&mut self, now: Instant, packet: &chunk::Packet) -> Result<(), Misfit> {
        let base = self.base.ok_or(Misfit)?;
        if self.payload_len == 0 {
            self.payload_len = chunk::guess_payload_len(base, packet).ok_or(Misfit)?;
        }
        if let Some(chunk) = &mut self.chunk {
            if let Some(opened) = self.opened.take_if(|_| chunk.is_new(packet)) {
                if now.since_us(opened) >= RETRANSMIT_US {
                    chunk.close();
                } else {
                    // It did not wait for the second that a stock client waits.
                    self.strikes += 1;
                    if self.strikes >= MAX_STRIKES {
                        return Err(Misfit);
                    }
                }
            }
            if chunk.takes(packet) {
                return chunk.store(packet);
            }
            if chunk.is_withholding() {
                return Err(Misfit);
            }
            // The client believes that all of it was acked.
            let next = chunk.next_base(packet).ok_or(Misfit)?;
            self.base = Some(next);
        }
        self.opened = None;
        let mut chunk = Chunk::begin(self.base.ok_or(Misfit)?, self.payload_len, packet)?;
        let stored = chunk.store(packet);
        self.chunk = Some(chunk);
        stored
    }

    /// Gives the acks that can be given, and goes to the next burst if this one is complete.
    fn settle(&mut self, due: &mut Vec<Place>) {
        let Some(chunk) = &mut self.chunk else { return };
        chunk.release(due);
        if let Some(next) = chunk.complete() {
            // Who went on after acks given in doubt did not wait as a stock client does.
            if chunk.is_all_acked() {
                self.state = State::Armed;
            }
            (self.base, self.chunk, self.opened) = (Some(next), None, None);
        }
    }
}
