//! x86_64 machines of QEMU (`q35`, `pc`, `microvm`), booted through PVH.

mod boot;
mod clock;
mod paging;
mod rtc;
mod smp;
mod stacks;
#[cfg(target_os = "linux")]
mod string;
mod tables;
mod trap;
pub(super) mod uart;

use core::arch::asm;
use core::num::NonZeroU64;

use debugnet_core::addr::{PhysAddr, PhysRange};
use guest::memory::{self, Ranges};
use guest::pvh::{MemoryMapEntry, StartInfo};
use heapless::{String, Vec};
use x86_64::instructions::hlt;
use x86_64::instructions::port::Port;

pub(crate) use clock::counter;
pub(crate) use debugnet_core::dump::layout::X86_64 as CoreRegisters;
pub(crate) use nic_hal::pci::Cf8 as PciAccess;
pub(crate) use nic_hal::port::PortIo as Ports;
pub(crate) use paging::{MAPPINGS_MAX, MapError, direct, mappings, page_tables};
pub(crate) use smp::{CPUS_MAX, park, park_others, parked, start_second};
pub(crate) use stacks::{death_guards, death_stack};
pub(crate) use trap::Registers;

use crate::kernel::{fatal, say};

/// Longest command line in bytes.
const CMDLINE_MAX: usize = 2048;
/// The machine's name in the kernel dump header, and the version that goes with it.
pub(crate) const ARCHITECTURE: (&str, u32) = ("amd64", 2);
/// Most entries of the loader's memory map.
const MAP_MAX: u32 = 64;

/// What the boot code found out about the machine.
pub(crate) struct Machine {
    /// The command line.
    pub(crate) cmdline: String<CMDLINE_MAX>,
    /// RAM.
    pub(crate) ram: Ranges,
    /// Counter ticks a second.
    pub(crate) counter_hz: NonZeroU64,
    /// Seconds since 1970 at boot, 0 if unknown.
    pub(crate) boot_time_s: u64,
    space: paging::AddressSpace,
}

impl Machine {
    /// Makes the registers of a device reachable at their physical address.
    ///
    /// # Errors
    /// [`MapError`] if they lie too far up.
    pub(crate) fn map_device(&mut self, window: PhysRange) -> Result<(), MapError> {
        self.space.map_device(window)
    }
}

/// Memory that the kernel's image takes, zeroed parts included.
pub(crate) fn image() -> PhysRange {
    let layout = boot::layout();
    between(layout.image_start, layout.image_end - layout.virt_offset)
}

/// The part of the image that the crash path writes.
pub(crate) fn volatile_section() -> PhysRange {
    let layout = boot::layout();
    between(layout.volatile_start - layout.virt_offset, layout.volatile_end - layout.virt_offset)
}

/// The build id of this kernel, as the linker made it.
pub(crate) fn build_id() -> &'static [u8] {
    /// Three words of lengths and type, and the name `GNU`.
    const HEADER_LEN: u64 = 16;
    let layout = boot::layout();
    let start = layout.build_id + HEADER_LEN;
    let len = layout.build_id_end.saturating_sub(start) as usize;
    let first = core::ptr::with_exposed_provenance(start as usize);
    // SAFETY: read-only data of the image between two symbols of the linker.
    unsafe { core::slice::from_raw_parts(first, len) }
}

/// Where in RAM something of the kernel's image is: a static, or the boot stack.
pub(crate) fn physical<T: ?Sized>(what: *const T) -> PhysAddr {
    PhysAddr((what.addr() as u64).wrapping_sub(boot::layout().virt_offset))
}

fn between(start: u64, end: u64) -> PhysRange {
    PhysRange::new(PhysAddr(start), end.saturating_sub(start)).unwrap_or(PhysRange::EMPTY)
}

/// First Rust code, on the boot stack, with the first GiB mapped onto itself.
extern "C" fn start(start_info: u64) -> ! {
    uart::init();
    if !tables::load() {
        fatal(format_args!("started twice"));
    }
    let (cmdline, ram) = match read_start_info(PhysAddr(start_info)) {
        Ok(found) => found,
        Err(what) => fatal(format_args!("{what}")),
    };
    let virt_offset = boot::layout().virt_offset;
    let space = paging::AddressSpace::new(&ram, image(), virt_offset, stacks::guards());
    let space = match space {
        Ok(space) => space,
        Err(error) => fatal(format_args!("page tables: {error:?}")),
    };
    space.activate();
    let Some(counter_hz) = clock::calibrate() else {
        fatal(format_args!("the interval timer does not move"));
    };
    let boot_time_s = rtc::unix_seconds();
    crate::kernel::main(Machine { cmdline, ram, counter_hz, boot_time_s, space })
}

/// The command line and the RAM in the loader's memory map.
fn read_start_info(address: PhysAddr) -> Result<(String<CMDLINE_MAX>, Ranges), &'static str> {
    let info = StartInfo::parse(&low_bytes(address.0)?)?;
    let count = info.memory_map_len.get();
    if count > MAP_MAX {
        return Err("start info: memory map too long");
    }
    let mut runs: Vec<PhysRange, { memory::RANGES_MAX }> = Vec::new();
    for entry in 0..u64::from(count) {
        let at = info.memory_map.get() + entry * MemoryMapEntry::LEN as u64;
        let entry = MemoryMapEntry::parse(&low_bytes(at)?).ok_or("start info: bad map entry")?;
        let range = entry.range().ok_or("start info: memory that wraps")?;
        say!("guest: map {} {} type {}", range.start(), range.end(), entry.kind());
        if entry.is_ram() {
            runs.push(range).map_err(|_| "start info: too many runs of RAM")?;
        }
    }
    let ram = memory::normalise(runs).map_err(|_| "start info: too many runs of RAM")?;

    let mut cmdline = String::new();
    let mut at = info.cmdline.get();
    while at != 0 {
        let [byte] = low_bytes::<1>(at)?;
        match byte {
            0 => break,
            0x20..0x7f => cmdline.push(char::from(byte)).map_err(|_| "command line too long")?,
            _ => return Err("command line: not printable ASCII"),
        }
        at += 1;
    }
    Ok((cmdline, ram))
}

/// Bytes that the loader left in memory, before the kernel has tables of its own.
fn low_bytes<const LEN: usize>(address: u64) -> Result<[u8; LEN], &'static str> {
    const BOOT_MAP_LEN: u64 = 1 << 30;
    if address == 0 || address > BOOT_MAP_LEN - LEN as u64 {
        return Err("start info: outside the memory mapped at boot");
    }
    let first = core::ptr::with_exposed_provenance::<u8>(address as usize);
    let mut bytes = [0; LEN];
    for (at, byte) in bytes.iter_mut().enumerate() {
        // SAFETY: inside the first GiB, which the boot tables map; the loader wrote it
        // and nobody else writes before RAM is filled.
        *byte = unsafe { first.wrapping_add(at).read_volatile() };
    }
    Ok(bytes)
}

/// Slots of virtio-mmio: first address, bytes between two, how many. Only a `microvm` has
/// them: there a PC may have anything.
pub(crate) fn mmio_slots() -> (u64, u64, u64) {
    if has_pci() { (0, 0, 0) } else { (0xfeb0_0000, 0x200, 24) }
}

/// Whether there is a PCI bus: a `microvm` has none.
pub(crate) fn has_pci() -> bool {
    const ENABLE: u32 = 1 << 31;
    let mut address = Port::<u32>::new(0xcf8);
    // SAFETY: selects a register of configuration space, and accesses none.
    unsafe { address.write(ENABLE) };
    // SAFETY: reading the selection has no effect.
    unsafe { address.read() == ENABLE }
}

/// I/O ports of a device. `None` if they run past the last port.
pub(crate) fn ports(first: u16, len: u16) -> Option<Ports> {
    // SAFETY: ring 0. The ports are those of a device that two drivers know, one after
    // the other: the live one until the crash, the dump's from then on.
    unsafe { Ports::new(first, len) }
}

/// PCI configuration space.
pub(crate) fn pci_access() -> PciAccess {
    // SAFETY: ring 0 of a PC, one CPU, interrupts off: no access happens inside another,
    // and each selects its register anew.
    unsafe { PciAccess::new() }
}

/// Whether this CPU takes no interrupts.
pub(crate) fn interrupts_are_off() -> bool {
    !x86_64::instructions::interrupts::are_enabled()
}

/// Copies mapped memory, live or not.
///
/// # Safety
/// As many bytes as `into` has are mapped at `from`.
pub(crate) unsafe fn copy(from: *const u8, into: &mut [u8]) {
    // SAFETY: the source is mapped by the caller's word, the target is ours. An asm block
    // may read any memory.
    unsafe {
        asm!(
            "rep movsq",
            "mov ecx, edx",
            "rep movsb",
            inout("rcx") into.len() / 8 => _,
            inout("rsi") from => _,
            inout("rdi") into.as_mut_ptr() => _,
            in("rdx") into.len() % 8,
            options(nostack, preserves_flags),
        );
    }
}

/// Ends QEMU through its `isa-debug-exit` device: status 33 for success, 3
/// for failure. Without the device the CPU stops.
pub(crate) fn exit(success: bool) -> ! {
    const SUCCESS: u32 = 0x10;
    const FAILURE: u32 = 1;
    // SAFETY: the port belongs to the debug device or to nothing.
    unsafe { Port::<u32>::new(0xf4).write(if success { SUCCESS } else { FAILURE }) };
    stop()
}

/// Which CPU this is, from 0.
pub(crate) fn cpu() -> usize {
    tables::this_cpu()
}

/// Halts until something happens. Interrupts are off: that is an NMI.
pub(crate) fn wait() {
    hlt();
}

/// Stops the CPU and leaves the machine as it is.
pub(crate) fn stop() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        hlt();
    }
}

/// Executes the undefined instruction: the way a panic reaches the fault handler.
pub(crate) fn undefined_instruction() -> ! {
    // SAFETY: raises an exception whose handler never returns.
    unsafe { asm!("ud2", options(noreturn)) }
}
