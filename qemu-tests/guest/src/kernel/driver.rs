//! Which NIC there is, and which driver drives it.

use core::fmt;

use debugnet_core::addr::PhysRange;
use debugnet_core::nic::{
    Capabilities, Link, Nic, NicError, RxError, Start, TxError, TxFrame, TxTicket,
};
use debugnet_core::time::Clock;
use guest::cmdline::NicChoice;
use heapless::String;
use nic_e1000::{E1000, PciDevice, is_e1000};
use nic_hal::pci::Cf8;
use nic_hal::pci_types::PciAddress;
use nic_hal::{DmaMap, DmaRegion, Mmio, PciFunction};
use nic_virtio::transport::pci_modern::is_virtio_net;
use nic_virtio::{PciModern, VirtioNet};

use super::arch::{self, Machine};
use super::pci;

/// Longest name of a device in bytes.
pub(super) const NAME_MAX: usize = 16;

/// Bytes of memory that any of the drivers needs.
pub(super) const MEMORY_NEEDED: usize = {
    let (virtio, intel) = (nic_virtio::MEMORY_NEEDED, nic_e1000::MEMORY_NEEDED);
    let larger = if virtio > intel { virtio } else { intel };
    larger.next_multiple_of(8)
};

/// The crates with drivers.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Virtio,
    Intel,
}

/// From PCI vendor and device id to a driver.
const PROBE: &[(fn(u16, u16) -> bool, Kind)] =
    &[(is_virtio_net, Kind::Virtio), (is_e1000, Kind::Intel)];

/// A PCI function that can be driven.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    kind: Kind,
    address: PciAddress,
    vendor: u16,
    device: u16,
}

/// The first device that the options allow.
pub(super) fn find(choice: NicChoice) -> Option<Device> {
    let mut found = None;
    let function = pci::find(arch::pci_access, |function| {
        found = function.id().and_then(|(vendor, device)| {
            let (_, kind) = PROBE.iter().find(|(drives, _)| drives(vendor, device))?;
            let wanted = match (choice, kind) {
                (NicChoice::Auto, _) | (NicChoice::VirtioNetPci, Kind::Virtio) => true,
                (NicChoice::Intel(id), Kind::Intel) => id == device,
                _ => false,
            };
            wanted.then_some((*kind, vendor, device))
        });
        found.is_some()
    })?;
    let (kind, vendor, device) = found?;
    Some(Device { kind, address: function.address(), vendor, device })
}

impl Device {
    /// A driver in `memory`. Writes nothing to the device.
    pub(super) fn driver<M: DmaMap>(
        self,
        machine: &mut Machine,
        memory: DmaRegion,
        map: M,
        ip_mtu: u16,
    ) -> Result<Driver<M>, NicError> {
        // SAFETY: the function exists. Two drivers know it, one after the other: the
        // live one until the crash, the dump's from then on.
        let function = unsafe { PciFunction::new(arch::pci_access(), self.address) };
        let window = |start, len| {
            machine.map_device(PhysRange::new(start, len as u64)?).ok()?;
            // SAFETY: registers of the device, mapped uncached just now and for ever.
            unsafe { Mmio::at(usize::try_from(start.0).ok()?, len) }
        };
        match self.kind {
            Kind::Virtio => {
                let transport = PciModern::probe(function, window)?;
                VirtioNet::new(transport, memory, map).map(Driver::Virtio)
            }
            Kind::Intel => {
                let device = PciDevice::probe(function, window)?;
                let nic = E1000::new(device, memory, map)?;
                Ok(Driver::Intel(nic.with_ip_mtu(ip_mtu)))
            }
        }
    }

    /// Vendor and device id.
    pub(super) fn name(self) -> String<NAME_MAX> {
        let mut name = String::new();
        // Nine bytes: it fits.
        let _ = fmt::write(&mut name, format_args!("{:04x}:{:04x}", self.vendor, self.device));
        name
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

/// A driver for the device that was found.
#[derive(Debug)]
pub(super) enum Driver<M> {
    Virtio(VirtioNet<PciModern<Cf8, Mmio>, M>),
    Intel(E1000<Cf8, M>),
}

impl<M: DmaMap> Driver<M> {
    fn nic(&mut self) -> &mut dyn Nic {
        match self {
            Self::Virtio(nic) => nic,
            Self::Intel(nic) => nic,
        }
    }
}

impl<M: DmaMap> Nic for Driver<M> {
    fn capabilities(&self) -> Capabilities {
        match self {
            Self::Virtio(nic) => nic.capabilities(),
            Self::Intel(nic) => nic.capabilities(),
        }
    }

    fn poll_start(&mut self, clock: &mut dyn Clock) -> Result<Start, NicError> {
        self.nic().poll_start(clock)
    }

    fn link(&mut self) -> Link {
        self.nic().link()
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<TxTicket, TxError> {
        self.nic().transmit(frame)
    }

    fn kick(&mut self) {
        self.nic().kick();
    }

    fn poll_tx(&mut self) -> Result<TxTicket, NicError> {
        self.nic().poll_tx()
    }

    fn receive(&mut self, buf: &mut [u8]) -> Result<Option<usize>, RxError> {
        self.nic().receive(buf)
    }

    fn stop(&mut self) -> Result<(), NicError> {
        self.nic().stop()
    }
}
