//! How often the watchdog is fed: what a dump does between two signs of life.
//!
//! Computing takes no virtual time, so work is counted: bytes read by the CPU, frames handed to
//! the device. What takes time is waiting.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::{CoreWorld, assert_identical, fill, lossy, random_ram, world};
use debugnet_core::DumpInfo;
use debugnet_core::dump::{ImageStream, Stability, Transform, TransformError, Verdict};
use debugnet_core::observer::{Event, Observer};
use debugnet_core::time::Instant;
use netsim::ram::{Ram, SharedRam};
use netsim::world::Machine;

/// Most that the CPU reads in a step: 64 looks for zeros of 16 KiB each, and 64 messages.
const READ_MAX: u64 = 64 * ((16 << 10) + 4096);
/// What a transform may take in: the limit of a step, and what its last message takes.
const TRANSFORM_MAX: u64 = (256 << 10) + SWALLOWED as u64 + 4096;
/// Frames handed to the device in a step, an ARP frame among them.
const FRAMES_MAX: u64 = 65;
/// What the swallowing transform takes in for each message.
const SWALLOWED: usize = 200 << 10;

/// Looks at what was done since the last sign of life.
struct Watch {
    ram: SharedRam,
    world: CoreWorld,
    alive_at: Option<Instant>,
    read: u64,
    sent: u64,
    /// The most between two.
    gap_us: u64,
    gap_read: u64,
    gap_sent: u64,
    signs: u64,
}

impl Watch {
    fn new(machine: &Machine, world: &CoreWorld) -> Self {
        let (ram, world) = (machine.ram.clone(), world.clone());
        Self {
            ram,
            world,
            alive_at: None,
            read: 0,
            sent: 0,
            gap_us: 0,
            gap_read: 0,
            gap_sent: 0,
            signs: 0,
        }
    }
}

impl Observer for Watch {
    fn event(&mut self, _: Instant, _: &Event) {}

    fn alive(&mut self, now: Instant) {
        let read = self.ram.borrow().cpu_read;
        let sent = self.world.borrow().device().map_or(0, |device| device.borrow().queued_ever());
        if let Some(before) = self.alive_at.replace(now) {
            self.gap_us = self.gap_us.max(now.since_us(before));
            self.gap_read = self.gap_read.max(read - self.read);
            self.gap_sent = self.gap_sent.max(sent - self.sent);
        }
        (self.read, self.sent) = (read, sent);
        self.signs += 1;
    }
}

#[test]
fn the_watchdog_is_fed_each_step() {
    let mut half = Ram::new();
    half.add(0, vec![0; 8 << 20], Stability::Frozen);
    half.add(8 << 20, vec![7; 4 << 20], Stability::Volatile);
    for (name, ram, loss) in [
        ("full", random_ram(8 << 20, 3), 0.0),
        ("loss", random_ram(8 << 20, 4), 0.05),
        ("zeros and volatile", Rc::new(RefCell::new(half)), 0.01),
    ] {
        let machine = Machine::new(ram);
        let world = world(&lossy(loss), 3);
        let mut watch = Watch::new(&machine, &world);
        let outcome = machine.crash_with(&world, None, &mut watch, &DumpInfo::default());
        assert_identical(&machine, &world, &outcome);
        let Watch { gap_us, gap_read, gap_sent, signs, .. } = watch;
        println!(
            "{name}: {signs} signs, at most {gap_us} us, {gap_read} bytes read, {gap_sent} frames between two"
        );
        assert!(
            gap_us <= machine.idle_us,
            "{name}: {gap_us} us, one wait takes {}",
            machine.idle_us
        );
        assert!((1..=READ_MAX).contains(&gap_read), "{name}: {gap_read} bytes");
        assert!((1..=FRAMES_MAX).contains(&gap_sent), "{name}: {gap_sent} frames");
    }
}

/// No answer at all: waits are as short, to the end.
#[test]
fn the_watchdog_is_fed_in_silence() {
    let machine = Machine::new(random_ram(1 << 20, 5));
    let world = world(&lossy(1.0), 5);
    let mut watch = Watch::new(&machine, &world);
    let outcome = machine.crash_with(&world, None, &mut watch, &DumpInfo::default());
    assert_eq!(outcome.verdict, Verdict::Failed);
    assert!(outcome.elapsed_us > 10_000_000 && watch.gap_us <= machine.idle_us, "{}", watch.gap_us);
}

/// A transform that takes in far more than it gives, as a compressor does with zeros.
struct Swallow(Vec<u8>);

impl Transform for Swallow {
    fn restart(&mut self) {}

    fn next(
        &mut self,
        image: &mut ImageStream<'_>,
        cell: &mut [u8],
    ) -> Result<usize, TransformError> {
        let len = fill(image, &mut self.0);
        let kept = len.min(cell.len());
        cell[..kept].copy_from_slice(&self.0[..kept]);
        Ok(kept)
    }

    fn compression(&self) -> u8 {
        0
    }
}

#[test]
fn a_compressor_does_not_keep_the_watchdog_waiting() {
    let mut ram = Ram::new();
    ram.add(0, vec![9; 16 << 20], Stability::Frozen);
    let machine = Machine::new(Rc::new(RefCell::new(ram)));
    let world = world(&lossy(0.0), 6);
    let mut watch = Watch::new(&machine, &world);
    let mut swallow = Swallow(vec![0; SWALLOWED]);
    let outcome = machine.crash_with(&world, Some(&mut swallow), &mut watch, &DumpInfo::default());
    assert_eq!(outcome.verdict, Verdict::Confirmed, "{outcome:?}");
    assert!((SWALLOWED as u64..=TRANSFORM_MAX).contains(&watch.gap_read), "{}", watch.gap_read);
}
