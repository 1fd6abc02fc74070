//! The network driver of the living kernel: brought up and used as any kernel
//! would, with rings in ordinary memory.
//!
//! What it leaves behind when the kernel dies is what a take-over has to cope
//! with: a running device, buffers posted that it may still write to, frames
//! queued that it was not told about, and, in one of the deaths, a lock held
//! and a ring entry half written.

use core::sync::atomic::{AtomicBool, Ordering};

use debugnet_core::addr::{DeviceAddr, PhysAddr, PhysRange};
use debugnet_core::nic::{
    Checksum, Link, Nic, NicError, Payload, Start, TxError, TxFrame, TxTicket,
};
use debugnet_core::time::{Budget, Clock};
use guest::cmdline::{LinkFate, NicChoice, Options};
use guest::memory::Ranges;
use guest::report;
use heapless::String;
use nic_hal::{DmaMap, DmaRegion, Reserved};
use spin::Mutex;
use zerocopy::IntoBytes;

use super::arch::{self, Machine};
use super::driver::{self, Device, MEMORY_NEEDED};
use super::traffic::{Counts, Talk};
use super::{fatal, left, report, say};

/// The live kernel's driver.
pub(super) type Driver = driver::Driver<LiveMap>;

/// Bytes of the smallest Ethernet frame, less its FCS.
const FRAME_MIN: usize = 60;
/// Frames that are under way when something happens to them.
const HALF_A_RING: u64 = 40;
/// Microseconds it waits for the device, and for the link.
const BRINGUP_US: u64 = 2_000_000;
const LINK_US: u64 = 60_000_000;
/// Looks at the device in such a wait.
const LOOKS_MAX: u32 = 20_000_000;

#[repr(C, align(4096))]
struct Pages([u8; MEMORY_NEEDED]);

/// Rings and buffers of the living: not in the volatile section.
static LIVE_MEMORY: Reserved<Pages> = Reserved::new(Pages([0; MEMORY_NEEDED]));
/// The live memory as it was before the entry that is left half written.
static SNAPSHOT: Reserved<[u64; MEMORY_NEEDED / 8]> = Reserved::new([0; MEMORY_NEEDED / 8]);
/// The driver, behind the lock that one of the deaths happens under.
static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);
/// Whether the next mapping for DMA ends in a fault.
static TRAP: AtomicBool = AtomicBool::new(false);

/// Maps payloads of the live driver, and is the place where the driver dies.
pub(super) struct LiveMap;

impl DmaMap for LiveMap {
    fn map(&self, range: PhysRange) -> Option<DeviceAddr> {
        if TRAP.load(Ordering::Relaxed) {
            super::death::die_in_the_driver(range.start().0);
        }
        Some(DeviceAddr(range.start().0))
    }

    fn is_platform(&self) -> bool {
        false
    }
}

/// The live kernel's view of its NIC.
pub(super) struct LiveNic {
    device: Option<Device>,
    name: String<{ driver::NAME_MAX }>,
    /// Where the driver's rings and buffers are.
    memory: PhysAddr,
    /// Steps that its bring-up took.
    bringup_steps: u32,
    counts: Counts,
}

impl LiveNic {
    /// Finds the NIC and brings it up. Ends the boot if there is none and one was asked for.
    pub(super) fn start(machine: &mut Machine, options: &Options) -> Self {
        let mut this = Self {
            device: driver::find(options.nic),
            name: String::new(),
            memory: PhysAddr(0),
            bringup_steps: 0,
            counts: Counts::default(),
        };
        let Some(device) = this.device else {
            if options.nic != NicChoice::None {
                fatal(format_args!("no NIC that this kernel knows; nic=none boots without"));
            }
            let _ = this.name.push_str("none");
            return this;
        };
        this.name = device.name();
        if let Err(error) = this.bring_up(device, machine, options) {
            fatal(format_args!("NIC {} at {device}: {error:?}", this.name));
        }
        this
    }

    fn bring_up(
        &mut self,
        device: Device,
        machine: &mut Machine,
        options: &Options,
    ) -> Result<(), NicError> {
        // SAFETY: boot code of the only CPU; nothing else takes the live memory.
        let pages = unsafe { LIVE_MEMORY.take() }.ok_or(NicError::NotReachable)?;
        self.memory = arch::physical(&raw const pages.0);
        let start = self.memory.0;
        // SAFETY: static memory of the image, given to the live driver; the device
        // may write to it until the dump's driver has reset the device.
        let memory = unsafe { DmaRegion::from_static(&mut pages.0, DeviceAddr(start)) };
        let memory = memory.ok_or(NicError::NotReachable)?;
        let mut driver = device.driver(machine, memory, LiveMap, options)?;

        let mut clock = arch::cpu_clock(machine.counter_hz);
        let mut budget = Budget::new(clock.now().after(BRINGUP_US), LOOKS_MAX);
        while driver.poll_start(&mut clock)? != Start::Ready {
            if !budget.spend(clock.now()) {
                return Err(NicError::Timeout("live bring-up"));
            }
            self.bringup_steps += 1;
            clock.relax();
        }
        say!("guest: NIC {} at {}: {:?}", self.name, device, driver.capabilities());
        *DRIVER.lock() = Some(driver);
        Ok(())
    }

    /// Talks to the network, in every way that is asked for.
    pub(super) fn use_it(&mut self, options: &Options, free: &Ranges, clock: &mut dyn Clock) {
        let mut guard = DRIVER.lock();
        let Some(driver) = guard.as_mut() else { return };
        let pads = driver.pads();
        let mut talk = Talk { nic: driver, clock, counts: &mut self.counts };
        let done = talk.ask(options.client, options.server).and_then(|()| {
            talk.work(options.busy, pads)?;
            options.bench_mib.map(|mib| talk.measure(mib, free)).transpose()
        });
        match done {
            Ok(Some(bench)) => report(&bench),
            Ok(None) => {}
            Err(error) => fatal(format_args!("live traffic: {error:?}")),
        }
        match options.link {
            LinkFate::Up => {}
            LinkFate::Down => await_link(driver, clock, false),
            LinkFate::Bounce => {
                await_link(driver, clock, false);
                Talk { nic: driver, clock, counts: &mut self.counts }.doom(HALF_A_RING);
                driver.kick();
                await_link(driver, clock, true);
            }
        }
    }

    /// Leaves the device in the state that is asked for, with work half done in
    /// any case: frames sent and not reaped, frames queued and not announced, answers
    /// under way, receive buffers posted.
    pub(super) fn leave(&mut self, options: &Options, clock: &mut dyn Clock) {
        let mut guard = DRIVER.lock();
        let (Some(driver), Some(device)) = (guard.as_mut(), self.device) else { return };
        let mut talk = Talk { nic: driver, clock, counts: &mut self.counts };
        let last = talk.doom(HALF_A_RING);
        talk.nic.kick();
        left::leave(&options.left, device, &mut talk, self.memory, last, self.bringup_steps);
        // Queued, and the device not told.
        talk.doom(3);
    }

    /// Where the NIC is, for the dump's own driver.
    pub(super) fn device(&self) -> Option<Device> {
        self.device
    }

    /// What the NIC is, or `none`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What has passed.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Dies inside the driver: the lock is held, one ring entry is half
    /// written, and the fault is in the middle of queueing the next frame.
    pub(super) fn die_inside(&mut self) {
        let mut guard = DRIVER.lock();
        let Some(driver) = guard.as_mut() else {
            panic!("crash=driver-lock without a driver");
        };
        // Any memory will do: the device is never told.
        let payload = [arch::image().split_at(64).0];
        // SAFETY: the death happens once, on the only CPU.
        let Some(before) = (unsafe { SNAPSHOT.take() }) else { return };
        // SAFETY: the driver's memory is RAM inside the image; a plain copy of words.
        unsafe { arch::read(self.memory, before.as_mut_bytes()) };
        // Errors would only mean a different half: the death below comes anyway.
        let _ = send_when_there_is_room(driver, Payload::Dma(&payload));
        let mut written = 0_u64;
        for (at, old) in (self.memory.0..).step_by(size_of::<u64>()).zip(before.iter()) {
            let mut now = [0; size_of::<u64>()];
            // SAFETY: one word of the same memory, read back after the driver's stores.
            unsafe { arch::read(PhysAddr(at), &mut now) };
            if now != old.to_le_bytes() {
                written += 1;
                if written.is_multiple_of(2) {
                    // SAFETY: the driver owns this memory and is under our lock; putting an
                    // old word back is what a crash between two stores would have left.
                    unsafe { arch::write_word(PhysAddr(at), *old) };
                }
            }
        }
        say!("guest: ring entry of {written} words, half of them written");
        TRAP.store(true, Ordering::Relaxed);
        let _ = send_when_there_is_room(driver, Payload::Dma(&payload));
    }
}

/// Queues one frame.
fn send(driver: &mut Driver, header: &[u8], payload: Payload<'_>) -> Result<TxTicket, TxError> {
    driver.transmit(&TxFrame { header, payload, checksum: Checksum::Complete })
}

/// The same, of the smallest frame, once a slow device has left room for it: a full ring is
/// refused before anything is written or mapped.
fn send_when_there_is_room(driver: &mut Driver, payload: Payload<'_>) -> Result<TxTicket, TxError> {
    for _ in 0..LOOKS_MAX {
        match send(driver, &[0; FRAME_MIN], payload) {
            Err(TxError::Full) => driver.poll_tx().map_err(TxError::Device)?,
            sent => return sent,
        };
    }
    Err(TxError::Full)
}

/// Asks the harness for a change of the link, and waits until it shows.
fn await_link(driver: &mut Driver, clock: &mut dyn Clock, up: bool) {
    report(&report::Link { up });
    let wanted = if up { Link::Up } else { Link::Down };
    let mut budget = Budget::new(clock.now().after(LINK_US), LOOKS_MAX);
    while driver.link() != wanted {
        if !budget.spend(clock.now()) {
            fatal(format_args!("the link is {:?}, expected {wanted:?}", driver.link()));
        }
        clock.relax();
    }
}
