//! An ELF core as a reader of its own sees it: the crate `object` parses it, and
//! nothing that wrote it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use object::elf::{
    ELFCLASS32, ELFOSABI_LINUX, EM_AARCH64, EM_ARM, EM_RISCV, EM_X86_64, ET_CORE, FileHeader32,
    FileHeader64, Machine, NT_PRSTATUS, OsAbi, PT_LOAD, PT_NOTE,
};
use object::read::elf::{FileHeader, ProgramHeader as _};
use object::{Endianness, ReadCache, ReadRef as _};

/// `e_ident[EI_OSABI]` of FreeBSD's full dumps.
const OSABI_STANDALONE: OsAbi = OsAbi(255);
/// Machines that our guests are.
const MACHINES: [Machine; 4] = [EM_X86_64, EM_AARCH64, EM_RISCV, EM_ARM];
/// Registers in an x86-64 NT_PRSTATUS.
const REGISTERS: usize = 27;

/// What the headers and notes of a core say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreFile {
    /// Whether it is FreeBSD's flavour: no notes, no virtual addresses.
    pub is_freebsd: bool,
    /// PT_LOADs in the order of the file.
    pub loads: Vec<Load>,
    /// One for each NT_PRSTATUS, in order.
    pub threads: Vec<Thread>,
    /// Owner, type and descriptor of every note.
    pub notes: Vec<(String, u32, Vec<u8>)>,
    /// Length of the file.
    pub len: u64,
}

/// A PT_LOAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// `p_vaddr`.
    pub virt: u64,
    /// `p_paddr`.
    pub phys: u64,
    /// `p_offset`.
    pub offset: u64,
    /// `p_filesz`.
    pub file_len: u64,
    /// `p_memsz`.
    pub memory_len: u64,
}

/// An NT_PRSTATUS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// `pr_pid`.
    pub pid: u32,
    /// In the order of Linux's `elf_gregset_t`.
    pub registers: Vec<u64>,
}

impl Thread {
    /// Names of the registers of x86-64, as QEMU's log has them; empty for those that it has not.
    pub const NAMES: [&str; REGISTERS] = [
        "R15", "R14", "R13", "R12", "RBP", "RBX", "R11", "R10", "R9", "R8", "RAX", "RCX", "RDX",
        "RSI", "RDI", "", "RIP", "CS", "RFL", "RSP", "SS", "", "", "DS", "ES", "FS", "GS",
    ];
}

/// An entry of the list of regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Physical addresses.
    pub range: Range<u64>,
    /// 0 as it was at the crash, 1 as it was when it was sent, 2 withheld.
    pub treatment: u64,
    /// Offset in the file, all ones if it is not there.
    pub offset: u64,
}

impl Region {
    /// Whether it was kept out of the file.
    pub const fn is_withheld(&self) -> bool {
        self.treatment == 2 && self.offset == u64::MAX
    }
}

/// A piece of RAM in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Physical addresses.
    pub phys: Range<u64>,
    /// Offset of the first byte.
    pub offset: u64,
}

impl CoreFile {
    /// Reads the headers and notes of the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, or is no little-endian core of a machine that our guests are.
    pub fn read(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let cache = ReadCache::new(file);
        let class = (&cache).read_bytes_at(4, 1).ok().and_then(|bytes| bytes.first());
        if class == Some(&ELFCLASS32.0) {
            Self::parse::<FileHeader32<Endianness>>(&cache, len, 4)
        } else {
            Self::parse::<FileHeader64<Endianness>>(&cache, len, 8)
        }
    }

    /// `word` is the length of an address in bytes.
    fn parse<H: FileHeader<Endian = Endianness>>(
        cache: &ReadCache<File>,
        len: u64,
        word: usize,
    ) -> io::Result<Self> {
        let bad = |error: object::Error| io::Error::other(format!("not an ELF core: {error}"));
        let header = H::parse(cache).map_err(bad)?;
        let endian = header.endian().map_err(bad)?;
        let is_freebsd = header.e_ident().os_abi == OSABI_STANDALONE;
        let (kind, machine) = (header.e_type(endian), header.e_machine(endian));
        if kind != ET_CORE
            || !MACHINES.contains(&machine)
            || endian != Endianness::Little
            || !(is_freebsd || header.e_ident().os_abi == ELFOSABI_LINUX)
        {
            return Err(io::Error::other(format!(
                "not a core of this machine: type {kind}, machine {machine}, {endian:?} endian, \
                 OS ABI {}",
                header.e_ident().os_abi
            )));
        }
        let mut core = Self { is_freebsd, loads: vec![], threads: vec![], notes: vec![], len };
        for segment in header.program_headers(endian, cache).map_err(bad)? {
            match segment.p_type(endian) {
                PT_LOAD => core.loads.push(Load {
                    virt: segment.p_vaddr(endian).into(),
                    phys: segment.p_paddr(endian).into(),
                    offset: segment.p_offset(endian).into(),
                    file_len: segment.p_filesz(endian).into(),
                    memory_len: segment.p_memsz(endian).into(),
                }),
                PT_NOTE => {
                    let mut notes =
                        segment.notes(endian, cache).map_err(bad)?.ok_or_else(|| {
                            io::Error::other("not an ELF core: a PT_NOTE without notes")
                        })?;
                    while let Some(note) = notes.next().map_err(bad)? {
                        let owner = String::from_utf8_lossy(note.name()).into_owned();
                        let kind = note.n_type(endian).0;
                        if owner == "CORE" && kind == NT_PRSTATUS.0 {
                            core.threads.push(thread(note.desc(), word)?);
                        }
                        core.notes.push((owner, kind, note.desc().to_vec()));
                    }
                }
                other => {
                    return Err(io::Error::other(format!("a program header of type {other:#x}")));
                }
            }
        }
        Ok(core)
    }

    /// Where each piece of RAM is in the file, by rising address. Several program
    /// headers may hold the same RAM, if they have it at the same place.
    ///
    /// # Errors
    /// A program header that wraps, or contradicts another one.
    pub fn places(&self) -> io::Result<Vec<Place>> {
        let mut loads: Vec<&Load> = self.loads.iter().filter(|load| load.file_len != 0).collect();
        loads.sort_by_key(|load| load.phys);
        let mut places: Vec<Place> = Vec::new();
        for load in loads {
            let wrong = |what| {
                let Load { phys, offset, .. } = load;
                io::Error::other(format!("the PT_LOAD of {phys:#x} at offset {offset:#x} {what}"))
            };
            let end = load.phys.checked_add(load.file_len).ok_or_else(|| wrong("wraps"))?;
            let shift = load.offset.wrapping_sub(load.phys);
            let mut covered = load.phys;
            for place in places.iter().filter(|place| place.phys.end > load.phys) {
                if place.phys.start < end && place.offset.wrapping_sub(place.phys.start) != shift {
                    return Err(wrong("has RAM that is elsewhere in the file as well"));
                }
                covered = covered.max(place.phys.end);
            }
            if covered < end {
                places.push(Place { phys: covered..end, offset: covered.wrapping_add(shift) });
            }
        }
        Ok(places)
    }

    /// The list of regions in the notes of this project; `None` without one that can be read.
    pub fn regions(&self) -> Option<Vec<Region>> {
        const OWNER: &str = "debugnet-rs";
        const REGIONS: u32 = 0x6462_0007;
        let (_, _, list) = self.notes.iter().find(|note| note.0 == OWNER && note.1 == REGIONS)?;
        let entries = list.chunks(32).map(|entry| {
            let word = |at: usize| {
                let bytes = entry.get(8 * at..8 * at + 8)?;
                bytes.try_into().ok().map(u64::from_le_bytes)
            };
            let start = word(0)?;
            let range = start..start.checked_add(word(1)?)?;
            Some(Region { range, treatment: word(2)?, offset: word(3)? })
        });
        entries.collect()
    }
}

/// `struct elf_prstatus` of a machine with words of `len` bytes: two sets of signals and four
/// times in words, the rest fixed; behind the registers a word.
fn thread(status: &[u8], len: usize) -> io::Result<Thread> {
    let short = || io::Error::other("an NT_PRSTATUS that is too short");
    let pid = status.get(16 + 2 * len..).and_then(|rest| rest.first_chunk()).ok_or_else(short)?;
    let end = status.len().checked_sub(len).ok_or_else(short)?;
    let registers = status.get(32 + 10 * len..end).ok_or_else(short)?;
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let registers = registers.chunks_exact(len).map(word).collect();
    Ok(Thread { pid: u32::from_le_bytes(*pid), registers })
}
