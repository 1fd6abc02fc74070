//! What the file looks like: layouts of an image over a list of RAM.
//!
//! [`Regions`] is what RAM there is and how each part is treated. Over it, and
//! the platform's [`ReadRam`](super::ReadRam), a layout is a
//! [`DumpSource`](super::DumpSource): [`ElfCore`] is a file that gdb and lldb
//! open, or FreeBSD's full dump; [`Flat`] is RAM without headers.

mod elf;
mod flat;
mod header;
mod image;
mod notes;
mod regions;
mod registers;
mod segments;
mod sink;
mod walk;

pub use byteorder::{BigEndian, ByteOrder, LittleEndian};
pub use elf::{ElfCore, ElfError};
pub use flat::Flat;
pub use notes::{Cpu, Facts, NoteType, OWNER};
pub use regions::{Region, RegionError, Regions, Treatment};
pub use registers::{Aarch64, Arm, Class, Registers, Riscv64, X86_64};
pub use segments::Mapping;

/// Alignment of RAM in the file.
pub const PAGE_LEN: u64 = 4096;

#[cfg(test)]
mod tests;
