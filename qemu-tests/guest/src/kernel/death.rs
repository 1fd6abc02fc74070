//! The ways of dying. Each is a real fault in ordinary kernel code, a few
//! calls deep, with arguments and variables that a debugger can look for in the
//! dump: [`keep`] sees to it that the optimiser leaves them there.

use core::hint::black_box;
use core::ptr;

use guest::cmdline::{Death, NESTED_PANIC, NestedBy};

use super::live::LiveNic;

/// Dies.
pub(super) fn die(how: Death, nic: &mut LiveNic) -> ! {
    keep(&how);
    match how {
        Death::Null => flush_queue(3, ptr::null_mut()),
        Death::Panic => free_page(0x0012_3000, 2),
        Death::Stack => {
            descend(1);
        }
        Death::DriverLock => nic.die_inside(),
    }
    panic!("survived its death");
}

/// A list entry as the kernel that this one plays would have it.
#[repr(C)]
struct Request {
    next: *mut Request,
    len: u64,
    buffer: u64,
    state: u64,
}

/// Keeps a value in memory, where a debugger finds it in optimised code too:
/// from here on the compiler must take it as known to others.
pub(super) fn keep<T>(value: &T) {
    black_box(ptr::from_ref(value));
}

/// Completes the requests of a queue. Somebody cleared the list's head.
#[inline(never)]
fn flush_queue(queue: u32, head: *mut Request) {
    let pending = 2_u64;
    keep(&queue);
    keep(&head);
    keep(&pending);
    complete(black_box(head), black_box(queue), 0x5a5a);
    keep(&pending);
}

#[inline(never)]
fn complete(request: *mut Request, queue: u32, state: u64) {
    let field = request.wrapping_byte_add(core::mem::offset_of!(Request, state)).cast::<u64>();
    keep(&request);
    keep(&queue);
    keep(&state);
    keep(&field);
    // SAFETY: none: this is the death. Page 0 is not mapped, so the store faults and
    // changes nothing. The compiler cannot know where `field` points after `keep`. A plain
    // store, so that no frame of a function of `core` lies on top of this one.
    unsafe { *field = state };
    keep(&queue);
}

/// Frees a page of which the count says that it is free already.
#[inline(never)]
fn free_page(page: u64, references: u32) {
    let order = 0_u64;
    keep(&page);
    keep(&references);
    keep(&order);
    drop_reference(black_box(page), black_box(references).wrapping_sub(2));
    keep(&order);
}

#[inline(never)]
fn drop_reference(page: u64, references: u32) {
    keep(&page);
    keep(&references);
    assert!(black_box(references) != 0, "page {page:#x} freed twice: a \"bad\" day");
}

/// Calls itself until the stack is full.
#[inline(never)]
fn descend(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    keep(&depth);
    if black_box(depth) == u64::MAX {
        return depth;
    }
    // The frame is used after the call, so that this cannot become a loop.
    descend(depth + 1).wrapping_add(black_box(frame)[31])
}

/// Dies in the middle of the driver: follows a pointer that was freed.
#[inline(never)]
pub(super) fn die_in_the_driver(buffer: u64) -> ! {
    /// What a debugging allocator leaves in freed memory. Not a canonical address.
    const POISON: usize = 0xdead_4ead_0000_0100;
    let freed = ptr::without_provenance_mut::<u64>(black_box(POISON));
    keep(&buffer);
    keep(&freed);
    // SAFETY: none: this is the death. The CPU refuses the address before any memory
    // is touched; the compiler does not know it.
    unsafe { *freed = buffer };
    panic!("survived its death in the driver");
}

/// Dies once more, inside the dump.
#[inline(never)]
pub(super) fn die_in_the_dump(how: NestedBy) -> ! {
    if how == NestedBy::Panic {
        panic!("{NESTED_PANIC}");
    }
    let nothing = ptr::without_provenance_mut::<u64>(black_box(0x40));
    // SAFETY: none: page 0 is not mapped, and a fault is what the test asked for.
    unsafe { nothing.write_volatile(0) };
    panic!("survived its death in the dump");
}
