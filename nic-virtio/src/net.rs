//! The network interface: [`VirtioNet`].

use debugnet_core::addr::MacAddr;
use debugnet_core::nic::{
    Capabilities, ChecksumOffload, Link, Nic, NicError, PayloadKind, RxError, Start, TxError,
    TxFrame, TxTicket,
};
use debugnet_core::time::{Clock, Instant};
use nic_hal::{DmaMap, DmaRegion};

use crate::bringup::{
    Bringup, Phase, RX_QUEUE, Settings, Step, TX_QUEUE, check_running, link_up, read_status,
};
use crate::features;
use crate::rx::{LINK_HEADER_MAX, Receiver};
use crate::sizes::Sizes;
use crate::transport::{Interface, Transport, status};
use crate::tx::{Limits, SEGMENTS_MAX, Transmitter};

/// Resets of a broken device after the take-over, before it is given up.
const RESETS: u8 = 1;
/// Fruitless looks at the used ring after which the doorbell is rung again and
/// the device's health checked: about a millisecond, without a clock.
const TX_IDLE_POLLS: u32 = 1024;
/// The same for the receive queue, where silence is the normal state.
const RX_IDLE_POLLS: u32 = 4096;
/// Phases of a recovery done in one call.
const RECOVERY_STEPS: u32 = 64;
/// Looks at the status in `stop`, with [`STOP_PAUSES`] pauses between two:
/// between a tenth of a second and one second in all.
const STOP_LOOKS: u32 = 50_000;
const STOP_PAUSES: u32 = 32;

/// A virtio network device.
///
/// `T` reaches its registers, `M` maps payload addresses. The order of a
/// take-over: registers reachable, interrupts off, status 0 and wait for it, bus
/// mastering on, features, receive and transmit queue, buffers, `DRIVER_OK`,
/// one notification.
///
/// A device that asks for a reset, or breaks the ring protocol, is reset and
/// set up again once, inside [`Nic::poll_tx`] and [`Nic::receive`], a bounded
/// piece at a call; meanwhile [`Nic::transmit`] says [`TxError::Full`]. When the
/// device has confirmed the reset, all tickets are complete. The next time it
/// fails for good.
///
/// The driver does not look at destination addresses, and QEMU delivers frames
/// for others: the caller filters.
#[derive(Debug)]
pub struct VirtioNet<T, M> {
    transport: T,
    map: M,
    sizes: Sizes,
    rx: Receiver,
    tx: Transmitter,
    fallback_mac: Option<MacAddr>,
    state: State,
    settings: Settings,
    resets_left: u8,
    /// Looks at the used rings since the last one that found something.
    tx_idle: u32,
    rx_idle: u32,
    counters: Counters,
}

/// What has gone wrong and was put right, and what a dump cost the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Resets of a broken device, after the take-over.
    pub resets: u32,
    /// Doorbells rung again because nothing moved.
    pub rekicks: u32,
    /// Doorbells rung for frames to send, those aside.
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

impl<T: Transport, M: DmaMap> VirtioNet<T, M> {
    /// The driver, with rings of [`Sizes::DEFAULT`] in `memory`, or of
    /// [`Sizes::ANY`] if the transport is a legacy one. Touches nothing on the device.
    ///
    /// # Errors
    /// [`NicError::Memory`] if that is less than [`MEMORY_NEEDED`](crate::MEMORY_NEEDED)
    /// bytes, on a legacy interface [`MEMORY_NEEDED_ANY`](crate::MEMORY_NEEDED_ANY).
    pub fn new(transport: T, memory: DmaRegion, map: M) -> Result<Self, NicError> {
        let sizes = match transport.interface() {
            Interface::Modern => Sizes::DEFAULT,
            Interface::Legacy => Sizes::ANY,
        };
        Self::with_sizes(transport, memory, map, sizes)
    }

    /// The driver, with rings of `sizes` in `memory`. Touches nothing on the device.
    ///
    /// # Errors
    /// [`NicError::Memory`] if that is less than [`Sizes::memory_needed`],
    /// [`NicError::Unsupported`] if the transport is a legacy one and `sizes`
    /// sets nothing aside for that ([`Sizes::with_legacy`]).
    pub fn with_sizes(
        transport: T,
        memory: DmaRegion,
        map: M,
        sizes: Sizes,
    ) -> Result<Self, NicError> {
        let pieces = sizes.cut(memory, transport.interface())?;
        Ok(Self {
            transport,
            map,
            sizes,
            rx: Receiver::new(pieces.rx_rings, pieces.rx_buffers),
            tx: Transmitter::new(pieces.tx_rings, pieces.tx_cells),
            fallback_mac: None,
            state: State::Idle,
            settings: Settings::NONE,
            resets_left: 0,
            tx_idle: 0,
            rx_idle: 0,
            counters: Counters::default(),
        })
    }

    /// The address to use if the device has none of its own.
    #[must_use]
    pub fn with_fallback_mac(mut self, mac: MacAddr) -> Self {
        self.fallback_mac = Some(mac);
        self
    }

    /// What has gone wrong and was put right so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// One phase of a take-over or a recovery.
    fn step(&mut self, phase: Phase, now: Instant) -> Result<Step, NicError> {
        let mut bringup = Bringup {
            transport: &mut self.transport,
            map: &self.map,
            rx: &mut self.rx,
            tx: &mut self.tx,
            sizes: self.sizes,
            fallback_mac: self.fallback_mac,
        };
        bringup.step(phase, now)
    }

    fn go_live(&mut self, settings: Settings) {
        self.settings = settings;
        self.state = State::Running;
        self.tx_idle = 0;
        self.rx_idle = 0;
    }

    /// Answers a fault: begins the one recovery, or fails for good.
    fn fault(&mut self, error: NicError) -> Result<(), NicError> {
        match self.resets_left.checked_sub(1) {
            Some(left) if error != NicError::Gone => {
                self.resets_left = left;
                self.counters.resets = self.counters.resets.saturating_add(1);
                self.state = State::Recovering(Phase::FIRST);
                Ok(())
            }
            _ => {
                self.state = State::Failed(error);
                Err(error)
            }
        }
    }

    /// Brings a recovery on by a bounded number of phases. There is no clock
    /// here: the wait for the reset is bounded by looks.
    fn recover(&mut self) -> Result<(), NicError> {
        for _ in 0..RECOVERY_STEPS {
            let State::Recovering(phase) = self.state else { break };
            match self.step(phase, Instant::ZERO) {
                Ok(Step::Next { phase, .. }) => self.state = State::Recovering(phase),
                Ok(Step::Running(settings)) => self.go_live(settings),
                Err(error) => {
                    self.state = State::Failed(error);
                    return Err(error);
                }
            }
            core::hint::spin_loop();
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

    /// After a long silence on the transmit queue: the doorbell may have been
    /// lost, or the device may have died.
    fn stalled(&mut self) -> Result<(), NicError> {
        check_running(&mut self.transport)?;
        self.counters.rekicks = self.counters.rekicks.saturating_add(1);
        self.transport.notify(TX_QUEUE, self.tx.published());
        Ok(())
    }

    fn reap(&mut self) -> Result<(), NicError> {
        if self.tx.reap()? || self.tx.at_device() == 0 {
            self.tx_idle = 0;
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
        if let Ok(None) = taken {
            self.rx_idle = self.rx_idle.saturating_add(1);
            if self.rx_idle >= RX_IDLE_POLLS {
                self.rx_idle = 0;
                check_running(&mut self.transport).map_err(RxError::Device)?;
                self.transport.notify(RX_QUEUE, self.rx.published());
            }
            return taken;
        }
        self.rx_idle = 0;
        if let Err(RxError::Device(_)) = taken {
            return taken;
        }
        if self.rx.publish_batch().map_err(RxError::Device)? {
            self.transport.notify(RX_QUEUE, self.rx.published());
        }
        taken
    }
}

impl<T: Transport, M: DmaMap> Nic for VirtioNet<T, M> {
    fn capabilities(&self) -> Capabilities {
        let insert = self.settings.features & features::CSUM != 0;
        Capabilities {
            mac: self.settings.mac,
            ip_mtu: self.settings.ip_mtu,
            tx_slots: self.tx.slots(),
            max_segments: SEGMENTS_MAX as u8,
            payload: PayloadKind::Dma,
            checksum: if insert { ChecksumOffload::Insert } else { ChecksumOffload::None },
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
            Ok(Step::Running(settings)) => {
                self.go_live(settings);
                Ok(Start::Ready)
            }
            Err(error) => {
                self.state = State::Failed(error);
                Err(error)
            }
        }
    }

    fn link(&mut self) -> Link {
        let running = matches!(self.state, State::Running);
        if !running || self.settings.features & features::STATUS == 0 {
            return Link::Unknown;
        }
        match link_up(&mut self.transport) {
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
        let limits = Limits {
            frame_max: u32::from(self.settings.ip_mtu).saturating_add(u32::from(LINK_HEADER_MAX)),
            insert: self.settings.features & features::CSUM != 0,
        };
        self.tx.queue(frame, limits, &self.map)
    }

    fn kick(&mut self) {
        if let State::Running = self.state {
            match self.tx.publish() {
                Ok(true) => {
                    self.counters.doorbells = self.counters.doorbells.saturating_add(1);
                    self.transport.notify(TX_QUEUE, self.tx.published());
                }
                Ok(false) => {}
                // Kept in the state, for `poll_tx` to tell.
                Err(error) => drop(self.fault(error)),
            }
        }
    }

    /// Also brings a recovery on. Every 1024th look in a row that finds
    /// nothing, if frames are out, checks the device's status and rings the
    /// doorbell again.
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

    /// Also brings a recovery on. One used buffer at most is handled in a call.
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

    /// Resets the device and looks at its status at most 50,000 times, with
    /// pauses: up to about a second. Tickets complete only if it confirms; if it
    /// does not, it is cut off from the bus where that is possible, and its
    /// memory counts as lost all the same.
    fn stop(&mut self) -> Result<(), NicError> {
        let mut outcome = self.transport.set_status(status::RESET);
        if outcome.is_ok() {
            outcome = Err(NicError::Timeout("virtio reset"));
            for _ in 0..STOP_LOOKS {
                match read_status(&mut self.transport) {
                    Ok(status::RESET) => {
                        self.tx.complete_all();
                        self.state = State::Stopped;
                        return Ok(());
                    }
                    Ok(_) => {}
                    Err(error) => {
                        outcome = Err(error);
                        break;
                    }
                }
                for _ in 0..STOP_PAUSES {
                    core::hint::spin_loop();
                }
            }
        }
        let _ = self.transport.cut_off();
        if let Err(error) = outcome {
            self.state = State::Failed(error);
        }
        outcome
    }
}
