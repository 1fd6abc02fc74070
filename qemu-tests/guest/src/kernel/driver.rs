//! Which NIC there is, and which driver drives it.

use core::fmt;

use debugnet_core::nic::{
    Capabilities, Link, Nic, NicError, RxError, Start, TxError, TxFrame, TxTicket,
};
use debugnet_core::time::Clock;
use guest::cmdline::{NicChoice, Options};
use heapless::String;
use nic_e1000::E1000;
use nic_hal::pci_types::PciAddress;
use nic_hal::{DmaMap, DmaRegion};
use nic_virtio::{MEMORY_NEEDED_ANY, Sizes, VirtioNet};

use super::arch::{Machine, PciAccess};
use super::{intel, virtio};

/// Longest name of a device in bytes.
pub(super) const NAME_MAX: usize = 16;

/// Bytes of memory that any of the drivers needs.
pub(super) const MEMORY_NEEDED: usize = {
    let (virtio, intel) = (MEMORY_NEEDED_ANY, nic_e1000::MEMORY_NEEDED);
    let larger = if virtio > intel { virtio } else { intel };
    larger.next_multiple_of(8)
};

/// Memory that a driver needs when nothing of it is lost to alignment.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingNeeds {
    /// Bytes.
    pub(super) len: usize,
    /// What the address of the first one is a multiple of.
    pub(super) align: usize,
}

/// Where the rings of a virtio device begin, those of a legacy one, and those of Intel's: what
/// the drivers set aside for it is not needed if their memory begins there.
const VIRTIO_ALIGN: usize = 64;
const LEGACY_ALIGN: usize = 4096;
const INTEL_ALIGN: usize = 128;

/// Longest queue of a legacy virtio device there is room for: that of `Sizes::ANY`.
const LEGACY_QUEUE_MAX: u16 = 1024;

/// A device that can be driven.
#[derive(Clone, Copy, Debug)]
pub(super) enum Device {
    Virtio(virtio::Device),
    Intel(intel::Device),
}

/// The first device that the options allow.
pub(super) fn find(choice: NicChoice) -> Option<Device> {
    let intel = || intel::find(choice).map(Device::Intel);
    virtio::find(choice).map(Device::Virtio).or_else(intel)
}

impl Device {
    /// A driver in `memory`. Writes nothing to the device. A virtio device
    /// names its MTU itself, and offers to insert checksums or does not.
    pub(super) fn driver<M: DmaMap>(
        self,
        machine: &mut Machine,
        memory: DmaRegion,
        map: M,
        options: &Options,
    ) -> Result<Driver<M>, NicError> {
        match self {
            Self::Virtio(device) => {
                let transport = device.transport(machine)?;
                let sizes = virtio_sizes(device, options)?;
                Ok(Driver::Virtio(VirtioNet::with_sizes(transport, memory, map, sizes)?))
            }
            Self::Intel(device) => {
                let nic = E1000::new(device.registers(machine)?, memory, map)?;
                let nic = nic.with_ip_mtu(options.mtu()).with_checksum_offload(options.offload);
                Ok(Driver::Intel(nic))
            }
        }
    }

    /// What its driver needs.
    pub(super) fn ring_needs(self, options: &Options) -> Result<RingNeeds, NicError> {
        let (memory_needed, align) = match self {
            Self::Virtio(device) => {
                let align = if device.is_legacy() { LEGACY_ALIGN } else { VIRTIO_ALIGN };
                (virtio_sizes(device, options)?.memory_needed(), align)
            }
            Self::Intel(_) => (nic_e1000::MEMORY_NEEDED, INTEL_ALIGN),
        };
        Ok(RingNeeds { len: memory_needed - align, align })
    }

    /// Where its registers are, if it is virtio-mmio of version 2.
    #[cfg(feature = "c")]
    pub(super) fn mmio_registers(self) -> Option<debugnet_core::addr::PhysAddr> {
        match self {
            Self::Virtio(virtio::Device::Mmio { registers, version: 2 }) => Some(registers),
            _ => None,
        }
    }

    /// Where on the PCI bus it is, if it is there.
    pub(super) fn pci_address(self) -> Option<PciAddress> {
        match self {
            Self::Virtio(device) => device.pci_address(),
            Self::Intel(device) => Some(device.pci_address()),
        }
    }

    /// What the device is.
    pub(super) fn name(self) -> String<NAME_MAX> {
        match self {
            Self::Virtio(device) => device.name(),
            Self::Intel(device) => device.name(),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Virtio(device) => write!(f, "{device}"),
            Self::Intel(device) => write!(f, "{device}"),
        }
    }
}

fn virtio_sizes(device: virtio::Device, options: &Options) -> Result<Sizes, NicError> {
    Sizes::new(options.tx_queue, options.rx_queue)
        .and_then(|sizes| match device.is_legacy() {
            true => sizes.with_legacy(LEGACY_QUEUE_MAX),
            false => Some(sizes),
        })
        .ok_or(NicError::Unsupported("queues of these lengths"))
}

/// A driver for the device that was found.
#[derive(Debug)]
pub(super) enum Driver<M> {
    Virtio(VirtioNet<virtio::Transport, M>),
    Intel(E1000<PciAccess, M>),
}

impl<M: DmaMap> Driver<M> {
    /// Doorbells rung, or tails written, for frames to send.
    pub(super) fn doorbells(&self) -> u64 {
        match self {
            Self::Virtio(nic) => nic.counters().doorbells,
            Self::Intel(nic) => nic.counters().doorbells,
        }
    }

    /// Whether frames too short for Ethernet are filled up.
    pub(super) fn pads(&self) -> bool {
        matches!(self, Self::Intel(_))
    }

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
