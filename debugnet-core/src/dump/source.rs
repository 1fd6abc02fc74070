//! Where the bytes come from.
//!
//! Dumped RAM is never a `&[u8]`: it contains the dump's own stack and the
//! NIC's rings, and a reference to it would be undefined behaviour. The core
//! holds addresses; bytes are read by the platform's [`ReadRam`] (with
//! volatile loads) or by the device.

use super::ImageStream;
use crate::addr::{PhysAddr, PhysRange};
use crate::wire::checksum::Sum;

/// Where the bytes of an extent come from, and whether they hold still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Stability {
    /// RAM that nothing writes to any more: the device fetches it from where it is.
    Frozen,
    /// RAM that the dump itself writes to (stack, rings, window): it is copied to a
    /// cell first, so that checksum and transmission see the same bytes.
    Volatile,
    /// No RAM: headers and notes, which [`DumpSource::generate`] writes into a cell.
    /// [`Extent::range`] then starts at the extent's offset in the image.
    Generated,
    /// RAM that the policy keeps out: never read nor sent, and listed in
    /// [`Outcome::not_sent`](super::Outcome::not_sent).
    Redacted,
}

/// A part of the image: where it lies in it, and what it is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Extent {
    /// Offset of the first byte in the image.
    pub offset: u64,
    /// Where it is in RAM.
    pub range: PhysRange,
    /// What it is made of.
    pub stability: Stability,
}

impl Extent {
    /// No part of any image.
    pub(crate) const NONE: Self =
        Self { offset: 0, range: PhysRange::EMPTY, stability: Stability::Frozen };
}

/// A read that faulted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ReadFault {
    /// The first address that could not be read.
    pub at: PhysAddr,
}

/// The way to read RAM, after the crash: the platform's.
///
/// It must survive whatever the caller's list of RAM says: a page that faults,
/// or raises a machine check, is a [`ReadFault`].
pub trait ReadRam {
    /// Copies `into.len()` bytes from `at`, with volatile loads.
    ///
    /// # Errors
    /// [`ReadFault`] where memory cannot be read; the rest of `into` is then undefined.
    fn read(&mut self, at: PhysAddr, into: &mut [u8]) -> Result<(), ReadFault>;

    /// The folded, uncomplemented ones' complement sum of the range's
    /// big-endian words (RFC 1071) from its start; an odd last byte is padded
    /// with zero on the right. Override it with wide volatile loads: without
    /// checksum offload it is the hot path.
    ///
    /// # Errors
    /// [`ReadFault`] as for [`ReadRam::read`].
    fn sum(&mut self, range: PhysRange) -> Result<u16, ReadFault> {
        let mut sum = Sum::ZERO;
        in_pieces(self, range, |piece| {
            sum = sum.and(piece);
            true
        })?;
        Ok(sum.folded())
    }

    /// How many bytes from the start of the range are zero. Override it as [`ReadRam::sum`].
    ///
    /// # Errors
    /// [`ReadFault`] as for [`ReadRam::read`].
    fn zero_prefix(&mut self, range: PhysRange) -> Result<u64, ReadFault> {
        let mut zeros = 0u64;
        in_pieces(self, range, |piece| {
            let run = piece.iter().take_while(|byte| **byte == 0).count();
            zeros = zeros.saturating_add(run as u64);
            run == piece.len()
        })?;
        Ok(zeros)
    }
}

/// The image, as a list of extents, over RAM that can be read.
///
/// Extents must not overlap in the image. The order of the list is the order of
/// sending. They are cut into messages; a message never crosses the border of
/// an extent. [`layout`](super::layout) has ready ones.
pub trait DumpSource: ReadRam {
    /// The next extent, until `None`.
    fn next(&mut self) -> Option<Extent>;

    /// Starts the list anew. It must be the same list each time.
    fn rewind(&mut self);

    /// Starts the list anew, by rising offset: for a [`Transform`], whose output
    /// is one stream. To be overridden where [`DumpSource::rewind`] starts another order.
    fn rewind_in_order(&mut self) {
        self.rewind();
    }

    /// Writes the bytes of a [`Stability::Generated`] extent from `offset` of the image on.
    ///
    /// # Errors
    /// [`ReadFault`] if nothing is generated there; the default has nothing.
    fn generate(&mut self, offset: u64, into: &mut [u8]) -> Result<(), ReadFault> {
        let _ = into;
        Err(ReadFault { at: PhysAddr(offset) })
    }
}

/// Reads the range in pieces of even length until `each` returns `false`.
fn in_pieces<S: ReadRam + ?Sized>(
    source: &mut S,
    range: PhysRange,
    mut each: impl FnMut(&[u8]) -> bool,
) -> Result<(), ReadFault> {
    let mut piece = [0u8; 256];
    let mut rest = range;
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(piece.len() as u64);
        let bytes = piece.get_mut(..head.len() as usize).unwrap_or(&mut []);
        source.read(head.start(), bytes)?;
        if !each(bytes) {
            break;
        }
        rest = tail;
    }
    Ok(())
}

/// A pass between source and wire whose output has no other home than a cell:
/// compression, encryption. The output is one stream from offset 0.
pub trait Transform {
    /// Starts anew, for another target.
    fn restart(&mut self);

    /// Fills `cell` with the next bytes of the stream, reading the image as
    /// needed, and returns how many; fewer than `cell.len()` only at the end,
    /// 0 after it. Must do bounded work: about a cell's worth.
    ///
    /// # Errors
    /// [`TransformError`] if it cannot go on. That ends the attempt.
    fn next(
        &mut self,
        image: &mut ImageStream<'_>,
        cell: &mut [u8],
    ) -> Result<usize, TransformError>;

    /// `compression` code of the kernel dump header: 0 none, 1 gzip, 2 zstd.
    fn compression(&self) -> u8;
}

/// A transform that cannot go on, in its own words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TransformError(pub &'static str);

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes(Vec<u8>);

    impl ReadRam for Bytes {
        fn read(&mut self, at: PhysAddr, into: &mut [u8]) -> Result<(), ReadFault> {
            let start = at.0 as usize;
            let bytes = self.0.get(start..start + into.len()).ok_or(ReadFault { at })?;
            into.copy_from_slice(bytes);
            Ok(())
        }
    }

    fn range(start: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr(start), len).unwrap()
    }

    #[test]
    fn defaults_agree_with_the_bytes() {
        let mut bytes = vec![0u8; 1000];
        bytes[700] = 9;
        let mut source = Bytes(bytes.clone());
        assert_eq!(source.zero_prefix(range(0, 1000)), Ok(700));
        assert_eq!(source.zero_prefix(range(701, 299)), Ok(299));
        for (start, len) in [(0, 1000), (1, 701), (699, 2), (700, 1), (5, 0)] {
            let part = &bytes[start as usize..(start + len) as usize];
            assert_eq!(source.sum(range(start, len)), Ok(Sum::of(part).folded()));
        }
    }

    #[test]
    fn a_fault_is_passed_on() {
        let mut source = Bytes(vec![0; 300]);
        assert_eq!(source.sum(range(0, 301)), Err(ReadFault { at: PhysAddr(256) }));
        assert_eq!(source.zero_prefix(range(0, 301)), Err(ReadFault { at: PhysAddr(256) }));
    }
}
