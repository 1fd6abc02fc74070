//! The layer between the kernel and the machine.
//!
//! Another architecture is another directory with the same public face; nothing
//! outside of this one names a register or a port. What follows from the face
//! alone is written once, here: RAM by address (`ram`), the console (`serial`), the
//! clock (`clock`), stacks with guard pages (`stack`). QEMU's `virt` machines of
//! AArch64 and RISC-V share `virt`, and differ in their own directories.
//!
//! | item | what it does |
//! |---|---|
//! | `ARCHITECTURE` | name and version in the kernel dump header |
//! | `Machine` | what boot found: command line, RAM, counter frequency, time of day; `map_device` |
//! | `image`, `volatile_section`, `physical` | memory of the image, the part that the crash path writes, where a static is |
//! | `direct`, `copy` | the pointer to RAM at a physical address, guard pages and page 0 included; copying from there |
//! | `uart` | `has_room`, `send`: one byte to the console |
//! | `counter` | the CPU's counter |
//! | `has_pci`, `pci_access`, `ports`, `mmio_slots` | where devices are: PCI configuration space, I/O ports, virtio-mmio |
//! | `Registers` | the CPU at the fault: `pc`, `sp`, `address`, `cause`, `vector_name`, `signal`, `stack` (what is in use of it), `in_core` (a `CoreRegisters`) |
//! | `build_id` | of the kernel, as the linker made it |
//! | `mappings`, `MAPPINGS_MAX`, `page_tables` | where RAM is in the kernel's address space, and where that is written |
//! | `undefined_instruction` | how a panic reaches the fault handler |
//! | `CPUS_MAX`, `cpu`, `start_second`, `wait` | how many CPUs may be used, which one this is, starting another, idling |
//! | `death_guards`, `death_stack` | guard pages of the stacks that a fault comes in on; the ends of the one in use |
//! | `interrupts_are_off` | whether this CPU takes any |
//! | `park_others`, `park`, `parked` | stopping CPUs in a crash, and what their registers were |
//! | `exit`, `stop` | the end: leave QEMU, or stop with the machine intact |
//!
//! Boot ends in `kernel::main(Machine)`. Every fault ends in
//! `kernel::crash::on_fault(&Registers)`, on a stack in the volatile section,
//! with interrupts off; a second fault comes in on another such stack.

mod clock;
mod ram;
mod serial;
mod stack;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "riscv64")]
mod riscv64;
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
mod virt;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(super) use aarch64::*;
#[cfg(target_arch = "riscv64")]
pub(super) use riscv64::*;
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
pub(super) use virt::*;
#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::*;

pub(super) use clock::{CpuClock, cpu_clock};
pub(super) use ram::{fill, read, sum, write_word, zero_prefix};
pub(super) use serial::Serial;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
compile_error!("the guest kernel has no arch layer for this target yet");
