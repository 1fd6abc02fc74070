//! After the crash: the dump, whole or in steps.

use core::ffi::{CStr, c_char};

use debugnet_core::nic::Nic as CoreNic;
use debugnet_core::{Armed, DumpInfo, Io, Progress, Step};
use heapless::Vec;

use crate::arm::{Debugnet, NICS_MAX, Status};
use crate::image::{Image, Source};
use crate::machine::{Clock, Machine, Told};
use crate::nic::{Driver, Nic};
use crate::outcome::Outcome;

/// Facts about the machine that died. A null pointer is an empty text; what is too long is cut.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// As FreeBSD names it, at most 11 bytes: `amd64`, `aarch64`, `riscv`, `arm`.
    pub architecture: *const c_char,
    /// Version of the architecture's dump format: 2 for amd64, 1 for most others.
    pub architecture_version: u32,
    /// Name of the machine, at most 63 bytes.
    pub hostname: *const c_char,
    /// Version of the kernel, at most 191 bytes.
    pub version: *const c_char,
    /// Why it died, at most 174 bytes.
    pub panic: *const c_char,
    /// Seconds since 1970 (UTC), 0 if unknown.
    pub time_s: u64,
}

/// What to dump, and with what.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Interfaces; a target names one by its index.
    pub nics: *const Nic,
    /// How many, 4 at most.
    pub nic_count: usize,
    /// The machine.
    pub machine: *const Machine,
    /// The image.
    pub image: *const Image,
    /// Facts for the header.
    pub facts: *const Facts,
}

/// The same, checked.
struct Parts<'a> {
    nics: &'a [Nic],
    clock: Clock<'a>,
    told: Told<'a>,
    image: &'a Image,
    info: DumpInfo<'a>,
}

impl<'a> Parts<'a> {
    /// # Safety
    /// `job` is null, or it and what it points to are as documented and stay so for `'a`.
    #[allow(unsafe_code)]
    unsafe fn of(job: *const Job) -> Option<Self> {
        // SAFETY: null, or the caller's word.
        let job = unsafe { borrow(job) }?;
        // SAFETY: as the job.
        let machine = unsafe { borrow(job.machine) }.filter(|machine| machine.is_whole())?;
        // SAFETY: as the job.
        let image = unsafe { borrow(job.image) }.filter(|image| image.is_whole())?;
        // SAFETY: as the job.
        let facts = unsafe { borrow(job.facts) }?;
        if job.nics.is_null() || !job.nics.is_aligned() || job.nic_count > NICS_MAX {
            return None;
        }
        // SAFETY: not null, aligned, as many as the caller says.
        let nics = unsafe { core::slice::from_raw_parts(job.nics, job.nic_count) };
        if !nics.iter().all(Nic::is_whole) {
            return None;
        }
        let text = |at: *const c_char| {
            // SAFETY: a C string by the caller's word, if it is not null.
            let text = (!at.is_null()).then(|| unsafe { CStr::from_ptr(at) });
            let bytes = text.map_or(&[][..], CStr::to_bytes);
            // Up to what is no text, such as a letter that was cut.
            match core::str::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) => bytes
                    .get(..error.valid_up_to())
                    .and_then(|bytes| core::str::from_utf8(bytes).ok())
                    .unwrap_or_default(),
            }
        };
        let info = DumpInfo {
            architecture: text(facts.architecture),
            architecture_version: facts.architecture_version,
            hostname: text(facts.hostname),
            version: text(facts.version),
            panic: text(facts.panic),
            time_s: facts.time_s,
            key: &[],
        };
        Some(Self { nics, clock: Clock(machine), told: Told(machine), image, info })
    }

    fn io<'b>(&'b mut self, source: &'b mut Source<'_>, progress: &'b Progress) -> Io<'b> {
        Io {
            clock: &mut self.clock,
            source,
            transform: None,
            info: &self.info,
            observer: &mut self.told,
            progress,
        }
    }
}

/// Dumps: takes an interface over, finds a server, sends the image, makes the device
/// quiet. Returns when that is over, at the configured deadline at the latest. The
/// caller has switched interrupts off and stopped the other CPUs.
///
/// # Safety
/// `armed` comes from `debugnet_arm`, and no other call uses it meanwhile. `job` and what
/// it points to stay as they are; `outcome` is null or has room for one.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn debugnet_dump(
    armed: *mut Debugnet,
    job: *const Job,
    outcome: *mut Outcome,
) -> Status {
    // SAFETY: the caller's word about the job, for the length of this call.
    let Some(mut job) = (unsafe { Parts::of(job) }) else { return Status::BadArgument };
    if armed.is_null() || !armed.is_aligned() {
        return Status::BadArgument;
    }
    // SAFETY: not null, so from `debugnet_arm`, and no other call uses it.
    let steps = unsafe { &mut (*armed).dump };
    // A dump in steps, if there was one, ends here: it borrows the field below.
    *steps = None;
    // SAFETY: as above; another field.
    let ready = unsafe { &mut (*armed).armed };
    // SAFETY: as above; another field.
    let book = unsafe { &mut (*armed).book };
    // SAFETY: as above; shared with a fault inside this call.
    let progress = unsafe { &(*armed).progress };
    let mut drivers: Vec<Driver, NICS_MAX> =
        job.nics.iter().zip(book.taken).map(|(nic, taken)| Driver::new(*nic, taken)).collect();
    // SAFETY: the caller's word about the job.
    let mut source = unsafe { Source::new(job.image, 0) };
    let result = {
        let mut nics: Vec<&mut dyn CoreNic, NICS_MAX> =
            drivers.iter_mut().map(|driver| driver as &mut dyn CoreNic).collect();
        ready.dump(&mut nics, &mut job.io(&mut source, progress))
    };
    for (taken, driver) in book.taken.iter_mut().zip(&drivers) {
        *taken = driver.taken;
    }
    // SAFETY: null, or room for one by the caller's word.
    unsafe { tell(outcome, &Outcome::of(&result)) };
    Status::Ok
}

/// Begins a dump in steps to the target at this index of the configuration.
///
/// # Safety
/// `armed` comes from `debugnet_arm`, and no other call uses it meanwhile.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn debugnet_begin(armed: *mut Debugnet, target: usize) -> Status {
    if armed.is_null() || !armed.is_aligned() {
        return Status::BadArgument;
    }
    // SAFETY: not null, so from `debugnet_arm`, and no other call uses it. The dump
    // before this one ends here.
    let dump = unsafe { &mut (*armed).dump };
    *dump = None;
    // SAFETY: the block is the library's for ever and does not move. As long as the dump
    // is there, nothing else borrows this field: whoever does drops the dump first.
    let ready: &'static mut Armed<'static> = unsafe { &mut (*armed).armed };
    *dump = Some(ready.begin(target));
    // SAFETY: as above, another field.
    unsafe { (*armed).book.next_extent = 0 };
    Status::Ok
}

/// One bounded step of a dump in steps: 1 if `*outcome` says how it ended, 0 to be called
/// again at `*until_us` at the latest and as soon as a frame may have come; negative
/// as `enum debugnet_status`. `nic` is the index of the interface that the target names.
///
/// # Safety
/// As `debugnet_dump`; `until_us` is null or has room for one.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn debugnet_poll(
    armed: *mut Debugnet,
    job: *const Job,
    nic: usize,
    until_us: *mut u64,
    outcome: *mut Outcome,
) -> i32 {
    const BAD: i32 = Status::BadArgument as i32;
    // SAFETY: the caller's word about the job, for the length of this call.
    let Some(mut job) = (unsafe { Parts::of(job) }) else { return BAD };
    if armed.is_null() || !armed.is_aligned() {
        return BAD;
    }
    // SAFETY: not null, so from `debugnet_arm`, and no other call uses it.
    let dump = unsafe { &mut (*armed).dump };
    // SAFETY: as above; another field.
    let book = unsafe { &mut (*armed).book };
    // SAFETY: as above; shared with a fault inside this call.
    let progress = unsafe { &(*armed).progress };
    let (Some(dump), Some(table)) = (dump, job.nics.get(nic)) else { return BAD };
    let Some(taken) = book.taken.get_mut(nic) else { return BAD };
    let mut driver = Driver::new(*table, *taken);
    // SAFETY: the caller's word about the job.
    let mut source = unsafe { Source::new(job.image, book.next_extent) };
    let step = dump.poll(&mut driver, &mut job.io(&mut source, progress));
    *taken = driver.taken;
    book.next_extent = source.next;
    match step {
        Step::Again { until } => {
            // SAFETY: null, or room for one by the caller's word.
            unsafe { tell(until_us, &until.as_micros()) };
            0
        }
        Step::Done(result) => {
            // SAFETY: null, or room for one by the caller's word.
            unsafe { tell(outcome, &Outcome::of(&result)) };
            1
        }
    }
}

/// Bytes acknowledged so far, in units of 4 KiB: what a fault inside the dump may still
/// ask. 0 for a null pointer.
///
/// # Safety
/// `armed` is null or comes from `debugnet_arm`.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn debugnet_progress(armed: *const Debugnet) -> u64 {
    if armed.is_null() || !armed.is_aligned() {
        return 0;
    }
    // SAFETY: not null. Only the field is borrowed, shared, and made of atomics: the
    // dump that was interrupted may hold all the rest.
    let progress = unsafe { &(*armed).progress };
    progress.acked_bytes()
}

/// What is there, unless the pointer cannot be one.
///
/// # Safety
/// `at` is null, misaligned, or a `T` that stays as it is for `'a`.
#[allow(unsafe_code)]
unsafe fn borrow<'a, T>(at: *const T) -> Option<&'a T> {
    // SAFETY: aligned, and null or the caller's word.
    if at.is_aligned() { unsafe { at.as_ref() } } else { None }
}

/// # Safety
/// `to` is null, or aligned room for a `T`.
#[allow(unsafe_code)]
unsafe fn tell<T: Copy>(to: *mut T, value: &T) {
    if !to.is_null() && to.is_aligned() {
        // SAFETY: not null, aligned, and room by the caller's word.
        unsafe { to.write(*value) };
    }
}
