//! The second CPU: started at boot with INIT and SIPI, stopped by an NMI from
//! the CPU that dies.
//!
//! The local APIC's registers: Intel SDM volume 3, chapter 11.

use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::time::{Budget, Clock};
use x86_64::PhysAddr as X86PhysAddr;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

use super::trap::Registers;
use super::{Machine, boot, tables};
use crate::kernel::arch::stack::{LIVING_LEN, Stack};
use crate::kernel::arch::{cpu_clock, ram};

/// Most CPUs that this kernel uses.
pub(crate) const CPUS_MAX: usize = 2;

/// Where the second CPU lives: ordinary memory, like the boot stack.
pub(super) static SECOND_STACK: Stack<LIVING_LEN> = Stack::new();

/// The page that the trampoline is copied to: free RAM below 1 MiB.
const TRAMPOLINE: PhysRange = match PhysRange::new(PhysAddr(0x8000), 0x1000) {
    Some(page) => page,
    None => PhysRange::EMPTY,
};
/// APIC id of the second CPU, as QEMU numbers them.
const SECOND_APIC_ID: u32 = 1;
/// Microseconds that the second CPU may take to come up, or to stop.
const ANSWER_US: u64 = 10_000_000;
const LOOKS_MAX: u32 = 200_000_000;

/// Physical address of the kernel's root page table, for the second CPU.
static ROOT: AtomicU64 = AtomicU64::new(0);
/// Whether the second CPU has come up.
static UP: AtomicBool = AtomicBool::new(false);

/// The CPU that asked the others to stop, plus one; 0 for none.
#[unsafe(link_section = ".volatile")]
static STOPPED_BY: AtomicU32 = AtomicU32::new(0);

/// What a CPU leaves when it stops.
struct Parked {
    state: AtomicU8,
    registers: UnsafeCell<Registers>,
}

impl Parked {
    const FREE: u8 = 0;
    const WRITING: u8 = 1;
    const READY: u8 = 2;
}

// SAFETY: the registers are written by the CPU that took the state from FREE to WRITING,
// once, and read only after it has become READY.
unsafe impl Sync for Parked {}

#[unsafe(link_section = ".volatile")]
static PARKED: [Parked; CPUS_MAX] = [const {
    Parked { state: AtomicU8::new(Parked::FREE), registers: UnsafeCell::new(Registers::ZERO) }
}; CPUS_MAX];

/// Starts the second CPU; it runs `kernel::second::main` from then on.
///
/// # Errors
/// What is missing, if it does not come up.
pub(crate) fn start_second(machine: &Machine) -> Result<(), &'static str> {
    const INIT: u32 = 0x4500;
    const STARTUP: u32 = 0x4600 | (0x8000 >> 12);
    if !machine.ram.iter().any(|run| run.contains(TRAMPOLINE)) {
        return Err("no RAM at 0x8000 for its first code");
    }
    let layout = boot::layout();
    let mut word = [0; 8];
    for at in (0..layout.trampoline_end - layout.trampoline).step_by(word.len()) {
        // SAFETY: code of the image, which is RAM; it may read a few bytes past its end.
        unsafe { ram::read(PhysAddr(layout.trampoline + at), &mut word) };
        let to = PhysAddr(TRAMPOLINE.start().0 + at);
        // SAFETY: RAM, checked above, that nothing lives in yet.
        unsafe { ram::write_word(to, u64::from_le_bytes(word)) };
    }
    ROOT.store(machine.space.root(), Ordering::Release);

    let mut clock = cpu_clock(machine.counter_hz);
    send(SECOND_APIC_ID, INIT);
    pause(&mut clock, 10_000);
    // The second of two is for CPUs that missed the first; one that runs ignores it.
    for _ in 0..2 {
        send(SECOND_APIC_ID, STARTUP);
        pause(&mut clock, 200);
    }
    let mut budget = Budget::new(clock.now().after(ANSWER_US), LOOKS_MAX);
    while !UP.load(Ordering::Acquire) {
        if !budget.spend(clock.now()) {
            return Err("it does not answer");
        }
        clock.relax();
    }
    Ok(())
}

/// First Rust code of the second CPU, on its stack and the boot page tables.
pub(super) extern "C" fn second_start() -> ! {
    let root = PhysFrame::containing_address(X86PhysAddr::new(ROOT.load(Ordering::Acquire)));
    // SAFETY: the tables that the first CPU runs on. They map this code and this stack
    // where the boot tables do.
    unsafe { Cr3::write(root, Cr3Flags::empty()) };
    if tables::load_second() {
        UP.store(true, Ordering::Release);
        crate::kernel::second::main(tables::this_cpu() as u32);
    }
    super::stop()
}

/// Stops every other CPU and keeps its registers. Returns whether all that run have stopped.
pub(crate) fn park_others(clock: &mut dyn Clock) -> bool {
    /// To all but this one, at once: a non-maskable interrupt.
    const NMI_TO_OTHERS: u32 = 0xc_4400;
    if !UP.load(Ordering::Acquire) {
        return true;
    }
    let this = tables::this_cpu();
    STOPPED_BY.store(this as u32 + 1, Ordering::Release);
    send(0, NMI_TO_OTHERS);
    let mut budget = Budget::new(clock.now().after(ANSWER_US), LOOKS_MAX);
    let has_stopped = |cpu: usize| PARKED[cpu].state.load(Ordering::Acquire) == Parked::READY;
    while !(0..CPUS_MAX).filter(|cpu| *cpu != this).all(has_stopped) {
        if !budget.spend(clock.now()) {
            return false;
        }
        clock.relax();
    }
    true
}

/// The registers of a CPU that [`park`] stopped.
pub(crate) fn parked(cpu: usize) -> Option<Registers> {
    let parked = PARKED.get(cpu)?;
    if parked.state.load(Ordering::Acquire) != Parked::READY {
        return None;
    }
    // SAFETY: written once before the state became READY, and never again.
    Some(unsafe { parked.registers.get().read() })
}

/// Whether an NMI on this CPU means that it is to stop.
pub(super) fn is_asked_to_stop() -> bool {
    let by = STOPPED_BY.load(Ordering::Acquire);
    by != 0 && by != tables::this_cpu() as u32 + 1
}

/// Keeps the registers, and stops this CPU for good.
pub(crate) fn park(registers: &Registers) -> ! {
    let parked = &PARKED[tables::this_cpu()];
    let mine = parked.state.compare_exchange(
        Parked::FREE,
        Parked::WRITING,
        Ordering::Acquire,
        Ordering::Relaxed,
    );
    if mine.is_ok() {
        // SAFETY: this CPU's own, and the exchange succeeds once: nobody reads before READY.
        unsafe { parked.registers.get().write(*registers) };
        parked.state.store(Parked::READY, Ordering::Release);
    }
    super::stop()
}

/// Sends an interrupt through the local APIC.
fn send(to: u32, command: u32) {
    const APIC: usize = 0xfee0_0000;
    const COMMAND_LOW: usize = APIC + 0x300;
    const COMMAND_HIGH: usize = APIC + 0x310;
    for (register, value) in [(COMMAND_HIGH, to << 24), (COMMAND_LOW, command)] {
        let register = ptr::with_exposed_provenance_mut::<u32>(register);
        // SAFETY: the APIC of this CPU, where firmware leaves it, mapped uncached and onto
        // itself. What the command sends is caught: by firmware's halt, or by the NMI gate.
        unsafe { register.write_volatile(value) };
    }
}

fn pause(clock: &mut dyn Clock, us: u64) {
    let mut budget = Budget::new(clock.now().after(us), LOOKS_MAX);
    while budget.spend(clock.now()) {
        clock.relax();
    }
}
