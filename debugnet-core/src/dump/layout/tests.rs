//! Layouts against an ELF reader that is not ours: the crate `object`.

use std::collections::BTreeMap;

use object::read::elf::{FileHeader, NoteIterator, ProgramHeader};
use object::{Endianness, elf};

use super::*;
use crate::addr::{PhysAddr, PhysRange};
use crate::dump::{DumpInfo, DumpSource, Extent, ReadFault, ReadRam, Stability};

/// RAM whose bytes are made of their addresses.
struct Ram;

fn byte_at(address: u64) -> u8 {
    (address ^ address >> 8 ^ address >> 16 ^ address >> 29) as u8 | 1
}

impl ReadRam for Ram {
    fn read(&mut self, at: PhysAddr, into: &mut [u8]) -> Result<(), ReadFault> {
        for (address, byte) in (at.0..).zip(into) {
            *byte = byte_at(address);
        }
        Ok(())
    }
}

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr(start), len).unwrap()
}

/// A file, by page: what was sent of it.
#[derive(Default)]
struct File {
    pages: BTreeMap<u64, Vec<Option<u8>>>,
    len: u64,
    order: Vec<Extent>,
}

impl File {
    const PAGE: u64 = 1 << 16;

    /// Receives an image in pieces of `piece_len`, and panics if a byte comes twice.
    fn receive(source: &mut dyn DumpSource, piece_len: u64) -> Self {
        let mut file = Self::default();
        source.rewind();
        while let Some(extent) = source.next() {
            file.order.push(extent);
            assert!(!extent.range.is_empty());
            let mut sent = 0;
            while sent < extent.range.len() {
                let mut piece = vec![0xee; piece_len.min(extent.range.len() - sent) as usize];
                let at = PhysAddr(extent.range.start().0 + sent);
                match extent.stability {
                    Stability::Generated => source.generate(extent.offset + sent, &mut piece),
                    Stability::Redacted => break,
                    _ => source.read(at, &mut piece),
                }
                .unwrap();
                file.write(extent.offset + sent, &piece);
                sent += piece.len() as u64;
            }
        }
        file
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (offset, byte) in (offset..).zip(bytes) {
            let page = self.pages.entry(offset / Self::PAGE);
            let page = page.or_insert_with(|| vec![None; Self::PAGE as usize]);
            let slot = &mut page[(offset % Self::PAGE) as usize];
            assert_eq!(*slot, None, "offset {offset:#x} is sent twice");
            *slot = Some(*byte);
            self.len = self.len.max(offset + 1);
        }
    }

    fn get(&self, offset: u64) -> Option<u8> {
        self.pages.get(&(offset / Self::PAGE))?[(offset % Self::PAGE) as usize]
    }

    /// Its first `len` bytes, a hole as zeros.
    fn head(&self, len: u64) -> Vec<u8> {
        (0..len).map(|offset| self.get(offset).unwrap_or(0)).collect()
    }
}

/// A loadable segment as `object` read it: virtual, physical, offset, length in the file and in memory.
type Load = (u64, u64, u64, u64, u64);

struct Read {
    loads: Vec<Load>,
    /// Owner, type, description.
    notes: Vec<(String, u32, Vec<u8>)>,
}

fn read<H: FileHeader<Endian = Endianness>>(head: &[u8]) -> Read {
    let header = H::parse(head).unwrap();
    let endian = header.endian().unwrap();
    assert_eq!(header.e_type(endian), elf::ET_CORE);
    let (mut loads, mut notes) = (Vec::new(), Vec::new());
    for (index, segment) in header.program_headers(endian, head).unwrap().iter().enumerate() {
        let word = |value: H::Word| -> u64 { value.into() };
        match segment.p_type(endian) {
            elf::PT_NOTE => {
                assert_eq!(index, 0, "the notes come first");
                let mut found: NoteIterator<'_, H> =
                    segment.notes(endian, head).unwrap().expect("notes");
                while let Some(note) = found.next().unwrap() {
                    let name = String::from_utf8(note.name().to_vec()).unwrap();
                    notes.push((name, note.n_type(endian).0, note.desc().to_vec()));
                }
            }
            elf::PT_LOAD => loads.push((
                word(segment.p_vaddr(endian)),
                word(segment.p_paddr(endian)),
                word(segment.p_offset(endian)),
                word(segment.p_filesz(endian)),
                word(segment.p_memsz(endian)),
            )),
            other => panic!("segment of type {other:?}"),
        }
    }
    Read { loads, notes }
}

#[test]
fn a_small_core_reads_back() {
    let mut memory = [Region::EMPTY; 8];
    let mut regions = Regions::new(&mut memory);
    regions.add(range(0x10_0000, 0x8000)).unwrap();
    regions.add(range(0x1000, 0x2000)).unwrap();
    regions.mark(range(0x10_2000, 0x1000), Treatment::Volatile).unwrap();
    regions.mark(range(0x10_4000, 0x1000), Treatment::Redacted).unwrap();
    let mappings = [Mapping { virt: 0xffff_ffff_8000_0000, range: range(0x10_0000, 0x4000) }];
    let info = DumpInfo { panic: "why", hostname: "box", time_s: 77, ..DumpInfo::default() };
    let registers = X86_64 { rip: 1, rsp: 2, r15: 3, gs: 4, ..X86_64::default() };
    let facts = Facts {
        info: &info,
        cpus: &[Cpu { id: 0, signal: 6, registers }, Cpu { id: 3, signal: 0, registers }],
        build_id: &[0xab, 0xcd],
        vmcoreinfo: "KEY=1\n",
    };
    let mut ram = Ram;
    let mut core =
        ElfCore::<_, LittleEndian>::new(&mut ram, &mut regions, &mappings, &facts).unwrap();
    core.send_first(range(0x10_7000, 0x800)).unwrap();
    let file = File::receive(&mut core, 1448);
    let first: Vec<_> = file.order[..2].iter().map(|extent| extent.range).collect();
    assert_eq!(first, [range(0, core.headers_len()), range(0x10_7000, 0x800)]);
    let head = file.head(core.headers_len());
    let core = read::<elf::FileHeader64<Endianness>>(&head);
    let base = head.len().next_multiple_of(4096) as u64;
    assert_eq!(
        core.loads,
        [
            (0xffff_ffff_8000_0000, 0x10_0000, base + 0x2000, 0x4000, 0x4000),
            (0x1000, 0x1000, base, 0x2000, 0x2000),
            (0x10_5000, 0x10_5000, base + 0x7000, 0x3000, 0x3000),
        ]
    );
    let names: Vec<_> = core.notes.iter().map(|(name, kind, _)| (name.as_str(), *kind)).collect();
    assert_eq!(names[..3], [("CORE", 1), ("CORE", 1), ("VMCOREINFO", 0)]);
    let status = &core.notes[0].2;
    assert_eq!((status.len(), status[12], status[32], status[112]), (336, 6, 1, 3));
    assert_eq!(status[112 + 16 * 8], 1, "rip");
    assert_eq!(core.notes[1].2[32], 4);
    assert_eq!(core.notes[2].2, b"BUILD-ID=abcd\nPAGESIZE=4096\nCRASHTIME=77\nKEY=1\n");
}
