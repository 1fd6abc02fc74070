//! The network driver of the living kernel: brought up and used as any kernel
//! would, with rings in ordinary memory.
//!
//! What it leaves behind when the kernel dies is what a take-over has to cope
//! with: a running device, buffers posted that it may still write to, frames
//! queued that it was not told about, and, in one of the deaths, a lock held
//! and a ring entry half written.

use core::net::Ipv4Addr;
use core::sync::atomic::{AtomicBool, Ordering};

use debugnet_core::addr::{DeviceAddr, MacAddr, PhysAddr, PhysRange};
use debugnet_core::nic::{Checksum, Nic, NicError, Payload, Start, TxError, TxFrame, TxTicket};
use debugnet_core::time::{Budget, Clock};
use debugnet_core::wire::arp::{self, ArpPacket};
use debugnet_core::wire::ethernet::{ETHERTYPE_ARP, EthernetHeader};
use guest::cmdline::{NicChoice, Options};
use heapless::{String, Vec};
use nic_hal::{DmaMap, DmaRegion, Reserved};
use spin::Mutex;
use zerocopy::IntoBytes;
use zerocopy::network_endian::U16;

use super::arch::{self, Machine};
use super::driver::{self, Device, MEMORY_NEEDED};
use super::{fatal, say};

type Driver = driver::Driver<LiveMap>;

/// Longest frame the live kernel receives, in bytes.
const FRAME_MAX: usize = 1514;
/// Bytes of the smallest Ethernet frame, less its FCS.
const FRAME_MIN: usize = 60;
/// Questions the live kernel asks.
const QUESTIONS: u64 = 4;
/// Microseconds it waits for the device, and for an answer.
const BRINGUP_US: u64 = 2_000_000;
const ANSWER_US: u64 = 300_000;
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
struct LiveMap;

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
    sent: u64,
    received: u64,
}

impl LiveNic {
    /// Finds the NIC and brings it up. Ends the boot if there is none and one was asked for.
    pub(super) fn start(machine: &mut Machine, options: &Options) -> Self {
        let mut this = Self {
            device: driver::find(options.nic),
            name: String::new(),
            memory: PhysAddr(0),
            sent: 0,
            received: 0,
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
        let mut driver = device.driver(machine, memory, LiveMap, options.mtu())?;

        let mut clock = arch::tsc_clock(machine.tsc_hz);
        let mut budget = Budget::new(clock.now().after(BRINGUP_US), LOOKS_MAX);
        while driver.poll_start(&mut clock)? != Start::Ready {
            if !budget.spend(clock.now()) {
                return Err(NicError::Timeout("live bring-up"));
            }
            clock.relax();
        }
        say!("guest: NIC {} at {}: {:?}", self.name, device, driver.capabilities());
        *DRIVER.lock() = Some(driver);
        Ok(())
    }

    /// Talks a little, and leaves work half done: frames sent and not reaped,
    /// frames queued and not announced, receive buffers posted.
    pub(super) fn use_it(&mut self, options: &Options, clock: &mut dyn Clock) {
        let mut guard = DRIVER.lock();
        let Some(driver) = guard.as_mut() else { return };
        let question = question(driver.capabilities().mac, options.client, options.server);
        for _ in 0..QUESTIONS {
            self.sent += u64::from(send(driver, &question, Payload::None).is_ok());
            driver.kick();
        }
        let mut frame = [0; FRAME_MAX];
        let mut budget = Budget::new(clock.now().after(ANSWER_US), LOOKS_MAX);
        while self.received < QUESTIONS && budget.spend(clock.now()) {
            match driver.receive(&mut frame) {
                Ok(Some(_)) => self.received += 1,
                Ok(None) => clock.relax(),
                Err(error) => fatal(format_args!("live receive: {error:?}")),
            }
        }
        for _ in 0..QUESTIONS {
            self.sent += u64::from(send(driver, &question, Payload::None).is_ok());
        }
        driver.kick();
        // Queued, and the device not told.
        let _ = send(driver, &question, Payload::None);
    }

    /// Where the NIC is, for the dump's own driver.
    pub(super) fn device(&self) -> Option<Device> {
        self.device
    }

    /// What the NIC is, or `none`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Frames the device was told to send.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Frames received.
    pub(super) fn received(&self) -> u64 {
        self.received
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
        let _ = send(driver, &[0; FRAME_MIN], Payload::Dma(&payload));
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
        let _ = send(driver, &[0; FRAME_MIN], Payload::Dma(&payload));
    }
}

/// Queues one frame.
fn send(driver: &mut Driver, header: &[u8], payload: Payload<'_>) -> Result<TxTicket, TxError> {
    driver.transmit(&TxFrame { header, payload, checksum: Checksum::Complete })
}

/// An ARP request for `server`, padded to the smallest frame.
fn question(mac: MacAddr, client: Ipv4Addr, server: Ipv4Addr) -> Vec<u8, FRAME_MIN> {
    let header = EthernetHeader {
        destination: MacAddr::BROADCAST,
        source: mac,
        ethertype: U16::new(ETHERTYPE_ARP),
    };
    let packet = ArpPacket::new(arp::REQUEST, (mac, client), (MacAddr::ZERO, server));
    let mut frame = Vec::new();
    for part in [header.as_bytes(), packet.as_bytes()] {
        // 14 and 28 bytes: they fit.
        let _ = frame.extend_from_slice(part);
    }
    let _ = frame.resize(FRAME_MIN, 0);
    frame
}
