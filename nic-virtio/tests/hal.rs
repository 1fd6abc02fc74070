//! The example of a kernel that has a `virtio_drivers::Hal`.

#![allow(unsafe_code, reason = "a `Hal` is called")]

#[path = "../examples/from_hal.rs"]
#[allow(dead_code, reason = "its `main`")]
mod from_hal;

use debugnet_core::addr::{DeviceAddr, PhysAddr, PhysRange};
use debugnet_core::nic::{Nic as _, Start};
use debugnet_core::time::{Clock, Instant};
use from_hal::{DmaPages, HalMap, HostHal, nic, still_device};
use nic_hal::DmaMap as _;

fn range(start: PhysAddr, len: u64) -> PhysRange {
    PhysRange::new(start, len).unwrap()
}

#[test]
fn rings_are_where_the_hal_put_them() {
    let mut region = DmaPages::alloc::<HostHal>(5000).unwrap().into_region().unwrap();
    assert_eq!(region.len(), 8192, "whole pages");
    region.write_le32(4096, 0x1234_5678).unwrap();
    let at = region.device_addr().0 - (1 << 32) + 4096;
    // SAFETY: the memory behind the region, which the device would look at.
    let seen = unsafe { std::ptr::with_exposed_provenance::<u32>(at as usize).read_volatile() };
    assert_eq!(seen, 0x1234_5678_u32.to_le());
}

#[test]
fn payload_is_reached_directly_or_through_the_cells_alone() {
    let (cells, own) = DmaPages::alloc::<HostHal>(4096).unwrap().into_cells().unwrap();
    assert_eq!((cells.bytes.len() as u64, cells.phys), (own.len(), Some(own.start())));
    let start = own.start();
    let elsewhere = range(PhysAddr(0x1000), 64);
    let beyond = range(start, own.len() + 1);
    for is_direct in [false, true] {
        let map = HalMap { cells: own, is_direct };
        assert_eq!(map.map(own), Some(DeviceAddr(start.0)));
        assert_eq!(map.map(range(PhysAddr(start.0 + 100), 64)), Some(DeviceAddr(start.0 + 100)));
        assert_eq!(map.map(elsewhere), is_direct.then_some(DeviceAddr(0x1000)));
        assert_eq!(map.map(beyond).is_some(), is_direct);
        assert_eq!(map.is_platform(), !is_direct);
    }
}

struct Counted(u64);

impl Clock for Counted {
    fn now(&mut self) -> Instant {
        Instant::from_micros(self.0)
    }
    fn relax(&mut self) {
        self.0 += 500;
    }
}

#[test]
fn a_device_is_known_by_its_registers_and_one_that_is_none_ends_the_take_over() {
    let map = || HalMap { cells: PhysRange::EMPTY, is_direct: true };
    // SAFETY: memory of our own that looks like a device.
    let mut nic = unsafe { nic::<HostHal>(still_device(), map()) }.expect("a device");
    let mut clock = Counted(0);
    let ended = (0..100_000).find_map(|_| {
        clock.relax();
        match nic.poll_start(&mut clock) {
            Ok(Start::Again { .. }) => None,
            other => Some(other),
        }
    });
    assert!(matches!(ended, Some(Err(_))), "{ended:?}: it has no features at all");

    let (_, page) =
        <HostHal as virtio_drivers::Hal>::dma_alloc(1, virtio_drivers::BufferDirection::Both);
    let blank = page.as_ptr().expose_provenance() as u64;
    // SAFETY: memory of our own.
    assert!(unsafe { from_hal::nic::<HostHal>(blank, map()) }.is_none(), "no magic");
}
