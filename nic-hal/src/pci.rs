//! PCI configuration space of one function, for a driver that takes it over
//! (PCI Local Bus 3.0 chapter 6, PCI Express 4.0 section 7.5).
//!
//! The access mechanism and the addresses are those of [`pci_types`]. Its own
//! walkers are not used here: they follow a capability list without a bound,
//! and learn a BAR's size by writing to it, which a device in use must not suffer.

use debugnet_core::addr::PhysAddr;
use pci_types::{CommandRegister, ConfigRegionAccess, PciAddress};

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub use cf8::Cf8;

/// Capability id of power management.
const POWER_MANAGEMENT: u8 = 0x01;
/// Capability id of MSI.
const MSI: u8 = 0x05;
/// Capability id of MSI-X.
const MSI_X: u8 = 0x11;
/// MSI-X Enable, in the first word of its capability.
const MSI_X_ENABLE: u32 = 1 << 31;

/// Length of the configuration space that every function has, in bytes.
const CONFIG_LEN: u16 = 0x100;
/// Most capabilities that fit behind the 64-byte header, 4 bytes each: a longer list is a loop.
const CAPABILITIES_MAX: u8 = 48;

/// One PCI function and the way to its configuration space.
#[derive(Debug)]
pub struct PciFunction<A> {
    access: A,
    address: PciAddress,
}

/// A base address register, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bar {
    /// Memory-mapped registers.
    Memory {
        /// Where the CPU finds them; 0 if no address was assigned.
        address: PhysAddr,
    },
    /// I/O ports.
    Io {
        /// The first port; 0 if none was assigned.
        port: u16,
    },
}

/// An entry of the capability list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability {
    /// Which capability (`0x09` vendor specific, `0x11` MSI-X, ...).
    pub id: u8,
    /// Where in configuration space it starts.
    pub offset: u16,
    /// Bytes 2 and 3 of its first word.
    pub extension: u16,
}

impl<A: ConfigRegionAccess> PciFunction<A> {
    /// The function at `address`, reached through `access`.
    ///
    /// # Safety
    /// `access` is valid for the first 256 bytes of that function's
    /// configuration space (an empty slot may read as all ones). Once
    /// [`PciFunction::claim`] has been called, the function is the caller's: no
    /// other driver runs on it.
    #[allow(unsafe_code)]
    pub const unsafe fn new(access: A, address: PciAddress) -> Self {
        Self { access, address }
    }

    /// Where the function is.
    pub const fn address(&self) -> PciAddress {
        self.address
    }

    /// The 32-bit word at `offset`; all ones outside the first 256 bytes or misaligned,
    /// which is what an absent function reads as.
    #[allow(unsafe_code)]
    pub fn read32(&self, offset: u16) -> u32 {
        if offset >= CONFIG_LEN || offset & 3 != 0 {
            return u32::MAX;
        }
        // SAFETY: an aligned word below 256, for which `new` got the caller's word.
        unsafe { self.access.read(self.address, offset) }
    }

    /// Writes the 32-bit word at `offset`; does nothing outside the first 256 bytes or misaligned.
    #[allow(unsafe_code)]
    fn write32(&mut self, offset: u16, value: u32) {
        if offset < CONFIG_LEN && offset & 3 == 0 {
            // SAFETY: an aligned word below 256 of a function that is ours since
            // `claim`; the words written here only silence or enable it.
            unsafe { self.access.write(self.address, offset, value) };
        }
    }

    /// Vendor and device id, or `None` if no function answers.
    pub fn id(&self) -> Option<(u16, u16)> {
        let word = self.read32(0);
        let vendor = word as u16;
        (vendor != 0xffff).then_some((vendor, (word >> 16) as u16))
    }

    /// The capability list, at most 48 entries of it.
    pub fn capabilities(&self) -> Capabilities<'_, A> {
        const HAS_LIST: u32 = 1 << 20;
        let has_list = self.read32(0x04) & HAS_LIST != 0;
        let next = if has_list { self.read32(0x34) as u8 } else { 0 };
        Capabilities { function: self, next, left: CAPABILITIES_MAX }
    }

    /// The first capability with this id.
    pub fn find_capability(&self, id: u8) -> Option<Capability> {
        self.capabilities().find(|capability| capability.id == id)
    }

    /// Base address register `index` (0 to 5), or `None` if it is not there.
    /// Reads only; the size of a BAR cannot be had without writing to it.
    pub fn bar(&self, index: u8) -> Option<Bar> {
        const IO: u32 = 1;
        const TYPE_MASK: u32 = 6;
        const TYPE_64: u32 = 4;
        if index > 5 {
            return None;
        }
        let offset = u16::from(index).saturating_mul(4).saturating_add(0x10);
        let low = self.read32(offset);
        if low == 0 || low == u32::MAX {
            return None;
        }
        if low & IO != 0 {
            return Some(Bar::Io { port: (low & !3) as u16 });
        }
        let high = match low & TYPE_MASK {
            TYPE_64 if index < 5 => self.read32(offset.saturating_add(4)),
            TYPE_64 => return None,
            _ => 0,
        };
        Some(Bar::Memory { address: PhysAddr(u64::from(high) << 32 | u64::from(low & !0xf)) })
    }

    /// Makes the function ours: registers decoded, INTx, MSI and MSI-X off.
    /// `false` if nobody answers, or if it does not decode its registers.
    ///
    /// Bus mastering stays as it is: a device that the dead kernel cut off
    /// while it was running must not get at memory again before its reset.
    #[must_use]
    pub fn claim(&mut self) -> bool {
        self.claim_with(CommandRegister::MEMORY_ENABLE)
    }

    /// The same for a function whose registers are I/O ports.
    #[must_use]
    pub fn claim_ports(&mut self) -> bool {
        self.claim_with(CommandRegister::IO_ENABLE)
    }

    fn claim_with(&mut self, decoding: CommandRegister) -> bool {
        if self.id().is_none() {
            return false;
        }
        self.disable_msi();
        let on = decoding | CommandRegister::INTERRUPT_DISABLE;
        self.set_command(self.command() | on);
        // INTx Disable is optional before PCI 2.3, decoding is not.
        self.command().contains(decoding)
    }

    /// Whether MSI-X is switched on.
    pub fn msi_x_is_on(&self) -> bool {
        let word = self.find_capability(MSI_X).map(|capability| self.read32(capability.offset));
        word.is_some_and(|word| word & MSI_X_ENABLE != 0)
    }

    /// Turns bus mastering on, once the device has been reset, and says whether it is.
    #[must_use]
    pub fn master_bus(&mut self) -> bool {
        self.set_command(self.command() | CommandRegister::BUS_MASTER_ENABLE);
        self.id().is_some() && self.command().contains(CommandRegister::BUS_MASTER_ENABLE)
    }

    /// Turns bus mastering off and says whether it is: then the function
    /// cannot reach memory whatever it does.
    #[must_use]
    pub fn cut_off(&mut self) -> bool {
        self.set_command(self.command().difference(CommandRegister::BUS_MASTER_ENABLE));
        self.id().is_some() && !self.command().contains(CommandRegister::BUS_MASTER_ENABLE)
    }

    /// The command register.
    pub fn command(&self) -> CommandRegister {
        CommandRegister::from_bits_retain(self.read32(0x04) as u16)
    }

    /// Writes the command register and nothing else: the status bits in the
    /// same word are cleared by ones.
    fn set_command(&mut self, command: CommandRegister) {
        self.write32(0x04, u32::from(command.bits()));
    }

    /// Clears MSI Enable and MSI-X Enable. Resetting the *device* does neither.
    fn disable_msi(&mut self) {
        const MSI_ENABLE: u32 = 1 << 16;
        for (id, enable) in [(MSI, MSI_ENABLE), (MSI_X, MSI_X_ENABLE)] {
            if let Some(capability) = self.find_capability(id) {
                let word = self.read32(capability.offset);
                self.write32(capability.offset, word & !enable);
            }
        }
    }

    /// Puts a sleeping function back to D0. `true` if it slept: then it needs
    /// 10 ms before it answers (PCI Power Management 1.2 section 5.4).
    #[must_use]
    pub fn wake(&mut self) -> bool {
        const POWER_STATE: u32 = 3;
        const PME_STATUS: u32 = 1 << 15;
        let Some(capability) = self.find_capability(POWER_MANAGEMENT) else { return false };
        let offset = capability.offset.saturating_add(4);
        let word = self.read32(offset);
        if word == u32::MAX || word & POWER_STATE == 0 {
            return false;
        }
        // PME status is cleared by a one: not ours to clear.
        self.write32(offset, word & !(POWER_STATE | PME_STATUS));
        true
    }
}

/// The capability list of a function. Ends at a zero pointer, at a pointer
/// into the header, and after 48 entries.
#[derive(Debug)]
pub struct Capabilities<'a, A> {
    function: &'a PciFunction<A>,
    next: u8,
    left: u8,
}

impl<A: ConfigRegionAccess> Iterator for Capabilities<'_, A> {
    type Item = Capability;

    fn next(&mut self) -> Option<Capability> {
        // The low two bits of the pointer are reserved and to be masked.
        let offset = u16::from(self.next & !3);
        self.left = self.left.checked_sub(1)?;
        if offset < 0x40 {
            return None;
        }
        let word = self.function.read32(offset);
        if word == u32::MAX {
            return None;
        }
        self.next = (word >> 8) as u8;
        Some(Capability { id: word as u8, offset, extension: (word >> 16) as u16 })
    }
}

/// Configuration access through the x86 ports `0xcf8` and `0xcfc`.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod cf8 {
    use pci_types::{ConfigRegionAccess, PciAddress};

    use crate::port::PortIo;
    use crate::registers::Registers;

    /// PCI configuration access mechanism 1 (PCI Local Bus 3.0 section
    /// 3.2.2.3.2): segment 0, the first 256 bytes of each function.
    ///
    /// Each access selects anew, so a selection that the dead kernel left
    /// half done does no harm.
    #[derive(Debug)]
    pub struct Cf8(());

    impl Cf8 {
        /// Takes the two ports.
        ///
        /// # Safety
        /// The caller runs at a privilege that may use the ports, on a machine
        /// that has them, and no other code uses them while this makes an
        /// access (in a crash: the other CPUs are parked).
        #[allow(unsafe_code)]
        pub const unsafe fn new() -> Self {
            Self(())
        }

        /// The two ports as one window, with `offset` of `address` selected.
        #[allow(unsafe_code)]
        fn select(&self, address: PciAddress, offset: u16) -> Option<PortIo> {
            if address.segment() != 0 || offset >= 0x100 {
                return None;
            }
            let word = 1 << 31
                | u32::from(address.bus()) << 16
                | u32::from(address.device()) << 11
                | u32::from(address.function()) << 8
                | u32::from(offset & 0xfc);
            // SAFETY: whoever made this `Cf8` promised the ports; the window lives for one access.
            let mut ports = unsafe { PortIo::new(0xcf8, 8) }?;
            ports.write32(0, word).ok()?;
            Some(ports)
        }
    }

    // The trait's functions are unsafe to call; nothing in these two needs it.
    #[allow(unsafe_code)]
    impl ConfigRegionAccess for Cf8 {
        unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
            self.select(address, offset)
                .and_then(|mut ports| ports.read32(4).ok())
                .unwrap_or(u32::MAX)
        }

        unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
            if let Some(mut ports) = self.select(address, offset) {
                // Inside the window by construction; there is nobody to tell.
                let _ = ports.write32(4, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostConfig;

    /// An Ethernet function with MSI at 0x50 and MSI-X at 0x70, both on, and PM at 0x80 in D3.
    fn config() -> HostConfig {
        HostConfig::new([
            (0x00, 0x1041_1af4),
            // Capability list and an error bit; memory decoding on, bus mastering off.
            (0x04, 0x8010_0002),
            (0x10, 0xfebf_1000),
            (0x14, 0xc041),
            (0x20, 0xe000_000c),
            (0x24, 0x8),
            (0x34, 0x50),
            (0x50, 0x0081_7005),
            (0x70, 0x8003_8011),
            (0x80, 0x0003_0001),
            (0x84, 0x8003),
        ])
    }

    #[test]
    fn a_claim_silences_interrupts_and_leaves_the_bus_alone() {
        let config = config();
        let mut function = config.function();
        assert!(function.claim());
        assert_eq!(function.read32(4), 0x8010_0402);
        assert_eq!(function.find_capability(MSI).unwrap().extension, 0x80);
        assert_eq!(function.find_capability(MSI_X).unwrap().extension, 0x0003);
        assert!(function.master_bus());
        // No status bit was cleared.
        assert_eq!(function.read32(4), 0x8010_0406);
        assert!(function.cut_off());
        assert_eq!(function.read32(4), 0x8010_0402);
    }

    #[test]
    fn an_absent_function_is_not_taken() {
        let config = config();
        config.set_absent(true);
        let mut function = config.function();
        assert_eq!(function.id(), None);
        assert!(
            !function.claim() && !function.master_bus() && !function.cut_off() && !function.wake()
        );
        assert_eq!(function.bar(0), None);
    }

    #[test]
    fn bars_are_decoded_without_a_write() {
        let config = config();
        let function = config.function();
        let memory = |address| Some(Bar::Memory { address: PhysAddr(address) });
        assert_eq!(function.bar(0), memory(0xfebf_1000));
        assert_eq!(function.bar(1), Some(Bar::Io { port: 0xc040 }));
        assert_eq!(function.bar(2), None);
        assert_eq!(function.bar(4), memory(0x8_e000_0000));
        assert_eq!(function.bar(6), None);
        config.set(0x24, 0xe000_0004);
        assert_eq!(function.bar(5), None, "a 64-bit BAR needs a second register");
        assert!(config.writes().is_empty());
    }

    #[test]
    fn a_looping_capability_list_ends() {
        let config = config();
        config.set(0x80, 0x0003_5001);
        assert_eq!(config.function().capabilities().count(), 48);
        assert_eq!(config.function().find_capability(0x09), None);
        config.set(0x34, 0x3c);
        assert_eq!(config.function().capabilities().count(), 0, "a pointer into the header");
    }

    #[test]
    fn a_sleeping_function_is_woken_once() {
        let config = config();
        let mut function = config.function();
        assert!(function.wake());
        assert_eq!(config.writes().last(), Some(&(0x84, 0)));
        assert!(!function.wake());
    }
}
