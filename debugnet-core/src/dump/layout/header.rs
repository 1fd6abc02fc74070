//! The ELF header and the program headers (System V ABI, chapters 4 and 5), in either class and byte order.

use byteorder::ByteOrder;

use super::registers::{Class, Registers};
use super::sink::Sink;

const ET_CORE: u16 = 4;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// Whose conventions a file follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flavour {
    /// Linux: `EI_OSABI` 3, without which lldb does not know the file.
    Linux,
    /// FreeBSD's full dump: `EI_OSABI` 255 and `e_version` 0, by which lldb knows it.
    FreeBsd,
}

/// Lengths that depend on the class.
pub(super) trait Lengths: Registers {
    const WORD: u64;
    const EHDR: u64;
    const PHDR: u64;
    const SHDR: u16;
}

impl<R: Registers> Lengths for R {
    const WORD: u64 = pick::<R>(4, 8);
    const EHDR: u64 = pick::<R>(52, 64);
    const PHDR: u64 = pick::<R>(32, 56);
    const SHDR: u16 = pick::<R>(40, 64) as u16;
}

const fn pick<R: Registers>(elf32: u64, elf64: u64) -> u64 {
    match R::CLASS {
        Class::Elf32 => elf32,
        Class::Elf64 => elf64,
    }
}

/// A program header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub(super) kind: SegmentKind,
    pub(super) offset: u64,
    pub(super) virt: u64,
    pub(super) phys: u64,
    /// In the file, and of a loadable segment in memory.
    pub(super) len: u64,
    pub(super) align: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SegmentKind {
    Note,
    Load { flags: u32 },
}

/// An address, offset or length, as wide as the class has it. `ElfCore::new` saw to it that it fits.
pub(super) fn put_word<R: Registers, E: ByteOrder>(sink: &mut Sink<'_>, value: u64) {
    match R::CLASS {
        Class::Elf32 => sink.put_u32::<E>(value as u32),
        Class::Elf64 => sink.put_u64::<E>(value),
    }
}

/// The ELF header, [`Lengths::EHDR`] bytes, of a file with `segments` program headers behind it.
pub(super) fn put_elf_header<R: Registers, E: ByteOrder>(
    sink: &mut Sink<'_>,
    flavour: Flavour,
    segments: u16,
) {
    // Which of the two orders this type is, its own writing tells.
    let is_little = E::read_u16(&[1, 0]) == 1;
    let (abi, version) = match flavour {
        Flavour::Linux => (3, 1),
        Flavour::FreeBsd => (255, 0),
    };
    sink.put(b"\x7fELF");
    sink.put(&[R::CLASS as u8, if is_little { 1 } else { 2 }, 1, abi, 0, 0, 0, 0, 0, 0, 0, 0]);
    sink.put_u16::<E>(ET_CORE);
    sink.put_u16::<E>(R::MACHINE);
    sink.put_u32::<E>(version);
    put_word::<R, E>(sink, 0); // e_entry
    put_word::<R, E>(sink, R::EHDR); // e_phoff
    put_word::<R, E>(sink, 0); // e_shoff
    sink.put_u32::<E>(match flavour {
        Flavour::Linux => R::FLAGS,
        Flavour::FreeBsd => 0,
    });
    sink.put_u16::<E>(R::EHDR as u16);
    sink.put_u16::<E>(R::PHDR as u16);
    sink.put_u16::<E>(segments);
    sink.put_u16::<E>(match flavour {
        Flavour::Linux => 0,
        Flavour::FreeBsd => R::SHDR,
    });
    sink.put_u16::<E>(0); // e_shnum
    sink.put_u16::<E>(0); // e_shstrndx
}

/// One program header, [`Lengths::PHDR`] bytes.
pub(super) fn put_segment<R: Registers, E: ByteOrder>(sink: &mut Sink<'_>, segment: &Segment) {
    let (kind, flags, memory_len) = match segment.kind {
        SegmentKind::Note => (PT_NOTE, 0, 0),
        SegmentKind::Load { flags } => (PT_LOAD, flags, segment.len),
    };
    sink.put_u32::<E>(kind);
    if R::CLASS == Class::Elf64 {
        sink.put_u32::<E>(flags);
    }
    for word in [segment.offset, segment.virt, segment.phys, segment.len, memory_len] {
        put_word::<R, E>(sink, word);
    }
    if R::CLASS == Class::Elf32 {
        sink.put_u32::<E>(flags);
    }
    put_word::<R, E>(sink, segment.align);
}
