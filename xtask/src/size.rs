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

pub(crate) fn run() -> Result<()> {
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
            match (Probe { target, feature: Some("defined"), stack_sizes: true }).link()? {
                Linked::Program(program) => program,
                Linked::PanicRemains(message) => anyhow::bail!(message),
            };
        let bytes = probe::read(&program)?;
        print_row(target, &object::File::parse(bytes.as_slice())?)?;
    }
    smallest()?;
    println!();
    for (name, limits) in [("default", Limits::DEFAULT), ("smallest", Limits::SMALLEST)] {
        let Needs { slots, total_bytes, cell_bytes, .. } = memory_needed(&limits);
        println!(
            "memory for the {name} limits ({slots} slots): {total_bytes} bytes, of which {cell_bytes} staging cells"
        );
    }
    Ok(())
}

/// What the smallest machine can spare: bytes of flash, of static RAM, and of stack.
const AIMS: [u64; 3] = [24 * 1024, 16 * 1024, 2 * 1024];
/// Bytes of flash at the last look: above the aim, and not to grow by more than [`MARGIN_PCT`].
const FLASH_LAST: u64 = 29_168;
const MARGIN_PCT: u64 = 3;

/// The firmware without its harness: core, LAN9118, fault handler. Fails if it grows.
fn smallest() -> Result<()> {
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
    let rows = [("flash", flash), ("static RAM", ram), ("of it, stack", stack)];
    println!("{:<14} {:>8} {:>8}", "bytes", "is", "aim");
    for ((name, is), aim) in rows.iter().zip(AIMS) {
        println!("{name:<14} {is:>8} {aim:>8}{}", if *is > aim { "  above the aim" } else { "" });
    }
    let largest = frames(&file)?;
    let largest = largest.iter().filter(|frame| !frame.name.contains("cortex_m_rt_main"));
    let names: Vec<_> = largest.take(FRAMES).map(|f| format!("{} {}", f.size, f.name)).collect();
    println!("largest frames: {}", names.join(", "));
    let limit = FLASH_LAST + FLASH_LAST * MARGIN_PCT / 100;
    ensure!(
        flash <= limit,
        "flash grew to {flash} bytes, from {FLASH_LAST} and more than {MARGIN_PCT} %"
    );
    ensure!(ram <= AIMS[1], "static RAM is {ram} bytes, more than {}", AIMS[1]);
    ensure!(stack <= AIMS[2], "the dump's stack is {stack} bytes, more than {}", AIMS[2]);
    Ok(())
}

fn print_row<'a>(target: &str, file: &impl Object<'a>) -> Result<()> {
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
    Ok(())
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
    fn names_are_shortened() {
        assert_eq!(short_name("main"), "main");
        assert_eq!(
            short_name("_ZN4core3ops8function6FnOnce9call_once17h0123456789abcdefE"),
            "FnOnce::call_once"
        );
    }
}
