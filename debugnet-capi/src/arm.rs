//! At boot: configuration and memory, checked once.

use core::ffi::{CStr, c_char};
use core::fmt::Write;
use core::mem::{align_of, size_of};
use core::ptr::NonNull;

use debugnet_core::addr::PhysAddr;
use debugnet_core::{Armed, Cells, Config, Dump, Memory, Needs, Progress, Slot, memory_needed};

/// Most interfaces of one dump.
pub(crate) const NICS_MAX: usize = 4;

/// A configuration with its memory, waiting for the crash. Opaque.
///
/// The calls borrow its fields one by one and never the whole: a dump in steps
/// holds `armed`, and a fault inside a call still reads `progress`.
#[derive(Debug)]
pub struct Debugnet {
    pub(crate) armed: Armed<'static>,
    /// The dump in steps, once begun; it borrows `armed`.
    pub(crate) dump: Option<Dump<'static, 'static>>,
    pub(crate) book: Book,
    pub(crate) progress: Progress,
}

/// What has to outlast a call.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Frames that each interface took since the machine started.
    pub(crate) taken: [u64; NICS_MAX],
    /// The next extent of the dump in steps.
    pub(crate) next_extent: usize,
}

/// Sizes to choose.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Unacknowledged messages: a power of two, 16 to 4096.
    pub slots: usize,
    /// Cells for payloads that have to be copied, 1 to 64.
    pub cells: usize,
    /// Bytes of a message's payload: 1448 at an MTU of 1500.
    pub payload_len: usize,
}

/// What a call came to.
#[repr(i32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// A pointer is null, or not aligned, or a number is out of range.
    BadArgument = -1,
    /// The configuration is not understood, or cannot work. The text says why.
    BadConfig = -2,
    /// The memory is too small: `debugnet_memory_needed` says how much it takes.
    BadMemory = -3,
}

/// Where the parts lie in the caller's block, in this order: the largest alignment first.
struct Parts {
    needs: Needs,
    slots: usize,
    index: usize,
    cells: usize,
    rx: usize,
    end: usize,
}

impl Parts {
    /// Alignment of the block.
    const ALIGN: usize = 16;

    fn of(limits: &Limits) -> Option<Self> {
        let fits = limits.slots.is_power_of_two()
            && (16..=4096).contains(&limits.slots)
            && (1..=64).contains(&limits.cells)
            && (512..=65_000).contains(&limits.payload_len);
        if !fits {
            return None;
        }
        let needs = memory_needed(&debugnet_core::Limits {
            slots: limits.slots,
            cells: limits.cells,
            payload_len: limits.payload_len,
        });
        let slots = size_of::<Debugnet>().checked_next_multiple_of(align_of::<Slot>())?;
        let index = slots.checked_add(needs.slots.checked_mul(size_of::<Slot>())?)?;
        let index = index.checked_next_multiple_of(align_of::<u16>())?;
        let cells = index.checked_add(needs.index.checked_mul(size_of::<u16>())?)?;
        let cells = cells.checked_next_multiple_of(Self::ALIGN)?;
        let rx = cells.checked_add(needs.cell_bytes)?;
        let end = rx.checked_add(needs.rx)?;
        Some(Self { needs, slots, index, cells, rx, end })
    }
}

const _: () = assert!(
    align_of::<Debugnet>() <= Parts::ALIGN && align_of::<Slot>() <= Parts::ALIGN,
    "the block's alignment does for all of it"
);

/// Bytes of memory, aligned to 16, that `debugnet_arm` takes for these limits; 0 if they are out of range.
///
/// # Safety
/// `limits` is null or points to limits.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn debugnet_memory_needed(limits: *const Limits) -> usize {
    // SAFETY: null, or the caller's for the length of this call.
    let limits = unsafe { limits.as_ref() };
    limits.and_then(Parts::of).map_or(0, |parts| parts.end)
}

/// Checks configuration and memory, at boot. Touches no device, sends nothing.
///
/// `config` is text: words `key=value` with blanks between, such as
/// `server=192.0.2.1 client=192.0.2.9`. `memory` is `memory_len` bytes aligned
/// to 16, and becomes the library's for ever; `memory_phys` is its physical
/// address, all ones if it has none that a device reaches. If `error` is not
/// null, a text of at most `error_len` bytes with its NUL says what is wrong.
/// On success `*armed` is what the other calls take.
///
/// # Safety
/// The pointers are valid for what is said above. Nothing else uses `memory` from now on.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn debugnet_arm(
    config: *const c_char,
    limits: *const Limits,
    memory: *mut u8,
    memory_len: usize,
    memory_phys: u64,
    armed: *mut *mut Debugnet,
    error: *mut c_char,
    error_len: usize,
) -> Status {
    // SAFETY: null, or room for these many bytes, the caller's until this call returns.
    let mut text = unsafe { Text::new(error, error_len) };
    // SAFETY: null, or the caller's for the length of this call.
    let limits = unsafe { limits.as_ref() };
    let (Some(limits), Some(block)) = (limits, NonNull::new(memory)) else {
        return text.fail(Status::BadArgument, format_args!("a null pointer"));
    };
    if config.is_null() || armed.is_null() {
        return text.fail(Status::BadArgument, format_args!("a null pointer"));
    }
    if !memory.addr().is_multiple_of(Parts::ALIGN) {
        return text.fail(Status::BadArgument, format_args!("memory is not aligned to 16"));
    }
    let Some(parts) = Parts::of(limits) else {
        return text.fail(Status::BadArgument, format_args!("limits out of range: {limits:?}"));
    };
    if memory_len < parts.end {
        let need = parts.end;
        return text.fail(Status::BadMemory, format_args!("{memory_len} bytes, {need} are needed"));
    }
    // SAFETY: not null, and a C string by the caller's word.
    let config = unsafe { CStr::from_ptr(config) };
    let Ok(config) = config.to_str() else {
        return text.fail(Status::BadConfig, format_args!("the configuration is not UTF-8"));
    };
    let config = match Config::parse(config) {
        Ok(config) => config,
        Err(error) => return text.fail(Status::BadConfig, format_args!("{error}")),
    };
    let phys = (memory_phys != u64::MAX).then_some(memory_phys);
    // SAFETY: the block is as long as the parts, aligned, and the library's from now on.
    let memory = unsafe { cut(block, &parts, phys) };
    match debugnet_core::arm(config, memory) {
        Ok(ready) => {
            let place = block.cast::<Debugnet>();
            let ready = Debugnet {
                armed: ready,
                dump: None,
                book: Book::default(),
                progress: Progress::new(),
            };
            // SAFETY: the start of the block, which no other part overlaps.
            unsafe { place.write(ready) };
            // SAFETY: not null, room for a pointer by the caller's word.
            unsafe { armed.write(place.as_ptr()) };
            Status::Ok
        }
        Err(error) => text.fail(Status::BadConfig, format_args!("{error}")),
    }
}

/// Makes the library's memory of the caller's block.
///
/// # Safety
/// `block` is aligned to 16, `parts.end` bytes long, and nobody else's from now on.
#[allow(unsafe_code)]
unsafe fn cut(block: NonNull<u8>, parts: &Parts, phys: Option<u64>) -> Memory<'static> {
    let at = |offset: usize| {
        // SAFETY: an offset of `Parts`, so inside the block.
        unsafe { block.add(offset) }
    };
    let (slots, index) = (at(parts.slots).cast::<Slot>(), at(parts.index).cast::<u16>());
    let needs = &parts.needs;
    for slot in 0..needs.slots {
        // SAFETY: one of the slots, in its part of the block.
        let slot = unsafe { slots.add(slot) };
        // SAFETY: aligned and inside; nothing is there that would have to be dropped.
        unsafe { slot.write(Slot::EMPTY) };
    }
    // SAFETY: the whole part, whose bytes become zero.
    unsafe { at(parts.index).write_bytes(0, parts.end.saturating_sub(parts.index)) };
    let mut slots = NonNull::slice_from_raw_parts(slots, needs.slots);
    let mut index = NonNull::slice_from_raw_parts(index, needs.index);
    let mut cells = NonNull::slice_from_raw_parts(at(parts.cells), needs.cell_bytes);
    let mut rx = NonNull::slice_from_raw_parts(at(parts.rx), needs.rx);
    // SAFETY: just written, and no other part overlaps it; the library's for ever.
    let slots = unsafe { slots.as_mut() };
    // SAFETY: as the slots.
    let index = unsafe { index.as_mut() };
    // SAFETY: as the slots.
    let bytes = unsafe { cells.as_mut() };
    // SAFETY: as the slots.
    let rx = unsafe { rx.as_mut() };
    let phys = phys.and_then(|start| start.checked_add(parts.cells as u64)).map(PhysAddr);
    Memory { slots, index, cells: Cells { bytes, phys }, rx }
}

/// The caller's room for an error.
struct Text {
    room: Option<NonNull<u8>>,
    /// Bytes left, without the NUL.
    left: usize,
}

impl Text {
    /// # Safety
    /// `room` is null, or `len` bytes that are the caller's until this is dropped.
    #[allow(unsafe_code)]
    unsafe fn new(room: *mut c_char, len: usize) -> Self {
        match len.checked_sub(1) {
            Some(left) => Self { room: NonNull::new(room.cast()), left },
            None => Self { room: None, left: 0 },
        }
    }

    fn fail(&mut self, status: Status, why: core::fmt::Arguments<'_>) -> Status {
        // What does not fit is cut.
        let _ = self.write_fmt(why);
        self.put(0);
        status
    }

    #[allow(unsafe_code)]
    fn put(&mut self, byte: u8) {
        if let Some(room) = self.room {
            // SAFETY: `left` counts what is free, and the NUL has room of its own.
            unsafe { room.write(byte) };
        }
    }
}

impl Write for Text {
    #[allow(unsafe_code)]
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            self.left = self.left.checked_sub(1).ok_or(core::fmt::Error)?;
            self.put(byte);
            // SAFETY: at most one behind the room for text, which is the NUL's.
            self.room = self.room.map(|room| unsafe { room.add(1) });
        }
        Ok(())
    }
}
