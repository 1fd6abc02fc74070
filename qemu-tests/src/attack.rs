//! What is done to a machine in the middle of its dump, from outside.

use std::io;
use std::thread::sleep;
use std::time::Duration;

use crate::qemu::NIC_ID;
use crate::qmp::Monitor;

/// What befalls the NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// The link is down for a moment, this many times.
    Flap(u32),
    /// The link goes down and stays down.
    Unlink,
    /// The NIC is pulled out, as an ACPI operating system ejects it. A PC's root bus only.
    Unplug,
    /// Somebody else resets the NIC through its ports: a legacy virtio status of 0, an
    /// Intel controller's `CTRL.RST`.
    Reset,
}

/// How long the link is down.
const FLAP: Duration = Duration::from_millis(300);
/// Ports of QEMU's ACPI hotplug on `pc`: eject a slot of the selected bus; select a bus.
const EJECT: u16 = 0xae08;
const SELECT: u16 = 0xae10;
/// Device status, in the ports of a legacy virtio device.
const VIRTIO_STATUS: u64 = 0x12;
/// Address and data of a register, in the ports of an Intel controller.
const IO_ADDRESS: u64 = 0;
const IO_DATA: u64 = 4;
/// Device control, and its reset bit.
const CTRL: u64 = 0;
const CTRL_RST: u64 = 1 << 26;
/// Transmit control, 0 after a reset.
const TCTL: u64 = 0x400;

/// An attack, and how much of it is done.
#[derive(Clone, Copy, Debug)]
pub struct Attacker {
    attack: Attack,
    total: u64,
    done: u32,
}

impl Attacker {
    /// An attack on the dump of `total` bytes of RAM, whose blows fall at even shares of it.
    pub fn new(attack: Attack, total: u64) -> Self {
        Self { attack, total, done: 0 }
    }

    /// How many bytes are sent when it is time for the next blow; `None` if all of them fell.
    pub fn due(&self) -> Option<u64> {
        let blows = u64::from(if let Attack::Flap(times) = self.attack { times } else { 1 });
        let next = u64::from(self.done) + 1;
        (next <= blows).then(|| self.total * next / (blows + 1))
    }

    /// Strikes.
    ///
    /// # Errors
    /// What QEMU says, or the NIC is not where it should be.
    pub fn strike(&mut self, monitor: &mut Monitor) -> io::Result<()> {
        self.done += 1;
        match self.attack {
            Attack::Flap(_) => {
                monitor.set_link("net0", false)?;
                sleep(FLAP);
                monitor.set_link("net0", true)
            }
            Attack::Unlink => monitor.set_link("net0", false),
            Attack::Unplug => {
                let slot = Nic::find(&monitor.human("info pci")?)?.slot;
                monitor.unplug(NIC_ID)?;
                monitor.human(&format!("o /w {SELECT:#x} 0"))?;
                monitor.human(&format!("o /w {EJECT:#x} {:#x}", 1_u32 << slot))?;
                let left = monitor.human("info pci")?;
                let is_gone = Nic::find(&left).is_err();
                if is_gone { Ok(()) } else { Err(io::Error::other("the NIC is still there")) }
            }
            Attack::Reset => {
                let nic = Nic::find(&monitor.human("info pci")?)?;
                // Stopped, so that it is seen before the driver has mended it.
                monitor.human("stop")?;
                let state = if nic.vendor == "1af4" {
                    monitor.human(&format!("o /b {:#x} 0", nic.ports + VIRTIO_STATUS))?;
                    monitor.human(&format!("i /b {:#x}", nic.ports + VIRTIO_STATUS))?
                } else {
                    let (address, data) = (nic.ports + IO_ADDRESS, nic.ports + IO_DATA);
                    monitor.human(&format!("o /w {address:#x} {CTRL:#x}"))?;
                    monitor.human(&format!("o /w {data:#x} {CTRL_RST:#x}"))?;
                    monitor.human(&format!("o /w {address:#x} {TCTL:#x}"))?;
                    monitor.human(&format!("i /w {data:#x}"))?
                };
                monitor.human("cont")?;
                let value = after(&state, "= 0x").map(str::trim_end);
                let is_reset = value.is_some_and(|v| u64::from_str_radix(v, 16) == Ok(0));
                let complaint = || io::Error::other(format!("not reset: {state}"));
                if is_reset { Ok(()) } else { Err(complaint()) }
            }
        }
    }
}

/// The NIC in QEMU's list of PCI functions.
#[derive(Debug, PartialEq, Eq)]
struct Nic {
    slot: u32,
    vendor: String,
    ports: u64,
}

impl Nic {
    fn find(list: &str) -> io::Result<Self> {
        let parse = || {
            let end = list.find(&format!("id \"{NIC_ID}\""))?;
            let begin = list[..end].rfind("Bus ")?;
            let block = &list[begin..end];
            let slot = after(block, "device ")?.split(',').next()?.trim().parse().ok()?;
            let vendor = after(block, "PCI device ")?.split(':').next()?.to_owned();
            let ports = after(block, "I/O at 0x")
                .and_then(|text| u64::from_str_radix(text.split(' ').next()?, 16).ok());
            Some(Self { slot, vendor, ports: ports.unwrap_or(0) })
        };
        parse().ok_or_else(|| io::Error::other(format!("no {NIC_ID} in:\n{list}")))
    }
}

fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    text.split_once(word).map(|(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemus_list_is_understood() {
        let list = "  Bus  0, device   1, function 3:\r\n    Bridge: PCI device 8086:7113\r\n      \
                    id \"\"\r\n  Bus  0, device   2, function 0:\r\n    Ethernet controller: PCI \
                    device 1af4:1000\r\n      BAR0: I/O at 0xc040 [0xc05f].\r\n      BAR1: 32 bit \
                    memory at 0xfebd1000 [0xfebd1fff].\r\n      id \"nic0\"\r\n";
        let nic = Nic { slot: 2, vendor: "1af4".into(), ports: 0xc040 };
        assert_eq!(Nic::find(list).unwrap(), nic);
        assert!(Nic::find("").is_err());
    }

    #[test]
    fn blows_fall_at_even_shares() {
        let mut attacker = Attacker::new(Attack::Flap(3), 400);
        assert_eq!(attacker.due(), Some(100));
        attacker.done = 2;
        assert_eq!(attacker.due(), Some(300));
        attacker.done = 3;
        assert_eq!(attacker.due(), None);
    }
}
