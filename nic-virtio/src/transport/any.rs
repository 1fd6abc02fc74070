//! Whichever transport the machine has, chosen when it runs.

use debugnet_core::addr::PhysAddr;
use debugnet_core::nic::NicError;
use nic_hal::pci_types::ConfigRegionAccess;
use nic_hal::{Mmio, PciFunction, Registers};

use super::mmio::VirtioMmio;
use super::pci_legacy::PciLegacy;
use super::pci_modern::{PciModern, TRANSITIONAL_NET, VENDOR, has_modern_interface};
use super::{Interface, QueueLen, Rings, Transport};

/// One of the transports. `A` reaches PCI configuration space, `R` registers in
/// memory, `P` I/O ports (on machines without any, any type of registers will do).
#[derive(Debug)]
#[non_exhaustive]
pub enum AnyTransport<A, R = Mmio, P = Mmio> {
    /// PCI, modern interface.
    PciModern(PciModern<A, R>),
    /// PCI, legacy interface.
    PciLegacy(PciLegacy<A, P>),
    /// MMIO, version 1 or 2.
    Mmio(VirtioMmio<R>),
}

impl<A: ConfigRegionAccess, R: Registers, P: Registers> AnyTransport<A, R, P> {
    /// The transport for a PCI function: the modern interface if it has one,
    /// else the legacy one. `map` is that of [`PciModern::probe`], `map_ports`
    /// that of [`PciLegacy::probe`].
    ///
    /// # Errors
    /// Those of the two probes.
    pub fn probe_pci(
        function: PciFunction<A>,
        map: impl FnMut(PhysAddr, usize) -> Option<R>,
        map_ports: impl FnOnce(u16, u16) -> Option<P>,
    ) -> Result<Self, NicError> {
        let may_be_legacy = function.id() == Some((VENDOR, TRANSITIONAL_NET));
        if may_be_legacy && !has_modern_interface(&function) {
            PciLegacy::probe(function, map_ports).map(Self::PciLegacy)
        } else {
            PciModern::probe(function, map).map(Self::PciModern)
        }
    }
}

/// The call on whichever transport it is.
macro_rules! each {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self {
            AnyTransport::PciModern(transport) => transport.$method($($argument),*),
            AnyTransport::PciLegacy(transport) => transport.$method($($argument),*),
            AnyTransport::Mmio(transport) => transport.$method($($argument),*),
        }
    };
}

impl<A: ConfigRegionAccess, R: Registers, P: Registers> Transport for AnyTransport<A, R, P> {
    fn interface(&self) -> Interface {
        each!(self.interface())
    }

    fn prepare(&mut self) -> Result<u32, NicError> {
        each!(self.prepare())
    }

    fn connect(&mut self) -> Result<(), NicError> {
        each!(self.connect())
    }

    fn status(&mut self) -> Result<u8, NicError> {
        each!(self.status())
    }

    fn set_status(&mut self, status: u8) -> Result<(), NicError> {
        each!(self.set_status(status))
    }

    fn device_features(&mut self) -> Result<u64, NicError> {
        each!(self.device_features())
    }

    fn set_driver_features(&mut self, features: u64) -> Result<(), NicError> {
        each!(self.set_driver_features(features))
    }

    fn queue_len(&mut self, queue: u16) -> Result<QueueLen, NicError> {
        each!(self.queue_len(queue))
    }

    fn enable_queue(&mut self, queue: u16, rings: &Rings) -> Result<(), NicError> {
        each!(self.enable_queue(queue, rings))
    }

    fn notify(&mut self, queue: u16, avail_index: u16) {
        each!(self.notify(queue, avail_index));
    }

    fn config_generation(&mut self) -> Result<Option<u32>, NicError> {
        each!(self.config_generation())
    }

    fn config8(&mut self, offset: usize) -> Result<u8, NicError> {
        each!(self.config8(offset))
    }

    fn config16(&mut self, offset: usize) -> Result<u16, NicError> {
        each!(self.config16(offset))
    }

    fn cut_off(&mut self) -> bool {
        each!(self.cut_off())
    }
}
