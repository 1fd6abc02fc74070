//! Values of flags, with errors that say what would have been right.

use qemu_tests::board;
use qemu_tests::qemu::{ACCELERATORS, CLIENTS, COMPRESSIONS, CRASHES, IMAGES, MAPPINGS};

/// Least RAM of a guest in MiB: the kernel, its stacks and something to dump.
const MEMORY_MIN_MIB: u64 = 16;
/// Most RAM of a guest in MiB.
const MEMORY_MAX_MIB: u64 = 64 * 1024;

/// `64M`, `1G`, `262144K`, or a plain number of MiB; the result is in MiB.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "expected a size such as 64M or 1G".to_owned())?;
    let mib = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "M" | "MB" | "MIB" => Some(number),
        "G" | "GB" | "GIB" => number.checked_mul(1024),
        "K" | "KB" | "KIB" if number.is_multiple_of(1024) => Some(number / 1024),
        "K" | "KB" | "KIB" => return Err("the size must be a whole number of MiB".to_owned()),
        unit => return Err(format!("`{unit}` is no unit: use K, M or G, as in 64M or 1G")),
    };
    mib.filter(|mib| (MEMORY_MIN_MIB..=MEMORY_MAX_MIB).contains(mib)).ok_or_else(|| {
        format!("the guest needs between {MEMORY_MIN_MIB}M and {}G", MEMORY_MAX_MIB / 1024)
    })
}

/// A share in percent, 0 to 100, fractions allowed; the result is 0 to 1.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text
        .trim_end_matches('%')
        .parse()
        .map_err(|_| "expected a percentage such as 1 or 0.5".to_owned())?;
    if !(0.0..=100.0).contains(&number) {
        return Err("expected a percentage between 0 and 100".to_owned());
    }
    Ok(number / 100.0)
}

/// An IP MTU in bytes.
pub(crate) fn mtu(text: &str) -> Result<u16, String> {
    // 576 is what every IPv4 host takes (RFC 791); a message must hold a whole
    // kernel dump header of 512 bytes, too.
    const RANGE: std::ops::RangeInclusive<u16> = 576..=65_000;
    let wrong = || format!("expected an MTU of {} to {} bytes", RANGE.start(), RANGE.end());
    text.parse().ok().filter(|mtu| RANGE.contains(mtu)).ok_or_else(wrong)
}

/// Slots of the window.
pub(crate) fn slots(text: &str) -> Result<u32, String> {
    let wrong = || "expected a power of two between 16 and 4096".to_owned();
    text.parse()
        .ok()
        .filter(|slots: &u32| slots.is_power_of_two() && (16..=4096).contains(slots))
        .ok_or_else(wrong)
}

/// A physical address, decimal or with `0x`.
pub(crate) fn address(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "expected an address such as 0x123456".to_owned())
}

fn one_of(text: &str, known: &[&str]) -> Result<String, String> {
    if known.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("the guest knows {}", known.join(", ")))
}

/// A NIC that the guest has a driver for.
pub(crate) fn nic(text: &str) -> Result<String, String> {
    one_of(text, &board::nics())
}

/// A machine that the guest boots on.
pub(crate) fn machine(text: &str) -> Result<String, String> {
    one_of(text, &board::machines().collect::<Vec<_>>())
}

/// A way of dying.
pub(crate) fn crash(text: &str) -> Result<String, String> {
    one_of(text, CRASHES)
}

/// Where the guest's virtual addresses are.
pub(crate) fn mapping(text: &str) -> Result<String, String> {
    one_of(text, MAPPINGS)
}

/// What dumps.
pub(crate) fn client(text: &str) -> Result<String, String> {
    one_of(text, CLIENTS)
}

/// What the dump looks like.
pub(crate) fn image(text: &str) -> Result<String, String> {
    one_of(text, IMAGES)
}

/// How the dump is compressed.
pub(crate) fn compress(text: &str) -> Result<String, String> {
    one_of(text, COMPRESSIONS)
}

/// An accelerator.
pub(crate) fn accel(text: &str) -> Result<String, String> {
    one_of(text, ACCELERATORS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, mib) in
            [("64M", 64), ("1G", 1024), ("256", 256), ("65536K", 64), ("2g", 2048), ("32MiB", 32)]
        {
            assert_eq!(memory(text), Ok(mib), "{text}");
        }
        for bad in
            ["12Q", "", "M", "64MM", "-1M", "1.5G", "1000K", "15M", "65G", "99999999999999999G"]
        {
            assert!(memory(bad).is_err(), "{bad}");
        }
        assert!(memory("12Q").unwrap_err().contains("`Q` is no unit"));
    }

    #[test]
    fn shares() {
        assert_eq!(percent("1"), Ok(0.01));
        assert_eq!(percent("0.5%"), Ok(0.005));
        for bad in ["", "x", "-1", "101", "NaN"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_rest() {
        assert_eq!((mtu("1500"), mtu("4148")), (Ok(1500), Ok(4148)));
        assert!(mtu("100").is_err() && mtu("70000").is_err());
        assert_eq!(slots("1024"), Ok(1024));
        assert!(slots("1000").is_err() && slots("8").is_err());
        assert_eq!((address("0x10"), address("16")), (Ok(16), Ok(16)));
        assert!(nic("ne2k").unwrap_err().contains("virtio-net-pci"));
        assert!(machine("q35").is_ok() && crash("null").is_ok() && accel("tcg").is_ok());
    }
}
