//! Translation: the bits of a table's entry, and how tables are put to use
//! (Arm ARM, section D8.3).

use core::arch::asm;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{
    MAIR_EL1, ReadWriteable, SCTLR_EL1, TCR_EL1, TTBR0_EL1, TTBR1_EL1, Writeable,
};

use crate::kernel::arch::Memory;

const VALID: u64 = 1;
/// A table or, at the last level, a page; else a large page.
const TABLE: u64 = 1 << 1;
/// Index of the attributes in `MAIR_EL1`: 0 is RAM.
const DEVICE: u64 = 1 << 2;
const INNER_SHAREABLE: u64 = 3 << 8;
const ACCESSED: u64 = 1 << 10;
const NEVER_EXECUTE: u64 = 3 << 53;
const ADDRESS: u64 = 0xffff_ffff_f000;

/// The entry that points to a table.
pub(in crate::kernel::arch) fn table(phys: u64) -> u64 {
    phys | TABLE | VALID
}

/// The entry of a large page.
pub(in crate::kernel::arch) fn large_page(phys: u64, memory: Memory) -> u64 {
    let kind = match memory {
        Memory::Ram => INNER_SHAREABLE,
        Memory::Device => DEVICE | NEVER_EXECUTE,
    };
    phys | kind | ACCESSED | VALID
}

/// The entry of a small page that is like the large one.
pub(in crate::kernel::arch) fn small_page(phys: u64, large: u64) -> u64 {
    phys | large & !ADDRESS | TABLE
}

/// Whether an entry above the last level is a page.
pub(in crate::kernel::arch) fn is_page(entry: u64) -> bool {
    entry & (TABLE | VALID) == VALID
}

/// The address in an entry.
pub(in crate::kernel::arch) fn address(entry: u64) -> u64 {
    entry & ADDRESS
}

/// Translates by the tables from `root` on, which serve both halves of the address space.
///
/// # Safety
/// They map what the kernel runs on, and are never freed.
pub(in crate::kernel::arch) unsafe fn activate(root: u64) {
    MAIR_EL1.write(
        MAIR_EL1::Attr0_Normal_Outer::WriteBack_NonTransient_ReadWriteAlloc
            + MAIR_EL1::Attr0_Normal_Inner::WriteBack_NonTransient_ReadWriteAlloc
            + MAIR_EL1::Attr1_Device::nonGathering_nonReordering_EarlyWriteAck,
    );
    TCR_EL1.write(
        TCR_EL1::IPS::Bits_40
            + TCR_EL1::T0SZ.val(25)
            + TCR_EL1::TG0::KiB_4
            + TCR_EL1::SH0::Inner
            + TCR_EL1::IRGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + TCR_EL1::ORGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + TCR_EL1::T1SZ.val(25)
            + TCR_EL1::TG1::KiB_4
            + TCR_EL1::SH1::Inner
            + TCR_EL1::IRGN1::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + TCR_EL1::ORGN1::WriteBack_ReadAlloc_WriteAlloc_Cacheable,
    );
    TTBR0_EL1.set(root);
    TTBR1_EL1.set(root);
    barrier::dsb(barrier::SY);
    // SAFETY: what was translated before is forgotten; the same addresses mean the same.
    unsafe { asm!("tlbi vmalle1", options(nostack, preserves_flags)) };
    barrier::dsb(barrier::SY);
    barrier::isb(barrier::SY);
    SCTLR_EL1.modify(SCTLR_EL1::M::Enable + SCTLR_EL1::C::Cacheable + SCTLR_EL1::I::Cacheable);
    barrier::isb(barrier::SY);
}
