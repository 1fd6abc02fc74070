//! The network interface: [`E1000`].

use debugnet_core::addr::MacAddr;
use debugnet_core::nic::{
    Capabilities, ChecksumOffload, Link, Nic, NicError, PayloadKind, RxError, Start, TxError,
    TxFrame, TxTicket,
};
use debugnet_core::time::{Clock, Instant};
use nic_hal::pci_types::ConfigRegionAccess;
use nic_hal::{DmaMap, DmaRegion, Mmio, Registers};

use crate::bringup::{Addresses, Bringup, Phase, Step};
use crate::configure;
use crate::device::{PciDevice, SETTLE_READS};
use crate::ids::Part;
use crate::quiesce;
use crate::registers::{STATUS, status};
use crate::rx::Receiver;
use crate::sizes::{self, TX_DESCRIPTORS, TX_SLOTS};
use crate::tx::{SEGMENTS_MAX, Transmitter};

/// MTU of plain Ethernet, and the smallest of IPv4 (RFC 791).
const MTU_DEFAULT: u16 = 1500;
const MTU_MIN: u16 = 68;
/// Resets of a broken device after the take-over, before it is given up.
const RESETS: u8 = 1;
/// Fruitless looks at the transmit ring after which the device's health is
/// checked and the tail written again.
const TX_IDLE_POLLS: u32 = 1024;
/// Such checks in a row, with the link up, after which a sound-looking device
/// counts as stuck: a million looks, a second or so.
const TX_CHECKS_MAX: u32 = 1024;
/// Fruitless looks at the receive ring, where silence is the normal state.
const RX_IDLE_POLLS: u32 = 4096;
/// Phases of a recovery done in one call, and reads of configuration space after
/// each: its clock, as there is no other. A read takes a microsecond or longer.
const RECOVERY_STEPS: u32 = 32;
const RECOVERY_READS: u32 = 4;

/// An Intel gigabit Ethernet controller.
///
/// `A` reaches its configuration space, `M` maps payload addresses, `R` is its registers.
///
/// A device that was reset behind the driver's back, lost its place on the bus
/// or does not send any more is taken over again once, inside
/// [`Nic::poll_tx`] and [`Nic::receive`], a bounded piece at a call; meanwhile
/// [`Nic::transmit`] says [`TxError::Full`]. The reset completes all tickets. The
/// next time it fails for good.
#[derive(Debug)]
pub struct E1000<A, M, R = Mmio> {
    device: PciDevice<A, R>,
    map: M,
    rx: Receiver,
    tx: Transmitter,
    addresses: Addresses,
    ip_mtu: u16,
    insert: bool,
    state: State,
    resets_left: u8,
    /// Least time since a recovery began.
    recovery_us: u64,
    /// Looks at the rings since the last one that found something.
    tx_idle: u32,
    rx_idle: u32,
    tx_checks: u32,
    counters: Counters,
}

/// What has gone wrong and was put right, and what a dump cost the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Resets of a broken device, after the take-over.
    pub resets: u32,
    /// Tails written again because nothing moved.
    pub rekicks: u32,
    /// Tails written for frames to send, those aside.
    pub doorbells: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The device is not ours yet.
    Idle,
    /// Being taken over by `poll_start`.
    Starting(Phase),
    Running,
    /// Being set up again after a fault.
    Recovering(Phase),
    /// Quiet, confirmed.
    Stopped,
    Failed(NicError),
}

impl<A: ConfigRegionAccess, M: DmaMap, R: Registers> E1000<A, M, R> {
    /// The driver, with rings and buffers in `memory`. Touches nothing on the device.
    ///
    /// # Errors
    /// [`NicError::Memory`] if that is less than [`MEMORY_NEEDED`](crate::MEMORY_NEEDED) bytes.
    pub fn new(device: PciDevice<A, R>, memory: DmaRegion, map: M) -> Result<Self, NicError> {
        let pieces = sizes::cut(memory)?;
        let mut nic = Self {
            device,
            map,
            rx: Receiver::new(pieces.rx_ring, pieces.rx_buffers),
            tx: Transmitter::new(pieces.tx_ring, pieces.tx_cells),
            addresses: Addresses::default(),
            ip_mtu: MTU_DEFAULT,
            insert: false,
            state: State::Idle,
            resets_left: 0,
            recovery_us: 0,
            tx_idle: 0,
            rx_idle: 0,
            tx_checks: 0,
            counters: Counters::default(),
        };
        nic.set_limits();
        Ok(nic)
    }

    /// Lets frames with IP packets of up to `ip_mtu` bytes out: from 68 up to
    /// what the part can, 9000 for most. The network has to carry them.
    /// Receiving stays at 1500.
    #[must_use]
    pub fn with_ip_mtu(mut self, ip_mtu: u16) -> Self {
        let max = self.device.part().mac.ip_mtu_max();
        self.ip_mtu = ip_mtu.min(max).max(MTU_MIN);
        self.set_limits();
        self
    }

    /// Lets the device insert UDP checksums. Off unless asked for: the sum in
    /// software costs less than a microsecond a frame.
    #[must_use]
    pub fn with_checksum_offload(mut self, on: bool) -> Self {
        self.insert = on;
        self.set_limits();
        self
    }

    /// The address to use if the device has none of its own.
    #[must_use]
    pub fn with_fallback_mac(mut self, mac: MacAddr) -> Self {
        self.addresses.fallback = Some(mac);
        self
    }

    /// What the device is.
    pub const fn part(&self) -> Part {
        self.device.part()
    }

    /// What has gone wrong and was put right so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    fn set_limits(&mut self) {
        self.tx.set_limits(self.ip_mtu, self.insert);
    }

    /// Frames of the largest size that fit the ring.
    fn slots(&self) -> u16 {
        let piece_max = self.device.part().mac.piece_max();
        let cuts = u32::from(self.ip_mtu).checked_div(piece_max).unwrap_or(0);
        let per_frame = cuts.saturating_add(SEGMENTS_MAX as u32).saturating_add(1);
        let fit = u32::from(TX_DESCRIPTORS - 2).checked_div(per_frame).unwrap_or(1);
        u16::try_from(fit).unwrap_or(TX_SLOTS).min(TX_SLOTS)
    }

    /// One phase of a take-over or a recovery.
    fn step(&mut self, phase: Phase, now: Instant) -> Result<Step, NicError> {
        let mut bringup = Bringup {
            device: &mut self.device,
            rx: &mut self.rx,
            tx: &mut self.tx,
            addresses: &mut self.addresses,
        };
        bringup.step(phase, now)
    }

    fn go_live(&mut self) {
        self.state = State::Running;
        self.tx_idle = 0;
        self.rx_idle = 0;
        self.tx_checks = 0;
    }

    /// Answers a fault: begins the one recovery, or fails for good.
    fn fault(&mut self, error: NicError) -> Result<(), NicError> {
        match self.resets_left.checked_sub(1) {
            Some(left) if error != NicError::Gone => {
                self.resets_left = left;
                self.counters.resets = self.counters.resets.saturating_add(1);
                self.recovery_us = 0;
                self.state = State::Recovering(Phase::FIRST);
                Ok(())
            }
            _ => {
                self.state = State::Failed(error);
                Err(error)
            }
        }
    }

    /// Brings a recovery on by a bounded number of phases.
    fn recover(&mut self) -> Result<(), NicError> {
        for _ in 0..RECOVERY_STEPS {
            let State::Recovering(phase) = self.state else { break };
            match self.step(phase, Instant::from_micros(self.recovery_us)) {
                Ok(Step::Next { phase, .. }) => self.state = State::Recovering(phase),
                Ok(Step::Running) => self.go_live(),
                Err(error) => {
                    self.state = State::Failed(error);
                    return Err(error);
                }
            }
            self.device.pause(RECOVERY_READS);
            self.recovery_us = self.recovery_us.saturating_add(u64::from(RECOVERY_READS));
        }
        Ok(())
    }

    /// `Ok` if the device runs or is on its way to.
    fn usable(&self) -> Result<(), NicError> {
        match self.state {
            State::Running | State::Recovering(_) => Ok(()),
            State::Failed(error) => Err(error),
            State::Idle | State::Starting(_) | State::Stopped => Err(NicError::NotStarted),
        }
    }

    fn is_up(&mut self) -> Result<bool, NicError> {
        Ok(self.device.window.read(STATUS)? & status::LU != 0)
    }

    /// Whether the device still is as we left it.
    fn check_health(&mut self) -> Result<(), NicError> {
        let ring = self.tx.memory()?.address;
        if configure::is_ours(&mut self.device, ring)? { Ok(()) } else { Err(NicError::Failed) }
    }

    fn write_tx_tail(&mut self, tail: u16) -> Result<(), NicError> {
        let register = self.device.tx_ring(0).tail();
        self.device.window.write(register, u32::from(tail))
    }

    /// After a long silence on the transmit ring: the tail may have been lost,
    /// or the device may have died.
    fn stalled(&mut self) -> Result<(), NicError> {
        self.check_health()?;
        if self.is_up()? {
            self.tx_checks = self.tx_checks.saturating_add(1);
            if self.tx_checks >= TX_CHECKS_MAX {
                return Err(NicError::Timeout("e1000 transmit"));
            }
        }
        self.counters.rekicks = self.counters.rekicks.saturating_add(1);
        self.write_tx_tail(self.tx.tail())
    }

    fn reap(&mut self) -> Result<(), NicError> {
        if self.tx.reap()? || !self.tx.at_device() {
            self.tx_idle = 0;
            self.tx_checks = 0;
            return Ok(());
        }
        self.tx_idle = self.tx_idle.saturating_add(1);
        if self.tx_idle >= TX_IDLE_POLLS {
            self.tx_idle = 0;
            self.stalled()?;
        }
        Ok(())
    }

    fn take_frame(&mut self, buf: &mut [u8]) -> Result<Option<usize>, RxError> {
        let taken = self.rx.take(buf);
        match taken {
            Ok(None) => {
                self.rx_idle = self.rx_idle.saturating_add(1);
                if self.rx_idle >= RX_IDLE_POLLS {
                    self.rx_idle = 0;
                    self.check_health().map_err(RxError::Device)?;
                }
            }
            Err(RxError::Device(_)) => {}
            _ => {
                self.rx_idle = 0;
                if let Some(tail) = self.rx.publish_batch() {
                    let register = self.device.rx_ring(0).tail();
                    self.device.window.write(register, u32::from(tail)).map_err(RxError::Device)?;
                }
            }
        }
        taken
    }
}

impl<A: ConfigRegionAccess, M: DmaMap, R: Registers> Nic for E1000<A, M, R> {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            mac: self.addresses.station.unwrap_or(MacAddr::ZERO),
            ip_mtu: self.ip_mtu,
            tx_slots: self.slots(),
            max_segments: SEGMENTS_MAX as u8,
            payload: PayloadKind::Dma,
            checksum: if self.insert { ChecksumOffload::Insert } else { ChecksumOffload::None },
        }
    }

    fn poll_start(&mut self, clock: &mut dyn Clock) -> Result<Start, NicError> {
        let now = clock.now();
        let phase = match self.state {
            State::Starting(phase) => phase,
            _ => {
                self.resets_left = RESETS;
                Phase::FIRST
            }
        };
        match self.step(phase, now) {
            Ok(Step::Next { phase, wait_us }) => {
                self.state = State::Starting(phase);
                Ok(Start::Again { until: now.after(u64::from(wait_us)) })
            }
            Ok(Step::Running) => {
                self.go_live();
                Ok(Start::Ready)
            }
            Err(error) => {
                self.state = State::Failed(error);
                Err(error)
            }
        }
    }

    fn link(&mut self) -> Link {
        if !matches!(self.state, State::Running) {
            return Link::Unknown;
        }
        match self.is_up() {
            Ok(true) => Link::Up,
            Ok(false) => Link::Down,
            Err(_) => Link::Unknown,
        }
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<TxTicket, TxError> {
        self.usable().map_err(TxError::Device)?;
        if let State::Recovering(_) = self.state {
            return Err(TxError::Full);
        }
        self.tx.queue(frame, &self.map)
    }

    fn kick(&mut self) {
        if let State::Running = self.state
            && let Some(tail) = self.tx.publish()
        {
            self.counters.doorbells = self.counters.doorbells.saturating_add(1);
            if let Err(error) = self.write_tx_tail(tail) {
                // Kept in the state, for `poll_tx` to tell.
                let _ = self.fault(error);
            }
        }
    }

    /// Also brings a recovery on. Every 1024th look in a row that finds
    /// nothing, if frames are out, checks the device and writes the tail again.
    fn poll_tx(&mut self) -> Result<TxTicket, NicError> {
        if let State::Stopped = self.state {
            return Ok(self.tx.done());
        }
        self.usable()?;
        if let State::Recovering(_) = self.state {
            self.recover()?;
        } else if let Err(error) = self.reap() {
            self.fault(error)?;
        }
        Ok(self.tx.done())
    }

    /// Also brings a recovery on. One buffer at most is handled in a call.
    fn receive(&mut self, buf: &mut [u8]) -> Result<Option<usize>, RxError> {
        self.usable().map_err(RxError::Device)?;
        if let State::Recovering(_) = self.state {
            self.recover().map_err(RxError::Device)?;
            return Ok(None);
        }
        match self.take_frame(buf) {
            Err(RxError::Device(error)) => {
                self.fault(error).map_err(RxError::Device)?;
                Ok(None)
            }
            other => other,
        }
    }

    /// Receiver and transmitter off, requests ended, rings dropped, reset, and
    /// bus mastering off. There is no clock here: every wait is a counted
    /// number of looks, some tens of milliseconds in all. Tickets complete only if the
    /// device confirms; if it does not, it is cut off from memory all the
    /// same, and its memory counts as lost.
    fn stop(&mut self) -> Result<(), NicError> {
        if let State::Starting(Phase::Settle(_)) | State::Recovering(Phase::Settle(_)) = self.state
        {
            self.device.pause(SETTLE_READS);
        }
        let quiet = quiesce::stop(&mut self.device);
        let cut = self.device.cut_off();
        let outcome = match quiet {
            Ok(()) if !cut => Err(NicError::Timeout("e1000 leaving the bus")),
            other => other,
        };
        match outcome {
            Ok(()) => {
                self.tx.complete_all();
                self.state = State::Stopped;
            }
            Err(error) => self.state = State::Failed(error),
        }
        outcome
    }
}
