//! Which acks are given, and when.

use std::ops::Range;

use debugnet_core::wire::debugnet::{Ack, EKCD_KEY, MessageHeader, VMCORE};

use super::{Context, Session};
use crate::core::action::{Action, DumpFile};
use crate::core::shield::{Carried, Copied};

impl Session {
    /// `count` messages in sequence are stored: acked, or withheld, and others may be acked now.
    pub(super) fn ack_stored(
        &mut self,
        seqno: u32,
        count: u32,
        carried: &Carried,
        context: &mut Context<'_>,
    ) {
        if self.shield.is_off() {
            for n in 0..count {
                self.reply(seqno.wrapping_add(n), context);
            }
            return;
        }
        // Several are taken as one only once nothing is withheld any more.
        debug_assert_eq!(count, 1);
        let place = self.holdings.seqnos.place(seqno);
        self.shield.stored(context.now, place, carried, &mut self.due);
        if !self.due.contains(&place) {
            self.holdings.stats.withheld += 1;
        }
        self.reply_due(context);
    }

    /// A copy of a stored message came.
    pub(super) fn copy(
        &mut self,
        seqno: u32,
        file: DumpFile,
        range: Range<u64>,
        context: &mut Context<'_>,
    ) {
        match self.shield.again(context.now, self.holdings.seqnos.place(seqno)) {
            Copied::Ack => {}
            Copied::Withhold => {
                self.holdings.stats.duplicates += 1;
                return;
            }
            Copied::FailOpen if file == DumpFile::Vmcore => self.holdings.suspect(range),
            Copied::FailOpen => {}
        }
        self.duplicate(seqno, context);
    }

    /// Nothing came for a while.
    pub(in crate::core) fn silent(&mut self, context: &mut Context<'_>) {
        self.shield.timeout(context.now, &mut self.due);
        self.reply_due(context);
    }

    /// Gives the acks that are withheld, and withholds none any more.
    pub(super) fn lower_shield(&mut self, context: &mut Context<'_>) {
        self.shield.disarm(&mut self.due);
        self.reply_due(context);
    }

    fn reply_due(&mut self, context: &mut Context<'_>) {
        let mut due = std::mem::take(&mut self.due);
        for place in due.drain(..) {
            self.reply(place as u32, context);
        }
        self.due = due;
    }

    pub(super) fn ack_owed_herald(&mut self, context: &mut Context<'_>) {
        if let Some(seqno) = self.owed_herald.take() {
            self.ack_herald(seqno, context);
        }
    }

    pub(super) fn ack_herald(&mut self, seqno: u32, context: &mut Context<'_>) {
        if !self.has_data {
            self.holdings.herald(seqno);
        }
        self.reply(seqno, context);
    }

    /// Acks what has been acked before, and nothing else.
    pub(super) fn repeat_ack(&mut self, header: &MessageHeader, context: &mut Context<'_>) {
        let (seqno, start) = (header.seqno.get(), header.offset.get());
        let range = start.checked_add(u64::from(header.len.get())).map(|end| start..end);
        let is_stored = match header.kind.get() {
            VMCORE => range.is_some_and(|range| self.holdings.vmcore.contains(&range)),
            EKCD_KEY => range.is_some_and(|range| self.holdings.key.contains(&range)),
            _ => true,
        };
        if is_stored && self.holdings.seqnos.contains(seqno) && self.unacked_finish != Some(seqno) {
            self.duplicate(seqno, context);
        } else {
            self.holdings.stats.refused += 1;
        }
    }

    pub(super) fn duplicate(&mut self, seqno: u32, context: &mut Context<'_>) {
        self.holdings.stats.duplicates += 1;
        self.reply(seqno, context);
    }

    pub(super) fn reply(&mut self, seqno: u32, context: &mut Context<'_>) {
        self.holdings.stats.acks += 1;
        let (session, peer, ack) = (self.id, self.peer, Ack::new(seqno));
        context.out.push_back(Action::Reply { session, peer, ack });
    }
}
