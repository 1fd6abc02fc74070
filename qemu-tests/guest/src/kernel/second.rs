//! What the second CPU does: it waits for work, a few calls deep, so that its
//! backtrace has something to show.

use super::arch;
use super::death::keep;

/// Never returns: another CPU's death stops it.
pub(super) fn main(cpu: u32) -> ! {
    keep(&cpu);
    serve(cpu, 0x51ed)
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
    let sleeps = taken + 1;
    keep(&queue);
    keep(&taken);
    keep(&sleeps);
    arch::wait();
    sleeps
}
