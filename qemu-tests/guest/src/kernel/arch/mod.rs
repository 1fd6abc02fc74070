//! The layer between the kernel and the machine.
//!
//! One architecture so far. Another one is another directory with the same
//! public face; nothing outside of it names a register or a port:
//!
//! | item | what it does |
//! |---|---|
//! | `Machine` | what boot found: command line, RAM, counter frequency, time of day; `map_device` |
//! | `image`, `volatile_section`, `physical` | memory of the image, the part that the crash path writes, where a static is |
//! | `read`, `write_word`, `sum`, `zero_prefix`, `fill` | RAM by physical address, guard pages and page 0 included |
//! | `Serial` | the console: a `fmt::Write` that never waits for long |
//! | `TscClock`, `tsc_clock` | the clock of live kernel and dump |
//! | `pci_access` | PCI configuration space |
//! | `Registers` | the CPU at the fault: `vector_name`, `signal`, `stack` (what is in use of it), `in_core` (a `CoreRegisters`) |
//! | `build_id` | of the kernel, as the linker made it |
//! | `mappings`, `MAPPINGS_MAX`, `page_tables` | where RAM is in the kernel's address space, and where that is written |
//! | `undefined_instruction` | how a panic reaches the fault handler |
//! | `CPUS_MAX`, `cpu`, `start_second`, `wait` | how many CPUs may be used, which one this is, starting another, idling |
//! | `park_others`, `park`, `parked` | stopping CPUs in a crash, and what their registers were |
//! | `exit`, `stop` | the end: leave QEMU, or stop with the machine intact |
//!
//! Boot ends in `kernel::main(Machine)`. Every fault ends in
//! `kernel::crash::on_fault(&Registers)`, on a stack in the volatile section,
//! with interrupts off; a second fault comes in on another such stack.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::*;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the guest kernel has no arch layer for this target yet");
