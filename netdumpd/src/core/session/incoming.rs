//! Payload and headers that come: what is new is written, and known as pending until it is.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use debugnet_core::wire::debugnet::MessageHeader;

use super::{Context, MAX_HEADERS, Pending, Phase, Session};
use crate::core::action::{Action, DumpFile, Notice};
use crate::core::header::{DumpHeader, KeyInfo};
use crate::core::limits::Limits;
use crate::core::record::Note;
use crate::core::series::Series;
use crate::core::shield::Carried;

impl Session {
    /// Messages from the client to this session's socket.
    pub(in crate::core) fn series(
        &mut self,
        series: &Series,
        payload: Bytes,
        context: &mut Context<'_>,
    ) {
        if series.count() == 1 {
            return self.message(series.first(), payload, context);
        }
        match self.range_of_new(series, context.limits) {
            Some(range) => {
                self.holdings.stats.messages += u64::from(series.count());
                self.last_activity = context.now;
                self.has_data = true;
                let seqno = series.first().seqno.get();
                self.write(seqno, series.count(), DumpFile::Vmcore, range, payload, context);
            }
            None => {
                for (header, range) in series.messages() {
                    self.message(&header, payload.slice(range), context);
                }
            }
        }
    }

    /// The place in the image of messages that need no look at each of them:
    /// all are new, none can be a header, and no ack is withheld.
    fn range_of_new(&self, series: &Series, limits: &Limits) -> Option<Range<u64>> {
        let seqnos = &self.holdings.seqnos;
        let start = series.first().offset.get();
        let end =
            start.checked_add(series.payload_len()).filter(|end| *end <= limits.max_dump_len)?;
        let is_plain = self.phase == Phase::Receiving
            && self.shield.is_off()
            && self.holdings.header.is_none()
            && seqnos.place(series.first().seqno.get())
                > self.highest_pending.max(seqnos.highest());
        is_plain.then_some(start..end)
    }

    pub(super) fn payload(
        &mut self,
        file: DumpFile,
        header: &MessageHeader,
        payload: Bytes,
        context: &mut Context<'_>,
    ) {
        let (seqno, offset) = (header.seqno.get(), header.offset.get());
        let limit = match file {
            DumpFile::Vmcore => context.limits.max_dump_len,
            DumpFile::Key => context.limits.max_key_len,
        };
        let range = match offset.checked_add(payload.len() as u64) {
            Some(end) if end <= limit => offset..end,
            _ => return self.refuse(offset, header.len.get(), context),
        };
        if self.is_pending(seqno) {
            self.holdings.stats.duplicates += 1;
            return;
        }
        if self.holdings.seqnos.contains(seqno) && self.holdings.covered(file).contains(&range) {
            return self.copy(seqno, file, range, context);
        }
        if file == DumpFile::Vmcore {
            self.holdings.look_for_header(offset, &payload);
        } else if offset == 0 && self.holdings.key_info.is_none() {
            self.holdings.key_info = KeyInfo::parse(&payload);
        }
        self.write(seqno, 1, file, range, payload, context);
    }

    /// Has the payloads of `count` messages in sequence written; they are new.
    fn write(
        &mut self,
        seqno: u32,
        count: u32,
        file: DumpFile,
        range: Range<u64>,
        payload: Bytes,
        context: &mut Context<'_>,
    ) {
        self.first_data.get_or_insert(context.now);
        self.last_data = Some(context.now);
        let (session, offset) = (self.id, range.start);
        self.pend(seqno, count, Pending::Payload { file, count, range });
        context.out.push_back(Action::Write { session, seqno, count, file, offset, payload });
    }

    fn pend(&mut self, seqno: u32, count: u32, pending: Pending) {
        let place = self.holdings.seqnos.place(seqno);
        let last = place.saturating_add(u64::from(count.saturating_sub(1)));
        self.highest_pending = self.highest_pending.max(last);
        self.pending.insert(place, pending);
    }

    fn is_pending(&self, seqno: u32) -> bool {
        let place = self.holdings.seqnos.place(seqno);
        self.pending.range(..=place).next_back().is_some_and(|(first, pending)| match pending {
            Pending::Payload { count, .. } => place < first.saturating_add(u64::from(*count)),
            Pending::Header => place == *first,
        })
    }

    pub(super) fn dump_header(&mut self, seqno: u32, payload: &Bytes, context: &mut Context<'_>) {
        if self.is_pending(seqno) {
            self.holdings.stats.duplicates += 1;
            return;
        }
        let header = DumpHeader::parse(payload).map(Arc::new);
        let known = self.holdings.header.as_ref();
        let is_copy = header.is_some() && known == header.as_ref();
        let is_settled = known.is_some_and(|header| header.is_sound());
        if header.is_none() {
            self.holdings.note(Note::ShortHeader);
        } else if is_settled && !is_copy {
            self.holdings.note(Note::ConflictingHeader);
        }
        if is_copy || is_settled || self.headers_recorded >= MAX_HEADERS {
            if self.holdings.seqnos.contains(seqno) {
                return self.duplicate(seqno, context);
            }
            self.holdings.seqnos.record(seqno, None);
            return self.ack_stored(seqno, 1, &Carried::Single, context);
        }
        if header.is_some() {
            self.holdings.header.clone_from(&header);
        }
        self.headers_recorded += 1;
        self.pend(seqno, 1, Pending::Header);
        context.out.push_back(Action::RecordHeader { session: self.id, seqno, header });
    }

    fn refuse(&mut self, offset: u64, len: u32, context: &mut Context<'_>) {
        self.holdings.stats.refused += 1;
        if !self.refusal_told {
            self.refusal_told = true;
            self.notice(Notice::OffsetRefused { offset, len }, context);
        }
    }
}
