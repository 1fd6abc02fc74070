//! Taking the device over, in steps (virtio 1.2 sections 2.4 and 3.1.1).

use debugnet_core::addr::MacAddr;
use debugnet_core::nic::NicError;
use debugnet_core::time::{Budget, Instant};
use nic_hal::DmaMap;

use crate::features;
use crate::format::Format;
use crate::rx::Receiver;
use crate::sizes::Sizes;
use crate::transport::{Interface, QueueLen, Transport, status};
use crate::tx::Transmitter;

/// Queue numbers (virtio 1.2 section 5.1.2).
pub(crate) const RX_QUEUE: u16 = 0;
/// The transmit queue of the first pair.
pub(crate) const TX_QUEUE: u16 = 1;

/// A device gets this long to confirm a reset. Real hardware and vDPA may
/// need milliseconds; QEMU is done with the first look.
const RESET_US: u64 = 1_000_000;
/// Looks during a reset or a wake-up, should the clock be dead.
const WAIT_LOOKS: u32 = 100_000;
/// Pause between two looks.
const LOOK_US: u32 = 100;
/// Attempts to wake a sleeping function.
const WAKES: u8 = 3;

/// MTU of plain Ethernet.
const MTU_DEFAULT: u16 = 1500;
/// Smallest MTU a device may name (virtio 1.2 section 5.1.4.1).
const MTU_MIN: u16 = 68;

/// Offsets in the network device's configuration (virtio 1.2 section 5.1.4).
mod config {
    pub(super) const MAC: usize = 0;
    pub(super) const STATUS: usize = 6;
    pub(super) const MTU: usize = 10;
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    /// Make the registers reachable and the interrupts silent.
    Claim {
        /// Times a sleeping device may still be woken.
        wakes_left: u8,
    },
    /// Leave a woken device alone until the budget is spent.
    Waking { budget: Budget, wakes_left: u8 },
    /// Write the reset.
    Reset,
    /// Wait until it is confirmed. The device may use its old rings until then.
    AwaitReset(Budget),
    /// Negotiate, set up the queues, go live.
    Configure,
}

impl Phase {
    /// Where a take-over begins.
    pub(crate) const FIRST: Self = Self::Claim { wakes_left: WAKES };
}

/// Result of one step.
pub(crate) enum Step {
    /// Go on with this phase, `wait_us` microseconds later.
    Next { phase: Phase, wait_us: u32 },
    /// The device runs.
    Running(Settings),
}

/// What was agreed with the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Accepted features.
    pub(crate) features: u64,
    /// Our address.
    pub(crate) mac: MacAddr,
    /// Largest IP packet in bytes.
    pub(crate) ip_mtu: u16,
}

impl Settings {
    /// Before any agreement.
    pub(crate) const NONE: Self = Self { features: 0, mac: MacAddr::ZERO, ip_mtu: MTU_DEFAULT };
}

/// Everything a take-over works on.
pub(crate) struct Bringup<'a, T, M> {
    pub(crate) transport: &'a mut T,
    pub(crate) map: &'a M,
    pub(crate) rx: &'a mut Receiver,
    pub(crate) tx: &'a mut Transmitter,
    pub(crate) sizes: Sizes,
    /// The caller's address for a device without one.
    pub(crate) fallback_mac: Option<MacAddr>,
}

impl<T: Transport, M: DmaMap> Bringup<'_, T, M> {
    /// Does one phase: some tens of register accesses, no waiting.
    pub(crate) fn step(&mut self, phase: Phase, now: Instant) -> Result<Step, NicError> {
        let next = |phase| Ok(Step::Next { phase, wait_us: 0 });
        match phase {
            Phase::Claim { wakes_left } => match self.transport.prepare()? {
                0 => next(Phase::Reset),
                wait_us => {
                    let wakes_left =
                        wakes_left.checked_sub(1).ok_or(NicError::Timeout("PCI wake-up"))?;
                    let budget = Budget::new(now.after(u64::from(wait_us)), WAIT_LOOKS);
                    Ok(Step::Next { phase: Phase::Waking { budget, wakes_left }, wait_us })
                }
            },
            Phase::Waking { mut budget, wakes_left } => {
                if !budget.spend(now) {
                    return next(Phase::Claim { wakes_left });
                }
                Ok(Step::Next { phase: Phase::Waking { budget, wakes_left }, wait_us: LOOK_US })
            }
            Phase::Reset => {
                self.transport.set_status(status::RESET)?;
                next(Phase::AwaitReset(Budget::new(now.after(RESET_US), WAIT_LOOKS)))
            }
            Phase::AwaitReset(mut budget) => {
                if read_status(self.transport)? == status::RESET {
                    // From here on the device holds nothing of ours, nor of the dead kernel's.
                    self.tx.complete_all();
                    return next(Phase::Configure);
                }
                if !budget.spend(now) {
                    return Err(NicError::Timeout("virtio reset"));
                }
                Ok(Step::Next { phase: Phase::AwaitReset(budget), wait_us: LOOK_US })
            }
            Phase::Configure => match self.configure() {
                Ok(settings) => Ok(Step::Running(settings)),
                Err(error) => {
                    // The device is told that it was given up. Nobody is left to
                    // hear that this failed too.
                    let _ = self.transport.set_status(status::FAILED);
                    Err(error)
                }
            },
        }
    }

    fn configure(&mut self) -> Result<Settings, NicError> {
        self.transport.connect()?;
        let mut so_far = status::ACKNOWLEDGE;
        self.transport.set_status(so_far)?;
        so_far |= status::DRIVER;
        self.transport.set_status(so_far)?;

        let settings = self.negotiate()?;
        let format = Format::of(self.transport.interface(), settings.features);
        // A legacy device does not know this step (section 3.1.2).
        if let Interface::Modern = self.transport.interface() {
            so_far |= status::FEATURES_OK;
            self.transport.set_status(so_far)?;
            if read_status(self.transport)? & status::FEATURES_OK == 0 {
                return Err(NicError::Unsupported("virtio device refused our features"));
            }
        }
        let mac = self.station(settings.features)?;

        let rx_len = self.queue_len(RX_QUEUE, self.sizes.rx_buffers())?;
        let tx_len = self.queue_len(TX_QUEUE, self.sizes.tx_descriptors())?;
        let rings = self.rx.lay_out(rx_len, settings.ip_mtu, format)?;
        self.transport.enable_queue(RX_QUEUE, &rings)?;
        let rings = self.tx.lay_out(tx_len, format)?;
        self.transport.enable_queue(TX_QUEUE, &rings)?;

        so_far |= status::DRIVER_OK;
        self.transport.set_status(so_far)?;
        check_running(self.transport)?;
        // Only now: a notification before DRIVER_OK is forbidden.
        self.transport.notify(RX_QUEUE, self.rx.published());
        Ok(Settings { mac, ..settings })
    }

    /// Chooses the features, all but the last word on which is the device's.
    fn negotiate(&mut self) -> Result<Settings, NicError> {
        let offered = self.transport.device_features()?;
        let mut accepted =
            features::negotiate(offered, self.map.is_platform(), self.transport.interface())?;
        let mut ip_mtu = MTU_DEFAULT;
        if accepted & features::MTU != 0 {
            // Configuration may be read to decide (section 3.1.1 step 4). An MTU
            // we have no buffer for, or that cannot be, is not agreed to.
            // A legacy device whose MSI-X stays on may have it behind its window.
            let offered_mtu = self.transport.config16(config::MTU).unwrap_or(0);
            if offered_mtu >= MTU_MIN && self.rx.can_hold(offered_mtu) {
                ip_mtu = offered_mtu;
            } else {
                accepted &= !features::MTU;
            }
        }
        self.transport.set_driver_features(accepted)?;
        Ok(Settings { features: accepted, mac: MacAddr::ZERO, ip_mtu })
    }

    /// The device's address, or the caller's.
    fn station(&mut self, accepted: u64) -> Result<MacAddr, NicError> {
        let none = NicError::Unsupported("virtio device has no MAC address and none was given");
        let own = if accepted & features::MAC != 0 {
            Some(stable_mac(self.transport)?).filter(|mac| mac.is_station())
        } else {
            None
        };
        own.or(self.fallback_mac).ok_or(none)
    }

    /// Length of our ring for `queue`, a power of two: what the device insists
    /// on, or no longer than either side takes.
    fn queue_len(&mut self, queue: u16, ours_max: u16) -> Result<u16, NicError> {
        let len = match self.transport.queue_len(queue)? {
            QueueLen::UpTo(devices_max) => devices_max.min(ours_max),
            QueueLen::Fixed(len) if len == 0 || len.is_power_of_two() => len,
            QueueLen::Fixed(_) => {
                return Err(NicError::Protocol("virtio queue length is no power of two"));
            }
        };
        match len.checked_ilog2() {
            Some(log) => Ok(1u16.wrapping_shl(log)),
            None => Err(NicError::Unsupported("virtio device lacks a queue")),
        }
    }
}

/// The status; a reading of all ones is looked at twice, as a device that
/// comes out of a reset may answer late.
pub(crate) fn read_status(transport: &mut impl Transport) -> Result<u8, NicError> {
    match transport.status() {
        Err(NicError::Gone) => transport.status(),
        other => other,
    }
}

/// Whether the device goes on running.
///
/// # Errors
/// [`NicError::Failed`] if it asks for a reset, [`NicError::Protocol`] if it has stopped by itself.
pub(crate) fn check_running(transport: &mut impl Transport) -> Result<(), NicError> {
    let status = read_status(transport)?;
    if status & status::NEEDS_RESET != 0 {
        return Err(NicError::Failed);
    }
    if status & status::DRIVER_OK == 0 {
        return Err(NicError::Protocol("virtio device stopped by itself"));
    }
    Ok(())
}

/// Reads the address while the configuration stands still: between two equal
/// generations, or, on the legacy interface, which has none, twice the same
/// (section 2.5.1).
fn stable_mac(transport: &mut impl Transport) -> Result<MacAddr, NicError> {
    const TRIES: usize = 8;
    let mut last = None;
    for _ in 0..TRIES {
        let before = transport.config_generation()?;
        let mut mac = MacAddr::ZERO;
        for (offset, byte) in mac.0.iter_mut().enumerate() {
            *byte = transport.config8(config::MAC.saturating_add(offset))?;
        }
        let after = transport.config_generation()?;
        let still = if after.is_some() { before == after } else { last == Some(mac) };
        if still {
            return Ok(mac);
        }
        last = Some(mac);
    }
    Err(NicError::Protocol("virtio configuration never stands still"))
}

/// Bit 0 of the network status: the link is up.
pub(crate) fn link_up(transport: &mut impl Transport) -> Result<bool, NicError> {
    Ok(transport.config16(config::STATUS)? & 1 != 0)
}
