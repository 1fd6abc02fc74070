//! The memory that the dump works in, all in the volatile section.
//!
//! The rest of that section: the interrupt stacks and the task state segment
//! (`arch`), the serial port's one flag, the message of a panic inside the
//! dump, and the crash cell with its counters (`crash`).

use debugnet_core::addr::DeviceAddr;
use debugnet_core::{Cells, Limits, Memory, Needs, Slot, memory_needed};
use debugnet_gzip::Window;
use guest::cmdline::SLOTS_MAX;
use nic_hal::{DmaRegion, Reserved};

use super::arch;
use super::driver::MEMORY_NEEDED;

/// Room for the largest payload that a stock server takes.
const NEEDS: Needs = memory_needed(&Limits { slots: SLOTS_MAX, cells: 64, payload_len: 4096 });

/// What the compressor gets: the least there is.
pub(super) const GZIP_WINDOW: Window = Window::Small;
const GZIP_LEN: usize = GZIP_WINDOW.workspace_len();

#[repr(C, align(4096))]
struct Pages<const LEN: usize>([u8; LEN]);

#[unsafe(link_section = ".volatile")]
static SLOTS: Reserved<[Slot; NEEDS.slots]> = Reserved::new([Slot::EMPTY; NEEDS.slots]);
#[unsafe(link_section = ".volatile")]
static INDEX: Reserved<[u16; NEEDS.index]> = Reserved::new([0; NEEDS.index]);
#[unsafe(link_section = ".volatile")]
static CELLS: Reserved<Pages<{ NEEDS.cell_bytes }>> = Reserved::new(Pages([0; NEEDS.cell_bytes]));
#[unsafe(link_section = ".volatile")]
static RX: Reserved<[u8; NEEDS.rx]> = Reserved::new([0; NEEDS.rx]);
#[unsafe(link_section = ".volatile")]
static NIC_MEMORY: Reserved<Pages<MEMORY_NEEDED>> = Reserved::new(Pages([0; MEMORY_NEEDED]));
#[unsafe(link_section = ".volatile")]
static GZIP_MEMORY: Reserved<[u8; GZIP_LEN]> = Reserved::new([0; GZIP_LEN]);

/// The dump's memory with a window of `slots` messages. `None` the second time.
pub(super) fn dump_memory(slots: usize) -> Option<Memory<'static>> {
    // SAFETY: boot code on the only CPU, interrupts off: no other `take` is under way.
    let all_slots = unsafe { SLOTS.take() }?;
    // SAFETY: as for the slots, and this static is named nowhere else.
    let all_index = unsafe { INDEX.take() }?;
    // SAFETY: still in the same call at boot; the cells are the dump's from here on.
    let cells = unsafe { CELLS.take() }?;
    // SAFETY: the last of the four, taken by the same single thread.
    let rx = unsafe { RX.take() }?;
    let per_slot = NEEDS.index / NEEDS.slots;
    Some(Memory {
        slots: all_slots.get_mut(..slots)?,
        index: all_index.get_mut(..slots * per_slot)?,
        cells: Cells { phys: Some(arch::physical(&raw const cells.0)), bytes: &mut cells.0 },
        rx,
    })
}

/// Rings and buffers for the take-over of a NIC. `None` the second time.
pub(super) fn nic_memory() -> Option<DmaRegion> {
    // SAFETY: called while arming, once, by the only thread there is.
    let pages = unsafe { NIC_MEMORY.take() }?;
    let device = DeviceAddr(arch::physical(&raw const pages.0).0);
    // SAFETY: static memory that is the driver's for ever, part of the image and so
    // contiguous; there is no IOMMU, and PC devices are coherent.
    unsafe { DmaRegion::from_static(&mut pages.0, device) }
}

/// Workspace of the compressor. `None` the second time.
pub(super) fn gzip_memory() -> Option<&'static mut [u8]> {
    // SAFETY: arming, once, on the only thread there is: no other `take` is under way, and
    // the memory is the compressor's for ever.
    let memory = unsafe { GZIP_MEMORY.take() }?;
    Some(memory)
}
