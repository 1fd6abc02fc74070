//! The vmcore against the truth, byte for byte.
//!
//! In a flat image a file offset is a physical address; in an ELF core the
//! program headers say what is where. Everything in RAM is compared but the one
//! section that the crash path itself writes to; what is no RAM must be absent,
//! or zero in a flat image; the file must end where RAM ends. What is declared volatile is checked first, so that a guest cannot
//! excuse itself.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::core_file::{CoreFile, Place};
use crate::qmp::TruthFile;

/// Largest volatile section in bytes.
pub const VOLATILE_MAX: u64 = 1 << 20;
/// Most of what may change besides.
const CHANGING_MAX: u64 = 64 << 10;
const PAGE: u64 = 4096;
/// RAM that a machine may keep from its guest: the legacy hole below 1 MiB and
/// the firmware's tables.
const RESERVED_MAX: u64 = 1 << 20;
const CHUNK: usize = 1 << 20;

/// What the guest says about its RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// RAM ranges in ascending order.
    pub ram: Vec<Range<u64>>,
    /// The section the crash path writes to.
    pub volatile: Range<u64>,
    /// What must not be in the image; empty if all RAM is.
    pub redacted: Range<u64>,
    /// What a CPU writes all the time; empty if there is none.
    pub changing: Range<u64>,
}

/// Why a layout cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Empty, overlapping or descending ranges.
    #[error("the RAM ranges are empty or not in ascending order")]
    Order,
    /// Less RAM in the image than the machine has.
    #[error("the guest names {named} bytes of RAM, the machine has {machine}")]
    TooLittle {
        /// Sum of the ranges.
        named: u64,
        /// Size given to QEMU.
        machine: u64,
    },
    /// The range kept out of the image is more than one page, not a page, or not in RAM.
    #[error("the range {:#x}..{:#x} that is kept out of the image is not a page of RAM", .0.start, .0.end)]
    Redacted(Range<u64>),
    /// The volatile section is too large, not made of pages, or not in RAM.
    #[error("the changing range or volatile section {:#x}..{:#x} is not a run of at most 1 MiB of whole pages in RAM", .0.start, .0.end)]
    Volatile(Range<u64>),
}

impl Layout {
    /// Checks it against the machine's memory in bytes.
    ///
    /// # Errors
    /// See [`LayoutError`].
    pub fn check(&self, machine: u64) -> Result<(), LayoutError> {
        let ascending = self.ram.windows(2).all(|pair| pair[0].end <= pair[1].start);
        if self.ram.is_empty() || !ascending || self.ram.iter().any(Range::is_empty) {
            return Err(LayoutError::Order);
        }
        let named = self.ram_len();
        if named.saturating_add(RESERVED_MAX) < machine || named > machine {
            return Err(LayoutError::TooLittle { named, machine });
        }
        let Range { start, end } = self.volatile;
        let in_ram = self.ram.iter().any(|range| range.start <= start && end <= range.end);
        let whole = start % PAGE == 0 && end % PAGE == 0;
        if start >= end || end - start > VOLATILE_MAX || !whole || !in_ram {
            return Err(LayoutError::Volatile(self.volatile.clone()));
        }
        let Range { start, end } = self.changing;
        let in_ram = self.ram.iter().any(|range| range.start <= start && end <= range.end);
        if start != end && (start > end || end - start > CHANGING_MAX || !in_ram) {
            return Err(LayoutError::Volatile(self.changing.clone()));
        }
        let Range { start, end } = self.redacted;
        let is_page = start % PAGE == 0 && end == start + PAGE;
        let in_ram = self.ram.iter().any(|range| range.start <= start && end <= range.end);
        if !(self.redacted.is_empty() || is_page && in_ram) {
            return Err(LayoutError::Redacted(self.redacted.clone()));
        }
        Ok(())
    }

    /// Bytes of RAM.
    pub fn ram_len(&self) -> u64 {
        self.ram.iter().map(|range| range.end.saturating_sub(range.start)).sum()
    }

    /// Length that the file must have.
    pub fn file_len(&self) -> u64 {
        self.ram.last().map_or(0, |range| range.end)
    }
}

/// Result of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Bytes of RAM compared: all but the volatile section.
    pub compared: u64,
    /// The first difference, if there is one.
    pub first: Option<Difference>,
    /// Bytes that differ, or are missing, or too many.
    pub count: u64,
}

impl Verdict {
    /// Whether there is no difference at all.
    pub const fn is_identical(&self) -> bool {
        self.count == 0
    }
}

/// One byte that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Physical address, which is the offset in the file.
    pub address: u64,
    /// What QEMU says is there; `None` behind the end of RAM.
    pub truth: Option<u8>,
    /// What the file holds; `None` behind its end.
    pub dumped: Option<u8>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let show = |byte: Option<u8>| byte.map_or("nothing".into(), |byte| format!("{byte:#04x}"));
        write!(
            f,
            "at {:#x}: the dump has {}, the machine had {}",
            self.address,
            show(self.dumped),
            show(self.truth)
        )
    }
}

/// Compares the file at `vmcore` with the saved RAM. `truth` must cover the
/// layout's RAM ranges in order.
///
/// # Errors
/// A file cannot be read, the truth is not the layout's, or the image is not of its kind.
pub fn compare(
    vmcore: &Path,
    image: Image,
    layout: &Layout,
    truth: &[TruthFile],
) -> io::Result<Verdict> {
    if !truth.iter().map(|file| &file.range).eq(&layout.ram) {
        return Err(io::Error::other("the saved RAM is not the RAM that was asked for"));
    }
    let dump = Dump::open(vmcore)?;
    let places = places(vmcore, image, layout)?;
    let mut tally = Tally::default();
    let mut at = 0;
    for TruthFile { range, path } in truth {
        if image == Image::Flat {
            dump.expect_zero(at..range.start, &mut tally)?;
        }
        let saved = Saved { file: File::open(path)?, from: range.start };
        for part in parts(range, layout) {
            dump.expect_in(&places, &part, &saved, &mut tally)?;
        }
        at = range.end;
    }
    if image == Image::Flat {
        dump.expect_end(layout.file_len(), truth, &mut tally)?;
    } else {
        dump.expect_places(&places, layout, &mut tally);
    }
    Ok(Verdict { compared: tally.compared, first: tally.first, count: tally.count })
}

/// What a file looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// RAM, file offset = physical address.
    Flat,
    /// An ELF core; its program headers say what is where.
    Elf,
}

/// Where RAM is in the file, by rising address.
fn places(vmcore: &Path, image: Image, layout: &Layout) -> io::Result<Vec<Place>> {
    match image {
        Image::Flat => {
            let place = |phys: &Range<u64>| Place { phys: phys.clone(), offset: phys.start };
            Ok(layout.ram.iter().map(place).collect())
        }
        Image::Elf => CoreFile::read(vmcore)?.places(),
    }
}

/// Offset in the file of the byte at `address` of RAM.
///
/// # Errors
/// The file cannot be read, or does not have it.
pub fn offset_of(vmcore: &Path, image: Image, layout: &Layout, address: u64) -> io::Result<u64> {
    let places = places(vmcore, image, layout)?;
    let place = places.iter().find(|place| place.phys.contains(&address));
    let place =
        place.ok_or_else(|| io::Error::other(format!("{address:#x} is not in the vmcore")))?;
    Ok(place.offset + (address - place.phys.start))
}

/// A part of RAM that is judged alike.
struct Part {
    range: Range<u64>,
    /// The crash path or another CPU writes to it: it must be in the file, whatever it holds.
    is_volatile: bool,
}

/// A RAM range, cut where the judgement changes, without what is redacted.
fn parts(ram: &Range<u64>, layout: &Layout) -> Vec<Part> {
    let Layout { volatile, redacted, changing, .. } = layout;
    let mut borders = vec![ram.start, ram.end];
    borders.extend([volatile.start, volatile.end, redacted.start, redacted.end]);
    borders.extend([changing.start, changing.end]);
    borders.retain(|border| (ram.start..=ram.end).contains(border));
    borders.sort_unstable();
    borders.dedup();
    let parts = borders.windows(2).map(|pair| pair[0]..pair[1]);
    parts
        .filter(|part| !redacted.contains(&part.start))
        .map(|range| Part {
            is_volatile: volatile.contains(&range.start) || changing.contains(&range.start),
            range,
        })
        .collect()
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> Range<u64> {
    let start = one.start.max(other.start);
    start..one.end.min(other.end).max(start)
}

fn len(range: &Range<u64>) -> u64 {
    range.end - range.start
}

#[derive(Default)]
struct Tally {
    compared: u64,
    first: Option<Difference>,
    count: u64,
}

impl Tally {
    fn bytes(&mut self, at: u64, truth: &[u8], dumped: &[u8]) {
        if truth == dumped {
            return;
        }
        for (address, (&truth, &dumped)) in (at..).zip(truth.iter().zip(dumped)) {
            if truth != dumped {
                self.count += 1;
                let (truth, dumped) = (Some(truth), Some(dumped));
                self.lowest(Difference { address, truth, dumped });
            }
        }
    }

    /// RAM that the file has no place for.
    fn missing(&mut self, part: Range<u64>, saved: &Saved) -> io::Result<()> {
        if part.is_empty() {
            return Ok(());
        }
        let mut byte = [0];
        saved.file.read_exact_at(&mut byte, part.start - saved.from)?;
        self.count += len(&part);
        self.lowest(Difference { address: part.start, truth: Some(byte[0]), dumped: None });
        Ok(())
    }

    /// The length is looked at last, yet what it shows may come first.
    fn lowest(&mut self, candidate: Difference) {
        if self.first.is_none_or(|first| candidate.address < first.address) {
            self.first = Some(candidate);
        }
    }
}

/// QEMU's copy of a range of RAM.
struct Saved {
    file: File,
    from: u64,
}

struct Dump {
    file: File,
    len: u64,
}

impl Dump {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }

    /// `part` of the file in chunks, as far as the file goes.
    fn chunks(&self, part: Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
        let end = part.end.min(self.len);
        (part.start..end).step_by(CHUNK).map(move |at| at..end.min(at + CHUNK as u64))
    }

    /// A part of RAM must be in the file, where `places` say, and be as it was saved.
    fn expect_in(
        &self,
        places: &[Place],
        part: &Part,
        saved: &Saved,
        tally: &mut Tally,
    ) -> io::Result<()> {
        let mut at = part.range.start;
        for place in places {
            let here = overlap(&place.phys, &part.range);
            if here.is_empty() {
                continue;
            }
            tally.missing(at..here.start, saved)?;
            at = here.end;
            if !part.is_volatile {
                let offset = place.offset + (here.start - place.phys.start);
                self.expect(here, offset, saved, tally)?;
            }
        }
        tally.missing(at..part.range.end, saved)
    }

    /// The bytes from `offset` on must be RAM at `part`, as far as the file goes.
    fn expect(
        &self,
        part: Range<u64>,
        offset: u64,
        saved: &Saved,
        tally: &mut Tally,
    ) -> io::Result<()> {
        let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
        for chunk in self.chunks(offset..offset + (part.end - part.start)) {
            let len = (chunk.end - chunk.start) as usize;
            let address = part.start + (chunk.start - offset);
            saved.file.read_exact_at(&mut left[..len], address - saved.from)?;
            self.file.read_exact_at(&mut right[..len], chunk.start)?;
            tally.compared += len as u64;
            tally.bytes(address, &left[..len], &right[..len]);
        }
        Ok(())
    }

    fn expect_zero(&self, part: Range<u64>, tally: &mut Tally) -> io::Result<()> {
        let (zeros, mut found) = (vec![0; CHUNK], vec![0; CHUNK]);
        for chunk in self.chunks(part) {
            let len = (chunk.end - chunk.start) as usize;
            self.file.read_exact_at(&mut found[..len], chunk.start)?;
            tally.bytes(chunk.start, &zeros[..len], &found[..len]);
        }
        Ok(())
    }

    /// All that the file has is RAM, none of it redacted, and it ends where the last piece does.
    fn expect_places(&self, places: &[Place], layout: &Layout, tally: &mut Tally) {
        for Place { phys, .. } in places {
            let in_ram: u64 = layout.ram.iter().map(|range| len(&overlap(phys, range))).sum();
            let surplus = len(phys) - in_ram + len(&overlap(phys, &layout.redacted));
            if surplus != 0 {
                tally.count += surplus;
                tally.lowest(Difference { address: phys.start, truth: None, dumped: None });
            }
        }
        let end = places.iter().map(|place| place.offset + len(&place.phys)).max().unwrap_or(0);
        if self.len != end {
            // One that is too long ends in what is nobody's RAM.
            tally.count += self.len.abs_diff(end);
            let cut = places.iter().find(|place| place.offset + len(&place.phys) > self.len);
            let address = cut
                .map_or(u64::MAX, |place| place.phys.start + self.len.saturating_sub(place.offset));
            tally.lowest(Difference { address, truth: None, dumped: None });
        }
    }

    /// The file must end where RAM ends; a missing byte is shown with its truth.
    fn expect_end(&self, file_len: u64, truth: &[TruthFile], tally: &mut Tally) -> io::Result<()> {
        tally.count += self.len.abs_diff(file_len);
        let address = self.len.min(file_len);
        let mut byte = [0];
        if self.len > file_len {
            self.file.read_exact_at(&mut byte, address)?;
            tally.lowest(Difference { address, truth: None, dumped: Some(byte[0]) });
        } else if let Some(TruthFile { range, path }) =
            truth.iter().find(|file| address < file.range.end)
        {
            // In a hole between ranges the truth is zero.
            if let Some(offset) = address.checked_sub(range.start) {
                File::open(path)?.read_exact_at(&mut byte, offset)?;
            }
            tally.lowest(Difference { address, truth: Some(byte[0]), dumped: None });
        }
        Ok(())
    }
}

/// Inverts the byte at `offset` of the file: a deliberate error, to see that it is found.
///
/// # Errors
/// The file cannot be read or written there.
pub fn break_byte(vmcore: &Path, offset: u64) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(vmcore)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    file.write_all_at(&[!byte[0]], offset)
}

#[cfg(test)]
mod tests;
