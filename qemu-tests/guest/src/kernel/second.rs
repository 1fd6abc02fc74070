//! What the second CPU does: it waits for work, a few calls deep, so that its
//! backtrace has something to show.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use debugnet_core::addr::PhysRange;

use super::arch;
use super::death::keep;

/// Words that it writes if it is told to: ordinary memory, part of the image.
#[repr(C, align(4096))]
struct Scratch([AtomicU64; SCRATCH_LEN / 8]);

const SCRATCH_LEN: usize = 64 << 10;

static SCRATCH: Scratch = Scratch([const { AtomicU64::new(1) }; SCRATCH_LEN / 8]);

/// Whether it is to write.
static WRITES: AtomicBool = AtomicBool::new(false);

/// Lets it write without end; the range that changes.
pub(super) fn write_without_end() -> PhysRange {
    WRITES.store(true, Ordering::Release);
    let start = arch::physical(&raw const SCRATCH);
    PhysRange::new(start, SCRATCH_LEN as u64).unwrap_or(PhysRange::EMPTY)
}

/// Never returns: another CPU's death stops it, unless it was told to go on.
pub(super) fn main(cpu: u32) -> ! {
    keep(&cpu);
    serve(cpu, 0x51ed)
}

/// Counts in every word of the scratch memory, for ever.
fn write() -> ! {
    loop {
        for word in &SCRATCH.0 {
            word.fetch_add(0x0001_0203_0405_0607, Ordering::Relaxed);
        }
    }
}

/// Takes work from a queue that stays empty.
#[inline(never)]
fn serve(cpu: u32, queue: u64) -> ! {
    let mut taken = 0_u64;
    keep(&cpu);
    keep(&queue);
    loop {
        taken += wait_for_work(queue, taken);
        keep(&taken);
    }
}

#[inline(never)]
fn wait_for_work(queue: u64, taken: u64) -> u64 {
    if WRITES.load(Ordering::Acquire) {
        write();
    }
    let sleeps = taken + 1;
    keep(&queue);
    keep(&taken);
    keep(&sleeps);
    arch::wait();
    sleeps
}
