//! What the device tree says.

use core::num::NonZeroU64;

use debugnet_core::addr::{PhysAddr, PhysRange};
use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};
use guest::memory::{self, Ranges};
use heapless::{String, Vec};

use crate::kernel::arch::counter_hz;

/// Longest command line in bytes.
pub(super) const CMDLINE_MAX: usize = 2048;

/// What is of use to the kernel.
pub(super) struct Found {
    pub(super) cmdline: String<CMDLINE_MAX>,
    pub(super) ram: Ranges,
    pub(super) counter_hz: NonZeroU64,
}

/// Reads the tree at `address`.
///
/// # Safety
/// Nobody writes to it meanwhile.
pub(super) unsafe fn read(address: usize) -> Result<Found, &'static str> {
    let first = core::ptr::with_exposed_provenance(address);
    // SAFETY: the tree is looked at before it is believed, and lent to this function.
    let tree = unsafe { Fdt::from_raw(first) }.map_err(|_| "there is none")?;

    let chosen = tree.chosen();
    let cmdline = chosen.as_ref().and_then(|chosen| chosen.bootargs().ok().flatten());
    let cmdline = String::try_from(cmdline.unwrap_or("")).map_err(|_| "command line too long")?;
    if !cmdline.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Err("command line: not printable ASCII");
    }

    let memory = tree.memory().map_err(|_| "no memory")?;
    let mut runs: Vec<PhysRange, { memory::RANGES_MAX }> = Vec::new();
    for run in memory.reg().map_err(|_| "memory without ranges")?.into_iter().flatten() {
        let (Ok(start), Ok(len)) = (run.address::<u64>(), run.size::<u64>()) else {
            return Err("memory of more than 64 bits");
        };
        let range = PhysRange::new(PhysAddr(start), len).ok_or("memory that wraps")?;
        runs.push(range).map_err(|_| "too many runs of RAM")?;
    }
    let ram = memory::normalise(runs).map_err(|_| "too many runs of RAM")?;

    let frequency = tree.find_node("/cpus").and_then(|cpus| {
        let property = cpus.property("timebase-frequency")?;
        property.value_as::<u32>().ok()
    });
    let counter_hz = counter_hz(frequency).ok_or("the counter has no frequency")?;
    Ok(Found { cmdline, ram, counter_hz })
}
