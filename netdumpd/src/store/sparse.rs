//! Writing without zeros: blocks of them become holes in the file.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::Piece;

/// What is left out, in size and alignment: a block of most file systems.
const BLOCK_LEN: u64 = 4096;

/// A file and how far it has been written.
#[derive(Debug)]
pub(super) struct SparseFile {
    pub(super) file: std::fs::File,
    /// Nothing was ever written from here on: what is left out reads as zeros.
    fresh_from: u64,
    /// The file's length.
    len: u64,
}

impl SparseFile {
    /// An empty file.
    pub(super) fn new(file: std::fs::File) -> Self {
        Self { file, fresh_from: 0, len: 0 }
    }

    /// Writes all pieces one behind the other, in one call if it can be.
    /// Returns their length.
    pub(super) fn write(&mut self, offset: u64, pieces: &[Piece]) -> io::Result<u64> {
        let end = offset + pieces.iter().map(|piece| piece.payload.len() as u64).sum::<u64>();
        let mut at = offset;
        while at < end {
            let zeros = self.next_zeros(at..end, offset, pieces);
            if at < zeros.start {
                write_all(&self.file, at, parts(offset, pieces, &(at..zeros.start)))?;
                self.len = self.len.max(zeros.start);
            }
            at = zeros.end;
        }
        self.fresh_from = self.fresh_from.max(end);
        if self.len < end {
            self.set_len(end)?;
        }
        Ok(end - offset)
    }

    /// Gives the file a length.
    pub(super) fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.len = len;
        Ok(())
    }

    /// The first run of zero blocks in `within` that need not be written; empty at its end if there is none.
    fn next_zeros(&self, within: Range<u64>, offset: u64, pieces: &[Piece]) -> Range<u64> {
        let mut start = within.start.max(self.fresh_from).next_multiple_of(BLOCK_LEN);
        while start.saturating_add(BLOCK_LEN) <= within.end {
            let mut end = start;
            while end + BLOCK_LEN <= within.end && is_zero(offset, pieces, &(end..end + BLOCK_LEN))
            {
                end += BLOCK_LEN;
            }
            if end > start {
                return start..end;
            }
            start += BLOCK_LEN;
        }
        within.end..within.end
    }
}

/// What of `pieces`, which begin at `offset`, lies in `range`.
fn parts<'a>(
    offset: u64,
    pieces: &'a [Piece],
    range: &Range<u64>,
) -> impl Iterator<Item = &'a [u8]> + Clone {
    let (start, end) = (range.start, range.end);
    let mut at = offset;
    pieces.iter().filter_map(move |piece| {
        let piece_start = at;
        at += piece.payload.len() as u64;
        let (from, to) = (start.max(piece_start), end.min(at));
        let part = (from < to).then(|| (from - piece_start) as usize..(to - piece_start) as usize);
        piece.payload.get(part?)
    })
}

fn is_zero(offset: u64, pieces: &[Piece], range: &Range<u64>) -> bool {
    const ZEROS: [u8; BLOCK_LEN as usize] = [0; BLOCK_LEN as usize];
    // Most blocks differ at once; the rest is compared at the speed of memory.
    parts(offset, pieces, range).all(|part| *part == ZEROS[..part.len()])
}

/// All `parts` one behind the other, in one call if it can be.
pub(super) fn write_all<'a>(
    file: &std::fs::File,
    offset: u64,
    parts: impl Iterator<Item = &'a [u8]> + Clone,
) -> io::Result<()> {
    let mut ahead = 0u64;
    if parts.clone().nth(1).is_some() {
        let slices: Vec<_> = parts.clone().map(io::IoSlice::new).collect();
        ahead = rustix::io::pwritev(file, &slices, offset)? as u64;
    }
    let mut at = offset;
    for part in parts {
        let len = part.len() as u64;
        let done = ahead.min(len);
        ahead -= done;
        if done < len {
            file.write_all_at(&part[done as usize..], at + done)?;
        }
        at += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt;

    fn pieces(payloads: impl IntoIterator<Item = Bytes>) -> Vec<Piece> {
        payloads.into_iter().map(|payload| Piece { seqno: 0, count: 1, payload }).collect()
    }

    fn content(file: &SparseFile) -> Vec<u8> {
        let mut found = vec![0; file.file.metadata().unwrap().len() as usize];
        file.file.read_exact_at(&mut found, 0).unwrap();
        found
    }

    #[test]
    fn payloads_land_one_behind_the_other() {
        let mut file = SparseFile::new(tempfile::tempfile().unwrap());
        let payloads = pieces([&b"abc"[..], b"", b"de"].map(Bytes::from_static));
        assert_eq!(file.write(2, &payloads).unwrap(), 5);
        assert_eq!(file.write(9, &payloads[..1]).unwrap(), 3);
        assert_eq!(content(&file), b"\0\0abcde\0\0abc");
    }

    #[test]
    fn zero_blocks_take_no_room_and_the_length_is_right() {
        let mut file = SparseFile::new(tempfile::tempfile().unwrap());
        let zeros = pieces((0..724).map(|_| Bytes::from_static(&[0; 1448])));
        assert_eq!(file.write(0, &zeros).unwrap(), 724 * 1448);
        let metadata = file.file.metadata().unwrap();
        assert_eq!(metadata.len(), 724 * 1448);
        assert!(metadata.blocks() * 512 <= 2 * BLOCK_LEN, "{} blocks", metadata.blocks());
    }

    #[test]
    fn zeros_over_what_was_written_are_written() {
        let mut file = SparseFile::new(tempfile::tempfile().unwrap());
        file.write(0, &pieces([Bytes::from(vec![7; 8192])])).unwrap();
        file.write(0, &pieces([Bytes::from(vec![0; 8192])])).unwrap();
        assert_eq!(content(&file), vec![0; 8192]);
    }

    proptest! {
        /// Any writes in any order, by the same file without tricks.
        #[test]
        fn a_file_as_any_other(writes in prop::collection::vec(
            (0u64..40_000, prop::collection::vec((0usize..6000, any::<bool>()), 1..5)), 1..8,
        )) {
            let mut file = SparseFile::new(tempfile::tempfile().unwrap());
            let mut plain = Vec::new();
            for (n, (offset, parts)) in writes.into_iter().enumerate() {
                let payloads: Vec<_> = parts
                    .into_iter()
                    .map(|(len, is_zero)| Bytes::from(vec![if is_zero { 0 } else { n as u8 + 1 }; len]))
                    .collect();
                let written = payloads.concat();
                let end = offset as usize + written.len();
                plain.resize(plain.len().max(end), 0);
                plain[offset as usize..end].copy_from_slice(&written);
                prop_assert_eq!(file.write(offset, &pieces(payloads)).unwrap(), written.len() as u64);
                // A file without content of its own past the end is as long as what was written.
                prop_assert!(content(&file) == plain);
            }
        }
    }
}
