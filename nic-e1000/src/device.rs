//! The device: a PCI function and its registers.

use debugnet_core::addr::PhysAddr;
use debugnet_core::nic::NicError;
use nic_hal::pci_types::{CommandRegister, ConfigRegionAccess};
use nic_hal::{Bar, Mmio, PciFunction, Registers};

use crate::ids::{Family, Part, identify};
use crate::registers::{self, Ring, WINDOW_LEN, Window};

/// Configuration reads that a wait without a clock after a reset takes, when no
/// register may be touched: a microsecond or longer each.
pub(crate) const SETTLE_READS: u32 = 5_000;

/// An Intel gigabit controller on PCI. `A` reaches its configuration space, `R` its registers.
#[derive(Debug)]
pub struct PciDevice<A, R = Mmio> {
    function: PciFunction<A>,
    part: Part,
    pub(crate) window: Window<R>,
}

impl<A: ConfigRegionAccess, R: Registers> PciDevice<A, R> {
    /// Finds the registers of `function`, at boot.
    ///
    /// Reads configuration space and writes nothing. `map` makes a window over
    /// the given physical addresses (64 KiB of BAR 0), which must stay mapped.
    ///
    /// # Errors
    /// [`NicError::Gone`] if there is no function, [`NicError::Unknown`] if it
    /// is none of Intel's gigabit controllers, [`NicError::Unsupported`] if it
    /// is one that is refused (see [`identify`]) or its BAR has no address,
    /// [`NicError::NotReachable`] if `map` gives no window.
    pub fn probe(
        function: PciFunction<A>,
        map: impl FnOnce(PhysAddr, usize) -> Option<R>,
    ) -> Result<Self, NicError> {
        let (vendor, device) = function.id().ok_or(NicError::Gone)?;
        let part = identify(vendor, device)?;
        let address = match function.bar(0) {
            Some(Bar::Memory { address }) if address.0 != 0 => address,
            _ => return Err(NicError::Unsupported("e1000 BAR 0 has no memory address")),
        };
        let registers = map(address, WINDOW_LEN).ok_or(NicError::NotReachable)?;
        if registers.window_len() < WINDOW_LEN {
            return Err(NicError::NotReachable);
        }
        Ok(Self { function, part, window: Window(registers) })
    }

    /// What it is.
    pub const fn part(&self) -> Part {
        self.part
    }

    pub(crate) const fn family(&self) -> Family {
        self.part.family()
    }

    /// Registers of receive queue `queue`.
    pub(crate) const fn rx_ring(&self, queue: u32) -> Ring {
        match self.family() {
            Family::Igb => Ring::igb(registers::RX_IGB, queue),
            _ => Ring::old(registers::RX_OLD, queue),
        }
    }

    /// Registers of transmit queue `queue`.
    pub(crate) const fn tx_ring(&self, queue: u32) -> Ring {
        match self.family() {
            Family::Igb => Ring::igb(registers::TX_IGB, queue),
            _ => Ring::old(registers::TX_OLD, queue),
        }
    }

    /// Makes the registers reachable and the interrupts silent; bus mastering
    /// stays as it was. `true` if the function had to be woken and needs a pause
    /// before the next call.
    pub(crate) fn claim(&mut self) -> Result<bool, NicError> {
        let (vendor, device) = self.function.id().ok_or(NicError::Gone)?;
        if identify(vendor, device)?.device != self.part.device {
            return Err(NicError::Unknown { id: u32::from(vendor) << 16 | u32::from(device) });
        }
        if self.function.wake() {
            return Ok(true);
        }
        if !self.function.claim() {
            return Err(NicError::Unsupported("PCI function decodes no memory"));
        }
        Ok(false)
    }

    /// Lets the device reach memory: only when it holds no ring but ours.
    pub(crate) fn master_bus(&mut self) -> Result<(), NicError> {
        if self.function.master_bus() {
            Ok(())
        } else {
            Err(NicError::Unsupported("PCI function takes no bus mastering"))
        }
    }

    /// Whether the device can reach memory at present.
    pub(crate) fn is_bus_master(&self) -> bool {
        self.function.command().contains(CommandRegister::BUS_MASTER_ENABLE)
    }

    /// Cuts the device off from memory. `true` if it is.
    pub(crate) fn cut_off(&mut self) -> bool {
        self.function.cut_off()
    }

    /// Waits for so many microseconds or longer, without a clock and without touching a register.
    pub(crate) fn pause(&self, reads: u32) {
        for _ in 0..reads {
            // Read for the time it takes.
            let _ = self.function.id();
            core::hint::spin_loop();
        }
    }
}
