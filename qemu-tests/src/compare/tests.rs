use std::ops::Range;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// RAM with a hole, as a PC has it, scaled down.
const LOW: Range<u64> = 0..0x9_fc00;
const HIGH: Range<u64> = 0x10_0000..0x30_0000;
const VOLATILE: Range<u64> = 0x20_0000..0x28_0000;
const MACHINE: u64 = HIGH.end;

fn layout() -> Layout {
    Layout { ram: vec![LOW, HIGH], volatile: VOLATILE, redacted: 0..0, changing: 0..0 }
}

fn pattern(address: u64) -> u8 {
    (address ^ address >> 8 ^ address >> 16) as u8 | 1
}

struct Files {
    dir: tempfile::TempDir,
    truth: Vec<TruthFile>,
    image: Vec<u8>,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut image = vec![0; HIGH.end as usize];
        let mut truth = Vec::new();
        for range in layout().ram {
            let bytes: Vec<u8> = range.clone().map(pattern).collect();
            image[range.start as usize..range.end as usize].copy_from_slice(&bytes);
            let path = dir.path().join(format!("truth.{:x}", range.start));
            std::fs::write(&path, bytes).unwrap();
            truth.push(TruthFile { range, path });
        }
        Self { dir, truth, image }
    }

    fn vmcore(&self) -> PathBuf {
        self.dir.path().join("vmcore")
    }

    fn compare(&self) -> Verdict {
        std::fs::write(self.vmcore(), &self.image).unwrap();
        compare(&self.vmcore(), Image::Flat, &layout(), &self.truth).unwrap()
    }
}

#[test]
fn the_same_bytes_are_identical() {
    let verdict = Files::new().compare();
    assert!(verdict.is_identical());
    assert_eq!(verdict.compared, layout().ram_len() - (VOLATILE.end - VOLATILE.start));
    assert_eq!(verdict.first, None);
}

#[test]
fn the_volatile_section_is_not_compared_and_its_neighbours_are() {
    let mut files = Files::new();
    files.image[VOLATILE.start as usize..VOLATILE.end as usize].fill(0xee);
    assert!(files.compare().is_identical());
    for address in [VOLATILE.start - 1, VOLATILE.end] {
        let mut files = Files::new();
        files.image[address as usize] ^= 0x80;
        let verdict = files.compare();
        assert_eq!((verdict.count, verdict.first.unwrap().address), (1, address));
    }
}

#[test]
fn a_hole_must_be_zero() {
    let mut files = Files::new();
    files.image[0xf_ffff] = 3;
    let verdict = files.compare();
    let first = Difference { address: 0xf_ffff, truth: Some(0), dumped: Some(3) };
    assert_eq!((verdict.count, verdict.first), (1, Some(first)));
}

#[test]
fn a_file_of_the_wrong_length_differs() {
    let mut files = Files::new();
    files.image.push(9);
    let verdict = files.compare();
    let first = Difference { address: HIGH.end, truth: None, dumped: Some(9) };
    assert_eq!((verdict.count, verdict.first), (1, Some(first)));

    files.image.truncate(HIGH.end as usize - 100);
    let verdict = files.compare();
    let address = HIGH.end - 100;
    let first = Difference { address, truth: Some(pattern(address)), dumped: None };
    assert_eq!((verdict.count, verdict.first), (100, Some(first)));
    assert_eq!(first.to_string(), "at 0x2fff9c: the dump has nothing, the machine had 0x4d");

    // The file must cover the volatile section, whatever it holds there.
    files.image.truncate(VOLATILE.start as usize + 5);
    assert_eq!(files.compare().first.unwrap().address, VOLATILE.start + 5);
    // And may not end in a hole.
    files.image.truncate(0xc_0000);
    let first = Difference { address: 0xc_0000, truth: Some(0), dumped: None };
    assert_eq!(files.compare().first, Some(first));
    files.image.clear();
    assert_eq!(files.compare().count, HIGH.end);
}

#[test]
fn a_broken_byte_is_found() {
    let files = Files::new();
    assert!(files.compare().is_identical());
    break_byte(&files.vmcore(), 0x12_3456).unwrap();
    let verdict = compare(&files.vmcore(), Image::Flat, &layout(), &files.truth).unwrap();
    assert_eq!((verdict.count, verdict.first.unwrap().address), (1, 0x12_3456));
    assert!(break_byte(&files.vmcore(), u64::from(u32::MAX)).is_err());
}

#[test]
fn truth_of_other_ranges_is_refused() {
    let files = Files::new();
    std::fs::write(files.vmcore(), &files.image).unwrap();
    assert!(compare(&files.vmcore(), Image::Flat, &layout(), &files.truth[..1]).is_err());
}

#[test]
fn a_guest_cannot_excuse_itself() {
    let good = layout();
    assert_eq!(good.check(MACHINE), Ok(()));
    let with = |volatile| Layout { volatile, ..layout() }.check(MACHINE);
    for bad in [
        0x20_0000..0x30_1000,                       // beyond RAM
        0x10_0000..0x20_1000,                       // more than 1 MiB
        0x20_0001..0x28_0000,                       // not whole pages
        0x20_0000..0x20_0000,                       // nothing
        0x9_f000..0xa_0000,                         // half in a hole
        Range { start: 0x28_0000, end: 0x20_0000 }, // backwards
    ] {
        assert_eq!(with(bad.clone()), Err(LayoutError::Volatile(bad)));
    }
    let with = |ram| Layout { ram, ..layout() }.check(MACHINE);
    assert_eq!(with(vec![]), Err(LayoutError::Order));
    assert_eq!(with(vec![HIGH, LOW]), Err(LayoutError::Order));
    assert_eq!(with(vec![0..0x11_0000, HIGH]), Err(LayoutError::Order));
    // A megabyte may be missing, not more.
    assert!(matches!(
        with(std::iter::once(0x10_0000..0x2f_0000).collect()),
        Err(LayoutError::TooLittle { .. })
    ));
    assert!(matches!(
        with(std::iter::once(0..MACHINE + 1).collect()),
        Err(LayoutError::TooLittle { .. })
    ));
}

/// An ELF core of these program headers (virtual address, physical address,
/// offset, length), and of RAM where they say.
fn elf(loads: &[(u64, u64, u64, u64)], files: &Files) -> Vec<u8> {
    const HEADER_LEN: usize = 64;
    let mut file = vec![0; HEADER_LEN];
    file[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 3]);
    for (at, value) in
        [(16, 4_u16), (18, 62), (20, 1), (52, 64), (54, 56), (56, loads.len() as u16)]
    {
        file[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    file[32] = HEADER_LEN as u8;
    for (virt, phys, offset, len) in loads {
        let kind_and_flags = 1 | 7 << 32;
        for word in [kind_and_flags, *offset, *virt, *phys, *len, *len, 0x1000_u64] {
            file.extend_from_slice(&word.to_le_bytes());
        }
    }
    for (_, phys, offset, len) in loads {
        let (at, end) = (*offset as usize, (offset + len) as usize);
        file.resize(file.len().max(end), 0);
        file[at..end].copy_from_slice(&files.image[*phys as usize..(phys + len) as usize]);
    }
    file
}

const LOW_LOAD: (u64, u64, u64, u64) = (0, 0, 0x1000, LOW.end);
const HIGH_AT: u64 = 0xa_1000;
const HIGH_LOAD: (u64, u64, u64, u64) = (0x10_0000, 0x10_0000, HIGH_AT, HIGH.end - HIGH.start);
/// The same RAM once more, at other virtual addresses.
const ALIAS: (u64, u64, u64, u64) = (0xffff_ffff_8010_0000, 0x10_0000, HIGH_AT, 0x5_0000);

fn compare_elf(file: &[u8], layout: &Layout, files: &Files) -> io::Result<Verdict> {
    std::fs::write(files.vmcore(), file).unwrap();
    compare(&files.vmcore(), Image::Elf, layout, &files.truth)
}

#[test]
fn an_elf_core_is_compared_by_physical_address() {
    let files = Files::new();
    let mut file = elf(&[ALIAS, LOW_LOAD, HIGH_LOAD], &files);
    let verdict = compare_elf(&file, &layout(), &files).unwrap();
    assert_eq!(verdict.first, None);
    assert_eq!(verdict.compared, layout().ram_len() - (VOLATILE.end - VOLATILE.start));

    let at = offset_of(&files.vmcore(), Image::Elf, &layout(), 0x10_0007).unwrap();
    assert_eq!(at, HIGH_AT + 7);
    file[at as usize] ^= 1;
    let verdict = compare_elf(&file, &layout(), &files).unwrap();
    assert_eq!((verdict.count, verdict.first.unwrap().address), (1, 0x10_0007));
    // What the crash path wrote is not compared.
    file[at as usize] ^= 1;
    file[(HIGH_AT + VOLATILE.start - HIGH.start) as usize] ^= 1;
    assert!(compare_elf(&file, &layout(), &files).unwrap().is_identical());
}

#[test]
fn an_elf_core_must_have_all_of_ram_and_nothing_else() {
    let files = Files::new();
    // No low memory.
    let verdict = compare_elf(&elf(&[HIGH_LOAD], &files), &layout(), &files).unwrap();
    assert_eq!((verdict.count, verdict.first.unwrap().address), (LOW.end, 0));
    // Nor, of the volatile section, the last page.
    let short = (0x10_0000, 0x10_0000, HIGH_AT, VOLATILE.end - 0x1000 - HIGH.start);
    let rest = (VOLATILE.end, VOLATILE.end, 0x30_0000, HIGH.end - VOLATILE.end);
    let verdict = compare_elf(&elf(&[LOW_LOAD, short, rest], &files), &layout(), &files).unwrap();
    assert_eq!((verdict.count, verdict.first.unwrap().address), (4096, VOLATILE.end - 0x1000));
    // A hole of the memory map.
    let hole = (0xb_0000, 0xb_0000, 0x30_0000, 0x1000);
    let verdict =
        compare_elf(&elf(&[LOW_LOAD, HIGH_LOAD, hole], &files), &layout(), &files).unwrap();
    assert_eq!((verdict.count, verdict.first.unwrap().address), (4096, 0xb_0000));
    // What was to be withheld.
    let redacted = Layout { redacted: 0x18_0000..0x18_1000, ..layout() };
    let verdict = compare_elf(&elf(&[LOW_LOAD, HIGH_LOAD], &files), &redacted, &files).unwrap();
    assert_eq!(verdict.count, 4096);
    // The end of the file.
    let mut file = elf(&[LOW_LOAD, HIGH_LOAD], &files);
    file.truncate(file.len() - 10);
    let verdict = compare_elf(&file, &layout(), &files).unwrap();
    assert_eq!((verdict.count, verdict.first.unwrap().address), (10, HIGH.end - 10));
}

#[test]
fn an_elf_core_that_contradicts_itself_is_refused() {
    let files = Files::new();
    let elsewhere = (0xffff_ffff_8010_0000, 0x10_0000, HIGH_AT + 0x1000, 0x1000);
    let file = elf(&[LOW_LOAD, HIGH_LOAD, elsewhere], &files);
    assert!(compare_elf(&file, &layout(), &files).unwrap_err().to_string().contains("elsewhere"));
    let mut file = elf(&[LOW_LOAD, HIGH_LOAD], &files);
    file[16] = 2;
    assert!(compare_elf(&file, &layout(), &files).is_err(), "a program is no core");
    assert!(compare_elf(b"nothing", &layout(), &files).is_err());
}

#[test]
fn only_a_page_may_be_withheld() {
    let with = |redacted| Layout { redacted, ..layout() }.check(MACHINE);
    assert_eq!(with(0x18_0000..0x18_1000), Ok(()));
    for bad in [0x18_0000..0x18_2000, 0x18_0001..0x18_1001, 0xb_0000..0xb_1000] {
        assert_eq!(with(bad.clone()), Err(LayoutError::Redacted(bad)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_changed_byte_is_counted(changes in proptest::collection::btree_map(0..HIGH.end, 1_u8.., 0..20)) {
        let mut files = Files::new();
        for (&address, &change) in &changes {
            files.image[address as usize] ^= change;
        }
        let expected: Vec<u64> =
            changes.into_keys().filter(|address| !VOLATILE.contains(address)).collect();
        let verdict = files.compare();
        prop_assert_eq!(verdict.count, expected.len() as u64);
        prop_assert_eq!(verdict.first.map(|first| first.address), expected.first().copied());
    }
}
