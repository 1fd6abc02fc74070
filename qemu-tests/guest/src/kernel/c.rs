//! The crash path in C, from the side of the kernel that links it.
//!
//! `debugnet-capi/examples` holds the other side. This one says where things
//! are, and has the functions that the C code calls.

use core::ffi::{CStr, c_char, c_void};
use core::fmt::Write;

use debugnet_capi as capi;
use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::time::Clock;
use guest::cmdline::{Compression, Options};
use guest::memory::{self, RANGES_MAX, Ranges};
use guest::report;
use heapless::String;
use nic_hal::Reserved;
use spin::Mutex;

use super::arch::{self, CpuClock, Machine};
use super::driver::Device;
use super::meters::Interrupts;

/// What the C code is told at boot: `kernel_t` of `crash.c`.
#[repr(C)]
struct Kernel {
    config: *const c_char,
    registers: *mut c_void,
    now_us: extern "C" fn(*mut c_void) -> u64,
    relax: extern "C" fn(*mut c_void),
    read: extern "C" fn(*mut c_void, u64, *mut u8, usize) -> i32,
    extents: *const capi::Extent,
    extent_count: usize,
}

unsafe extern "C" {
    fn c_arm(kernel: *const Kernel, why: *mut c_char, why_len: usize) -> i32;
    fn c_dump(message: *const c_char, outcome: *mut capi::Outcome) -> i32;
}

const NOTHING: capi::Extent = capi::Extent { offset: 0, phys: 0, len: 0, is_volatile: 0 };

/// The image, as the C code reads it.
static EXTENTS: Reserved<[capi::Extent; RANGES_MAX + 1]> = Reserved::new([NOTHING; RANGES_MAX + 1]);

/// What its calls back need. Written at boot, and the clock with each look at it.
#[unsafe(link_section = ".volatile")]
static STATE: Mutex<Option<State>> = Mutex::new(None);

struct State {
    clock: CpuClock,
    ram: Ranges,
    interrupts: Interrupts,
}

/// Tells the C code what there is. It takes virtio-mmio of version 2 and nothing else.
pub(super) fn arm(
    machine: &Machine,
    options: &Options,
    device: Option<Device>,
) -> Result<(), String<128>> {
    let why = |text: &str| String::try_from(text).unwrap_or_default();
    if options.compress != Compression::None {
        return Err(why("the client in C has no compressor"));
    }
    let registers = device
        .and_then(|device| device.mmio_registers())
        .ok_or_else(|| why("the driver in C wants virtio-net-device"))?;
    let volatile = arch::volatile_section();
    let frozen =
        memory::without(&machine.ram, volatile).map_err(|_| why("too many runs of RAM"))?;
    // SAFETY: boot code, on the one CPU that arms.
    let room = unsafe { EXTENTS.take() }.ok_or_else(|| why("armed before"))?;
    let ranges = frozen.iter().map(|range| (*range, 0)).chain([(volatile, 1)]);
    let mut count = 0;
    for (extent, (range, is_volatile)) in room.iter_mut().zip(ranges) {
        let (phys, len) = (range.start().0, range.len());
        *extent = capi::Extent { offset: phys, phys, len, is_volatile };
        count += 1;
    }
    *STATE.lock() = Some(State {
        clock: arch::cpu_clock(machine.counter_hz),
        ram: machine.ram.clone(),
        interrupts: Interrupts::default(),
    });

    let mut config = options.config_text();
    config.push('\0').map_err(|_| why("the configuration is too long"))?;
    let kernel = Kernel {
        config: config.as_ptr().cast(),
        registers: core::ptr::with_exposed_provenance_mut(registers.0 as usize),
        now_us,
        relax,
        read,
        extents: room.as_ptr(),
        extent_count: count,
    };
    let mut text = [0; 128];
    // SAFETY: as `crash.c` declares it; what it keeps is static: the extents.
    let status = unsafe { c_arm(&kernel, text.as_mut_ptr(), text.len()) };
    if status == 0 {
        return Ok(());
    }
    // SAFETY: the call ended the text with a NUL, and the array with zeros before that.
    let text = unsafe { CStr::from_ptr(text.as_ptr()) };
    Err(why(text.to_str().unwrap_or("a text that is no text")))
}

/// Dumps, and reports what became of it. Whether all went well.
pub(super) fn dump(message: &str) -> bool {
    let mut text: String<512> = String::new();
    // What is too long is cut, at the NUL that the buffer keeps room for.
    for letter in message.chars().filter(|letter| *letter != '\0').take(100) {
        let _ = text.write_char(letter);
    }
    let _ = text.push('\0');
    let mut outcome = core::mem::MaybeUninit::<capi::Outcome>::zeroed();
    // SAFETY: as `crash.c` declares it; `arm` came before, or it says that it did not.
    let status = unsafe { c_dump(text.as_ptr().cast(), outcome.as_mut_ptr()) };
    // SAFETY: zeros are an outcome (the first verdict), and the call wrote one over them.
    let outcome = unsafe { outcome.assume_init() };
    let confirmed = status == 0 && outcome.verdict == capi::Verdict::Confirmed;
    super::report(&report::Outcome {
        result: match outcome.verdict {
            _ if status != 0 => "failed",
            capi::Verdict::Confirmed => "confirmed",
            capi::Verdict::Unconfirmed => "unconfirmed",
            capi::Verdict::Failed => "failed",
        },
        dump_bytes: outcome.dump_bytes,
        acked_bytes: outcome.acked_bytes,
        sent_bytes: outcome.sent_bytes,
        zero_bytes: outcome.zero_bytes,
        hole_bytes: outcome.hole_bytes,
        not_sent_bytes: outcome.not_sent_bytes,
        transmissions: outcome.transmissions.into(),
        retransmits: outcome.retransmits.into(),
        elapsed_us: outcome.elapsed_us,
        data_us: outcome.data_us,
        interrupts_off: STATE
            .try_lock()
            .is_some_and(|state| state.as_ref().is_some_and(|state| state.interrupts.were_off())),
        nic_stopped: outcome.nic_stopped != 0,
        stage: if confirmed { "done" } else { "" },
        error: if confirmed { "" } else { "the dump in C did not end well" },
        ..report::Outcome::default()
    });
    confirmed
}

extern "C" fn now_us(_: *mut c_void) -> u64 {
    // One CPU is left, and no call is inside another.
    STATE
        .try_lock()
        .and_then(|mut state| {
            let State { clock, interrupts, .. } = state.as_mut()?;
            interrupts.look();
            Some(clock.now().as_micros())
        })
        .unwrap_or(0)
}

extern "C" fn relax(_: *mut c_void) {
    core::hint::spin_loop();
}

extern "C" fn read(_: *mut c_void, phys: u64, to: *mut u8, len: usize) -> i32 {
    let Some(state) = STATE.try_lock() else { return -1 };
    let (Some(state), Some(range)) = (state.as_ref(), PhysRange::new(PhysAddr(phys), len as u64))
    else {
        return -1;
    };
    if !state.ram.iter().any(|run| run.contains(range)) {
        return -1;
    }
    // SAFETY: the library's own bytes, lent to this call.
    let to = unsafe { core::slice::from_raw_parts_mut(to, len) };
    // SAFETY: RAM, as just checked, all of it mapped since boot.
    unsafe { arch::read(PhysAddr(phys), to) };
    0
}
