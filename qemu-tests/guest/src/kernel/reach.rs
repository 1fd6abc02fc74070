//! What the dump may not reach: guard pages by name, their contents, and the write beyond
//! them that a test asks for.
//!
//! A device's writes do not pass the page tables. What they would spoil has a pattern,
//! which the harness looks for in QEMU's memory after the dump.

use core::fmt::Write;
use core::hint::black_box;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use debugnet_core::addr::{PhysAddr, PhysRange};
use guest::memory::Ranges;
use guest::overrun::{CANARY, Overrun, Piece, Side};
use guest::report;
use heapless::String;

use super::arch;
use super::guarded::PAGE_LEN;
use super::report;
use super::volatile::{first, guards, handed};

type Name = String<64>;

/// The last page of free RAM: the dump comes to it late. Written at boot.
static LAST_PAGE: AtomicU64 = AtomicU64::new(0);

fn name(text: core::fmt::Arguments<'_>) -> Name {
    let mut name = Name::new();
    // Two names of pieces and three words: it fits.
    let _ = name.write_fmt(text);
    name
}

/// The name of the arena's guard page of this number.
fn guard_name(number: usize) -> Name {
    let before = number.checked_sub(1).and_then(|at| Piece::all().nth(at));
    match (before, Piece::all().nth(number)) {
        (Some(one), Some(other)) => {
            name(format_args!("between `{}` and `{}`", one.name(), other.name()))
        }
        (None, Some(piece)) => name(format_args!("before `{}`", piece.name())),
        (Some(piece), None) => name(format_args!("after `{}`", piece.name())),
        (None, None) => Name::new(),
    }
}

/// The guard page that an address is in, by name.
pub(super) fn guard_at(address: u64) -> Option<Name> {
    let is_here = |guard: u64| (guard..guard + PAGE_LEN as u64).contains(&address);
    let number = guards().into_iter().position(is_here);
    let stack = || {
        let below = arch::death_guards().any(is_here);
        below.then(|| name(format_args!("below a `{}`", Piece::Stack.name())))
    };
    number.map(guard_name).or_else(stack)
}

/// Fills the guard pages, and what is free beside the pieces, with the pattern, and names
/// them to the harness. At boot, after all was handed out.
pub(super) fn set(free: &Ranges) {
    let end = free.last().map_or(0, |run| run.end().0);
    LAST_PAGE.store(end.saturating_sub(1) & !(PAGE_LEN as u64 - 1), Ordering::Relaxed);
    for (number, guard) in guards().into_iter().enumerate() {
        spread("the guard page", &guard_name(number), guard as usize, guard as usize + PAGE_LEN);
    }
    for guard in arch::death_guards() {
        let below = name(format_args!("below a `{}`", Piece::Stack.name()));
        spread("the guard page", &below, guard as usize, guard as usize + PAGE_LEN);
    }
    let ends = guards().into_iter().skip(1);
    for (piece, page_end) in Piece::all().zip(ends) {
        let (start, end) = handed(piece);
        if end != 0 {
            let piece_name = name(format_args!("`{}`", piece.name()));
            spread("what is free in front of", &piece_name, first(piece), start);
            spread("what is free behind", &piece_name, end, page_end as usize);
        }
    }
}

fn spread(kind: &str, which: &str, start: usize, end: usize) {
    let at = arch::physical(ptr::without_provenance::<u8>(start));
    let len = end.saturating_sub(start) as u64;
    let Some(range) = PhysRange::new(at, len).filter(|range| !range.is_empty()) else { return };
    for byte in 0..len {
        // SAFETY: RAM of the image in the volatile section that is part of no piece: nobody
        // else has a name for it.
        unsafe { arch::direct(PhysAddr(at.0 + byte)).write_volatile(CANARY) };
    }
    report(&report::Guard { kind, which, range: [range.start().0, range.end().0], canary: CANARY });
}

/// Writes the byte.
#[inline(never)]
pub(super) fn write_beyond(Overrun { side, piece }: Overrun) {
    let here = 0_u8;
    let (start, end) = match piece {
        Piece::Stack => arch::death_stack((&raw const here).addr() as u64),
        _ => handed(piece),
    };
    let target = match side {
        Side::Before => ptr::with_exposed_provenance_mut::<u8>(black_box(start.wrapping_sub(1))),
        Side::After => ptr::with_exposed_provenance_mut(black_box(end)),
        Side::Device if piece == Piece::Ram => {
            arch::direct(PhysAddr(LAST_PAGE.load(Ordering::Relaxed)))
        }
        Side::Device => arch::direct(arch::physical(ptr::without_provenance::<u8>(end))),
    };
    // SAFETY: none: it is what must not happen. The byte is part of nothing: it lies in a
    // guard page, where a fault ends the dump, in what is free beside a piece, or in free RAM.
    unsafe { target.write_volatile(!CANARY) };
}
