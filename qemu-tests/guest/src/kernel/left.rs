//! The state a device is left in by a kernel that dies at the wrong moment.

use debugnet_core::addr::PhysAddr;
use debugnet_core::nic::{Nic, Start, TxTicket};
use guest::cmdline::Left;
use nic_hal::pci_types::{ConfigRegionAccess, PciAddress};
use nic_hal::{Bar, Mmio, PciFunction, Registers};

use super::driver::{Device, MEMORY_NEEDED};
use super::live::Driver;
use super::traffic::Talk;
use super::{arch, fatal};

/// How long the network takes no frame.
const HOLD_MS: u16 = 400;
/// Pause in which a device meets what was done to its rings.
const NOTICE_US: u64 = 100_000;

/// Configuration space: the command register and its bits, and two capabilities.
const COMMAND: u16 = 0x04;
const DECODE: u32 = 3;
const BUS_MASTER: u32 = 4;
const POWER_MANAGEMENT: u8 = 0x01;
const D3_HOT: u32 = 3;
const MSI_X: u8 = 0x11;
const MSI_X_ENABLE: u32 = 1 << 31;

/// Does to the device what `left` says. The live driver's rings are at `memory`, the last frame
/// that it gave to the device has the ticket `last`, and it took `bringup_steps` steps to bring
/// the device up.
pub(super) fn leave(
    left: &Left,
    device: Device,
    talk: &mut Talk<'_, Driver>,
    memory: PhysAddr,
    mut last: TxTicket,
    bringup_steps: u32,
) {
    let pci = || {
        let address = device.pci_address();
        address.unwrap_or_else(|| fatal(format_args!("left: {device} is not on a PCI bus")))
    };
    if left.stuck {
        match talk.get_stuck(HOLD_MS) {
            Ok(ticket) => last = ticket,
            Err(error) => fatal(format_args!("left=stuck: {error:?}")),
        }
    }
    if left.msi_x {
        set_capability(pci(), MSI_X, 0, MSI_X_ENABLE);
    }
    if left.pending {
        intel_registers(device).set(&[(INTEL_TCTL, 0)]);
        announce(talk);
    }
    if left.bus_off {
        clear_command(pci(), BUS_MASTER);
        announce(talk);
    }
    if left.undecoded {
        clear_command(pci(), DECODE);
        announce(talk);
    }
    if left.stopped || left.half {
        // Whether it can be: the kernel dies in any case.
        let _ = talk.nic.stop();
    }
    if left.half {
        for _ in 0..bringup_steps / 2 {
            if !matches!(talk.nic.poll_start(talk.clock), Ok(Start::Again { .. })) {
                fatal(format_args!("left=half: the device came up at once"));
            }
        }
    }
    if left.garbage {
        // A frame that is overwritten while a slow device reads it goes out as nonsense, which
        // would be held against the dump. A device that is deaf by now reads nothing.
        let is_deaf = left.pending || left.bus_off || left.undecoded || left.stopped || left.half;
        if !is_deaf && let Err(error) = talk.drain(last) {
            fatal(format_args!("left=garbage: {error:?}"));
        }
        overwrite(memory);
        if let Device::Intel(_) = device {
            intel_registers(device).set(&intel_garbage(memory));
        }
        let until = talk.clock.now().after(NOTICE_US);
        while talk.clock.now() < until {
            talk.clock.relax();
        }
    }
    if left.asleep {
        set_capability(pci(), POWER_MANAGEMENT, 4, D3_HOT);
    }
}

/// Frames that the device is told about, and may or may not hear of.
fn announce(talk: &mut Talk<'_, Driver>) {
    talk.doom(8);
    talk.nic.kick();
}

fn function(address: PciAddress) -> PciFunction<impl ConfigRegionAccess> {
    // SAFETY: the function exists, and the live driver, which is under our lock, has it.
    unsafe { PciFunction::new(arch::pci_access(), address) }
}

fn write_config(address: PciAddress, offset: u16, value: u32) {
    // SAFETY: an aligned word of the first 256 bytes; the live kernel owns the device,
    // and what becomes of it is what the test asked for.
    unsafe { arch::pci_access().write(address, offset, value) };
}

fn clear_command(address: PciAddress, bits: u32) {
    let command = function(address).read32(COMMAND) & 0xffff;
    write_config(address, COMMAND, command & !bits);
}

/// Sets `bits` in the word `offset` bytes into a capability.
fn set_capability(address: PciAddress, id: u8, offset: u16, bits: u32) {
    let function = function(address);
    let Some(capability) = function.find_capability(id) else {
        fatal(format_args!("left: {address} has no capability {id:#x}"));
    };
    let at = capability.offset + offset;
    write_config(address, at, function.read32(at) | bits);
}

/// Writes nonsense over the rings and buffers of the live driver.
fn overwrite(memory: PhysAddr) {
    const NONSENSE: u64 = 0x5a5a_5a5a_5a5a_5a5a;
    for at in (memory.0..).step_by(8).take(MEMORY_NEEDED / 8) {
        // SAFETY: the live driver's memory, under our lock; whoever reads it next
        // is the device.
        unsafe { arch::write_word(PhysAddr(at), NONSENSE) };
    }
}

/// Intel's transmit control register (8254x SDM section 13.4.33).
const INTEL_TCTL: usize = 0x400;

/// Registers of a controller.
struct Intel(Mmio);

/// The registers of a controller of Intel's.
fn intel_registers(device: Device) -> Intel {
    const WINDOW_LEN: usize = 0x1_0000;
    let Device::Intel(controller) = device else {
        fatal(format_args!("left: {device} is not one of Intel's controllers"));
    };
    let bar = function(controller.pci_address()).bar(0);
    let Some(Bar::Memory { address }) = bar else {
        fatal(format_args!("left: {device} has no registers"));
    };
    // SAFETY: the live driver mapped these registers, and is under our lock.
    let window = unsafe { Mmio::at(address.0 as usize, WINDOW_LEN) };
    window.map_or_else(|| fatal(format_args!("left: no way to {device}")), Intel)
}

impl Intel {
    fn set(&mut self, registers: &[(usize, u32)]) {
        for (offset, value) in registers {
            if self.0.write32(*offset, *value).is_err() {
                fatal(format_args!("left: no register {offset:#x}"));
            }
        }
    }
}

/// Values that no driver would leave: stale rings in nonsense memory, loopback,
/// forced speed, pause frames, a promiscuous receiver with other descriptors, filters, arbitration
/// off, and write-back of the transmit head into the kernel.
fn intel_garbage(memory: PhysAddr) -> [(usize, u32); 34] {
    let low = memory.0 as u32;
    let code = arch::image().start().0 as u32;
    [
        (0x0400, 0),           // TCTL
        (0x0100, 0),           // RCTL
        (0x5008, 0x8000),      // RFCTL: extended descriptors
        (0x5000, 0x2300),      // RXCSUM
        (0x5818, 0x0000_0001), // MRQC: RSS
        (0x581c, 0x0000_0001), // VT_CTL
        (0x5200, u32::MAX),    // MTA
        (0x5600, u32::MAX),    // VFTA
        (0xa000, u32::MAX),    // UTA
        (0x5408, 0x3412_0202), // RAL1
        (0x540c, 0x8000_7856), // RAH1
        (0x5800, 2),           // WUC
        (0x3840, 0),           // TARC0
        (0x3828, 0x003f_3f3f), // TXDCTL
        (0x2828, 0x003f_3f3f), // RXDCTL
        (0x2800, low),         // RDBAL
        (0x2804, 0),           // RDBAH
        (0x2808, 0x80),        // RDLEN
        (0x2810, 7),           // RDH
        (0x2818, 5),           // RDT
        (0x3800, low),         // TDBAL
        (0x3804, 0),           // TDBAH
        (0x3808, 0x80),        // TDLEN
        (0x3810, 1),           // TDH
        (0x3818, 6),           // TDT
        (0xe038, code | 1),    // igb TDWBAL
        (0xe03c, 0),           // igb TDWBAH
        (0x5004, 64),          // igb RLPML
        (0x1524, u32::MAX),    // igb EIMS
        (0x1514, 0x8000_0011), // igb GPIE
        (0x00d0, u32::MAX),    // IMS
        // CTRL: as a reset leaves it, forced to 10 Mb/s half duplex, pause frames, VLAN tags off.
        (0x0000, 0x5800_1840),
        // RCTL: on, promiscuous, loopback, long packets, other descriptors.
        (0x0100, 0x0000_04fa),
        (0x3810, 1), // TDH again
    ]
}
