//! How a dump ends: FINISHED, or anything else, and the record of it.

use super::{Context, Phase, Session};
use crate::core::action::{Action, Fault, Reason};
use crate::core::holdings::Ending;
use crate::core::record::{End, Record, Verdict};
use crate::core::seqnos::Place;

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
            End::Interrupted => Reason::Interrupted,
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
        let place = self.holdings.seqnos.place(finished);
        self.holdings.seqnos.record(finished, None);
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
        self.holdings.record(Ending {
            peer: self.peer,
            end,
            finished,
            started: self.started,
            first_data: self.first_data,
            last_data: self.last_data,
            ended: context.now,
            max_dump_len: context.limits.max_dump_len,
        })
    }
}
