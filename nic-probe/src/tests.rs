use std::collections::BTreeSet;
use std::string::String;
use std::vec::Vec;
use std::{format, include_str};

use debugnet_core::addr::DeviceAddr;
use debugnet_core::nic::{Nic, NicError};
use nic_hal::host::{HostConfig, HostMemory};
use nic_hal::{Identity, Mmio};

use super::*;

/// The table as the README shows it.
fn shown() -> String {
    entries().fold(String::new(), |text, entry| {
        let tested = match entry.tested {
            Tested::Qemu => "in QEMU",
            Tested::DataSheet => "by data sheet",
        };
        let (id, driver) = (format!("{:04x}:{:04x}", entry.vendor, entry.device), entry.driver);
        format!("{text}| `{id}` | {} | `{}` | {tested} |\n", entry.name, driver.name())
    })
}

#[test]
fn the_readme_shows_the_table() {
    let readme = include_str!("../README.md");
    let (_, behind) = readme.split_once("<!-- table -->\n").unwrap();
    let (table, _) = behind.split_once("<!-- end -->").unwrap();
    let head = "| PCI id | part | driver | tested |\n|---|---|---|---|\n";
    assert_eq!(table, format!("{head}{}", shown()));
}

#[test]
fn every_pair_of_ids_has_one_driver_that_knows_it() {
    let mut seen = BTreeSet::new();
    for entry in entries() {
        assert!(seen.insert((entry.vendor, entry.device)), "{entry:?} twice");
        let known = match entry.driver {
            Driver::VirtioNet => nic_virtio::transport::pci_modern::is_virtio_net,
            Driver::E1000 => nic_e1000::is_e1000,
        };
        assert!(known(entry.vendor, entry.device), "{entry:?}");
        assert_eq!(identify(entry.vendor, entry.device), Ok(entry));
    }
}

#[test]
fn others_are_refused_and_a_relative_is_told_why() {
    assert_eq!(identify(0x10ec, 0x8139), Err(NicError::Unknown { id: 0x10ec_8139 }));
    assert_eq!(identify(0x1af4, 0x1042), Err(NicError::Unknown { id: 0x1af4_1042 }));
    for (device, word) in [(0x15b8, "chipset"), (0x10ca, "virtual function"), (0x15f3, "I225")] {
        let Err(NicError::Unsupported(why)) = identify(0x8086, device) else { panic!("driven") };
        assert!(why.contains(word), "{why}");
    }
}

/// A function with these ids, one memory BAR, and no capabilities.
fn function(id: u32) -> HostConfig {
    HostConfig::new([(0, id), (4, 2), (0x10, 0xfeb0_0000)])
}

#[derive(Debug)]
struct Dead(usize);

impl nic_hal::Registers for Dead {
    fn window_len(&self) -> usize {
        self.0
    }
    fn read8(&mut self, _: usize) -> Result<u8, nic_hal::BadAccess> {
        Ok(u8::MAX)
    }
    fn read16(&mut self, _: usize) -> Result<u16, nic_hal::BadAccess> {
        Ok(u16::MAX)
    }
    fn read32(&mut self, _: usize) -> Result<u32, nic_hal::BadAccess> {
        Ok(u32::MAX)
    }
    fn write8(&mut self, _: usize, _: u8) -> Result<(), nic_hal::BadAccess> {
        panic!("written at boot")
    }
    fn write16(&mut self, _: usize, _: u16) -> Result<(), nic_hal::BadAccess> {
        panic!("written at boot")
    }
    fn write32(&mut self, _: usize, _: u32) -> Result<(), nic_hal::BadAccess> {
        panic!("written at boot")
    }
}

#[test]
fn a_function_gets_its_driver_and_the_memory_it_asked_for() {
    for (id, driver) in [(0x10d3_8086, Driver::E1000), (0x1000_1af4, Driver::VirtioNet)] {
        let mut words = Vec::from([(0, id), (4, 2), (0x10, 0xfeb0_0000)]);
        if driver == Driver::VirtioNet {
            // Ports, and the subsystem of a network device: a legacy one.
            words[2].1 = 0xc001;
            words.push((0x2c, 0x0001_1af4));
        }
        let config = HostConfig::new(words);
        let probe = || {
            Device::<_, Dead, Dead>::probe(
                config.function(),
                |_, len| Some(Dead(len)),
                |_, count| Some(Dead(count.into())),
            )
            .unwrap()
        };
        let need = probe().memory_needed();
        assert!(need <= MEMORY_NEEDED);
        let memory = |len| HostMemory::leak(len, DeviceAddr(0x10_0000)).region();
        let nic = probe().driver(memory(need), Identity::new()).unwrap();
        assert_eq!(nic.driver(), driver);
        // One piece too few is an error that says how much is missing.
        let short = probe().driver(memory(need - 8192), Identity::new()).unwrap_err();
        assert_eq!(short, NicError::Memory { need, have: need - 8192 });
        assert!(config.writes().is_empty(), "boot writes nothing");
        // A device of ones is found to be dead when it is taken over.
        let mut nic = nic.with_ip_mtu(1400);
        assert!(nic.poll_tx().is_err());
        config.set_absent(true);
        let mut clock =
            debugnet_core::time::CounterClock::new(|| 0u64, core::num::NonZeroU64::MIN, u64::MAX);
        assert_eq!(nic.poll_start(&mut clock), Err(NicError::Gone));
    }
}

#[test]
fn what_cannot_be_reached_is_an_error() {
    let probe = |id| {
        Device::<_, Mmio, Mmio>::probe(function(id).function(), |_, _| None, |_, _| None)
            .map(|_| ())
    };
    assert_eq!(probe(0x10d3_8086), Err(NicError::NotReachable));
    assert_eq!(probe(0x8139_10ec), Err(NicError::Unknown { id: 0x10ec_8139 }));
    assert!(matches!(probe(0x1041_1af4), Err(NicError::Unsupported(_))));
    assert_eq!(probe(u32::MAX), Err(NicError::Gone));
}
