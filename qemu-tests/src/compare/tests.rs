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
    Layout { ram: vec![LOW, HIGH], volatile: VOLATILE, redacted: 0..0 }
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
