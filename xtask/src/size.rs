//! `cargo xtask size`: what the crash path costs, by target.

use anyhow::{Context as _, Result, ensure};
use debugnet_core::{Limits, Needs, memory_needed};
use object::{
    Architecture, Object, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind,
};

use qemu_tests::board::Guest;

use crate::cargo::{self, Build};
use crate::probe::{self, BARE, Linked, Probe};
use crate::tools;

/// Frames shown for each target.
const FRAMES: usize = 3;
/// What the smallest machine can spare: bytes of flash, of static RAM, and of stack.
const AIMS: [u64; 3] = [24 * 1024, 16 * 1024, 2 * 1024];
/// How far a size may be from the one in README.md: more is a regression, less an old table.
/// Another version of the compiler stays within it.
const MARGIN_PCT: u64 = 3;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write the table of README.md anew
    #[arg(long)]
    pub(crate) write: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut table = Table::read()?;
    probes(&mut table)?;
    smallest(&mut table)?;
    println!();
    for (name, limits) in [("default", Limits::DEFAULT), ("smallest", Limits::SMALLEST)] {
        let Needs { slots, total_bytes, cell_bytes, .. } = memory_needed(&limits);
        println!(
            "memory for the {name} limits ({slots} slots): {total_bytes} bytes, of which {cell_bytes} staging cells"
        );
    }
    if args.write {
        return table.write();
    }
    ensure!(table.off.is_empty(), "{}", table.off.join("\n"));
    println!("all within {MARGIN_PCT} % of README.md");
    Ok(())
}

fn probes(table: &mut Table) -> Result<()> {
    let first = probe::proof_target()?;
    println!("The probe: runner, protocol, virtio-net over PCI, memory for the default limits.");
    println!("Bytes; flash = code + constants + initial values of data.\n");
    println!(
        "{:<28} {:>8} {:>9} {:>8} {:>8} {:>8}  largest stack frames",
        "target", "code", "constants", "data", "bss", "flash"
    );
    for target in
        std::iter::once(first.as_str()).chain(BARE.iter().copied().filter(|t| *t != first))
    {
        if target != first
            && let Err(error) = tools::target(target)
        {
            println!("{target:<28} skipped: {error:#}");
            continue;
        }
        let program =
            match (Probe { target, feature: Some("defined"), opt_level: None, stack_sizes: true })
                .link()?
            {
                Linked::Program(program) => program,
                Linked::PanicRemains(message) => anyhow::bail!(message),
            };
        let bytes = probe::read(&program)?;
        let flash = print_row(target, &object::File::parse(bytes.as_slice())?)?;
        table.compare(target, flash);
    }
    Ok(())
}

/// The firmware without its harness: core, LAN9118, fault handler. Fails above an aim.
fn smallest(table: &mut Table) -> Result<()> {
    println!(
        "\nThe smallest: firmware for a Cortex-M3 with a LAN9118, flat image, IPv4, opt-level z, LTO."
    );
    let target = Guest::Firmware.target().context("the firmware has no target")?;
    if let Err(error) = tools::target(target) {
        println!("skipped: {error:#}");
        return Ok(());
    }
    let program = cargo::build_firmware(Build::Smallest)?;
    let bytes = probe::read(&program)?;
    let file = object::File::parse(bytes.as_slice())?;
    let of = |names: &[&str]| -> u64 {
        file.sections()
            .filter(|s| s.name().is_ok_and(|n| names.contains(&n)))
            .map(|s| s.size())
            .sum()
    };
    let at = |name: &str| -> Result<u64> {
        let symbol = file.symbols().find(|s| s.name() == Ok(name));
        Ok(symbol.with_context(|| format!("the firmware has no {name}"))?.address())
    };
    let flash = of(&[".vector_table", ".text", ".rodata", ".data"]);
    // Up to where it is used: the section itself is made of whole pages.
    let volatile = at("__volatile_used_end")? - at("__volatile_start")?;
    let ram = of(&[".data", ".bss"]) + volatile;
    let stack = file.symbols().find(|s| s.name().is_ok_and(|n| n.contains("volatile5STACK")));
    let stack = stack.context("the firmware has no stack")?.size();
    let rows = [("flash", flash), ("static RAM", ram), ("stack of the dump, part of it", stack)];
    println!("{:<30} {:>8} {:>8}", "bytes", "is", "aim");
    for ((name, is), aim) in rows.iter().zip(AIMS) {
        println!("{name:<30} {is:>8} {aim:>8}");
        table.compare(name, *is);
    }
    let largest = frames(&file)?;
    let largest = largest.iter().filter(|frame| !frame.name.contains("cortex_m_rt_main"));
    let names: Vec<_> = largest.take(FRAMES).map(|f| format!("{} {}", f.size, f.name)).collect();
    println!("largest frames: {}", names.join(", "));
    for ((name, is), aim) in rows.iter().zip(AIMS) {
        ensure!(*is <= aim, "{name}: {is} bytes, and at most {aim} are promised");
    }
    Ok(())
}

/// Prints the sizes of a program, and tells what it is in flash.
fn print_row<'a>(target: &str, file: &impl Object<'a>) -> Result<u64> {
    let of = |wanted: &[SectionKind]| -> u64 {
        file.sections().filter(|s| wanted.contains(&s.kind())).map(|s| s.size()).sum()
    };
    let code = of(&[SectionKind::Text]);
    let constants = of(&[SectionKind::ReadOnlyData, SectionKind::ReadOnlyString]);
    let data = of(&[SectionKind::Data]);
    let bss = of(&[SectionKind::UninitializedData]);
    let frames = match frames(file)? {
        frames if frames.is_empty() => "the compiler told none".to_owned(),
        frames => frames
            .iter()
            .take(FRAMES)
            .map(|frame| format!("{} {}", frame.size, frame.name))
            .collect::<Vec<_>>()
            .join(", "),
    };
    let flash = code + constants + data;
    println!("{target:<28} {code:>8} {constants:>9} {data:>8} {bss:>8} {flash:>8}  {frames}");
    Ok(flash)
}

/// The table in README.md: what a size was, and with it what it may be.
struct Table {
    text: String,
    /// What is not as README.md has it.
    off: Vec<String>,
}

impl Table {
    const BEGIN: &str = "<!-- size:begin -->";
    const END: &str = "<!-- size:end -->";

    fn read() -> Result<Self> {
        let path = cargo::root().join("README.md");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let has_table = text.split_once(Self::BEGIN).is_some_and(|(_, t)| t.contains(Self::END));
        ensure!(has_table, "README.md has no {} and {}", Self::BEGIN, Self::END);
        Ok(Self { text, off: Vec::new() })
    }

    /// Where the number of a row is: `| NAME | NUMBER |`.
    fn find(&self, name: &str) -> Option<std::ops::Range<usize>> {
        let from = self.text.find(Self::BEGIN)?;
        let to = from + self.text.get(from..)?.find(Self::END)?;
        let row = format!("\n| {name} | ");
        let at = from + self.text.get(from..to)?.find(&row)? + row.len();
        Some(at..at + self.text.get(at..to)?.find(' ')?)
    }

    /// Holds a size against the table, and puts it there in case it is written.
    fn compare(&mut self, name: &str, is: u64) {
        let Some(place) = self.find(name) else {
            self.off.push(format!("README.md has no row for {name}: {is} bytes"));
            return;
        };
        let was = self.text.get(place.clone()).map(|number| number.replace(',', "").parse::<u64>());
        match was {
            Some(Ok(was)) => {
                let margin = was * MARGIN_PCT / 100;
                if is > was + margin {
                    let grew =
                        format!("{name} grew to {is} bytes, from {was}: more than {MARGIN_PCT} %");
                    self.off.push(grew);
                } else if is < was - margin {
                    let shrank = format!(
                        "{name} is {is} bytes, and {was} in README.md: `cargo xtask size --write`"
                    );
                    self.off.push(shrank);
                }
            }
            _ => self.off.push(format!("README.md has no number for {name}")),
        }
        self.text.replace_range(place, &grouped(is));
    }

    fn write(&self) -> Result<()> {
        std::fs::write(cargo::root().join("README.md"), &self.text).context("writing README.md")
    }
}

/// A number with its thousands apart, as people read it.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at != 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

struct StackFrame {
    size: u64,
    name: String,
}

/// Stack frames by function, the largest first, from `.stack_sizes`: an
/// address and a ULEB128 number for each function.
fn frames<'a>(file: &impl Object<'a>) -> Result<Vec<StackFrame>> {
    let Some(section) = file.section_by_name(".stack_sizes") else { return Ok(Vec::new()) };
    let data = section.uncompressed_data()?;
    let address_len = if file.is_64() { 8 } else { 4 };
    // Bit 0 of a function's address says Thumb there.
    let mask = if file.architecture() == Architecture::Arm { !1 } else { !0 };
    let mut rest: &[u8] = &data;
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let (address, after) =
            rest.split_at_checked(address_len).context(".stack_sizes is cut short")?;
        let address = address.iter().rev().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
        let (size, after) = uleb128(after).context(".stack_sizes is cut short")?;
        rest = after;
        let name = file
            .symbols()
            .find(|s| s.kind() == SymbolKind::Text && s.address() & mask == address & mask)
            .and_then(|symbol| symbol.name().ok())
            .map_or_else(|| format!("{address:#x}"), short_name);
        frames.push(StackFrame { size, name });
    }
    frames.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
    Ok(frames)
}

/// `a::b::C::d` as `C::d`.
fn short_name(symbol: &str) -> String {
    let name = format!("{:#}", rustc_demangle::demangle(symbol));
    if name.starts_with('<') {
        return name;
    }
    let parts: Vec<&str> = name.split("::").collect();
    parts[parts.len().saturating_sub(2)..].join("::")
}

fn uleb128(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_length() {
        assert_eq!(uleb128(&[0x08, 9]), Some((8, [9].as_slice())));
        // DWARF 4, figure 22: 624485 is e5 8e 26.
        assert_eq!(uleb128(&[0xe5, 0x8e, 0x26]), Some((624_485, [].as_slice())));
        assert_eq!(uleb128(&[0x80]), None);
        assert_eq!(uleb128(&[0xff; 20]), None);
    }

    #[test]
    fn a_size_is_held_against_the_table() {
        let table = |text: &str| Table { text: text.to_owned(), off: Vec::new() };
        let text = "a\n<!-- size:begin -->\n| | is |\n|---|---|\n| flash | 10,000 | x |\n<!-- size:end -->\n| flash | 7 |\n";
        for (is, complaint) in [
            (10_000, None),
            (10_300, None),
            (10_301, Some("flash grew to 10301 bytes")),
            (9_699, Some("flash is 9699 bytes, and 10000 in README.md")),
        ] {
            let mut table = table(text);
            table.compare("flash", is);
            assert_eq!(table.off.len(), usize::from(complaint.is_some()), "{is}: {:?}", table.off);
            assert!(
                complaint.is_none_or(|words| table.off[0].starts_with(words)),
                "{:?}",
                table.off
            );
            assert!(table.text.contains(&format!("| flash | {} | x |", grouped(is))));
            assert!(table.text.ends_with("| flash | 7 |\n"), "what is behind the table stays");
        }
        let mut table = table(text);
        table.compare("RAM", 1);
        assert_eq!(table.off, ["README.md has no row for RAM: 1 bytes"]);
    }

    #[test]
    fn thousands_are_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn names_are_shortened() {
        assert_eq!(short_name("main"), "main");
        assert_eq!(
            short_name("_ZN4core3ops8function6FnOnce9call_once17h0123456789abcdefE"),
            "FnOnce::call_once"
        );
    }
}
