//! Layouts against an ELF reader that is not ours: the crate `object`.

use std::collections::BTreeMap;

use object::read::elf::{FileHeader, NoteIterator, ProgramHeader};
use object::{Endianness, elf};
use proptest::prelude::*;

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

/// What was asked for, and what must come of it, address by address.
#[derive(Debug, Clone)]
struct Model {
    ranges: Vec<PhysRange>,
    marks: Vec<(PhysRange, Treatment)>,
    mappings: Vec<Mapping>,
    first: Vec<PhysRange>,
}

impl Model {
    fn treatment(&self, address: u64) -> Option<Treatment> {
        let one = range(address, 1);
        self.ranges.iter().find(|range| range.contains(one))?;
        let marks = self.marks.iter().filter(|(range, _)| range.contains(one));
        Some(marks.map(|(_, treatment)| *treatment).max().unwrap_or(Treatment::Frozen))
    }

    /// Adds ranges, and keeps those that overlap no other; the list must be of the same mind.
    fn add(&mut self, regions: &mut Regions<'_>, found: PhysRange) {
        let overlaps = self.ranges.iter().any(|range| range.overlaps(found));
        match regions.add(found) {
            Ok(()) => assert!(!overlaps, "{found:?}"),
            Err(RegionError::Overlap { found: refused, with }) => {
                assert!(overlaps && refused == found && with.overlaps(found), "{found:?}");
            }
            Err(error) => panic!("{error}"),
        }
        if !overlaps {
            self.ranges.push(found);
        }
    }

    fn check<R: Registers + Default, H: FileHeader<Endian = Endianness>, E: ByteOrder>(&self) {
        let mut memory = vec![Region::EMPTY; 3 * (self.ranges.len() + 2 * self.marks.len())];
        let mut regions = Regions::new(&mut memory);
        let mut model = Model { ranges: Vec::new(), ..self.clone() };
        for range in &self.ranges {
            model.add(&mut regions, *range);
        }
        for (range, treatment) in &self.marks {
            regions.mark(*range, *treatment).unwrap();
        }
        let listed: Vec<Region> = regions.iter().copied().collect();
        let info = DumpInfo { panic: "a panic", ..DumpInfo::default() };
        let cpus: Vec<_> =
            (0..3).map(|id| Cpu { id, signal: 6, registers: R::default() }).collect();
        let facts = Facts { info: &info, cpus: &cpus, build_id: &[], vmcoreinfo: "" };
        let mut ram = Ram;
        let mut core =
            ElfCore::<R, E>::new(&mut ram, &mut regions, &model.mappings, &facts).unwrap();
        for range in &model.first {
            core.send_first(*range).unwrap();
        }
        let file = File::receive(&mut core, 1448);
        // The pieces in which the headers go make no difference.
        let head = file.head(core.headers_len());
        let mut whole = vec![0; head.len()];
        core.generate(0, &mut whole).unwrap();
        assert!(head == whole, "headers in pieces differ from those at once");

        model.check_order(&mut core, &file);
        let headers_len = core.headers_len();
        let read = read::<H>(&head);
        assert_eq!(read.notes.iter().filter(|(name, ..)| name == "CORE").count(), 3);
        model.check_loads(&read, &file, headers_len);
        check_region_note::<E>(&read, &listed, &file);
    }

    /// All RAM that is to be sent is found where the program headers say, and nothing else is in the file.
    fn check_loads(&self, read: &Read, file: &File, headers_len: u64) {
        let mut sent = 0;
        for range in &self.ranges {
            for address in range.start().0..range.end().0 {
                let one = PhysRange::new(PhysAddr(address), 1).unwrap();
                let found = |load: &&Load| (load.1..load.1 + load.3).contains(&address);
                let loads: Vec<_> = read.loads.iter().filter(found).collect();
                if !self.treatment(address).unwrap().is_sent() {
                    assert!(loads.is_empty(), "{address:#x} is kept out");
                    continue;
                }
                sent += 1;
                let mapped: Vec<u64> = self
                    .mappings
                    .iter()
                    .filter(|mapping| mapping.range.contains(one))
                    .map(|mapping| mapping.virt + (address - mapping.range.start().0))
                    .collect();
                let expected = if mapped.is_empty() { vec![address] } else { mapped };
                let virt: Vec<u64> = loads.iter().map(|load| load.0 + (address - load.1)).collect();
                assert_eq!(virt, expected, "virtual addresses of {address:#x}");
                for load in loads {
                    let byte = file.get(load.2 + (address - load.1));
                    assert_eq!(byte, Some(byte_at(address)), "{address:#x}");
                }
            }
        }
        let bytes = file.pages.values().flatten().flatten().count() as u64;
        assert_eq!(bytes, headers_len + sent);
        for load in &read.loads {
            assert_eq!(load.2 % 4096, load.1 % 4096, "offset and address within a page");
            assert_eq!(load.3, load.4);
        }
    }

    /// Headers, then what goes first in its order, then the rest; for a stream by rising offset.
    fn check_order(&self, core: &mut dyn DumpSource, file: &File) {
        let (head, ram) = file.order.split_first().unwrap();
        assert_eq!((head.stability, head.offset), (Stability::Generated, 0));
        let rank = |extent: &Extent| {
            let first = self.first.iter().position(|range| range.overlaps(extent.range));
            first.unwrap_or(usize::MAX)
        };
        assert!(ram.iter().map(rank).is_sorted(), "{:?} by {:?}", ram, self.first);
        for extent in ram {
            for address in [extent.range.start().0, extent.range.end().0 - 1] {
                let expected = self.treatment(address).unwrap().stability();
                assert_eq!(extent.stability, expected);
            }
        }
        core.rewind_in_order();
        let mut rising = Vec::new();
        while let Some(extent) = core.next() {
            rising.push(extent);
        }
        assert!(rising.is_sorted_by_key(|extent| extent.offset));
        let bytes = |extents: &[Extent]| extents.iter().map(|e| e.range.len()).sum::<u64>();
        assert_eq!(bytes(&rising), bytes(&file.order));
    }
}

fn check_region_note<E: ByteOrder>(read: &Read, listed: &[Region], file: &File) {
    let is_regions =
        |note: &&(String, u32, Vec<u8>)| note.0 == OWNER && note.1 == NoteType::Regions as u32;
    let (.., bytes) = read.notes.iter().find(is_regions).expect("the regions' note");
    assert_eq!(bytes.len(), 32 * listed.len());
    for (entry, region) in bytes.chunks(32).zip(listed) {
        let word = |index: usize| E::read_u64(&entry[8 * index..]);
        assert_eq!((word(0), word(1)), (region.range().start().0, region.range().len()));
        assert_eq!(word(2), region.treatment() as u64);
        let byte = file.get(word(3));
        let expected = region.treatment().is_sent().then(|| byte_at(word(0)));
        assert_eq!(byte, expected, "{region:?}");
    }
}

/// Ranges near each other and near `edge`, of any alignment.
fn ranges(edge: u64, most: usize) -> impl Strategy<Value = Vec<PhysRange>> {
    let (most, longest) = if cfg!(miri) { (most.min(4), 60_u64) } else { (most, 2000) };
    let near = (0..0x2_0000u64, 0..longest);
    proptest::collection::vec(near, 0..most).prop_map(move |list| {
        list.into_iter().map(|(at, len)| range(edge - 0x1_0000 + at, len)).collect()
    })
}

fn models(edge: u64) -> impl Strategy<Value = Model> {
    let treatment = prop_oneof![
        Just(Treatment::Frozen),
        Just(Treatment::Volatile),
        Just(Treatment::Redacted),
        Just(Treatment::Excluded)
    ];
    let marks = (ranges(edge, 6), proptest::collection::vec(treatment, 6));
    (ranges(edge, 20), marks, ranges(edge, 4), ranges(edge, 4)).prop_map(
        |(ranges, marks, mapped, first)| {
            let mapping = |(index, range)| Mapping { virt: 0x1_0000 * index as u64, range };
            Model {
                ranges,
                marks: marks.0.into_iter().zip(marks.1).collect(),
                mappings: mapped.into_iter().enumerate().map(mapping).collect(),
                first,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 24 }))]

    /// Across the edge of 4 GiB, for a machine of either class and order.
    #[test]
    fn any_ram_reads_back(model in models(1 << 32), small in models(1 << 31)) {
        model.check::<X86_64, elf::FileHeader64<Endianness>, LittleEndian>();
        model.check::<Aarch64, elf::FileHeader64<Endianness>, BigEndian>();
        model.check::<Riscv64, elf::FileHeader64<Endianness>, LittleEndian>();
        small.check::<Arm, elf::FileHeader32<Endianness>, LittleEndian>();
        small.check::<Arm, elf::FileHeader32<Endianness>, BigEndian>();
    }

    /// A policy that is asked page by page has the same effect as marks.
    #[test]
    fn a_policy_is_asked_about_all(model in models(1 << 32), seed in 0..7u64) {
        let mut memory = vec![Region::EMPTY; 2000];
        let mut regions = Regions::new(&mut memory);
        let mut asked = Model { ranges: Vec::new(), ..model.clone() };
        for range in &model.ranges {
            asked.add(&mut regions, *range);
        }
        let treat = |address: u64| match (address / 4096 + seed) % 7 {
            0 => Treatment::Redacted,
            1 => Treatment::Excluded,
            _ => Treatment::Frozen,
        };
        regions.apply(&mut |range| (treat(range.start().0), 1)).unwrap();
        for region in regions.iter() {
            for address in [region.range().start().0, region.range().end().0 - 1] {
                prop_assert_eq!(region.treatment(), treat(address));
            }
        }
        let len = |ranges: &[PhysRange]| ranges.iter().map(|range| range.len()).sum::<u64>();
        prop_assert_eq!(regions.iter().map(|region| region.range().len()).sum::<u64>(), len(&asked.ranges));
    }
}

#[test]
fn a_few_secret_bytes_keep_their_grain_out() {
    let mut memory = [Region::EMPTY; 16];
    let mut regions = Regions::new(&mut memory);
    regions.add(range(0, 0x8000)).unwrap();
    let secret = 0x3100..0x3180_u64;
    // Answers as an allocator would: up to the next border of an object.
    let mut policy = |asked: PhysRange| match asked.start().0 {
        at if at < secret.start => (Treatment::Frozen, secret.start - at),
        at if at < secret.end => (Treatment::Redacted, secret.end - at),
        _ => (Treatment::Frozen, asked.len()),
    };
    regions.apply(&mut policy).unwrap();
    let found: Vec<_> = regions
        .iter()
        .map(|region| (region.range().start().0, region.range().len(), region.treatment()))
        .collect();
    let expected = [
        (0, 0x3000, Treatment::Frozen),
        (0x3000, 0x1000, Treatment::Redacted),
        (0x4000, 0x4000, Treatment::Frozen),
    ];
    assert_eq!(found, expected);
}

#[test]
fn thousands_of_ranges() {
    let count = if cfg!(miri) { 20 } else { 5000 };
    let ranges: Vec<_> = (0..count).map(|i| range(0x1_0000 + 0x1800 * i, 1 + i % 40)).collect();
    let model = Model {
        mappings: vec![
            Mapping { virt: 0xffff_8000_0000_0000, range: range(0, 0x100_0000) },
            Mapping { virt: 0xffff_ffff_8000_0000, range: range(0x40_0000, 0x20_0000) },
        ],
        first: vec![range(0x80_0000, 0x1_0000)],
        marks: vec![(range(0x10_0000, 0x5000), Treatment::Redacted)],
        ranges,
    };
    model.check::<X86_64, elf::FileHeader64<Endianness>, LittleEndian>();
}

fn try_core<R: Registers + Copy>(ranges: &[PhysRange], cpus: &[Cpu<R>]) -> Result<u64, ElfError> {
    let mut memory = vec![Region::EMPTY; ranges.len()];
    let mut regions = Regions::new(&mut memory);
    for range in ranges {
        regions.add(*range).unwrap();
    }
    let info = DumpInfo::default();
    let facts = Facts { info: &info, cpus, build_id: &[], vmcoreinfo: "" };
    let mut ram = Ram;
    let core = ElfCore::<R, LittleEndian>::new(&mut ram, &mut regions, &[], &facts)?;
    Ok(core.headers_len())
}

#[test]
#[cfg_attr(miri, ignore = "65,534 program headers take an interpreter too long")]
fn more_segments_than_fit_are_refused() {
    let many: Vec<_> = (0..0xffff).map(|i| range(0x2000 * i, 1)).collect();
    assert!(try_core::<X86_64>(&many[..0xfffd], &[]).is_ok());
    let error = try_core::<X86_64>(&many, &[]).unwrap_err();
    assert_eq!(error, ElfError::Segments { found: 0xffff });
    assert_eq!(error.to_string(), "65535 program headers or more, expected at most 65534");
}

#[test]
fn what_does_not_fit_is_refused() {
    // RAM up to the last byte of 32 bits, but a file of fewer.
    assert!(try_core::<Arm>(&[range(0xffff_f000, 0x1000)], &[]).is_ok());
    let most = u64::from(u32::MAX);
    let error = try_core::<Arm>(&[range(0xffff_f000, 0x1001)], &[]).unwrap_err();
    assert_eq!(error, ElfError::Address { found: most + 1, most });
    let error = try_core::<Arm>(&[range(0, 1 << 32)], &[]).unwrap_err();
    assert!(matches!(error, ElfError::Address { found, .. } if found > 1 << 32), "{error}");
    assert!(try_core::<X86_64>(&[range(0, u64::MAX)], &[]).is_err());

    let cpu = |id| Cpu { id, signal: 0, registers: Arm::default() };
    assert_eq!(try_core(&[], &[cpu(1), cpu(2), cpu(1)]), Err(ElfError::Cpu { id: 1 }));
    assert_eq!(
        try_core(&[], &[cpu(u32::MAX), cpu(u32::MAX - 1)]),
        Err(ElfError::Cpu { id: u32::MAX - 1 })
    );
}

#[test]
fn a_full_list_errs_on_the_safe_side() {
    let list = |treatment| {
        let mut memory = [Region::EMPTY; 2];
        let mut regions = Regions::new(&mut memory);
        regions.add(range(0, 0x1000)).unwrap();
        regions.add(range(0x2000, 0x1000)).unwrap();
        assert_eq!(regions.add(range(0x4000, 1)), Err(RegionError::Full { capacity: 2 }));
        let result = regions.mark(range(0x100, 0x10), treatment);
        assert_eq!(result, Err(RegionError::Full { capacity: 2 }));
        regions.iter().map(Region::treatment).collect::<Vec<_>>()
    };
    assert_eq!(list(Treatment::Redacted), [Treatment::Redacted, Treatment::Frozen]);
    assert_eq!(list(Treatment::Volatile), [Treatment::Volatile, Treatment::Frozen]);
    assert_eq!(list(Treatment::Excluded), [Treatment::Frozen, Treatment::Frozen]);
}

/// A reader of FreeBSD's full dumps as its `libkvm` is described: the values of the header, and
/// a linear search by `p_paddr` and `p_memsz` among the program headers.
struct FreeBsd<'f> {
    file: &'f File,
    head: Vec<u8>,
}

impl FreeBsd<'_> {
    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.head[at..at + 2].try_into().unwrap())
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.head[at..at + 4].try_into().unwrap())
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.head[at..at + 8].try_into().unwrap())
    }

    fn check_header(&self, machine: u16) {
        // Class 64, little-endian, version 1, standalone.
        assert_eq!(self.head[..16], *b"\x7fELF\x02\x01\x01\xff\0\0\0\0\0\0\0\0");
        assert_eq!((self.u16(16), self.u16(18)), (4, machine));
        assert_eq!(self.u32(20), 0, "e_version is never set");
        assert_eq!((self.u64(24), self.u64(32), self.u64(40)), (0, 64, 0));
        assert_eq!(self.u32(48), 0, "e_flags");
        assert_eq!((self.u16(52), self.u16(54)), (64, 56));
        assert_eq!((self.u16(58), self.u16(60), self.u16(62)), (64, 0, 0));
    }

    fn read(&self, address: u64) -> Option<u8> {
        (0..usize::from(self.u16(56))).map(|index| 64 + 56 * index).find_map(|at| {
            let (phys, memory_len) = (self.u64(at + 24), self.u64(at + 40));
            let inside = address.checked_sub(phys).filter(|inside| *inside < memory_len)?;
            self.file.get(self.u64(at + 8) + inside)
        })
    }
}

#[test]
fn the_freebsd_flavour_reads_as_its_format_says() {
    let mut memory = [Region::EMPTY; 8];
    let mut regions = Regions::new(&mut memory);
    let [low, high] = if cfg!(miri) { [0x3000, 0x2000] } else { [0x9_e000, 0x3_0000] };
    let chunks = [range(0x1000, low), range(0x10_0000, high), range(1 << 32, 0x2000)];
    for chunk in chunks {
        regions.add(chunk).unwrap();
    }
    regions.mark(range(0x10_1000, 0x1000), Treatment::Volatile).unwrap();
    let mut ram = Ram;
    let mut core = ElfCore::<X86_64, LittleEndian>::freebsd(&mut ram, &mut regions).unwrap();
    let file = File::receive(&mut core, 4096);
    let reader = FreeBsd { head: file.head(core.headers_len()), file: &file };
    reader.check_header(62);
    assert_eq!((reader.u16(56), reader.head.len()), (3, 64 + 3 * 56));
    // The first data at the next page, chunks back to back.
    let mut offset = 4096;
    for (index, chunk) in chunks.iter().enumerate() {
        let at = 64 + 56 * index;
        assert_eq!((reader.u32(at), reader.u32(at + 4)), (1, 4), "PT_LOAD, readable");
        let words: Vec<u64> = (1..7).map(|word| reader.u64(at + 8 * word)).collect();
        let (start, len) = (chunk.start().0, chunk.len());
        assert_eq!(words, [offset, start, start, len, len, 4096]);
        offset += len;
        for address in (start..start + len).step_by(997).chain([start + len - 1]) {
            assert_eq!(reader.read(address), Some(byte_at(address)), "{address:#x}");
        }
    }
    assert_eq!(file.len, offset);
    assert_eq!(reader.read(0x9_f000), None);
}
