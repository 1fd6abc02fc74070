//! Page tables, built once at boot and never written again.
//!
//! Three levels, 39 bits of address. Views of memory:
//!
//! * the **identity map**, which the kernel runs in: what lies below RAM, uncached,
//!   with devices above that were asked for; and RAM, cached;
//! * the **direct map** at [`DIRECT_MAP`]: all RAM without holes. The dump reads
//!   through it, so that the guard pages are in the image.
//!
//! Page 0 and the guard pages of the stacks are holes in the identity map. Accessed
//! and dirty bits are set from the start: the CPU has no reason to write a table.

use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::dump::layout::Mapping;
use guest::memory::Ranges;
use heapless::Vec;
use nic_hal::Reserved;

use crate::kernel::arch::mmu;
use crate::kernel::arch::stack::PAGE_LEN;

/// Length of a large page in bytes.
const LARGE_LEN: u64 = 0x20_0000;
/// Where the direct map begins: three quarters up the root table, in the upper half of the
/// address space.
const DIRECT_MAP: u64 = 0xffff_ffe0_0000_0000;
/// The identity map ends below the direct map's part of the root table.
const IDENTITY_LEN: u64 = 0x60 << 32;
/// The direct map has the rest.
const RAM_END_MAX: u64 = 0x20 << 32;
/// Page tables to draw from: 2 for each GiB of RAM, a few for holes and devices.
const TABLES: usize = 96;

/// A kind of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::kernel::arch) enum Memory {
    Ram,
    Device,
}

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Table([u64; 512]);

/// The tables, as ordinary memory of the kernel.
static POOL: Reserved<[Table; TABLES]> = Reserved::new([Table([0; 512]); TABLES]);

/// Why the address space could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MapError {
    /// RAM or a device lies where the tables do not reach, or there are too few tables.
    TooFar(PhysAddr),
    /// The tables were taken before.
    Taken,
}

/// The page tables. Table 0 is the root.
pub(super) struct AddressSpace {
    tables: &'static mut [Table; TABLES],
    used: usize,
}

impl AddressSpace {
    /// Maps `ram` and all that lies below it, without the pages at `guards`.
    pub(super) fn new(
        ram: &Ranges,
        guards: impl IntoIterator<Item = u64>,
    ) -> Result<Self, MapError> {
        // SAFETY: one CPU, and interrupts are off since the machine started.
        let tables = unsafe { POOL.take() }.ok_or(MapError::Taken)?;
        let mut space = Self { tables, used: 1 };
        if let Some(run) = ram.last().filter(|run| run.end().0 > RAM_END_MAX) {
            return Err(MapError::TooFar(run.start()));
        }
        let devices = ram.first().map_or(0, |run| run.start().0);
        for at in (0..devices).step_by(LARGE_LEN as usize) {
            space.map_large(at, at, Memory::Device)?;
        }
        for run in ram {
            for at in large_pages(*run) {
                space.map_large(at, at, Memory::Ram)?;
                space.map_large(DIRECT_MAP + at, at, Memory::Ram)?;
            }
        }
        space.unmap(0)?;
        for guard in guards {
            space.unmap(guard)?;
        }
        Ok(space)
    }

    /// Maps the window of a device onto itself, uncached. What is mapped already stays as it is.
    pub(super) fn map_device(&mut self, window: PhysRange) -> Result<(), MapError> {
        if window.end().0 > IDENTITY_LEN {
            return Err(MapError::TooFar(window.start()));
        }
        for at in large_pages(window) {
            self.map_large(at, at, Memory::Device)?;
        }
        self.activate();
        Ok(())
    }

    /// Runs on these tables from now on.
    pub(super) fn activate(&self) {
        // SAFETY: the tables map the image, stacks included, and the console onto themselves,
        // as it was without any; they are never freed.
        unsafe { mmu::activate(self.address(0)) };
    }

    /// Physical address of a table.
    fn address(&self, table: usize) -> u64 {
        (&raw const self.tables[table]).addr() as u64
    }

    fn map_large(&mut self, virt: u64, phys: u64, memory: Memory) -> Result<(), MapError> {
        let directory = self.child(0, index(virt, 30), phys)?;
        let entry = &mut self.tables[directory].0[index(virt, 21)];
        if *entry == 0 {
            *entry = mmu::large_page(phys, memory);
        }
        Ok(())
    }

    /// Takes one small page out of a large one.
    fn unmap(&mut self, virt: u64) -> Result<(), MapError> {
        let directory = self.child(0, index(virt, 30), virt)?;
        let at = index(virt, 21);
        let large = self.tables[directory].0[at];
        if mmu::is_page(large) {
            let table = self.allocate(virt)?;
            for (page, phys) in (mmu::address(large)..).step_by(PAGE_LEN).take(512).enumerate() {
                self.tables[table].0[page] = mmu::small_page(phys, large);
            }
            self.tables[directory].0[at] = mmu::table(self.address(table));
        }
        let table = self.child(directory, at, virt)?;
        self.tables[table].0[index(virt, 12)] = 0;
        Ok(())
    }

    /// The table that an entry of `parent` points to, made if there is none.
    fn child(&mut self, parent: usize, entry: usize, phys: u64) -> Result<usize, MapError> {
        if self.tables[parent].0[entry] == 0 {
            let table = self.allocate(phys)?;
            self.tables[parent].0[entry] = mmu::table(self.address(table));
        }
        let offset = mmu::address(self.tables[parent].0[entry]) - self.address(0);
        Ok(offset as usize / PAGE_LEN)
    }

    fn allocate(&mut self, phys: u64) -> Result<usize, MapError> {
        let table = self.used;
        if table >= TABLES {
            return Err(MapError::TooFar(PhysAddr(phys)));
        }
        self.used += 1;
        Ok(table)
    }
}

/// Most mappings of [`mappings`].
pub(crate) const MAPPINGS_MAX: usize = 2;

/// Where `ram` is in the kernel's address space, the kernel's own view of it first.
pub(crate) fn mappings(ram: &Ranges) -> Vec<Mapping, MAPPINGS_MAX> {
    let start = ram.first().map_or(PhysAddr(0), |run| run.start());
    let end = ram.last().map_or(start, |run| run.end());
    let range = PhysRange::new(start, end.0 - start.0).unwrap_or_default();
    let at = |virt| Mapping { virt, range };
    Vec::from_array([at(start.0), at(DIRECT_MAP + start.0)])
}

/// The page tables.
pub(crate) fn page_tables() -> PhysRange {
    PhysRange::new(super::physical(&raw const POOL), size_of_val(&POOL) as u64).unwrap_or_default()
}

/// Addresses of the large pages that `range` lies in.
fn large_pages(range: PhysRange) -> impl Iterator<Item = u64> {
    let first = range.start().0 & !(LARGE_LEN - 1);
    (first..range.end().0).step_by(LARGE_LEN as usize)
}

/// The pointer through which RAM at `address` is reached, guard pages included.
pub(crate) fn direct(address: PhysAddr) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut((DIRECT_MAP + address.0) as usize)
}

fn index(virt: u64, shift: u32) -> usize {
    (virt >> shift & 0x1ff) as usize
}
