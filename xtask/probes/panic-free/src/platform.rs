//! A platform for the probe: real in form, opaque to the optimiser.

use core::hint::black_box;
use core::ptr;

use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::dump::{DumpSource, Extent, ReadFault, ReadRam, Stability};
use debugnet_core::observer::{Event, Observer};
use debugnet_core::time::{Clock, Instant};
use nic_hal::pci_types::{ConfigRegionAccess, PciAddress};

/// A counter somewhere.
pub(crate) struct Counter;

impl Clock for Counter {
    fn now(&mut self) -> Instant {
        Instant::from_micros(black_box(0))
    }

    fn relax(&mut self) {
        core::hint::spin_loop();
    }
}

/// RAM somewhere.
pub(crate) struct Ram {
    rest: u64,
}

impl Ram {
    pub(crate) fn new() -> Self {
        Self { rest: black_box(4) }
    }
}

impl DumpSource for Ram {
    fn next(&mut self) -> Option<Extent> {
        self.rest = self.rest.checked_sub(1)?;
        let stability = if black_box(true) { Stability::Frozen } else { Stability::Volatile };
        let range = PhysRange::new(PhysAddr(black_box(0)), black_box(0))?;
        Some(Extent { offset: black_box(0), range, stability })
    }

    fn rewind(&mut self) {
        self.rest = black_box(4);
    }
}

impl ReadRam for Ram {
    fn read(&mut self, at: PhysAddr, into: &mut [u8]) -> Result<(), ReadFault> {
        let Ok(start) = usize::try_from(at.0) else { return Err(ReadFault { at }) };
        let from = ptr::with_exposed_provenance::<u8>(black_box(start));
        for (offset, byte) in into.iter_mut().enumerate() {
            // SAFETY: never run; a kernel's source argues here what is mapped.
            *byte = unsafe { from.wrapping_add(offset).read_volatile() };
        }
        Ok(())
    }
}

/// Looks at each event, so that none is optimised away.
pub(crate) struct Witness;

impl Observer for Witness {
    fn event(&mut self, now: Instant, event: &Event) {
        black_box((now, event));
    }
}

/// PCI configuration somewhere.
#[derive(Clone, Copy)]
pub(crate) struct Config;

impl ConfigRegionAccess for Config {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        black_box((address, offset));
        black_box(0)
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        black_box((address, offset, value));
    }
}

/// A chip on an SPI bus somewhere, which fails or does not.
#[cfg(feature = "w5500")]
pub(crate) struct Bus;

#[cfg(feature = "w5500")]
impl embedded_hal::spi::ErrorType for Bus {
    type Error = embedded_hal::spi::ErrorKind;
}

#[cfg(feature = "w5500")]
impl embedded_hal::spi::SpiDevice for Bus {
    fn transaction(
        &mut self,
        operations: &mut [embedded_hal::spi::Operation<'_, u8>],
    ) -> Result<(), Self::Error> {
        black_box(operations);
        black_box(Ok(()))
    }
}

/// A delay somewhere.
#[cfg(feature = "w5500")]
pub(crate) struct Pause;

#[cfg(feature = "w5500")]
impl embedded_hal::delay::DelayNs for Pause {
    fn delay_ns(&mut self, ns: u32) {
        black_box(ns);
    }
}
