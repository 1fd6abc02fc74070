//! Messages that a client sends in a row, taken as one.

use std::ops::Range;

use debugnet_core::wire::debugnet::{MessageHeader, VMCORE};

/// A message, or several in sequence whose payloads lie one behind the other in
/// the image: all of one size, the last perhaps shorter.
///
/// A batch of datagrams that came in order is handled once, and not once for
/// each of them.
#[derive(Clone, Copy, Debug)]
pub struct Series {
    first: MessageHeader,
    count: u32,
    /// Payload bytes of all.
    len: u64,
}

impl Series {
    /// A single message.
    pub fn new(header: MessageHeader) -> Self {
        Self { first: header, count: 1, len: header.len.get().into() }
    }

    /// Whether `next` is the next of them; if so it is one of them from here on.
    pub fn take(&mut self, next: &MessageHeader) -> bool {
        let piece_len = u64::from(self.first.len.get());
        let len = u64::from(next.len.get());
        let follows = self.first.kind.get() == VMCORE
            && next.kind.get() == VMCORE
            && next.seqno.get() == self.first.seqno.get().wrapping_add(self.count)
            && Some(next.offset.get()) == self.first.offset.get().checked_add(self.len)
            && self.len == u64::from(self.count) * piece_len
            && (1..=piece_len).contains(&len);
        if follows {
            self.count += 1;
            self.len += len;
        }
        follows
    }

    /// Messages in it.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Payload bytes in it.
    pub fn payload_len(&self) -> u64 {
        self.len
    }

    /// The header of the first.
    pub(super) fn first(&self) -> &MessageHeader {
        &self.first
    }

    /// Each message by itself: its header, and where its payload is in that of all.
    pub(super) fn messages(self) -> impl Iterator<Item = (MessageHeader, Range<usize>)> {
        let piece_len = u64::from(self.first.len.get());
        (0..self.count).map(move |n| {
            let start = u64::from(n) * piece_len;
            let len = piece_len.min(self.len - start);
            let mut header = self.first;
            header.seqno = self.first.seqno.get().wrapping_add(n).into();
            // The sum is the offset of a header that came: it does not overflow.
            header.offset = self.first.offset.get().saturating_add(start).into();
            header.len = (len as u32).into();
            (header, start as usize..(start + len) as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u32, seqno: u32, offset: u64, len: u32) -> MessageHeader {
        MessageHeader {
            kind: kind.into(),
            seqno: seqno.into(),
            offset: offset.into(),
            len: len.into(),
            aux2: 0.into(),
        }
    }

    #[test]
    fn it_comes_apart_as_it_was_put_together() {
        let all = [
            header(VMCORE, u32::MAX, 5000, 1448),
            header(VMCORE, 0, 6448, 1448),
            header(VMCORE, 1, 7896, 200),
        ];
        let mut series = Series::new(all[0]);
        assert!(series.take(&all[1]) && series.take(&all[2]));
        assert_eq!((series.count(), series.payload_len()), (3, 3096));
        let apart: Vec<_> = series.messages().collect();
        assert_eq!(apart.iter().map(|(header, _)| *header).collect::<Vec<_>>(), all);
        assert_eq!(
            apart.into_iter().map(|(_, range)| range).collect::<Vec<_>>(),
            [0..1448, 1448..2896, 2896..3096]
        );
        // Nothing follows a shorter one.
        assert!(!series.take(&header(VMCORE, 2, 8096, 200)));
    }

    #[test]
    fn only_what_follows_is_taken() {
        let first = header(VMCORE, 7, 4096, 1000);
        for (next, why) in [
            (header(VMCORE, 9, 5096, 1000), "a number is missing"),
            (header(VMCORE, 7, 5096, 1000), "the same number"),
            (header(VMCORE, 8, 5097, 1000), "bytes are missing"),
            (header(VMCORE, 8, 4096, 1000), "the same bytes"),
            (header(VMCORE, 8, 5096, 1001), "larger"),
            (header(VMCORE, 8, 5096, 0), "empty"),
            (header(debugnet_core::wire::debugnet::KDH, 8, 5096, 512), "another kind"),
        ] {
            assert!(!Series::new(first).take(&next), "{why}");
        }
        let other = header(debugnet_core::wire::debugnet::EKCD_KEY, 7, 4096, 1000);
        assert!(!Series::new(other).take(&header(VMCORE, 8, 5096, 1000)));
        let top = header(VMCORE, 7, u64::MAX - 10, 1000);
        assert!(!Series::new(top).take(&header(VMCORE, 8, 989, 1000)), "past the end of numbers");
    }
}
