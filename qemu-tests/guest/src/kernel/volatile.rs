//! The memory that the dump works in, all in the volatile section, each piece of it between
//! two guard pages.
//!
//! The rest of that section: the interrupt stacks, which have guard pages of their own, and
//! the task state segment (`arch`), the serial port's one flag, the message of a panic inside
//! the dump, and a few counters (`crash`).

use core::sync::atomic::{AtomicUsize, Ordering};

use debugnet_core::addr::DeviceAddr;
use debugnet_core::dump::layout::Region;
use debugnet_core::{Cells, Limits, Memory, Needs, Slot, memory_needed};
use debugnet_gzip::Window;
use guest::cmdline::SLOTS_MAX;
use guest::memory::RANGES_MAX;
use guest::overrun::Piece;
use nic_hal::{CrashCell, DmaRegion, Reserved};

use super::arch;
use super::crash::Kit;
use super::driver::{MEMORY_NEEDED, RingNeeds};
use super::guarded::{Guard, Guarded, Lent, PAGE_LEN, front};

/// Room for the largest payload that a stock server takes.
const NEEDS: Needs =
    memory_needed(&Limits { slots: SLOTS_MAX, cells: CELLS_MAX, payload_len: 4096 });
/// More cells are not used.
const CELLS_MAX: usize = 64;

/// What the compressor gets: the least there is.
pub(super) const GZIP_WINDOW: Window = Window::Small;

/// The client in C has rings of its own, and no compressor.
const fn unless_c(len: usize) -> usize {
    if cfg!(feature = "c") { PAGE_LEN } else { len }
}
const GZIP_LEN: usize = unless_c(GZIP_WINDOW.workspace_len());
/// These begin at a page: nothing is lost to alignment.
const RINGS_LEN: usize = unless_c((MEMORY_NEEDED - PAGE_LEN).next_multiple_of(PAGE_LEN));
/// Regions of RAM: the loader's, each of the two special ranges splits one in three.
const REGIONS: usize = RANGES_MAX + 4;

macro_rules! lent {
    ($what:ty) => { Guarded<Lent<$what>, { front::<$what>() }> };
}

/// All of it, by rising address, in the order of [`Piece`].
#[repr(C)]
struct Arena {
    before: Guard,
    slots: lent!([Slot; NEEDS.slots]),
    index: lent!([u16; NEEDS.index]),
    cells: lent!([u8; NEEDS.cell_bytes]),
    rx: lent!([u8; NEEDS.rx]),
    rings: lent!([u8; RINGS_LEN]),
    gzip: lent!([u8; GZIP_LEN]),
    regions: lent!([Region; REGIONS]),
    kit: Guarded<CrashCell<Kit>, { front::<CrashCell<Kit>>() }>,
}

#[unsafe(link_section = ".volatile")]
static ARENA: Arena = Arena {
    before: Guard::new(),
    slots: Guarded::new(Lent::new([Slot::EMPTY; NEEDS.slots])),
    index: Guarded::new(Lent::new([0; NEEDS.index])),
    cells: Guarded::new(Lent::new([0; NEEDS.cell_bytes])),
    rx: Guarded::new(Lent::new([0; NEEDS.rx])),
    rings: Guarded::new(Lent::new([0; RINGS_LEN])),
    gzip: Guarded::new(Lent::new([0; GZIP_LEN])),
    regions: Guarded::new(Lent::new([Region::EMPTY; REGIONS])),
    kit: Guarded::new(CrashCell::new()),
};

/// Whether it was lent.
static TAKEN: Reserved<()> = Reserved::new(());

/// First byte and one past the last of what was handed out of each piece. Written at boot.
static HANDED: [[AtomicUsize; 2]; Piece::COUNT] =
    [const { [const { AtomicUsize::new(0) }; 2] }; Piece::COUNT];

/// What the dump needs, set aside at boot.
pub(super) fn kit() -> &'static CrashCell<Kit> {
    ARENA.kit.value()
}

/// The pieces that are lent.
pub(super) struct Pieces {
    slots: &'static mut [Slot],
    index: &'static mut [u16],
    cells: &'static mut [u8],
    rx: &'static mut [u8],
    rings: &'static mut [u8],
    gzip: &'static mut [u8],
    regions: &'static mut [Region],
}

impl Pieces {
    /// All of them. `None` the second time.
    pub(super) fn take() -> Option<Self> {
        // SAFETY: arming, once, on the only thread there is: no other `take` is under way.
        unsafe { TAKEN.take() }?;
        hand(Piece::Kit, core::slice::from_ref(kit()));
        // SAFETY: here, behind a flag that is taken once; so for the others, which are
        // named nowhere else.
        let slots = unsafe { ARENA.slots.value().lend() };
        // SAFETY: behind the same flag.
        let index = unsafe { ARENA.index.value().lend() };
        // SAFETY: behind the same flag; the cells are the dump's from here on.
        let cells = unsafe { ARENA.cells.value().lend() };
        // SAFETY: behind the same flag; the last of what `arm` gets.
        let rx = unsafe { ARENA.rx.value().lend() };
        // SAFETY: behind the same flag; the driver's for ever.
        let rings = unsafe { ARENA.rings.value().lend() };
        // SAFETY: behind the same flag; the compressor's for ever.
        let gzip = unsafe { ARENA.gzip.value().lend() };
        // SAFETY: behind the same flag; the image's for ever.
        let regions = unsafe { ARENA.regions.value().lend() };
        Some(Self { slots, index, cells, rx, rings, gzip, regions })
    }

    /// What of it is the dump's: a window of `slots` messages, cells of `cell_len` bytes.
    pub(super) fn dump_memory(&mut self, slots: usize, cell_len: usize) -> Option<Memory<'static>> {
        let per_slot = NEEDS.index / NEEDS.slots;
        let cells = CELLS_MAX.min(NEEDS.cell_bytes.checked_div(cell_len)?);
        let cells = last(Piece::Cells, &mut self.cells, cells * cell_len)?;
        Some(Memory {
            slots: last(Piece::Slots, &mut self.slots, slots)?,
            index: last(Piece::Index, &mut self.index, slots * per_slot)?,
            cells: Cells { phys: Some(arch::physical(cells.as_ptr())), bytes: cells },
            rx: last(Piece::Rx, &mut self.rx, NEEDS.rx)?,
        })
    }

    /// Rings and buffers for the take-over of a NIC: they end at the guard page, if their
    /// start may lie anywhere in a page.
    pub(super) fn rings(&mut self, needs: RingNeeds) -> Option<DmaRegion> {
        let RingNeeds { len, align } = needs;
        let rings = last(Piece::Rings, &mut self.rings, len.next_multiple_of(align))?;
        let rings = rings.get_mut(..len)?;
        hand(Piece::Rings, rings);
        let device = DeviceAddr(arch::physical(rings.as_ptr()).0);
        // SAFETY: static memory that is the driver's for ever, part of the image and so
        // contiguous; there is no IOMMU, and PC devices are coherent.
        unsafe { DmaRegion::from_static(rings, device) }
    }

    /// Workspace of the compressor.
    pub(super) fn gzip(&mut self) -> Option<&'static mut [u8]> {
        last(Piece::Gzip, &mut self.gzip, GZIP_LEN)
    }

    /// The list of regions.
    pub(super) fn regions(&mut self) -> Option<&'static mut [Region]> {
        last(Piece::Regions, &mut self.regions, REGIONS)
    }
}

/// The last `len` elements of a piece, so that their end is at the guard page. `None` if
/// they were handed out before.
fn last<T>(piece: Piece, whole: &mut &'static mut [T], len: usize) -> Option<&'static mut [T]> {
    let whole = core::mem::take(whole);
    let from = whole.len().checked_sub(len)?;
    let (_, handed) = whole.split_at_mut_checked(from)?;
    hand(piece, handed);
    Some(handed)
}

/// Writes down what was handed out.
fn hand<T>(piece: Piece, what: &[T]) {
    let ends = what.as_ptr_range();
    for (at, end) in HANDED[piece as usize].iter().zip([ends.start, ends.end]) {
        at.store(end.addr(), Ordering::Relaxed);
    }
}

/// First byte and one past the last of what was handed out of a piece, `(0, 0)` if nothing was.
pub(super) fn handed(piece: Piece) -> (usize, usize) {
    HANDED
        .get(piece as usize)
        .map_or((0, 0), |[start, end]| (start.load(Ordering::Relaxed), end.load(Ordering::Relaxed)))
}

/// Where the pages of a piece begin.
pub(super) fn first(piece: Piece) -> usize {
    match piece {
        Piece::Slots => ARENA.slots.first(),
        Piece::Index => ARENA.index.first(),
        Piece::Cells => ARENA.cells.first(),
        Piece::Rx => ARENA.rx.first(),
        Piece::Rings => ARENA.rings.first(),
        Piece::Gzip => ARENA.gzip.first(),
        Piece::Regions => ARENA.regions.first(),
        Piece::Kit => ARENA.kit.first(),
        Piece::Stack | Piece::Ram => 0,
    }
}

/// The guard pages by rising address: one before the first piece, one behind each.
pub(super) fn guards() -> [u64; Piece::COUNT + 1] {
    [
        &ARENA.before,
        ARENA.slots.behind(),
        ARENA.index.behind(),
        ARENA.cells.behind(),
        ARENA.rx.behind(),
        ARENA.rings.behind(),
        ARENA.gzip.behind(),
        ARENA.regions.behind(),
        ARENA.kit.behind(),
    ]
    .map(Guard::address)
}
