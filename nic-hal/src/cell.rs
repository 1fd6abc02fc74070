//! Boot-time state that a crash handler enters, without `static mut`.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, Ordering};

use debugnet_core::progress::Progress;

/// What a crash handler owns: filled once at boot, entered once, by the first
/// CPU that crashes.
///
/// The kernel keeps one in a `static` with the armed dump, its NICs, clock and
/// source in it. The fault handler calls [`CrashCell::enter`] and learns
/// whether it is the first, a fault inside the dump on the same CPU, or a
/// crash on another CPU meanwhile. Nothing is ever dropped or handed back.
///
/// ```
/// use nic_hal::{CrashCell, Entry};
///
/// static CRASH: CrashCell<Vec<u8>> = CrashCell::new();
///
/// assert!(CRASH.put(vec![1, 2, 3]).is_ok());               // at boot
/// match CRASH.enter(0) {                                   // in the fault handler
///     Entry::First { value, .. } => value.push(4),         // begin the dump
///     _ => unreachable!(),
/// }
/// assert!(matches!(CRASH.enter(0), Entry::Nested(_)));     // a fault inside the dump
/// assert!(matches!(CRASH.enter(1), Entry::OtherCpu));      // park this one
/// ```
///
/// # Cores without compare-and-swap
///
/// Where the target has no 32-bit compare-and-swap (thumbv6m), the state
/// moves by a load and a store. That is sound on a single core, and only if
/// neither `put` nor `enter` is interrupted by another `put` or `enter` that
/// returns into it: fill the cell before interrupts are enabled, and do not
/// return from a fault handler that has entered it.
#[derive(Debug)]
pub struct CrashCell<T> {
    /// [`EMPTY`], [`FILLING`], [`ARMED`], or [`ENTERED`] with the CPU's number.
    state: AtomicU32,
    progress: Progress,
    value: UnsafeCell<MaybeUninit<T>>,
}

/// Nothing put yet. Zero, so that a cell may lie in `.bss`.
const EMPTY: u32 = 0;
/// `put` is writing the value.
const FILLING: u32 = 1;
/// The value is there for whoever enters first.
const ARMED: u32 = 2;
/// A CPU has the value; the other 31 bits say which.
const ENTERED: u32 = 1 << 31;

// SAFETY: the value is written by the one `put` that moves the state from EMPTY
// to FILLING, and lent by the one `enter` that moves it from ARMED to ENTERED;
// the state never goes back, so at most one context has the value at any time.
// That context may be another than the one that put it: `T: Send`.
#[allow(unsafe_code)]
unsafe impl<T: Send> Sync for CrashCell<T> {}

/// What [`CrashCell::enter`] found.
#[derive(Debug)]
pub enum Entry<T: 'static> {
    /// This CPU crashed first: the value is its own for ever.
    First {
        /// What was put at boot.
        value: &'static mut T,
        /// Where the dump notes how far it got, for a nested fault to read.
        progress: &'static Progress,
    },
    /// This CPU is already inside: a fault in the dump itself. How far it got.
    Nested(&'static Progress),
    /// Another CPU is dumping: this one has to stop and leave memory alone.
    OtherCpu,
    /// Nothing was put: a crash before the cell was armed.
    Empty,
}

impl<T> CrashCell<T> {
    /// An empty cell.
    pub const fn new() -> Self {
        Self {
            state: AtomicU32::new(EMPTY),
            progress: Progress::new(),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Fills the cell and arms it, once.
    ///
    /// # Errors
    /// Gives `value` back if the cell is not empty.
    #[allow(unsafe_code)]
    pub fn put(&self, value: T) -> Result<(), T> {
        if !advance(&self.state, EMPTY, FILLING) {
            return Err(value);
        }
        // SAFETY: this call moved the state from EMPTY to FILLING, which happens
        // once; until ARMED is stored below nobody else looks at the value.
        unsafe { self.value.get().cast::<T>().write(value) };
        self.state.store(ARMED, Ordering::Release);
        Ok(())
    }

    /// Enters the cell from a fault handler. `cpu` is any number below 2^31
    /// that differs between the CPUs (bit 31 is ignored).
    #[allow(unsafe_code)]
    pub fn enter(&'static self, cpu: u32) -> Entry<T> {
        let entered = ENTERED | cpu;
        if advance(&self.state, ARMED, entered) {
            // SAFETY: this call moved the state from ARMED to ENTERED, which happens
            // once and is never undone: `put` had finished writing (acquire), and
            // the exclusive reference is this CPU's for the rest of the machine's life.
            let value = unsafe { &mut *self.value.get().cast::<T>() };
            return Entry::First { value, progress: &self.progress };
        }
        match self.state.load(Ordering::Acquire) {
            now if now == entered => Entry::Nested(&self.progress),
            now if now & ENTERED != 0 => Entry::OtherCpu,
            _ => Entry::Empty,
        }
    }

    /// How far the dump got, for a context that is not a fault handler.
    pub const fn progress(&self) -> &Progress {
        &self.progress
    }
}

impl<T> Default for CrashCell<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Moves `state` from `from` to `to`. `false` if it was not at `from`.
#[cfg(target_has_atomic = "32")]
#[inline(never)]
fn advance(state: &AtomicU32, from: u32, to: u32) -> bool {
    state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// Moves `state` from `from` to `to`. `false` if it was not at `from`.
/// Two accesses: see [`CrashCell`] on what that asks of the caller.
#[cfg(not(target_has_atomic = "32"))]
#[inline(never)]
fn advance(state: &AtomicU32, from: u32, to: u32) -> bool {
    let at_from = state.load(Ordering::Acquire) == from;
    if at_from {
        state.store(to, Ordering::Release);
    }
    at_from
}

/// Memory set aside at compile time and taken once, at boot: rings, cells,
/// window slots, without a `static mut`.
///
/// ```
/// use nic_hal::Reserved;
///
/// static CELLS: Reserved<[u8; 4096]> = Reserved::new([0; 4096]);
///
/// // SAFETY: one thread, so no other `take` runs at the same time.
/// let cells = unsafe { CELLS.take() }.unwrap();
/// assert_eq!(cells.len(), 4096);
/// // SAFETY: as above.
/// assert!(unsafe { CELLS.take() }.is_none());
/// ```
#[derive(Debug)]
pub struct Reserved<T> {
    /// 0 until taken.
    taken: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only through `take`, which lends it once; the
// taker may be another context than the one that made the static: `T: Send`.
#[allow(unsafe_code)]
unsafe impl<T: Send> Sync for Reserved<T> {}

impl<T> Reserved<T> {
    /// Reserves memory that starts as `value`.
    pub const fn new(value: T) -> Self {
        Self { taken: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    /// Takes the memory, for ever. `None` if it was taken before.
    ///
    /// # Safety
    /// No other call of `take` on the same cell runs at the same time, on
    /// another CPU or in an interrupt (there is no compare-and-swap on the
    /// smallest cores).
    #[allow(unsafe_code)]
    #[expect(clippy::mut_from_ref, reason = "lent once, which the flag keeps")]
    pub unsafe fn take(&'static self) -> Option<&'static mut T> {
        if !advance(&self.taken, 0, 1) {
            return None;
        }
        // SAFETY: the first and only taker (the flag never goes back, and the
        // caller excludes a race); `'static` memory that nothing else names.
        Some(unsafe { &mut *self.value.get() })
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn the_first_cpu_gets_the_value_and_the_rest_are_told() {
        static CELL: CrashCell<[u32; 2]> = CrashCell::new();
        assert!(matches!(CELL.enter(3), Entry::Empty));
        assert!(CELL.put([7, 8]).is_ok());
        assert_eq!(CELL.put([9, 9]), Err([9, 9]));
        let Entry::First { value, progress } = CELL.enter(3) else { panic!("not first") };
        value[0] = 1;
        assert_eq!(*value, [1, 8]);
        assert!(matches!(CELL.enter(3), Entry::Nested(seen) if std::ptr::eq(seen, progress)));
        assert!(matches!(CELL.enter(0), Entry::OtherCpu));
        assert_eq!(CELL.put([9, 9]), Err([9, 9]));
    }

    #[test]
    fn cpu_zero_nests_too() {
        static CELL: CrashCell<u8> = CrashCell::new();
        CELL.put(5).unwrap();
        assert!(matches!(CELL.enter(0), Entry::First { value: 5, .. }));
        assert!(matches!(CELL.enter(0), Entry::Nested(_)));
        assert!(matches!(CELL.enter(1), Entry::OtherCpu));
    }

    #[test]
    fn many_cpus_crash_at_once_and_one_wins() {
        static CELL: CrashCell<u64> = CrashCell::new();
        static FIRST: AtomicUsize = AtomicUsize::new(0);
        static PARKED: AtomicUsize = AtomicUsize::new(0);
        CELL.put(0).unwrap();
        std::thread::scope(|scope| {
            for cpu in 0..8 {
                scope.spawn(move || match CELL.enter(cpu) {
                    Entry::First { value, .. } => {
                        *value += 1;
                        FIRST.fetch_add(1, Ordering::SeqCst);
                    }
                    Entry::OtherCpu => {
                        PARKED.fetch_add(1, Ordering::SeqCst);
                    }
                    other => panic!("{other:?}"),
                });
            }
        });
        assert_eq!((FIRST.load(Ordering::SeqCst), PARKED.load(Ordering::SeqCst)), (1, 7));
    }

    #[test]
    fn reserved_memory_is_taken_once() {
        static MEMORY: Reserved<[u8; 16]> = Reserved::new([0xaa; 16]);
        // SAFETY: only this test uses the static, and it runs on one thread.
        let first = unsafe { MEMORY.take() }.unwrap();
        first[3] = 1;
        // SAFETY: the first call has returned.
        assert!(unsafe { MEMORY.take() }.is_none());
        assert_eq!(first[2..5], [0xaa, 1, 0xaa]);
    }
}
