//! A device that some driver drives, and that driver.

use debugnet_core::addr::PhysAddr;
use debugnet_core::nic::{
    Capabilities, Link, Nic, NicError, RxError, Start, TxError, TxFrame, TxTicket,
};
use debugnet_core::time::Clock;
use nic_e1000::{E1000, PciDevice};
use nic_hal::pci_types::ConfigRegionAccess;
use nic_hal::{DmaMap, DmaRegion, Mmio, PciFunction, Registers};
use nic_virtio::transport::{Interface, Transport as _};
use nic_virtio::{AnyTransport, MEMORY_NEEDED_ANY, VirtioNet};

use crate::table::{Driver, identify};

/// Bytes of DMA memory that are enough for any of the drivers, at any alignment
/// of 16: for a static, before the device is known.
pub const MEMORY_NEEDED: usize = {
    let (virtio, intel) = (MEMORY_NEEDED_ANY, nic_e1000::MEMORY_NEEDED);
    if virtio > intel { virtio } else { intel }
};

/// A device that one of the drivers drives. Nothing was written to it.
///
/// `A` reaches PCI configuration space, `R` registers in memory, `P` I/O ports
/// (on a machine without any, any type of registers will do).
#[derive(Debug)]
#[non_exhaustive]
pub enum Device<A, R = Mmio, P = Mmio> {
    /// For `nic-virtio`.
    VirtioNet(AnyTransport<A, R, P>),
    /// For `nic-e1000`.
    E1000(PciDevice<A, R>),
}

impl<A: ConfigRegionAccess, R: Registers, P: Registers> Device<A, R, P> {
    /// Finds the registers of `function`, at boot. Reads its configuration space and writes nothing.
    ///
    /// `map` makes a window over the given physical addresses, which must stay mapped, uncached;
    /// `ports` one over that many I/O ports, if the machine has such.
    ///
    /// # Errors
    /// [`NicError::Gone`] if there is no function, those of [`identify`], and those of the
    /// driver's own probe.
    pub fn probe(
        function: PciFunction<A>,
        map: impl FnMut(PhysAddr, usize) -> Option<R>,
        ports: impl FnOnce(u16, u16) -> Option<P>,
    ) -> Result<Self, NicError> {
        let (vendor, device) = function.id().ok_or(NicError::Gone)?;
        match identify(vendor, device)?.driver {
            Driver::VirtioNet => AnyTransport::probe_pci(function, map, ports).map(Self::VirtioNet),
            Driver::E1000 => PciDevice::probe(function, map).map(Self::E1000),
        }
    }

    /// Bytes of DMA memory that its driver needs, at any alignment of 16.
    pub fn memory_needed(&self) -> usize {
        match self {
            Self::VirtioNet(transport) => match transport.interface() {
                Interface::Modern => nic_virtio::MEMORY_NEEDED,
                Interface::Legacy => MEMORY_NEEDED_ANY,
            },
            Self::E1000(_) => nic_e1000::MEMORY_NEEDED,
        }
    }

    /// The driver, with rings in `memory`. Touches nothing on the device.
    ///
    /// # Errors
    /// [`NicError::Memory`] if that is less than [`Device::memory_needed`] bytes.
    pub fn driver<M: DmaMap>(
        self,
        memory: DmaRegion,
        map: M,
    ) -> Result<AnyNic<A, M, R, P>, NicError> {
        match self {
            Self::VirtioNet(transport) => {
                VirtioNet::new(transport, memory, map).map(AnyNic::VirtioNet)
            }
            Self::E1000(device) => E1000::new(device, memory, map).map(AnyNic::E1000),
        }
    }
}

/// Whichever driver it is. `M` maps payload addresses, the others as for [`Device`].
#[derive(Debug)]
#[non_exhaustive]
pub enum AnyNic<A, M, R = Mmio, P = Mmio> {
    /// `nic-virtio`'s.
    VirtioNet(VirtioNet<AnyTransport<A, R, P>, M>),
    /// `nic-e1000`'s.
    E1000(E1000<A, M, R>),
}

impl<A: ConfigRegionAccess, M: DmaMap, R: Registers, P: Registers> AnyNic<A, M, R, P> {
    /// Lets frames with IP packets of up to `ip_mtu` bytes out, as far as the part
    /// can. Means nothing to a virtio device, which names its MTU itself.
    #[must_use]
    pub fn with_ip_mtu(self, ip_mtu: u16) -> Self {
        match self {
            Self::VirtioNet(nic) => Self::VirtioNet(nic),
            Self::E1000(nic) => Self::E1000(nic.with_ip_mtu(ip_mtu)),
        }
    }

    /// What drives it.
    pub const fn driver(&self) -> Driver {
        match self {
            Self::VirtioNet(_) => Driver::VirtioNet,
            Self::E1000(_) => Driver::E1000,
        }
    }
}

/// The call on whichever driver it is.
macro_rules! each {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self {
            AnyNic::VirtioNet(nic) => nic.$method($($argument),*),
            AnyNic::E1000(nic) => nic.$method($($argument),*),
        }
    };
}

impl<A: ConfigRegionAccess, M: DmaMap, R: Registers, P: Registers> Nic for AnyNic<A, M, R, P> {
    fn capabilities(&self) -> Capabilities {
        each!(self.capabilities())
    }

    fn poll_start(&mut self, clock: &mut dyn Clock) -> Result<Start, NicError> {
        each!(self.poll_start(clock))
    }

    fn link(&mut self) -> Link {
        each!(self.link())
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<TxTicket, TxError> {
        each!(self.transmit(frame))
    }

    fn kick(&mut self) {
        each!(self.kick());
    }

    fn poll_tx(&mut self) -> Result<TxTicket, NicError> {
        each!(self.poll_tx())
    }

    fn receive(&mut self, buf: &mut [u8]) -> Result<Option<usize>, RxError> {
        each!(self.receive(buf))
    }

    fn stop(&mut self) -> Result<(), NicError> {
        each!(self.stop())
    }
}
