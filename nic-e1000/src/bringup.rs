//! Taking the device over, in steps (8254x SDM sections 14.3 to 14.5, 82574
//! section 4.6, 82576 section 4.5).

use debugnet_core::addr::MacAddr;
use debugnet_core::nic::NicError;
use debugnet_core::time::{Budget, Instant};
use nic_hal::Registers;
use nic_hal::pci_types::ConfigRegionAccess;

use crate::configure;
use crate::device::PciDevice;
use crate::ids::{Family, Mac};
use crate::quiesce;
use crate::registers as reg;
use crate::registers::{ctrl, mdic, status};
use crate::rx::Receiver;
use crate::station;
use crate::tx::Transmitter;

/// Pause between two looks at something that has not happened yet.
const LOOK_US: u32 = 50;
/// Attempts to wake a sleeping function, 10 ms each.
const WAKES: u8 = 3;
const WAKE_US: u32 = 10_000;
/// Frames under way when receiver and transmitter were switched off get this long.
const DRAIN_US: u32 = 10_000;
/// Requests under way on PCI Express get this long (Intel's own limit).
const MASTER_US: u32 = 80_000;
/// Tries for the firmware's lock on the PHY. In a crash it is taken anyway.
const OWNERSHIP_US: u32 = 500;
/// After the reset no register is touched for so long.
const SETTLE_PCI_US: u32 = 5_000;
const SETTLE_PCIE_US: u32 = 1_000;
/// The reset bit clears, and the NVM is read, within this time.
const RESET_US: u32 = 20_000;
/// The PHY of 82573, 82574 and 82583 is set up by hardware after the reset.
const PHY_SET_UP_US: u32 = 25_000;
/// A link that stayed up during the reset shows so within this time.
const LINK_US: u32 = 20_000;
/// One access to the PHY or the NVM.
const ACCESS_US: u32 = 3_000;
/// A queue reads as enabled within this time.
const ENABLE_US: u32 = 10_000;
/// Words of the filter tables written in one step.
const TABLE_STEP: u32 = 32;

/// What comes next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    /// Registers decoded, interrupts silent.
    Claim {
        /// Times a sleeping function may still be woken.
        wakes_left: u8,
    },
    /// Leave a woken function alone.
    Waking {
        budget: Budget,
        wakes_left: u8,
    },
    /// Interrupt causes masked, address saved, receiver and transmitter off.
    Silence,
    Drain(Budget),
    /// No new requests on PCI Express.
    DisableMaster,
    AwaitMaster(Budget),
    /// The dead kernel's rings are taken from the device.
    DropRings,
    TakeOwnership(Budget),
    Reset,
    /// No register is touched.
    Settle(Budget),
    AwaitReset(Budget),
    AwaitPhy(Budget),
    /// Interrupts again, CTRL for our use.
    Control,
    /// The station address: saved, reloaded by the reset, or read from the NVM.
    Station,
    StartNvm {
        word: u8,
        so_far: [u8; 6],
    },
    AwaitNvm {
        budget: Budget,
        word: u8,
        so_far: [u8; 6],
    },
    /// Filter tables zeroed, from this word on.
    Tables(u32),
    AwaitLink(Budget),
    AwaitAutonegotiation(Budget),
    /// Our rings.
    Queues,
    AwaitQueues(Budget),
    /// Transmitter, then receiver on.
    Enable,
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
    Running,
}

/// Addresses met on the way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Addresses {
    /// What the device used when we came: possibly set by the dead kernel.
    pub(crate) live: Option<MacAddr>,
    /// The caller's, for a device without one.
    pub(crate) fallback: Option<MacAddr>,
    /// What we use.
    pub(crate) station: Option<MacAddr>,
}

/// Everything a take-over works on.
pub(crate) struct Bringup<'a, A, R> {
    pub(crate) device: &'a mut PciDevice<A, R>,
    pub(crate) rx: &'a mut Receiver,
    pub(crate) tx: &'a mut Transmitter,
    pub(crate) addresses: &'a mut Addresses,
}

/// A budget of `us` microseconds. A caller may look far more often than asked
/// to, and a clock may be dead: the looks are many, and counted.
fn budget(now: Instant, us: u32) -> Budget {
    Budget::new(now.after(u64::from(us)), us.saturating_mul(20))
}

/// Go on at once.
const fn next(phase: Phase) -> Result<Step, NicError> {
    Ok(Step::Next { phase, wait_us: 0 })
}

/// Look again a little later.
const fn again(phase: Phase) -> Result<Step, NicError> {
    Ok(Step::Next { phase, wait_us: LOOK_US })
}

/// Waits until the budget is spent, then goes on with `then`.
fn idle(
    mut budget: Budget,
    now: Instant,
    waiting: fn(Budget) -> Phase,
    then: Phase,
) -> Result<Step, NicError> {
    if budget.spend(now) { again(waiting(budget)) } else { next(then) }
}

impl<A: ConfigRegionAccess, R: Registers> Bringup<'_, A, R> {
    /// Does one phase: at most about a hundred register accesses, no waiting.
    pub(crate) fn step(&mut self, phase: Phase, now: Instant) -> Result<Step, NicError> {
        let mac = self.device.part().mac;
        match phase {
            Phase::Claim { .. } | Phase::Waking { .. } => self.claim(phase, now),
            Phase::Silence => {
                let live = quiesce::silence(self.device)?;
                self.addresses.live = live.or(self.addresses.live);
                next(Phase::Drain(budget(now, DRAIN_US)))
            }
            Phase::Drain(wait) => {
                let then = match mac.family() {
                    // The PCI parts have no such bit; QEMU's never confirms it.
                    Family::E1000 => Phase::DropRings,
                    _ => Phase::DisableMaster,
                };
                idle(wait, now, Phase::Drain, then)
            }
            Phase::DisableMaster => {
                self.device.window.change(reg::CTRL, 0, ctrl::GIO_MASTER_DISABLE)?;
                next(Phase::AwaitMaster(budget(now, MASTER_US)))
            }
            Phase::AwaitMaster(wait) => {
                let busy = self.device.window.read(reg::STATUS)? & status::GIO_MASTER_ENABLE != 0;
                // Intel's drivers reset in the end whatever it says.
                self.wait_while(busy, wait, now, Phase::AwaitMaster, Phase::DropRings)
            }
            Phase::DropRings => {
                quiesce::drop_rings(self.device)?;
                next(match mac.has_phy_ownership() {
                    true => Phase::TakeOwnership(budget(now, OWNERSHIP_US)),
                    false => Phase::Reset,
                })
            }
            Phase::TakeOwnership(wait) => {
                let owned = quiesce::take_phy_ownership(self.device)?;
                self.wait_while(!owned, wait, now, Phase::TakeOwnership, Phase::Reset)
            }
            Phase::Reset => {
                quiesce::reset(self.device)?;
                let settle_us = match mac.family() {
                    Family::E1000 => SETTLE_PCI_US,
                    _ => SETTLE_PCIE_US,
                };
                next(Phase::Settle(budget(now, settle_us)))
            }
            Phase::Settle(wait) => {
                idle(wait, now, Phase::Settle, Phase::AwaitReset(budget(now, RESET_US)))
            }
            Phase::AwaitReset(wait) => self.await_reset(wait, now),
            Phase::AwaitPhy(wait) => idle(wait, now, Phase::AwaitPhy, Phase::Control),
            Phase::Control => {
                configure::control(self.device)?;
                next(Phase::Station)
            }
            Phase::Station | Phase::StartNvm { .. } | Phase::AwaitNvm { .. } => {
                self.find_station(phase, now)
            }
            Phase::Tables(from) => {
                let until = from.saturating_add(TABLE_STEP);
                configure::clear_tables(self.device, from..until)?;
                next(match until < reg::TABLE_WORDS {
                    true => Phase::Tables(until),
                    false => Phase::AwaitLink(budget(now, LINK_US)),
                })
            }
            Phase::AwaitLink(mut wait) => {
                if self.device.window.read(reg::STATUS)? & status::LU != 0 {
                    return next(Phase::Queues);
                }
                if wait.spend(now) {
                    return again(Phase::AwaitLink(wait));
                }
                configure::restart_autonegotiation(self.device)?;
                next(Phase::AwaitAutonegotiation(budget(now, ACCESS_US)))
            }
            Phase::AwaitAutonegotiation(wait) => {
                let done = mdic::READY | mdic::ERROR;
                let busy = self.device.window.read(reg::MDIC)? & done == 0;
                // A PHY that does not answer has no link: that shows soon enough.
                self.wait_while(busy, wait, now, Phase::AwaitAutonegotiation, Phase::Queues)
            }
            Phase::Queues => {
                // The device has nothing of the dead kernel's left to read or write.
                self.device.master_bus()?;
                configure::transmit_ring(self.device, &self.tx.lay_out(mac)?)?;
                configure::receive_ring(self.device, &self.rx.lay_out(mac.family())?)?;
                next(Phase::AwaitQueues(budget(now, ENABLE_US)))
            }
            Phase::AwaitQueues(mut wait) => {
                if configure::queues_are_enabled(self.device)? {
                    return next(Phase::Enable);
                }
                if !wait.spend(now) {
                    return Err(NicError::Timeout("e1000 queue enable"));
                }
                again(Phase::AwaitQueues(wait))
            }
            Phase::Enable => {
                configure::enable(self.device, self.rx.tail())?;
                Ok(Step::Running)
            }
        }
    }

    /// Goes on with `then` once `busy` has ended, or the budget.
    fn wait_while(
        &self,
        busy: bool,
        mut wait: Budget,
        now: Instant,
        waiting: fn(Budget) -> Phase,
        then: Phase,
    ) -> Result<Step, NicError> {
        if busy && wait.spend(now) { again(waiting(wait)) } else { next(then) }
    }

    fn claim(&mut self, phase: Phase, now: Instant) -> Result<Step, NicError> {
        match phase {
            Phase::Waking { budget: mut wait, wakes_left } => {
                if wait.spend(now) {
                    return again(Phase::Waking { budget: wait, wakes_left });
                }
                next(Phase::Claim { wakes_left })
            }
            Phase::Claim { wakes_left } => {
                if !self.device.claim()? {
                    return next(Phase::Silence);
                }
                let wakes_left =
                    wakes_left.checked_sub(1).ok_or(NicError::Timeout("PCI wake-up"))?;
                let phase = Phase::Waking { budget: budget(now, WAKE_US), wakes_left };
                Ok(Step::Next { phase, wait_us: WAKE_US })
            }
            _ => next(Phase::Silence),
        }
    }

    fn await_reset(&mut self, mut wait: Budget, now: Instant) -> Result<Step, NicError> {
        let mac = self.device.part().mac;
        let pending = self.device.window.read(reg::CTRL)? & ctrl::RST != 0;
        let reading = mac.family() != Family::E1000
            && self.device.window.read(reg::EECD)? & reg::EECD_AUTO_RD == 0;
        if (pending || reading) && wait.spend(now) {
            return again(Phase::AwaitReset(wait));
        }
        // A part without an NVM may never say that it read one.
        if pending {
            return Err(NicError::Timeout("e1000 reset"));
        }
        // Whatever was handed to the device is out of its hands.
        self.tx.complete_all();
        next(match mac {
            Mac::I82573 | Mac::I82574 | Mac::I82583 => Phase::AwaitPhy(budget(now, PHY_SET_UP_US)),
            _ => Phase::Control,
        })
    }

    fn find_station(&mut self, phase: Phase, now: Instant) -> Result<Step, NicError> {
        const NONE: NicError = NicError::Unsupported("e1000 has no MAC address and none was given");
        let mac = self.device.part().mac;
        match phase {
            Phase::AwaitNvm { budget: mut wait, word, mut so_far } => {
                let Some(data) = station::nvm_data(self.device)? else {
                    if wait.spend(now) {
                        return again(Phase::AwaitNvm { budget: wait, word, so_far });
                    }
                    return self.settle_station(self.addresses.fallback.ok_or(NONE)?);
                };
                let at = usize::from(word).saturating_mul(2);
                for (byte, value) in so_far.iter_mut().skip(at).zip(data.to_le_bytes()) {
                    *byte = value;
                }
                let word = word.saturating_add(1);
                if word < 3 {
                    return next(Phase::StartNvm { word, so_far });
                }
                let found = station::of_function(self.device, MacAddr(so_far))?;
                let found = Some(found).filter(|mac| mac.is_station());
                self.settle_station(found.or(self.addresses.fallback).ok_or(NONE)?)
            }
            Phase::StartNvm { word, so_far } => {
                station::start_nvm(self.device, word)?;
                next(Phase::AwaitNvm { budget: budget(now, ACCESS_US), word, so_far })
            }
            _ => {
                let reloaded = station::current(self.device)?;
                match self.addresses.live.or(reloaded) {
                    Some(found) => self.settle_station(found),
                    None if station::nvm_holds_address(mac) => {
                        next(Phase::StartNvm { word: 0, so_far: [0; 6] })
                    }
                    None => self.settle_station(self.addresses.fallback.ok_or(NONE)?),
                }
            }
        }
    }

    /// Decides for an address and makes it the only one that is received.
    fn settle_station(&mut self, station: MacAddr) -> Result<Step, NicError> {
        self.addresses.station = Some(station);
        station::make_only(self.device, station)?;
        next(Phase::Tables(0))
    }
}
