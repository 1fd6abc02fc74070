//! Segments, the task state segment, and the interrupt table.
//!
//! Each of the 256 gates changes to a stack of its own: core code uses the red
//! zone below the stack pointer, so nothing may ever be pushed onto the
//! current stack, and a stack that overflowed cannot take a fault anyway.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use nic_hal::Reserved;
use spin::Mutex;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::{lgdt, lidt, load_tss, sgdt};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

use super::smp::CPUS_MAX;
use super::stacks::{DEATH_STACKS, DeathStacks};
use super::trap::{STUB_LEN, trap_stubs};

/// Which interrupt stack a vector takes (TSS.IST1 to IST3).
const IST_FAULT: u8 = 1;
const IST_DOUBLE_FAULT: u8 = 2;
const IST_NMI: u8 = 3;

const NMI: usize = 2;
const DOUBLE_FAULT: usize = 8;
const MACHINE_CHECK: usize = 18;

/// A 64-bit task state segment, 104 bytes. The crash path writes to it (see
/// [`divert_faults`]) while the CPU reads it: words that change under the
/// compiler's feet, and part of the volatile section.
#[repr(C, align(128))]
struct Tss([AtomicU32; 26]);

#[unsafe(link_section = ".volatile")]
static TSS: [Tss; CPUS_MAX] = [const { Tss([const { AtomicU32::new(0) }; 26]) }; CPUS_MAX];

impl Tss {
    /// Word index of IST1 (offset 36).
    const IST1: usize = 9;

    fn set_stacks(&self, stacks: &DeathStacks) {
        self.set_stack(IST_FAULT, stacks.fault.top());
        self.set_stack(IST_DOUBLE_FAULT, stacks.double_fault.top());
        self.set_stack(IST_NMI, stacks.nmi.top());
    }

    fn set_stack(&self, ist: u8, top: u64) {
        let at = Self::IST1 + 2 * (usize::from(ist) - 1);
        self.0[at].store(top as u32, Ordering::Relaxed);
        self.0[at + 1].store((top >> 32) as u32, Ordering::Relaxed);
    }
}

static GDT: Reserved<GlobalDescriptorTable> = Reserved::new(GlobalDescriptorTable::new());

/// An interrupt gate, 16 bytes (Intel SDM volume 3, section 7.14.1).
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    offset_low: u16,
    selector: u16,
    ist: u8,
    kind: u8,
    offset_middle: u16,
    offset_high: u32,
    _reserved: u32,
}

impl Gate {
    const NONE: Self = Self {
        offset_low: 0,
        selector: 0,
        ist: 0,
        kind: 0,
        offset_middle: 0,
        offset_high: 0,
        _reserved: 0,
    };

    fn new(handler: u64, selector: u16, ist: u8) -> Self {
        /// Present, ring 0, 64-bit interrupt gate: the flag IF is cleared.
        const INTERRUPT_GATE: u8 = 0x8e;
        Self {
            offset_low: handler as u16,
            selector,
            ist,
            kind: INTERRUPT_GATE,
            offset_middle: (handler >> 16) as u16,
            offset_high: (handler >> 32) as u32,
            _reserved: 0,
        }
    }
}

#[repr(C, align(4096))]
struct Idt([Gate; 256]);

static IDT: Reserved<Idt> = Reserved::new(Idt([Gate::NONE; 256]));

/// What each CPU loads.
#[derive(Clone, Copy)]
struct Tables {
    gdt: DescriptorTablePointer,
    idt: DescriptorTablePointer,
    code: SegmentSelector,
    data: SegmentSelector,
    tss: [SegmentSelector; CPUS_MAX],
}

static TABLES: Mutex<Option<Tables>> = Mutex::new(None);

/// Makes all tables and loads them. From here on every fault is caught. `false` if it was done
/// before.
pub(super) fn load() -> bool {
    // SAFETY: first code on the only CPU so far, interrupts off.
    let (Some(gdt), Some(idt)) = (unsafe { GDT.take() }, unsafe { IDT.take() }) else {
        return false;
    };
    let code = gdt.append(Descriptor::kernel_code_segment());
    let data = gdt.append(Descriptor::kernel_data_segment());
    let tss = [&TSS[0], &TSS[1]].map(|tss| {
        let tss = (&raw const *tss).cast::<TaskStateSegment>();
        // SAFETY: `Tss` has the size and layout of the hardware's structure, and is static.
        gdt.append(unsafe { Descriptor::tss_segment_unchecked(tss) })
    });
    for (tss, stacks) in TSS.iter().zip(&DEATH_STACKS) {
        tss.set_stacks(stacks);
    }

    let stubs = trap_stubs();
    for (vector, gate) in idt.0.iter_mut().enumerate() {
        let ist = match vector {
            DOUBLE_FAULT => IST_DOUBLE_FAULT,
            NMI | MACHINE_CHECK => IST_NMI,
            _ => IST_FAULT,
        };
        *gate = Gate::new(stubs + (vector * STUB_LEN) as u64, code.0, ist);
    }
    let idt = DescriptorTablePointer {
        limit: (size_of::<Idt>() - 1) as u16,
        base: VirtAddr::from_ptr(&raw const *idt),
    };
    gdt.load();
    let tables = Tables { gdt: sgdt(), idt, code, data, tss };
    *TABLES.lock() = Some(tables);
    load_on(tables, 0);
    true
}

/// Loads the tables that [`load`] made on the second CPU. `false` if there are none.
pub(super) fn load_second() -> bool {
    let tables = *TABLES.lock();
    let Some(tables) = tables else { return false };
    load_on(tables, 1);
    true
}

fn load_on(tables: Tables, cpu: usize) {
    // SAFETY: a complete table in static memory, mapped on both sets of page tables.
    unsafe { lgdt(&tables.gdt) };
    // SAFETY: the flat 64-bit code segment of this table, like the one in use.
    unsafe { CS::set_reg(tables.code) };
    // SAFETY: a flat, writable segment, fit for a stack.
    unsafe { SS::set_reg(tables.data) };
    // SAFETY: as for the stack segment; nothing here depends on a data segment's base.
    unsafe { DS::set_reg(tables.data) };
    // SAFETY: string instructions write through ES, whose base stays 0.
    unsafe { ES::set_reg(tables.data) };
    // SAFETY: the selector of a TSS that this CPU alone loads, this once.
    unsafe { load_tss(tables.tss[cpu]) };
    // SAFETY: each of its 256 gates leads to a stub that never returns.
    unsafe { lidt(&tables.idt) };
}

/// Which CPU this is, from 0: each has its own task state segment.
pub(super) fn this_cpu() -> usize {
    /// Selector of the first one: behind null, code and data.
    const FIRST_TSS: u16 = 0x18;
    /// Bytes of a system segment's descriptor.
    const TSS_STEP: u16 = 16;
    let selector: u16;
    // SAFETY: reads the task register; no memory, no flags.
    unsafe { asm!("str {:x}", out(reg) selector, options(nomem, nostack, preserves_flags)) };
    usize::from(selector.saturating_sub(FIRST_TSS) / TSS_STEP).min(CPUS_MAX - 1)
}

/// Sends this CPU's faults to come to the stack for nested ones, so that the stack of
/// the first, on which the dump runs, stays whole. Called first thing in a fault.
pub(super) fn divert_faults() {
    let cpu = this_cpu();
    TSS[cpu].set_stack(IST_FAULT, DEATH_STACKS[cpu].nested.top());
}
