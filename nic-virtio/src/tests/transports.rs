//! The driver over each transport, and what only older interfaces do to a driver.

use debugnet_core::nic::{ChecksumOffload, RxError};
use nic_hal::host::HostConfig;

use super::*;
use crate::fake::{Bus, FakeWindow};
use crate::transport::status;
use crate::{AnyTransport, PciLegacy};

const LEGACY: [Bus; 2] = [Bus::PciLegacy, Bus::MmioV1];

/// Sends a frame of a header and two pieces of payload, and receives one.
fn exchange(fake: &FakeVirtio, nic: &mut FakeDriver, number: u32) {
    let header = header(number);
    let ranges = [fake.payload(0x100, b"one piece, "), fake.payload(0x8000, b"and another")];
    let payload = Payload::Dma(&ranges);
    let frame = TxFrame { header: &header, payload, checksum: Checksum::Complete };
    let ticket = nic.transmit(&frame).unwrap();
    nic.kick();
    let frames = fake.fetch_frames();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].1, [0; 12]);
    assert_eq!(frames[0].2, [&header[..], b"one piece, and another"].concat());
    fake.push_used(TX, frames[0].0.into(), 0);
    assert_eq!(nic.poll_tx(), Ok(ticket));

    let received = [number.to_le_bytes(); 20].concat();
    assert!(fake.deliver(&received));
    let mut buf = [0; 100];
    assert_eq!(nic.receive(&mut buf), Ok(Some(80)));
    assert_eq!(buf[..80], received);
}

#[test]
fn every_transport_takes_over_sends_and_receives() {
    for bus in Bus::ALL {
        let quirks = Quirks { reset_looks: 5, ..Quirks::on(bus) };
        let (fake, mut nic) = running_on(quirks);
        assert_eq!(fake.resets(), 1, "{bus:?}");
        assert_eq!(fake.status(), if bus.is_legacy() { 0x07 } else { 0x0f }, "{bus:?}");
        assert_eq!(fake.take_doorbells(), [(RX, 0)]);
        let capabilities = nic.capabilities();
        assert_eq!((capabilities.mac, capabilities.tx_slots), (quirks.mac, 85));
        assert_eq!(nic.link(), debugnet_core::nic::Link::Up);
        for number in 0..times(1_000, 20) {
            exchange(&fake, &mut nic, number);
        }
        nic.stop().unwrap();
        assert_eq!(fake.status(), 0);
        start(&mut nic, &mut TestClock::default()).unwrap();
        exchange(&fake, &mut nic, 7);
        assert_clean(&fake);
    }
}

#[test]
fn no_transport_touches_its_device_before_the_crash() {
    for bus in Bus::ALL {
        let fake = FakeVirtio::with_sizes(Quirks::on(bus), Sizes::ANY);
        let _nic = fake.driver_with(Identity::new(), Sizes::ANY);
        assert!(fake.config().writes().is_empty());
        assert_eq!((fake.status(), fake.resets()), (0x0f, 0));
        assert_clean(&fake);
    }
}

#[test]
fn queues_of_every_length() {
    for bus in Bus::ALL {
        for len in [64, 128, 256, 512, 1024].into_iter().take(times(5, 1) as usize) {
            // Legacy PCI: that length and no other. Elsewhere: as long as ours.
            let quirks = Quirks { queue_len: [len, len, 64], ..Quirks::on(bus) };
            let sizes = Sizes::new(1024, 128).unwrap().with_legacy(1024).unwrap();
            let (fake, nic) = try_running_on(quirks, sizes);
            let mut nic = nic.unwrap();
            assert_eq!(nic.capabilities().tx_slots, len / 3, "{bus:?} {len}");
            for number in 0..times(300, 10) {
                exchange(&fake, &mut nic, number);
            }
            while send(&mut nic, 0).is_ok() {}
            nic.kick();
            assert_eq!(fake.fetch_frames().len(), usize::from(len / 3));
            let mut buffers = 0;
            while fake.deliver(&[1; 60]) {
                buffers += 1;
            }
            // Less than a quarter may wait for the next batch.
            assert!(buffers > 128.min(len) * 3 / 4 && buffers <= 128, "{bus:?} {len}: {buffers}");
            assert_clean(&fake);
        }
    }
}

#[test]
fn a_legacy_queue_is_as_long_as_the_device_says() {
    // Cells for 85 frames; the ring stays at the device's 1024 entries all the same.
    let quirks = Quirks { queue_len: [1024, 1024, 64], ..Quirks::on(Bus::PciLegacy) };
    let (fake, mut nic) = running_on(quirks);
    assert_eq!(nic.capabilities().tx_slots, 85);
    for number in 0..times(2_000, 20) {
        exchange(&fake, &mut nic, number);
    }
    assert_clean(&fake);
    // One that our memory does not hold, and lengths that cannot be.
    let sizes = Sizes::DEFAULT.with_legacy(256).unwrap();
    let (fake, nic) = try_running_on(quirks, sizes);
    assert!(matches!(nic, Err(NicError::Memory { need: 32_768, have: 12_288 })));
    assert!(fake.margins_are_untouched());
    assert_eq!(fake.status() & status::FAILED, status::FAILED);
    for (queue_len, supported) in
        [([100, 256, 0], true), ([0, 256, 0], false), ([256, 2, 0], false)]
    {
        let quirks = Quirks { queue_len, ..Quirks::on(Bus::PciLegacy) };
        let (fake, nic) = try_running_on(quirks, Sizes::ANY);
        let error = nic.map(drop).unwrap_err();
        assert_eq!(matches!(error, NicError::Protocol(_)), supported, "{queue_len:?}: {error:?}");
        assert_clean(&fake);
    }
}

#[test]
fn legacy_frames_have_a_header_of_ten_bytes() {
    for bus in LEGACY {
        let (fake, mut nic) = running_on(Quirks::on(bus));
        send(&mut nic, 1).unwrap();
        nic.kick();
        let chain = fake.fetch(TX).unwrap();
        let len: u32 = chain.buffers.iter().map(|(_, len)| len).sum();
        assert_eq!(len as usize, 10 + header(1).len());
        // The shortest frame QEMU delivers unpadded, and lengths that cannot be.
        let mut buf = [0; 100];
        assert!(fake.deliver(&[9; 17]));
        assert_eq!((nic.receive(&mut buf), buf[16], buf[17]), (Ok(Some(17)), 9, 0));
        for len in [0, 10, 23, 2049, u32::MAX] {
            assert!(fake.deliver_as([0; 12], &[1; 60], len));
            assert_eq!(nic.receive(&mut buf), Err(RxError::Malformed), "{len}");
        }
        assert!(fake.deliver_as([0; 12], &[1; 60], 24));
        assert_eq!(nic.receive(&mut buf), Ok(Some(14)));
        assert_clean(&fake);
    }
}

#[test]
fn without_any_layout_the_header_is_in_a_buffer_of_its_own() {
    for bus in LEGACY {
        let offered = features::MAC | features::STATUS;
        let (fake, mut nic) = running_on(Quirks { features: offered, ..Quirks::on(bus) });
        assert_eq!((fake.accepted(), nic.capabilities().tx_slots), (offered, 64));
        for number in 0..times(1_000, 20) {
            exchange(&fake, &mut nic, number);
        }
        send(&mut nic, 1).unwrap();
        nic.kick();
        let chain = fake.fetch(TX).unwrap();
        assert_eq!(chain.buffers.iter().map(|(_, len)| *len).collect::<Vec<_>>(), [10, 66]);
        // A completion or a buffer that names the second descriptor of a chain is a lie.
        fake.push_used(TX, u32::from(chain.head) + 1, 0);
        assert_eq!((nic.poll_tx().map(drop), nic.counters().resets), (Ok(()), 1));
        assert_clean(&fake);
        let (fake, mut nic) = running_on(Quirks { features: offered, ..Quirks::on(bus) });
        let chain = fake.fetch(RX).unwrap();
        fake.push_used(RX, u32::from(chain.head) + 1, 70);
        assert_eq!((nic.receive(&mut [0; 60]), nic.counters().resets), (Ok(None), 1));
        // A queue too short for one such buffer.
        let quirks = Quirks { features: offered, queue_len: [1, 256, 0], ..Quirks::on(bus) };
        let (_, nic) = try_running_on(quirks, Sizes::ANY);
        assert!(matches!(nic, Err(NicError::Unsupported(_))));
    }
}

#[test]
fn the_address_is_read_behind_msi_x_where_that_stays_on() {
    // Off: the dead kernel's MSI-X is switched off before the configuration is read.
    let (fake, nic) = running_on(Quirks::on(Bus::PciLegacy));
    assert_eq!(fake.config().get(0x40) >> 31, 0);
    assert_eq!(nic.capabilities().mac, Quirks::default().mac);
    // It does not let itself be switched off: the configuration is 4 bytes further up.
    let quirks = Quirks { mtu: 1400, ..Quirks::on(Bus::PciLegacy) };
    let fake =
        FakeVirtio::with_sizes(Quirks { features: quirks.features | 8, ..quirks }, Sizes::ANY);
    fake.config().freeze(0x40);
    let mut nic = fake.driver_with(Identity::new(), Sizes::ANY);
    start(&mut nic, &mut TestClock::default()).unwrap();
    assert_eq!(nic.capabilities().mac, Quirks::default().mac);
    // The MTU would be behind the ports that a device surely has: not agreed to.
    assert_eq!((nic.capabilities().ip_mtu, fake.accepted() & features::MTU), (1500, 0));
    exchange(&fake, &mut nic, 1);
    assert_clean(&fake);
}

#[test]
fn queues_that_survive_a_reset_are_taken_off_their_page() {
    for bus in LEGACY {
        let (fake, mut nic) = running_on(Quirks { keeps_queues: true, ..Quirks::on(bus) });
        exchange(&fake, &mut nic, 1);
        nic.stop().unwrap();
        start(&mut nic, &mut TestClock::default()).unwrap();
        exchange(&fake, &mut nic, 2);
        assert_clean(&fake);
    }
    // On version 2 nothing of the kind is allowed to happen, nor to be cured.
    let quirks = Quirks { keeps_queues: true, ..Quirks::on(Bus::MmioV2) };
    let (fake, nic) = try_running_on(quirks, Sizes::ANY);
    assert!(matches!(nic, Err(NicError::Protocol(_))));
    assert_clean(&fake);
}

#[test]
fn bad_feature_is_not_acknowledged() {
    for bus in LEGACY {
        let quirks = Quirks { features: 0xffff_ffff, mtu: 1500, ..Quirks::on(bus) };
        let (fake, mut nic) = running_on(quirks);
        assert_eq!(fake.accepted() & features::BAD_FEATURE, 0);
        assert_eq!(fake.accepted() & 1 << 15, 0, "MRG_RXBUF would lengthen the header");
        exchange(&fake, &mut nic, 1);
        assert_clean(&fake);
    }
}

#[test]
fn every_transport_leaves_the_checksum_to_a_device_that_inserts_it() {
    for bus in Bus::ALL {
        let quirks = Quirks::on(bus);
        let quirks = Quirks { features: quirks.features | features::CSUM, ..quirks };
        let (fake, mut nic) = running_on(quirks);
        assert_eq!(nic.capabilities().checksum, ChecksumOffload::Insert);
        let checksum = Checksum::Insert { start: 34, offset: 6 };
        let frame = TxFrame { header: &header(0), payload: Payload::None, checksum };
        nic.transmit(&frame).unwrap();
        nic.kick();
        let frames = fake.fetch_frames();
        assert_eq!(frames[0].1, [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0], "{bus:?}");
        assert_eq!(frames[0].2, header(0));
        assert_clean(&fake);
    }
}

#[test]
fn an_mtu_is_read_over_every_transport() {
    for bus in Bus::ALL {
        let quirks = Quirks::on(bus);
        let features = quirks.features | features::MTU;
        let (fake, mut nic) = running_on(Quirks { features, mtu: 9000, ..quirks });
        assert_eq!(nic.capabilities().ip_mtu, 9000);
        let frame = [0x5a; 9014];
        assert!(fake.deliver(&frame));
        let mut buf = [0; 9014];
        assert_eq!((nic.receive(&mut buf), buf), (Ok(Some(9014)), frame));
        assert_clean(&fake);
    }
}

#[test]
fn mmio_doorbells_carry_the_index_if_that_was_agreed() {
    for data in [false, true] {
        let quirks = Quirks::on(Bus::MmioV2);
        let more = if data { features::NOTIFICATION_DATA } else { 0 };
        let (fake, mut nic) = running_on(Quirks { features: quirks.features | more, ..quirks });
        fake.take_doorbells();
        for batch in 1..=3u32 {
            send(&mut nic, batch).unwrap();
            nic.kick();
            let value = if data { batch << 16 | 1 } else { 1 };
            assert_eq!(fake.take_doorbells(), [(TX, value)]);
        }
        assert_clean(&fake);
    }
}

#[test]
fn an_address_that_never_stands_still() {
    for bus in Bus::ALL {
        let (_, nic) = try_running_on(Quirks { restless: true, ..Quirks::on(bus) }, Sizes::ANY);
        assert!(matches!(nic, Err(NicError::Protocol(_))), "{bus:?}");
    }
}

#[test]
fn slots_without_a_network_device() {
    const MAGIC: u32 = 0x7472_6976;
    for (identity, expected) in [
        ([MAGIC, 2, 0], NicError::Gone),
        ([MAGIC + 1, 2, 1], NicError::Gone),
        ([u32::MAX; 3], NicError::Gone),
        ([MAGIC, 2, 2], NicError::Unknown { id: 2 }),
        ([MAGIC, 3, 1], NicError::Unsupported("virtio MMIO version is neither 1 nor 2")),
        ([MAGIC, 0, 1], NicError::Unsupported("virtio MMIO version is neither 1 nor 2")),
    ] {
        let fake = FakeVirtio::new(Quirks { identity: Some(identity), ..Quirks::on(Bus::MmioV2) });
        assert_eq!(fake.transport().map(drop).unwrap_err(), expected, "{identity:x?}");
        // The same, found only at the crash.
        let fake = FakeVirtio::new(Quirks::on(Bus::MmioV2));
        let mut nic = fake.driver();
        fake.change(|quirks| quirks.identity = Some(identity));
        assert_eq!(start(&mut nic, &mut TestClock::default()), Err(expected));
        assert_eq!(fake.resets(), 0);
    }
    let fake = FakeVirtio::new(Quirks::on(Bus::MmioV2));
    let mut nic = fake.driver();
    fake.change(|quirks| quirks.identity = Some([MAGIC, 1, 1]));
    let error = start(&mut nic, &mut TestClock::default()).unwrap_err();
    assert!(matches!(error, NicError::Protocol(_)));
}

#[test]
fn functions_without_a_legacy_interface() {
    let broken = |offset: u16, word: u32| {
        let fake = FakeVirtio::with_sizes(Quirks::on(Bus::PciLegacy), Sizes::ANY);
        fake.config().set(offset, word);
        fake.transport().map(drop).unwrap_err()
    };
    assert_eq!(broken(0x00, 0x1041_1af4), NicError::Unknown { id: 0x1af4_1041 });
    // Another revision, another kind of device, a BAR of memory, one without a port.
    for (offset, word) in [(0x08, 0x0200_0001), (0x2c, 2 << 16), (0x10, 0xfebd_0000), (0x10, 1)] {
        assert!(matches!(broken(offset, word), NicError::Unsupported(_)), "{offset:#x}");
    }
    let fake = FakeVirtio::with_sizes(Quirks::on(Bus::PciLegacy), Sizes::ANY);
    let none = PciLegacy::probe(fake.config().function(), |_, _| None::<FakeWindow>);
    assert_eq!(none.map(drop).unwrap_err(), NicError::NotReachable);
}

#[test]
fn a_function_is_driven_through_the_modern_interface_if_it_has_one() {
    let window = |fake: &FakeVirtio| {
        let config: &HostConfig = fake.config();
        AnyTransport::<_, crate::fake::FakeWindow, FakeWindow>::probe_pci(
            config.function(),
            |_, _| None,
            |_, _| None,
        )
        .map(drop)
    };
    // Neither map gives a window: which one was asked shows in the other device's absence.
    let modern = FakeVirtio::new(Quirks::default());
    modern.config().set(0x00, 0x1000_1af4);
    modern.config().set(0x10, 0);
    assert_eq!(window(&modern), Err(NicError::NotReachable));
    let legacy = FakeVirtio::new(Quirks::on(Bus::PciLegacy));
    assert_eq!(window(&legacy), Err(NicError::NotReachable));
    legacy.config().set(0x10, 0);
    assert!(matches!(window(&legacy), Err(NicError::Unsupported(_))));
}

#[test]
fn memory_that_a_legacy_device_cannot_be_told() {
    use debugnet_core::addr::DeviceAddr;
    use nic_hal::host::HostMemory;
    // Page numbers have 32 bits: 16 TiB.
    for (at, reachable) in [(0xfff_ff00_0000, true), (0x1000_0000_0000, false)] {
        let fake = FakeVirtio::with_sizes(Quirks::on(Bus::PciLegacy), Sizes::ANY);
        let memory = HostMemory::leak(Sizes::ANY.memory_needed(), DeviceAddr(at));
        let transport = fake.transport().unwrap();
        let mut nic = crate::VirtioNet::new(transport, memory.region(), Identity::new()).unwrap();
        let started = start(&mut nic, &mut TestClock::default());
        assert_eq!(started, if reachable { Ok(()) } else { Err(NicError::NotReachable) });
    }
    // Memory for a modern device only.
    let fake = FakeVirtio::with_sizes(Quirks::on(Bus::MmioV1), Sizes::ANY);
    let memory = HostMemory::leak(crate::MEMORY_NEEDED, DeviceAddr(0x10_0000));
    let short = crate::VirtioNet::new(fake.transport().unwrap(), memory.region(), Identity::new());
    assert!(matches!(short, Err(NicError::Memory { .. })));
}

#[test]
fn a_reset_that_is_never_confirmed_ends_on_every_transport() {
    for bus in Bus::ALL {
        let quirks = Quirks { reset_looks: u32::MAX, ..Quirks::on(bus) };
        let (fake, nic) = try_running_on(quirks, Sizes::ANY);
        assert_eq!(nic.map(drop), Err(NicError::Timeout("virtio reset")), "{bus:?}");
        assert!(!fake.config().is_bus_master());
        assert_clean(&fake);
        let (fake, mut nic) = running_on(Quirks::on(bus));
        fake.change(|quirks| quirks.gone = true);
        assert_eq!(nic.stop(), Err(NicError::Gone), "{bus:?}");
    }
}
