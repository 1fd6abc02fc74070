//! [`ElfCore`]: an image that debuggers open.

use core::fmt;
use core::marker::PhantomData;

use byteorder::ByteOrder;

use super::PAGE_LEN;
use super::header::{Flavour, Lengths, Segment, SegmentKind, put_elf_header, put_segment};
use super::image::RamImage;
use super::notes::Facts;
use super::regions::{Region, RegionError, Regions};
use super::registers::{Class, Registers};
use super::segments::{Mapping, Parts, Segments};
use super::sink::Sink;
use crate::addr::{PhysAddr, PhysRange};
use crate::dump::{DumpSource, Extent, ReadFault, ReadRam};

/// Why RAM cannot be an ELF core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ElfError {
    /// More program headers than [`ElfCore::SEGMENTS_MAX`].
    Segments {
        /// As many, or more.
        found: u32,
    },
    /// An address, or an offset in the file, is wider than the class allows.
    Address {
        /// The end of what lies there.
        found: u64,
        /// The largest that there can be.
        most: u64,
    },
    /// Two CPUs have the same number.
    Cpu {
        /// The number.
        id: u32,
    },
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segments { found } => {
                write!(f, "{found} program headers or more, expected at most {SEGMENTS_MAX}")
            }
            Self::Address { found, most } => {
                write!(f, "address or offset up to {found:#x}, expected at most {most:#x}")
            }
            Self::Cpu { id } => write!(f, "CPU {id} twice, expected each CPU once"),
        }
    }
}

impl core::error::Error for ElfError {}

/// One less than the number that has another meaning (`PN_XNUM`).
const SEGMENTS_MAX: u32 = 0xfffe;

const PF_R: u32 = 4;
const PF_RWX: u32 = 7;

/// An ELF core (`ET_CORE`) of RAM, as a [`DumpSource`].
///
/// The class and machine are those of `R`, the byte order of numbers is `E`:
/// [`byteorder::LittleEndian`] for most machines. Nothing is stored: each byte
/// of the headers is made when it is sent.
///
/// | in the file | is |
/// |---|---|
/// | ELF header | `EI_OSABI` 3, as lldb wants it |
/// | program headers | one `PT_NOTE`; then for each [`Mapping`] the RAM in it, `p_vaddr` its virtual and `p_paddr` its physical address; then RAM that no mapping has, with the physical address as both. Mappings of the same RAM share its place in the file |
/// | notes | see [`Facts`] |
/// | RAM | by rising physical address, from a multiple of 4096 on; each region's offset is its physical address modulo 4096 |
///
/// Debuggers take the first program header that has a virtual address: mappings
/// go by their order. RAM that is redacted or excluded has no program header, so that
/// a debugger says that it cannot be read, and not that it is zero.
///
/// Sent are the headers, then the last byte (the file has its length from then
/// on), then what [`ElfCore::send_first`] was told, then the rest: a dump cut
/// short is a file that opens.
///
/// ```
/// use debugnet_core::addr::{PhysAddr, PhysRange};
/// use debugnet_core::dump::layout::{
///     Cpu, ElfCore, Facts, Mapping, Region, Regions, Treatment, X86_64, LittleEndian,
/// };
/// use debugnet_core::dump::{DumpInfo, DumpSource};
/// # use debugnet_core::dump::{ReadFault, ReadRam};
/// # struct Ram;
/// # impl ReadRam for Ram {
/// #     fn read(&mut self, _: PhysAddr, into: &mut [u8]) -> Result<(), ReadFault> {
/// #         into.fill(0);
/// #         Ok(())
/// #     }
/// # }
/// let range = |start, len| PhysRange::new(PhysAddr(start), len).unwrap();
/// // At boot: what RAM there is, and where the kernel has it mapped.
/// let mut memory = [Region::EMPTY; 64];
/// let mut regions = Regions::new(&mut memory);
/// regions.add(range(0x10_0000, 0x3ff0_0000))?;
/// regions.mark(range(0x20_0000, 0x10_0000), Treatment::Volatile)?; // the dump's own memory
/// let mappings = [
///     Mapping { virt: 0xffff_ffff_8010_0000, range: range(0x10_0000, 0x40_0000) }, // the kernel
///     Mapping { virt: 0xffff_8880_0000_0000, range: range(0, 0x4000_0000) }, // all of RAM
/// ];
///
/// // At the crash: the registers, the one that died first.
/// let registers = X86_64 { rip: 0xffff_ffff_8011_2345, rsp: 0xffff_ffff_8013_0000, ..X86_64::default() };
/// let info = DumpInfo { architecture: "amd64", panic: "no more", ..DumpInfo::default() };
/// let facts = Facts {
///     info: &info,
///     cpus: &[Cpu { id: 0, signal: 6, registers }],
///     build_id: &[0x12, 0x34],
///     vmcoreinfo: "",
/// };
/// # let mut ram = Ram; // reads RAM: your implementation of `ReadRam`
/// let mut core = ElfCore::<_, LittleEndian>::new(&mut ram, &mut regions, &mappings, &facts)?;
/// core.send_first(range(0x12_f000, 0x1000))?; // the stack
///
/// // What `Io::source` wants:
/// let source: &mut dyn DumpSource = &mut core;
/// assert_eq!(source.next().unwrap().offset, 0); // the headers
/// assert_eq!(source.next().unwrap().range, range(0x12_f000, 0x1000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ElfCore<'a, R, E> {
    image: RamImage<'a>,
    mappings: &'a [Mapping],
    /// None in FreeBSD's flavour.
    facts: Option<&'a Facts<'a, R>>,
    /// Program headers, the notes' included.
    segments: u32,
    notes_len: u64,
    cursor: Cursor,
    order: PhantomData<E>,
}

/// Where the last program header was found, because the next is often the one after it.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    walk: Segments,
    /// The segment the walk gave last, and its index among the loadable ones.
    last: Option<(u32, Segment)>,
}

impl Cursor {
    const START: Self = Self { walk: Segments::START, last: None };

    fn get(&mut self, parts: &Parts<'_>, index: u32) -> Option<Segment> {
        if self.last.is_some_and(|(last, _)| last > index) {
            *self = Self::START;
        }
        loop {
            let next = match self.last {
                Some((last, segment)) if last == index => return Some(segment),
                Some((last, _)) => last.saturating_add(1),
                None => 0,
            };
            self.last = Some((next, self.walk.next(parts)?));
        }
    }
}

impl<'a, R: Registers, E: ByteOrder> ElfCore<'a, R, E> {
    /// Most program headers of one file, that of the notes included.
    pub const SEGMENTS_MAX: u32 = SEGMENTS_MAX;

    /// The core of `regions`, read through `ram`. The regions are given their places in the file.
    ///
    /// Call it at boot, too, with what is known then: if it works there, it works at the crash.
    ///
    /// # Errors
    /// [`ElfError`], with what was found.
    pub fn new(
        ram: &'a mut dyn ReadRam,
        regions: &'a mut Regions<'_>,
        mappings: &'a [Mapping],
        facts: &'a Facts<'a, R>,
    ) -> Result<Self, ElfError> {
        for (index, cpu) in facts.cpus.iter().enumerate() {
            // As they are written: plus one.
            let same = |other: &u32| other.saturating_add(1) == cpu.id.saturating_add(1);
            if facts.cpus.iter().take(index).map(|other| other.id).any(|id| same(&id)) {
                return Err(ElfError::Cpu { id: cpu.id });
            }
        }
        Self::build(ram, regions, mappings, Some(facts))
    }

    /// FreeBSD's full memory dump: `EI_OSABI` 255, `e_version` 0, no notes, and one program
    /// header for each run of RAM that is sent, with its physical address as both (`sys/kern/kern_dump.c`).
    ///
    /// # Errors
    /// [`ElfError`], with what was found.
    pub fn freebsd(
        ram: &'a mut dyn ReadRam,
        regions: &'a mut Regions<'_>,
    ) -> Result<Self, ElfError> {
        Self::build(ram, regions, &[], None)
    }

    fn build(
        ram: &'a mut dyn ReadRam,
        regions: &'a mut Regions<'_>,
        mappings: &'a [Mapping],
        facts: Option<&'a Facts<'a, R>>,
    ) -> Result<Self, ElfError> {
        let image = RamImage::new(ram, regions, place);
        let mut core = Self {
            image,
            mappings,
            facts,
            segments: u32::from(facts.is_some()),
            notes_len: 0,
            cursor: Cursor::START,
            order: PhantomData,
        };
        let most = match R::CLASS {
            Class::Elf32 => u64::from(u32::MAX),
            Class::Elf64 => u64::MAX,
        };
        let fits = |start: u64, len: u64| match start.checked_add(len) {
            Some(end) if end <= most => Ok(()),
            end => Err(ElfError::Address { found: end.unwrap_or(u64::MAX), most }),
        };
        let mut walk = Segments::START;
        while let Some(segment) = walk.next(&core.parts()) {
            core.segments = core.segments.saturating_add(1);
            if core.segments > SEGMENTS_MAX {
                return Err(ElfError::Segments { found: core.segments });
            }
            // The last byte, so that the top of the address space may be mapped.
            let to_last = segment.len.saturating_sub(1);
            fits(segment.virt, to_last)?;
            fits(segment.phys, to_last)?;
        }
        if let Some(facts) = facts {
            core.notes_len =
                Sink::count(|sink| facts.put::<E>(sink, core.image.regions, core.image.ram_offset));
        }
        let head_len = core.notes_offset().saturating_add(core.notes_len);
        core.image.head_len = head_len;
        core.image.ram_offset = head_len.checked_next_multiple_of(PAGE_LEN).unwrap_or(u64::MAX);
        match core.image.end() {
            Some(end) => fits(end, 0)?,
            None => return Err(ElfError::Address { found: u64::MAX, most }),
        }
        Ok(core)
    }

    /// Sends the RAM in `range` before all other that was not named earlier: the stack of the
    /// CPU that died, then the log, the page tables, and so on. The file is the same.
    ///
    /// # Errors
    /// [`RegionError::Full`] after 16; the range is then sent with the rest.
    pub fn send_first(&mut self, range: PhysRange) -> Result<(), RegionError> {
        self.image.send_first(range)
    }

    /// Bytes of headers and notes, at the start of the file.
    pub fn headers_len(&self) -> u64 {
        self.image.head_len
    }

    fn notes_offset(&self) -> u64 {
        R::EHDR.saturating_add(R::PHDR.saturating_mul(self.segments.into()))
    }

    fn parts(&self) -> Parts<'a> {
        Parts {
            regions: self.image.regions,
            ram_offset: self.image.ram_offset,
            mappings: self.mappings,
            flags: if self.facts.is_some() { PF_RWX } else { PF_R },
        }
    }

    fn put(&mut self, sink: &mut Sink<'_>) {
        let flavour = if self.facts.is_some() { Flavour::Linux } else { Flavour::FreeBsd };
        put_elf_header::<R, E>(sink, flavour, self.segments as u16);
        let notes = Segment {
            kind: SegmentKind::Note,
            offset: self.notes_offset(),
            virt: 0,
            phys: 0,
            len: self.notes_len,
            align: 4,
        };
        if self.facts.is_some() {
            put_segment::<R, E>(sink, &notes);
        }
        let (parts, mut cursor) = (self.parts(), self.cursor);
        let loads = self.segments.saturating_sub(self.facts.is_some().into());
        sink.array(loads.into(), R::PHDR, |sink, index| match cursor.get(&parts, index as u32) {
            Some(segment) => put_segment::<R, E>(sink, &segment),
            None => sink.skip(R::PHDR),
        });
        self.cursor = cursor;
        if let Some(facts) = self.facts {
            facts.put::<E>(sink, parts.regions, parts.ram_offset);
        }
    }
}

/// Behind the region before it, at the same offset within a page as in memory.
fn place(end: u64, region: &Region) -> u64 {
    let to_same = region.range().start().0.wrapping_sub(end) & (PAGE_LEN - 1);
    end.saturating_add(to_same)
}

impl<R: Registers, E: ByteOrder> DumpSource for ElfCore<'_, R, E> {
    fn next(&mut self) -> Option<Extent> {
        self.image.next()
    }

    fn rewind(&mut self) {
        self.image.rewind(false);
    }

    fn rewind_in_order(&mut self) {
        self.image.rewind(true);
    }

    fn generate(&mut self, offset: u64, into: &mut [u8]) -> Result<(), ReadFault> {
        self.put(&mut Sink::new(offset, into));
        Ok(())
    }
}

impl<R: Registers, E: ByteOrder> ReadRam for ElfCore<'_, R, E> {
    fn read(&mut self, at: PhysAddr, into: &mut [u8]) -> Result<(), ReadFault> {
        self.image.ram.read(at, into)
    }

    fn sum(&mut self, range: PhysRange) -> Result<u16, ReadFault> {
        self.image.ram.sum(range)
    }

    fn zero_prefix(&mut self, range: PhysRange) -> Result<u64, ReadFault> {
        self.image.ram.zero_prefix(range)
    }
}
