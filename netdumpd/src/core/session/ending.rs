//! How a dump ends: FINISHED, or anything else, and the record of it.

use super::{Context, Phase, Session};
use crate::core::action::{Action, Fault, Reason};
use crate::core::record::{End, Note, Record, Verdict};
use crate::core::seqnos::Place;
use crate::core::verdict::{self, Evidence};

impl Session {
    pub(in crate::core) fn finished(
        &mut self,
        result: Result<(), Fault>,
        context: &mut Context<'_>,
    ) {
        let Phase::Finishing { finished, reason } = self.phase else { return };
        match result {
            Ok(()) => {
                self.unacked_finish = None;
                self.reply(finished, context);
                self.handle(reason, context);
                context.out.push_back(Action::Digest { session: self.id });
                self.end(Some(finished), false, context);
            }
            Err(fault) => self.store_failed(fault, None, context),
        }
    }

    /// Ends the dump before FINISHED: the record is written and the script runs.
    pub(in crate::core) fn close(&mut self, end: End, context: &mut Context<'_>) {
        let reason = match end {
            End::TimedOut | End::Stopped => Reason::Timeout,
            End::Superseded | End::Finished => Reason::Incomplete,
            End::StoreFailed { .. } => Reason::Error,
        };
        self.pending.clear();
        if self.has_files {
            let record = Box::new(self.record(end, None, context));
            context.out.push_back(Action::Close { session: self.id, record });
            self.handle(reason, context);
        }
    }

    pub(super) fn finish_if_drained(&mut self, context: &mut Context<'_>) {
        let Phase::Draining { finished } = self.phase else { return };
        if !self.pending.is_empty() {
            return;
        }
        let place = self.seqnos.place(finished);
        self.seqnos.record(finished, None);
        let record = Box::new(self.record(End::Finished, Some(place), context));
        let reason = match record.verdict {
            Verdict::Complete => Reason::Success,
            _ => Reason::Incomplete,
        };
        self.phase = Phase::Finishing { finished, reason };
        context.out.push_back(Action::Finish { session: self.id, record });
    }

    /// From here on nothing new is acked, FINISHED least of all.
    pub(super) fn store_failed(
        &mut self,
        fault: Fault,
        offset: Option<u64>,
        context: &mut Context<'_>,
    ) {
        self.close(End::StoreFailed { message: fault.0, offset }, context);
        self.end(None, true, context);
    }

    pub(super) fn end(&mut self, finished: Option<u32>, failed: bool, context: &mut Context<'_>) {
        let until = context.now.after(context.limits.linger_us);
        self.phase = Phase::Ended { until, finished, failed };
        self.has_files = false;
    }

    fn handle(&self, reason: Reason, context: &mut Context<'_>) {
        context.out.push_back(Action::Handle { session: self.id, reason });
    }

    fn record(&mut self, end: End, finished: Option<Place>, context: &Context<'_>) -> Record {
        let length = self.length();
        let finding = verdict::judge(&Evidence {
            seqnos: &self.seqnos,
            coverage: &self.vmcore,
            coverage_overflowed: self.overflowed,
            herald: self.herald,
            finished,
            promised: self.identity.numbers_contiguously(),
            length,
        });
        let key_len = self.header.as_ref().filter(|header| header.is_encrypted());
        let key_is_whole =
            key_len.is_none_or(|header| self.key.contains(&(0..u64::from(header.key_size))));
        let is_compressed = self.header.as_ref().is_some_and(|header| header.is_compressed());
        let received_end = self.vmcore.end();
        for (is_so, note) in [
            (self.header.is_none(), Note::NoHeader),
            (!key_is_whole, Note::KeyIncomplete),
            (
                !is_compressed && length.is_some_and(|length| received_end > length),
                Note::BeyondLength,
            ),
            (self.overflowed || self.seqnos.overflowed(), Note::TrackingOverflowed),
        ] {
            if is_so {
                self.note(note);
            }
        }
        let verdict = match end {
            End::StoreFailed { .. } => Verdict::Failed,
            End::Finished if finding.complete && key_is_whole => Verdict::Complete,
            _ => Verdict::Incomplete,
        };
        // A header may claim any length: only a complete dump has a tail that
        // was not sent, and none may grow beyond the limit.
        let final_len = length.filter(|length| match is_compressed {
            true => *length < received_end,
            false => {
                verdict == Verdict::Complete
                    && *length > received_end
                    && *length <= context.limits.max_dump_len
            }
        });
        Record {
            peer: self.peer,
            verdict,
            end,
            basis: finding.basis,
            missing_seqnos: finding.missing_seqnos,
            holes: finding.holes,
            not_sent: finding.not_sent,
            received_end,
            final_len,
            header: self.header.clone(),
            key: self.key_info,
            notes: self.notes.clone(),
            stats: self.stats,
            started: self.started,
            first_data: self.first_data,
            last_data: self.last_data,
            ended: context.now,
        }
    }
}
