//! Page tables, built once at boot and never written again.
//!
//! Views of memory:
//!
//! * the **identity map**: the low 4 GiB with the rest of the address space that
//!   devices were asked for, uncached. The identity-mapped kernel runs in it, so
//!   there it holds all RAM too, cached;
//! * the **image** in the top 2 GiB, which the higher-half kernel runs in;
//! * the **direct map** at [`DIRECT_MAP`]: all RAM without holes. The dump
//!   reads through it, so that page 0 and the guard pages are in the image.
//!
//! Page 0 and the guard pages of the stacks are holes where the kernel runs.
//!
//! All accessed and dirty bits are set from the start. Else the CPU would set
//! them while the dump reads, and change pages that the dump calls frozen.

use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::dump::layout::Mapping;
use guest::memory::Ranges;
use heapless::Vec;
use x86_64::PhysAddr as X86PhysAddr;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::{PageTable, PageTableFlags, PhysFrame};

use crate::kernel::arch::stack::PAGE_LEN;

/// Length of a large page in bytes.
const LARGE_LEN: u64 = 0x20_0000;
/// Where the direct map begins: the upper half.
const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// The identity map covers this much, RAM or not.
const LOW_LEN: u64 = 1 << 32;
/// Identity-mapped addresses lie below: half of what four levels reach.
const IDENTITY_LEN: u64 = 1 << 47;
/// Page tables to draw from: 8 for the low 4 GiB, 2 for each GiB above, a few for holes, devices
/// and the image.
const TABLES: usize = 96;

const NODE: PageTableFlags =
    PageTableFlags::PRESENT.union(PageTableFlags::WRITABLE).union(PageTableFlags::ACCESSED);
const RAM: PageTableFlags = NODE.union(PageTableFlags::DIRTY);
const DEVICE: PageTableFlags =
    RAM.union(PageTableFlags::NO_CACHE).union(PageTableFlags::WRITE_THROUGH);

/// The tables, as ordinary memory of the kernel.
static POOL: nic_hal::Reserved<[PageTable; TABLES]> =
    nic_hal::Reserved::new([const { PageTable::new() }; TABLES]);

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
    tables: &'static mut [PageTable; TABLES],
    used: usize,
    /// Virtual less physical addresses of the kernel, and so of the tables.
    virt_offset: u64,
}

impl AddressSpace {
    /// Maps `ram`, the low 4 GiB and the kernel's `image`, without the pages at `guards`.
    pub(super) fn new(
        ram: &Ranges,
        image: PhysRange,
        virt_offset: u64,
        guards: impl Iterator<Item = u64>,
    ) -> Result<Self, MapError> {
        // SAFETY: one CPU, and interrupts are off since the machine started.
        let tables = unsafe { POOL.take() }.ok_or(MapError::Taken)?;
        let mut space = Self { tables, used: 1, virt_offset };
        let runs_in_identity = virt_offset == 0;
        for at in (0..LOW_LEN).step_by(LARGE_LEN as usize) {
            let page = PhysRange::new(PhysAddr(at), LARGE_LEN).unwrap_or_default();
            if !ram.iter().any(|run| run.overlaps(page)) {
                space.map_large(at, at, DEVICE)?;
            } else if runs_in_identity {
                space.map_large(at, at, RAM)?;
            }
        }
        for run in ram {
            for at in large_pages(*run) {
                if runs_in_identity {
                    space.map_large(at, at, RAM)?;
                }
                space.map_large(DIRECT_MAP + at, at, RAM)?;
            }
        }
        for at in large_pages(image) {
            space.map_large(virt_offset + at, at, RAM)?;
        }
        if runs_in_identity {
            space.unmap(0)?;
        }
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
            if at >= LOW_LEN {
                self.map_large(at, at, DEVICE)?;
            }
        }
        self.activate();
        Ok(())
    }

    /// Runs on these tables from now on.
    pub(super) fn activate(&self) {
        let root = PhysFrame::containing_address(X86PhysAddr::new(self.root()));
        // SAFETY: the tables map the image, stacks included, where the kernel is linked,
        // as the boot tables do; they are never freed.
        unsafe { Cr3::write(root, Cr3Flags::empty()) };
    }

    /// Physical address of the root table.
    pub(super) fn root(&self) -> u64 {
        self.address(0)
    }

    /// Physical address of a table.
    fn address(&self, table: usize) -> u64 {
        ((&raw const self.tables[table]).addr() as u64).wrapping_sub(self.virt_offset)
    }

    fn map_large(&mut self, virt: u64, phys: u64, flags: PageTableFlags) -> Result<(), MapError> {
        let pdpt = self.child(0, index(virt, 39), phys)?;
        let directory = self.child(pdpt, index(virt, 30), phys)?;
        let entry = &mut self.tables[directory][index(virt, 21)];
        if entry.is_unused() {
            entry.set_addr(X86PhysAddr::new(phys), flags | PageTableFlags::HUGE_PAGE);
        }
        Ok(())
    }

    /// Takes one small page out of a large one.
    fn unmap(&mut self, virt: u64) -> Result<(), MapError> {
        let pdpt = self.child(0, index(virt, 39), virt)?;
        let directory = self.child(pdpt, index(virt, 30), virt)?;
        let at = index(virt, 21);
        let large = self.tables[directory][at].clone();
        if large.flags().contains(PageTableFlags::HUGE_PAGE) {
            let table = self.allocate(virt)?;
            let flags = large.flags() - PageTableFlags::HUGE_PAGE;
            for page in 0..512_usize {
                let phys = large.addr() + (page * PAGE_LEN) as u64;
                self.tables[table][page].set_addr(phys, flags);
            }
            let address = X86PhysAddr::new(self.address(table));
            self.tables[directory][at].set_addr(address, NODE);
        }
        let table = self.child(directory, at, virt)?;
        self.tables[table][index(virt, 12)].set_unused();
        Ok(())
    }

    /// The table that an entry of `parent` points to, made if there is none.
    fn child(&mut self, parent: usize, entry: usize, phys: u64) -> Result<usize, MapError> {
        if self.tables[parent][entry].is_unused() {
            let table = self.allocate(phys)?;
            let address = X86PhysAddr::new(self.address(table));
            self.tables[parent][entry].set_addr(address, NODE);
        }
        let offset = self.tables[parent][entry].addr().as_u64() - self.address(0);
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
    let virt_offset = super::boot::layout().virt_offset;
    let end = ram.last().map_or(PhysAddr(0), |run| run.end());
    let all = PhysRange::new(PhysAddr(0), end.0).unwrap_or_default();
    let (_, all_but_page_0) = all.split_at(PAGE_LEN as u64);
    let own = if virt_offset == 0 { all_but_page_0 } else { super::image() };
    let own = Mapping { virt: virt_offset + own.start().0, range: own };
    Vec::from_array([own, Mapping { virt: DIRECT_MAP, range: all }])
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

/// The pointer through which RAM at `address` is reached, page 0 and guard pages included.
pub(crate) fn direct(address: PhysAddr) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut((DIRECT_MAP + address.0) as usize)
}

fn index(virt: u64, shift: u32) -> usize {
    (virt >> shift & 0x1ff) as usize
}
