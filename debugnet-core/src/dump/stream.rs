//! [`ImageStream`]: the image as a transform reads it.

use super::{DumpSource, Extent, Gap, Gaps, ReadFault, Reason, Stability};
use crate::addr::{PhysAddr, PhysRange};
use crate::count::add_to;

/// What is taken to be unreadable with its first byte, and aligned.
pub(super) const FAULT_LEN: u64 = 4096;

/// How far a stream has been read, and what of it could not be.
#[derive(Debug)]
pub struct StreamState {
    /// What is left of the current extent.
    rest: Extent,
    /// Offset in the image of the next byte.
    pub(crate) at: u64,
    /// Bytes of RAM read.
    pub(crate) bytes_read: u64,
    pub(crate) unreadable: Gaps,
    pub(crate) fault: Option<ReadFault>,
}

impl StreamState {
    pub(crate) const START: Self =
        Self { rest: Extent::NONE, at: 0, bytes_read: 0, unreadable: Gaps::new(), fault: None };
}

impl Default for StreamState {
    fn default() -> Self {
        Self::START
    }
}

/// The image from its first byte to its last, as one stream for a [`Transform`](super::Transform).
///
/// What is in no extent, redacted, or cannot be read, reads as zeros; the latter two are
/// listed in [`Outcome::not_sent`](super::Outcome::not_sent).
pub struct ImageStream<'a> {
    source: &'a mut dyn DumpSource,
    state: &'a mut StreamState,
    len: u64,
}

impl<'a> ImageStream<'a> {
    /// `len` bytes of the source, which has been rewound in order. The dump makes them; a
    /// transform's tests can, too.
    pub fn new(source: &'a mut dyn DumpSource, state: &'a mut StreamState, len: u64) -> Self {
        Self { source, state, len }
    }

    /// The next bytes: how many, and 0 only at the end (or if `into` is empty).
    pub fn read(&mut self, into: &mut [u8]) -> usize {
        // Each turn but the last leaves an extent behind.
        loop {
            let at = self.state.at;
            let left = self.len.saturating_sub(at);
            if left == 0 || into.is_empty() {
                return 0;
            }
            let rest = self.state.rest;
            if rest.range.is_empty() {
                match self.source.next() {
                    Some(next) if next.stability == Stability::Redacted => {}
                    Some(next) => self.state.rest = next,
                    // The list is shorter than it was: zeros to the end.
                    None => return self.zeros(into, left),
                }
            } else if rest.offset > at {
                return self.zeros(into, left.min(rest.offset.saturating_sub(at)));
            } else if rest.offset < at {
                self.leave_behind(at.saturating_sub(rest.offset));
            } else {
                return self.extent(into);
            }
        }
    }

    fn zeros(&mut self, into: &mut [u8], most: u64) -> usize {
        let len = into.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        into.iter_mut().take(len).for_each(|byte| *byte = 0);
        add_to(&mut self.state.at, len as u64);
        len
    }

    /// Bytes of the current extent, which begins here.
    fn extent(&mut self, into: &mut [u8]) -> usize {
        let Extent { offset, range, stability } = self.state.rest;
        let len = into.len().min(usize::try_from(range.len()).unwrap_or(usize::MAX));
        let into = into.get_mut(..len).unwrap_or(&mut []);
        let mut done = len;
        if let Err(fault) = self.fill(offset, range.start(), stability, into) {
            let before = fault.at.0.saturating_sub(range.start().0);
            let before = usize::try_from(before).unwrap_or(usize::MAX);
            let readable = into.get_mut(..before).unwrap_or(&mut []);
            done = readable.len();
            // What lies in front of the fault first.
            if done == 0 || self.fill(offset, range.start(), stability, readable).is_err() {
                done = self.cannot_read(fault, offset, range, into);
            }
        }
        let done_len = done as u64;
        self.leave_behind(done_len);
        add_to(&mut self.state.at, done_len);
        if stability != Stability::Generated {
            add_to(&mut self.state.bytes_read, done_len);
        }
        done
    }

    fn fill(
        &mut self,
        offset: u64,
        at: PhysAddr,
        stability: Stability,
        into: &mut [u8],
    ) -> Result<(), ReadFault> {
        match stability {
            Stability::Generated => self.source.generate(offset, into),
            _ => self.source.read(at, into),
        }
    }

    /// Zeros to the end of the page.
    fn cannot_read(
        &mut self,
        fault: ReadFault,
        offset: u64,
        range: PhysRange,
        into: &mut [u8],
    ) -> usize {
        let to_page = FAULT_LEN.saturating_sub(range.start().0 & (FAULT_LEN - 1));
        let len = into.len().min(to_page as usize);
        into.iter_mut().take(len).for_each(|byte| *byte = 0);
        self.state.fault.get_or_insert(fault);
        let reason = Reason::Unreadable;
        self.state.unreadable.add(Gap { offset, len: len as u64, reason });
        len
    }

    fn leave_behind(&mut self, len: u64) {
        let rest = &mut self.state.rest;
        let (gone, range) = rest.range.split_at(len);
        rest.range = range;
        add_to(&mut rest.offset, gone.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::ReadRam;

    struct Source(Vec<Extent>, usize);

    impl DumpSource for Source {
        fn next(&mut self) -> Option<Extent> {
            self.1 += 1;
            self.0.get(self.1 - 1).copied()
        }
        fn rewind(&mut self) {
            self.1 = 0;
        }
        fn generate(&mut self, offset: u64, into: &mut [u8]) -> Result<(), ReadFault> {
            into.fill(offset as u8 + 1);
            Ok(())
        }
    }

    /// One page faults.
    impl ReadRam for Source {
        fn read(&mut self, at: PhysAddr, into: &mut [u8]) -> Result<(), ReadFault> {
            let bad = PhysRange::new(PhysAddr(0x2000), 0x1000).unwrap();
            if PhysRange::new(at, into.len() as u64).unwrap().overlaps(bad) {
                return Err(ReadFault { at: at.max(bad.start()) });
            }
            into.fill(0xaa);
            Ok(())
        }
    }

    #[test]
    fn holes_and_what_cannot_be_read_are_zeros() {
        let extent = |offset, start, len, stability| Extent {
            offset,
            range: PhysRange::new(PhysAddr(start), len).unwrap(),
            stability,
        };
        let extents = vec![
            extent(0, 0, 10, Stability::Generated),
            extent(100, 0x1f00, 0x2000, Stability::Frozen),
            extent(0x3000, 0x5000, 16, Stability::Redacted),
            extent(0x4000, 0x6000, 4, Stability::Volatile),
        ];
        let mut expected = vec![0; 0x4004];
        expected[..10].fill(1);
        expected[100..0x2064].fill(0xaa);
        expected[100 + 0x100..100 + 0x1100].fill(0);
        expected[0x4000..].fill(0xaa);
        for piece in [10, 1000, 5000] {
            let mut source = Source(extents.clone(), 0);
            let mut state = StreamState::START;
            let mut stream = ImageStream::new(&mut source, &mut state, 0x4004);
            let (mut bytes, mut buffer) = (Vec::new(), vec![0xee; piece]);
            loop {
                match stream.read(&mut buffer) {
                    0 => break,
                    len => bytes.extend_from_slice(&buffer[..len]),
                }
            }
            assert!(bytes == expected, "in pieces of {piece}");
            let gap = Gap { offset: 100 + 0x100, len: 0x1000, reason: Reason::Unreadable };
            assert_eq!(state.unreadable.list(), [gap]);
            assert_eq!(state.fault, Some(ReadFault { at: PhysAddr(0x2000) }));
        }
    }
}
