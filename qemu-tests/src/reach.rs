//! What a dump may not write: the guard pages around its memory, and what is free beside it.
//!
//! The CPU faults in a guard page. A device does not pass the page tables: what it wrote
//! there, or to free RAM, is found in QEMU's memory. The table in docs/reliability.md is made from this one,
//! and compared with it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use guest::pattern;

use crate::matrix::{Case, Expect, PLAIN};
use crate::qmp::TruthFile;
use crate::rows::{self, Row};
use crate::serial::{Filled, Guard};

const WORD: usize = 8;
const CHUNK: usize = 1 << 20;

/// What became of memory that nobody writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nobody looked: QEMU had ended, and the guest's memory with it.
    NotTaken,
    /// All of it is as the guest left it.
    Clean,
    /// The first place that is not, in one line.
    Spoilt(String),
}

/// What nobody writes from some time at boot on, by the guest's word.
#[derive(Clone, Debug, Default)]
pub struct Untouched {
    /// Guard pages, and what is free beside the dump's memory.
    pub guards: Vec<Guard>,
    /// Free RAM.
    pub filled: Vec<Filled>,
}

impl Untouched {
    /// Bytes of free RAM.
    pub fn filled_len(&self) -> u64 {
        self.filled.iter().map(|filled| filled.range.1.saturating_sub(filled.range.0)).sum()
    }

    /// Looks for a place that is not as the guest left it.
    ///
    /// # Errors
    /// A file cannot be read, or a range is not in RAM.
    pub fn look(&self, truth: &[TruthFile]) -> io::Result<Look> {
        if truth.is_empty() {
            return Ok(Look::NotTaken);
        }
        for Guard { kind, which, range, canary } in &self.guards {
            let bytes = saved(*range, truth)?;
            if let Some(at) = bytes.iter().position(|byte| byte != canary) {
                let place = format!("{kind} {which} was written, at byte {at:#x} of it");
                return Ok(Look::Spoilt(place));
            }
        }
        for Filled { range: (start, end), seed } in &self.filled {
            for at in (*start..*end).step_by(CHUNK) {
                let bytes = saved((at, (*end).min(at + CHUNK as u64)), truth)?;
                let found = bytes.chunks_exact(WORD).zip(pattern::words(at, *seed));
                let spoilt =
                    found.enumerate().find(|(_, (word, told))| **word != told.to_le_bytes());
                if let Some((number, _)) = spoilt {
                    let at = at + (number * WORD) as u64;
                    return Ok(Look::Spoilt(format!("free RAM was written, at {at:#x}")));
                }
            }
        }
        Ok(Look::Clean)
    }
}

/// A range of RAM as QEMU saved it.
fn saved((start, end): (u64, u64), truth: &[TruthFile]) -> io::Result<Vec<u8>> {
    let holder = truth.iter().find(|file| file.range.start <= start && end <= file.range.end);
    let holder = holder.filter(|_| start < end);
    let outside = || io::Error::other(format!("{start:#x}..{end:#x} is not in RAM"));
    let TruthFile { range, path } = holder.ok_or_else(outside)?;
    let mut bytes = vec![0; (end - start) as usize];
    File::open(path)?.read_exact_at(&mut bytes, start - range.start)?;
    Ok(bytes)
}

fn case(machine: &str, nic: &str, overrun: &str, expect: Expect) -> Case {
    let case = Case::new(machine, nic, 32, PLAIN, 0, "null").guest(&format!("overrun={overrun}"));
    Case { expect, ..case }
}

fn rows() -> Vec<Row> {
    use Expect::{Overrun, Spoilt};
    let (pc, virtio) = ("q35", "virtio-net-pci");
    let row = |what, overrun, expect| {
        let is_usual = ["after-rx", "device-rings", "device-ram"].contains(&overrun);
        Row { what, is_usual, case: case(pc, virtio, overrun, expect) }
    };
    let on = |what, machine, nic, overrun, expect| Row {
        what,
        is_usual: false,
        case: case(machine, nic, overrun, expect),
    };
    let mut gzip = row(
        "behind the compressor's workspace",
        "after-gzip",
        Overrun("between `gzip` and `regions`"),
    );
    gzip.case.machine.compress = "gzip".into();
    let mmio = "virtio-net-device";
    vec![
        row("in front of the slots", "before-slots", Overrun("before `slots`")),
        row("behind the slots", "after-slots", Overrun("between `slots` and `index`")),
        row("behind the index", "after-index", Overrun("between `index` and `cells`")),
        row("in front of the cells", "before-cells", Spoilt("in front of `cells`")),
        row("behind the cells", "after-cells", Overrun("between `cells` and `rx`")),
        row("in front of the receive buffer", "before-rx", Spoilt("in front of `rx`")),
        row("behind the receive buffer", "after-rx", Overrun("between `rx` and `rings`")),
        row("in front of the driver's rings", "before-rings", Spoilt("in front of `rings`")),
        row("behind the driver's rings", "after-rings", Overrun("between `rings` and `gzip`")),
        row(
            "the same, past the page tables, as a device writes",
            "device-rings",
            Spoilt("between `rings` and `gzip`"),
        ),
        row(
            "to free RAM, past the page tables, as a device writes",
            "device-ram",
            Spoilt("free RAM was written"),
        ),
        gzip,
        row("behind the list of regions", "after-regions", Overrun("between `regions` and `kit`")),
        row("in front of the crash cell", "before-kit", Spoilt("in front of `kit`")),
        row("behind the crash cell", "after-kit", Overrun("after `kit`")),
        row("below the dump's stack", "before-stack", Overrun("below a `stack`")),
        on(
            "behind the driver's rings",
            pc,
            "e1000",
            "after-rings",
            Overrun("between `rings` and `gzip`"),
        ),
        on(
            "the same, past the page tables, as a device writes",
            pc,
            "e1000",
            "device-rings",
            Spoilt("between `rings` and `gzip`"),
        ),
        on(
            "behind the driver's rings, which begin at a page",
            pc,
            "virtio-net-pci-legacy",
            "after-rings",
            Spoilt("free behind `rings`"),
        ),
        on(
            "behind the slots",
            "aarch64-virt",
            mmio,
            "after-slots",
            Overrun("between `slots` and `index`"),
        ),
        on(
            "behind the driver's rings, past the page tables, as a device writes",
            "aarch64-virt",
            mmio,
            "device-rings",
            Spoilt("between `rings` and `gzip`"),
        ),
        on(
            "below the dump's stack",
            "aarch64-virt",
            mmio,
            "before-stack",
            Overrun("below a `stack`"),
        ),
        on(
            "behind the slots",
            "riscv64-virt",
            mmio,
            "after-slots",
            Overrun("between `slots` and `index`"),
        ),
        on(
            "behind the driver's rings, past the page tables, as a device writes",
            "riscv64-virt",
            mmio,
            "device-rings",
            Spoilt("between `rings` and `gzip`"),
        ),
        on(
            "below the dump's stack",
            "riscv64-virt",
            mmio,
            "before-stack",
            Overrun("below a `stack`"),
        ),
    ]
}

/// The runs: a covering subset, or all.
pub(crate) fn cases(full: bool) -> Vec<Case> {
    rows::cases(rows(), full)
}

/// The rows as docs/reliability.md has them.
pub fn table() -> String {
    rows::table(["a byte is written", "it"], &rows(), |case| match case.expect {
        Expect::Overrun(guard) => format!("nested: \"in the guard page {guard}\""),
        Expect::Spoilt(place) => format!("the dump is whole; found afterwards: {place}"),
        _ => String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_the_docs_is_this_one() {
        rows::assert_in_docs(&table());
    }

    #[test]
    fn one_spoilt_byte_is_found_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("truth");
        let mut bytes = vec![7; 100];
        let guard = |which: &str, range| Guard {
            kind: "the guard page".into(),
            which: which.into(),
            range,
            canary: 7,
        };
        let guards = vec![guard("before", (1000, 1010)), guard("after", (1050, 1100))];
        let untouched = Untouched { guards, filled: Vec::new() };
        let look = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            untouched.look(&[TruthFile { range: 1000..1100, path: path.clone() }]).unwrap()
        };
        assert_eq!(look(&bytes), Look::Clean);
        bytes[20] = 0;
        assert_eq!(look(&bytes), Look::Clean);
        bytes[99] = 0;
        let place = "the guard page after was written, at byte 0x31 of it";
        assert_eq!(look(&bytes), Look::Spoilt(place.into()));
        bytes[0] = 0;
        assert!(matches!(look(&bytes), Look::Spoilt(place) if place.contains("before")));
        assert_eq!(untouched.look(&[]).unwrap(), Look::NotTaken);
        let guards = vec![guard("outside", (1090, 1101))];
        let outside = Untouched { guards, filled: Vec::new() };
        assert!(outside.look(&[TruthFile { range: 1000..1100, path: path.clone() }]).is_err());
    }

    #[test]
    fn a_word_of_free_ram_that_is_not_the_patterns_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("truth");
        let mut bytes: Vec<u8> =
            pattern::words(0x1000, 9).take(512).flat_map(u64::to_le_bytes).collect();
        let filled = vec![Filled { range: (0x1008, 0x2000), seed: 9 }];
        let untouched = Untouched { guards: Vec::new(), filled };
        assert_eq!(untouched.filled_len(), 0xff8);
        let look = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            untouched.look(&[TruthFile { range: 0x1000..0x2000, path: path.clone() }]).unwrap()
        };
        bytes[0] ^= 1;
        assert_eq!(look(&bytes), Look::Clean);
        bytes[0xfff] ^= 1;
        assert_eq!(look(&bytes), Look::Spoilt("free RAM was written, at 0x1ff8".into()));
    }
}
