//! How an attempt ends: what went wrong, and the truth about the rest.

use super::attempt::BATCH;
use super::{Dump, Io, Phase};
use crate::dump::{Failure, FailureKind, Gap, Outcome, Reason, Verdict};
use crate::nic::Nic;
use crate::observer::Event;
use crate::progress::Stage;
use crate::session::{Counters, Slot, Stored};
use crate::time::Instant;
use crate::wire::debugnet;

/// Steps of counting the image's extents where no NIC can be waited for meanwhile.
const SURVEY_MAX: u32 = 65_536;

impl Dump<'_, '_> {
    /// Records what went wrong with the oldest message in the air.
    pub(super) fn fail(&mut self, now: Instant, kind: FailureKind, io: &mut Io<'_>) {
        let oldest = self
            .client
            .as_ref()
            .filter(|_| !matches!(kind, FailureKind::Read(_)))
            .and_then(|client| client.session.unacked_slots().find(|slot| slot.tries != 0));
        let address = match (kind, oldest.map(|slot| slot.message.stored)) {
            (FailureKind::Read(fault), _) => Some(fault.at),
            (_, Some(Stored::Range(range))) => Some(range.start()),
            _ => None,
        };
        let failure = Failure {
            kind,
            stage: self.stage,
            address,
            offset: oldest.map(|slot| slot.message.offset),
            seqno: oldest.map(|slot| slot.seqno),
            tries: oldest.map_or(0, |slot| slot.tries),
        };
        self.failure.get_or_insert(failure);
        io.progress.set_failed();
        io.observer.event(now, &Event::Failure(failure));
    }

    pub(super) fn without_nic(&mut self, index: usize, io: &mut Io<'_>) {
        let now = self.time.now(io.clock);
        self.begun = Some(now);
        self.started.get_or_insert(now);
        for _ in 0..SURVEY_MAX {
            if self.dumper.survey(io.source, io.transform.is_some(), BATCH) {
                break;
            }
        }
        self.fail(now, FailureKind::NoNic { index }, io);
        self.conclude(now, Verdict::Failed, io, true);
    }

    /// Quiets the NIC, settles who owns the cells, and tells the truth.
    pub(super) fn finish(
        &mut self,
        now: Instant,
        nic: &mut dyn Nic,
        io: &mut Io<'_>,
        verdict: Verdict,
    ) {
        let stopped = nic.stop();
        match stopped {
            Ok(()) => *self.in_use = false,
            Err(error) => {
                // The cells are settled when the next target begins.
                if self.failure.is_none() {
                    self.fail(now, FailureKind::Nic(error), io);
                }
            }
        }
        self.conclude(now, verdict, io, stopped.is_ok());
        self.phase = Phase::Over;
        self.over = true;
    }

    /// Writes the outcome, in place.
    fn conclude(&mut self, now: Instant, verdict: Verdict, io: &mut Io<'_>, nic_stopped: bool) {
        let outcome = &mut *self.outcome;
        let Outcome { holes, not_sent, .. } = outcome;
        holes.clear();
        // What could not be read when it was queued, and when it was to be copied.
        not_sent.clear();
        not_sent.join(&self.dumper.not_sent);
        not_sent.join(&self.dumper.stream.unreadable);
        not_sent.join(&self.transmitter.unreadable);
        let mut counters = Counters::default();
        if verdict == Verdict::Failed {
            if let Some(client) = &self.client {
                for Slot { message, .. } in client.session.unacked_slots() {
                    if message.kind == debugnet::VMCORE {
                        holes.add(Gap {
                            offset: message.offset,
                            len: u64::from(message.len),
                            reason: Reason::Unacknowledged,
                        });
                    }
                }
            }
            self.dumper.remaining(io.source, io.transform.is_some(), holes);
        }
        let mut bad_checksums = 0;
        if let Some(client) = &self.client {
            counters = client.session.counters();
            bad_checksums = client.bad_checksums();
        }
        io.observer.event(now, &Event::Finished(verdict));
        let stage = self.stage;
        io.progress.set_stage(Stage::Done);
        outcome.verdict = verdict;
        outcome.failure = self.failure;
        outcome.target = self.index;
        outcome.targets_tried = 1;
        outcome.stage = stage;
        outcome.image_len = self.dumper.image_len;
        outcome.dump_bytes = self.dumper.dump_bytes;
        outcome.sent_bytes =
            self.dumper.sent_bytes.saturating_sub(self.transmitter.unreadable.bytes());
        outcome.acked_bytes = self.dumper.acked_bytes;
        outcome.zero_bytes = self.dumper.zero_bytes;
        outcome.messages = counters.messages;
        outcome.transmissions = counters.transmissions;
        outcome.retransmits = counters.retransmits;
        outcome.bad_checksums = bad_checksums;
        outcome.stale_acks = counters.stale_acks;
        outcome.bytes_read = self
            .dumper
            .bytes_read
            .saturating_add(self.dumper.stream.bytes_read)
            .saturating_add(self.transmitter.bytes_read);
        outcome.bytes_copied =
            self.dumper.bytes_copied.saturating_add(self.transmitter.bytes_copied);
        outcome.cells_high_water = self.pool.high_water();
        outcome.elapsed_us = now.since_us(self.begun.unwrap_or(now));
        outcome.data_us = self.last_data.since_us(self.first_data.unwrap_or(self.last_data));
        outcome.nic_stopped = nic_stopped;
    }
}
