//! The image: which RAM is in it, how it is laid out, what is sent first.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::dump::layout::{
    Cpu, ElfCore, ElfError, Facts, Flat, LittleEndian, Mapping, Region, RegionError, Regions,
    Treatment,
};
use debugnet_core::dump::{DumpInfo, DumpSource, ReadFault, ReadRam};
use guest::cmdline::ImageKind;
use guest::memory::Ranges;
use guest::pattern;
use heapless::Vec;

use super::arch::{self, CoreRegisters, Machine, Registers};
use super::say;

type Core<'a> = ElfCore<'a, CoreRegisters, LittleEndian>;

/// A page of keys, as any kernel has some. No copy of them is anywhere else.
static KEYS: KeyPage = KeyPage([const { AtomicU64::new(0) }; 512]);

#[repr(C, align(4096))]
struct KeyPage([AtomicU64; 512]);

/// Why there can be no image.
pub(super) enum ImageError {
    /// Too much is special about RAM.
    Region(RegionError),
    /// It is no ELF core.
    Elf(ElfError),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Region(error) => error.fmt(f),
            Self::Elf(error) => error.fmt(f),
        }
    }
}

/// What is known of the image at boot.
pub(super) struct Image {
    kind: ImageKind,
    ram: Ram,
    regions: Regions<'static>,
    mappings: Vec<Mapping, { arch::MAPPINGS_MAX }>,
}

/// Makes up keys, and says where they are.
pub(super) fn make_keys(seed: u64) -> PhysRange {
    for (at, word) in KEYS.0.iter().enumerate() {
        word.store(pattern::word(8 * at as u64, !seed), Ordering::Relaxed);
    }
    let start = arch::physical(&raw const KEYS);
    PhysRange::new(start, size_of::<KeyPage>() as u64).unwrap_or_default()
}

impl Image {
    /// The image of the machine's RAM, with `memory` for its list of regions. What is in
    /// `secret` stays out of it.
    pub(super) fn new(
        machine: &Machine,
        kind: ImageKind,
        secret: PhysRange,
        memory: &'static mut [Region],
    ) -> Result<Self, ImageError> {
        let mut regions = Regions::new(memory);
        for run in &machine.ram {
            regions.add(*run).map_err(ImageError::Region)?;
        }
        let volatile = arch::volatile_section();
        regions.mark(volatile, Treatment::Volatile).map_err(ImageError::Region)?;
        regions.apply(&mut |range| policy(range, secret)).map_err(ImageError::Region)?;
        let mut image = Self {
            kind,
            ram: Ram { runs: machine.ram.clone() },
            regions,
            mappings: arch::mappings(&machine.ram),
        };
        // What works now works at the crash.
        let (info, cpus) = (DumpInfo::default(), []);
        image.elf(&facts(&info, &cpus)).map(drop).map_err(ImageError::Elf)?;
        Ok(image)
    }

    /// Lays the image out, and hands it to `dump`. The first of `cpus` died.
    pub(super) fn dump<T>(
        &mut self,
        info: &DumpInfo<'_>,
        cpus: &[Cpu<CoreRegisters>],
        dying: &Registers,
        dump: impl FnOnce(&mut dyn DumpSource) -> T,
    ) -> T {
        let first = first(dying);
        let facts = facts(info, cpus);
        match self.kind {
            ImageKind::Elf => match self.elf(&facts) {
                Ok(mut core) => {
                    for range in first {
                        // Sixteen fit; one more would be sent in its turn.
                        let _ = core.send_first(range);
                    }
                    return dump(&mut core);
                }
                Err(error) => say!("guest: no ELF core: {error}; the dump is flat"),
            },
            ImageKind::FreeBsd => {
                match Core::freebsd(&mut self.ram, &mut self.regions) {
                    Ok(mut core) => return dump(&mut core),
                    Err(error) => say!("guest: no ELF core: {error}; the dump is flat"),
                };
            }
            ImageKind::Flat => {}
        }
        let mut flat = Flat::new(&mut self.ram, &mut self.regions);
        for range in first {
            let _ = flat.send_first(range);
        }
        dump(&mut flat)
    }

    fn elf<'a>(&'a mut self, facts: &'a Facts<'a, CoreRegisters>) -> Result<Core<'a>, ElfError> {
        ElfCore::new(&mut self.ram, &mut self.regions, &self.mappings, facts)
    }
}

/// How the start of a range is to be treated, and how long that start is: keys
/// stay in the machine.
fn policy(range: PhysRange, secret: PhysRange) -> (Treatment, u64) {
    let (start, end) = (range.start().0, range.end().0);
    if secret.is_empty() || !range.overlaps(secret) {
        return (Treatment::Frozen, end - start);
    }
    match secret.start().0.checked_sub(start).filter(|before| *before != 0) {
        Some(before) => (Treatment::Frozen, before),
        None => (Treatment::Redacted, secret.end().0.min(end) - start),
    }
}

fn facts<'a>(info: &'a DumpInfo<'a>, cpus: &'a [Cpu<CoreRegisters>]) -> Facts<'a, CoreRegisters> {
    Facts { info, cpus, build_id: arch::build_id(), vmcoreinfo: "" }
}

/// What a debugger needs, should the dump be cut short: the stack of the CPU that
/// died, those of the others, the page tables.
fn first(dying: &Registers) -> Vec<PhysRange, 4> {
    let mut first = Vec::new();
    let parked = (0..arch::CPUS_MAX).filter_map(arch::parked);
    let stacks = [*dying].into_iter().chain(parked);
    let ranges = stacks.filter_map(|registers| registers.stack()).chain([arch::page_tables()]);
    // Two CPUs and the tables: they fit.
    first.extend(ranges.take(4));
    first
}

/// The way to RAM. It keeps its own list: the kernel's may be damaged when it is
/// needed.
struct Ram {
    runs: Ranges,
}

impl Ram {
    /// The range itself, if all of it is RAM.
    fn check(&self, start: PhysAddr, len: u64) -> Result<PhysRange, ReadFault> {
        PhysRange::new(start, len)
            .filter(|range| self.runs.iter().any(|run| run.contains(*range)))
            .ok_or(ReadFault { at: start })
    }
}

impl ReadRam for Ram {
    fn read(&mut self, at: PhysAddr, into: &mut [u8]) -> Result<(), ReadFault> {
        self.check(at, into.len() as u64)?;
        // SAFETY: RAM, all of it, mapped since boot. It may be the very cell that is
        // written: then the copy is of changing bytes, which is what volatile means.
        unsafe { arch::read(at, into) };
        Ok(())
    }

    fn sum(&mut self, range: PhysRange) -> Result<u16, ReadFault> {
        let range = self.check(range.start(), range.len())?;
        // SAFETY: inside one run of the memory map, in the direct map for good.
        Ok(unsafe { arch::sum(range) })
    }

    fn zero_prefix(&mut self, range: PhysRange) -> Result<u64, ReadFault> {
        let range = self.check(range.start(), range.len())?;
        // SAFETY: only looks, at memory that `check` found in the memory map.
        Ok(unsafe { arch::zero_prefix(range) })
    }
}
