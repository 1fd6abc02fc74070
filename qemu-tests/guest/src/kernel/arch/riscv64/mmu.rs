//! Translation (Sv39): the bits of a table's entry, and how tables are put to use
//! (RISC-V privileged architecture, section 12.4).

use riscv::asm::sfence_vma_all;
use riscv::register::satp::{self, Mode};

use crate::kernel::arch::Memory;

const VALID: u64 = 1;
const READ: u64 = 1 << 1;
const WRITE: u64 = 1 << 2;
const EXECUTE: u64 = 1 << 3;
const ACCESSED: u64 = 1 << 6;
const DIRTY: u64 = 1 << 7;
/// An entry has its page's number from bit 10 on.
const SHIFT: u32 = 2;
const FLAGS: u64 = 0x3ff;

/// The entry that points to a table.
pub(in crate::kernel::arch) fn table(phys: u64) -> u64 {
    phys >> SHIFT | VALID
}

/// The entry of a large page.
pub(in crate::kernel::arch) fn large_page(phys: u64, memory: Memory) -> u64 {
    let execute = if memory == Memory::Ram { EXECUTE } else { 0 };
    phys >> SHIFT | DIRTY | ACCESSED | execute | WRITE | READ | VALID
}

/// The entry of a small page that is like the large one.
pub(in crate::kernel::arch) fn small_page(phys: u64, large: u64) -> u64 {
    phys >> SHIFT | large & FLAGS
}

/// Whether an entry above the last level is a page.
pub(in crate::kernel::arch) fn is_page(entry: u64) -> bool {
    entry & READ != 0
}

/// The address in an entry.
pub(in crate::kernel::arch) fn address(entry: u64) -> u64 {
    (entry & !FLAGS) << SHIFT
}

/// Translates by the tables from `root` on.
///
/// # Safety
/// They map what the kernel runs on, and are never freed.
pub(in crate::kernel::arch) unsafe fn activate(root: u64) {
    const PAGE_SHIFT: u32 = 12;
    // SAFETY: by the caller's word, the same addresses mean the same.
    unsafe { satp::set(Mode::Sv39, 0, (root >> PAGE_SHIFT) as usize) };
    sfence_vma_all();
}
