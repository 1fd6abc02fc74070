//! The ways of dying: real faults, a few calls deep, with arguments that a debugger can
//! look for in the dump: [`keep`] sees to it that the optimiser leaves them there.

use core::hint::black_box;
use core::ptr;

use crate::lan9118::Lan9118;
use crate::lan9118::registers::{FIRST, TX_DATA_FIFO};
use crate::options::Death;

/// Dies.
pub(crate) fn die(how: Death, nic: &mut Lan9118) -> ! {
    match how {
        Death::Null => flush_queue(3, ptr::null_mut()),
        Death::Panic => drop_reference(black_box(0)),
        Death::Stack => {
            descend(1);
        }
        Death::DriverLock => half_a_frame(nic),
    }
    panic!()
}

/// Keeps a value in memory, where a debugger finds it in optimised code too.
fn keep<T>(value: &T) {
    black_box(ptr::from_ref(value));
}

/// Completes the requests of a queue. Somebody cleared the list's head.
#[inline(never)]
fn flush_queue(queue: u32, head: *mut u32) {
    keep(&queue);
    keep(&head);
    complete(black_box(head), black_box(queue));
    keep(&queue);
}

#[inline(never)]
fn complete(request: *mut u32, state: u32) {
    let field = request.wrapping_add(3);
    keep(&request);
    keep(&state);
    keep(&field);
    // SAFETY: none: this is the death. The MPU refuses stores to the code, which
    // begins at address 0, so the store faults and changes nothing. A plain store, so
    // that no frame of a function of `core` lies on top of this one.
    unsafe { *field = state };
    keep(&state);
}

#[inline(never)]
fn drop_reference(references: u32) {
    keep(&references);
    assert!(references != 0);
}

/// Calls itself until the stack meets its guard.
#[inline(never)]
fn descend(depth: u32) -> u32 {
    let frame = black_box([depth; 16]);
    if black_box(depth) == u32::MAX {
        return depth;
    }
    // The frame is used after the call, so that this cannot become a loop.
    descend(depth + 1).wrapping_add(black_box(frame)[15])
}

/// Announces a frame of a thousand bytes, writes a few, and faults.
#[inline(never)]
fn half_a_frame(nic: &mut Lan9118) {
    nic.port.set(TX_DATA_FIFO, FIRST | 1000);
    nic.port.set(TX_DATA_FIFO, 1000);
    for word in 0..7 {
        nic.port.set(TX_DATA_FIFO, word);
    }
    store_nowhere(1000);
}

/// A fault where there is no memory, for a test of a fault inside the dump.
pub(crate) fn die_in_the_dump() {
    store_nowhere(0);
}

/// Stores where the board has nothing: a bus fault.
#[inline(never)]
pub(crate) fn store_nowhere(value: u32) {
    let nothing = ptr::without_provenance_mut::<u32>(black_box(0x3000_0000));
    keep(&value);
    keep(&nothing);
    // SAFETY: none: the bus refuses the address.
    unsafe { *nothing = value };
    keep(&value);
}
