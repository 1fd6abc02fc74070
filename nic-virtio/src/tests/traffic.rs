//! Frames both ways over an honest device.

use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::nic::{ChecksumOffload, RxError};
use nic_hal::Limited;

use super::*;

#[test]
fn the_device_sees_header_and_payload_and_nothing_else() {
    let (fake, mut nic) = running(Quirks::default());
    let one = fake.payload(0x100, b"first run of memory");
    let two = fake.payload(0x8000, b"second");
    for (number, ranges) in
        [(1, vec![]), (2, vec![one]), (3, vec![one, two]), (4, vec![PhysRange::EMPTY, two])]
    {
        let header = header(number);
        let payload = Payload::Dma(&ranges);
        nic.transmit(&TxFrame { header: &header, payload, checksum: Checksum::Complete }).unwrap();
    }
    // Nothing before the kick.
    assert_eq!(fake.fetch(TX), None);
    nic.kick();
    let frames: Vec<_> = fake.fetch_frames().into_iter().map(|(_, _, frame)| frame).collect();
    assert_eq!(frames[0], header(1));
    assert_eq!(frames[1], [&header(2)[..], b"first run of memory"].concat());
    assert_eq!(frames[2], [&header(3)[..], b"first run of memory", b"second"].concat());
    assert_eq!(frames[3], [&header(4)[..], b"second"].concat());
    assert_eq!(frames.len(), 4);
    assert_clean(&fake);
}

#[test]
fn payload_is_fetched_in_place_and_not_copied() {
    let (fake, mut nic) = running(Quirks::default());
    let range = fake.payload(0x100, b"before");
    let frame = TxFrame {
        header: &header(1),
        payload: Payload::Dma(&[range]),
        checksum: Checksum::Complete,
    };
    nic.transmit(&frame).unwrap();
    fake.payload(0x100, b"after!");
    nic.kick();
    let chain = fake.fetch(TX).unwrap();
    assert_eq!(chain.buffers[1], (range.start().0, 6));
}

#[test]
fn one_doorbell_a_batch_and_none_if_asked() {
    let (fake, mut nic) = running(Quirks::default());
    for number in 0..20 {
        send(&mut nic, number).unwrap();
    }
    assert!(fake.take_doorbells().is_empty());
    nic.kick();
    nic.kick();
    assert_eq!(fake.take_doorbells(), [(TX, 1)]);
    fake.suppress_doorbell(TX, true);
    send(&mut nic, 20).unwrap();
    nic.kick();
    assert!(fake.take_doorbells().is_empty());
    assert_eq!(fake.fetch_frames().len(), 21);
    assert_clean(&fake);
}

#[test]
fn doorbells_that_share_an_offset_and_carry_the_index() {
    let (fake, mut nic) = running(Quirks {
        features: features::VERSION_1 | features::MAC | features::NOTIFICATION_DATA,
        notify_off: [3, 3, 3],
        ..Quirks::default()
    });
    for batch in 1..=3u32 {
        send(&mut nic, batch).unwrap();
        send(&mut nic, batch).unwrap();
        nic.kick();
        assert_eq!(fake.take_doorbells(), [(TX, ((batch * 2) << 16) | 1)]);
    }
    assert_clean(&fake);
}

#[test]
fn a_full_ring_loses_nothing() {
    let (fake, mut nic) = running(Quirks::default());
    let slots = u32::from(nic.capabilities().tx_slots);
    for number in 0..slots {
        assert_eq!(send(&mut nic, number), Ok(TxTicket(u64::from(number) + 1)));
    }
    for _ in 0..3 {
        assert_eq!(send(&mut nic, 999), Err(TxError::Full));
    }
    nic.kick();
    let frames = fake.fetch_frames();
    assert_eq!(frames.len() as u32, slots);
    for (number, (_, _, frame)) in frames.iter().enumerate() {
        assert_eq!(*frame, header(number as u32));
    }
    assert_eq!(send(&mut nic, 999), Err(TxError::Full));
    fake.push_used(TX, frames[0].0.into(), 0);
    assert_eq!(nic.poll_tx(), Ok(TxTicket(1)));
    assert_eq!(send(&mut nic, slots), Ok(TxTicket(u64::from(slots) + 1)));
    assert_eq!(send(&mut nic, 999), Err(TxError::Full));
    assert_clean(&fake);
}

#[test]
fn what_cannot_be_sent_is_refused_and_changes_nothing() {
    let fake = FakeVirtio::new(Quirks::default());
    let mut nic = fake.driver_with(Limited::new(Identity::new(), 31), Sizes::DEFAULT);
    start(&mut nic, &mut TestClock::default()).unwrap();
    let long = vec![0; 117];
    let header = header(0);
    let range = |start, len| PhysRange::new(PhysAddr(start), len).unwrap();
    let low = range(0x4000_0000, 8);
    let insert = Checksum::Insert { start: 34, offset: 6 };
    let complete = Checksum::Complete;
    let cases: [(&[u8], Payload<'_>, Checksum); 7] = [
        (&long, Payload::None, complete),
        (&header[..13], Payload::None, complete),
        (&header, Payload::Dma(&[range(0x4000_0000, 1500)]), complete),
        (&header, Payload::Dma(&[low, low, low]), complete),
        (&header, Payload::Dma(&[range(0x7fff_fffc, 8)]), complete),
        (&header, Payload::Bytes(b"bytes"), complete),
        (&header, Payload::None, insert),
    ];
    let results = cases.map(|(header, payload, checksum)| {
        nic.transmit(&TxFrame { header, payload, checksum }).unwrap_err()
    });
    assert_eq!(results[0], TxError::TooLong { len: 117, max: 116 });
    assert!(matches!(results[1], TxError::Device(NicError::Unsupported(_))));
    assert_eq!(results[2], TxError::TooLong { len: 1566, max: 1522 });
    assert_eq!(results[3], TxError::TooManySegments { count: 3, max: 2 });
    assert_eq!(results[4], TxError::NotReachable);
    assert!(matches!(results[5], TxError::Device(NicError::Unsupported(_))));
    assert!(matches!(results[6], TxError::Device(NicError::Unsupported(_))));
    assert_eq!(send(&mut nic, 1), Ok(TxTicket(1)));
    nic.kick();
    assert_eq!(fake.fetch_frames().len(), 1);
    assert_clean(&fake);
}

#[test]
fn a_checksum_is_left_to_a_device_that_inserts_it() {
    let offered = features::VERSION_1 | features::MAC | features::CSUM;
    let (fake, mut nic) = running(Quirks { features: offered, ..Quirks::default() });
    assert_eq!(nic.capabilities().checksum, ChecksumOffload::Insert);
    let header = header(0);
    let mut insert = |start, offset| {
        let checksum = Checksum::Insert { start, offset };
        nic.transmit(&TxFrame { header: &header, payload: Payload::None, checksum })
    };
    insert(34, 6).unwrap();
    // The field must lie in the header: this one would end a byte behind it.
    assert!(insert(34, 31).is_err());
    insert(34, 30).unwrap();
    nic.kick();
    let frames = fake.fetch_frames();
    assert_eq!(frames[0].1, [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0]);
    assert_eq!(frames.len(), 2);
    assert_clean(&fake);
}

#[test]
fn frames_are_received_in_order_and_every_buffer_goes_back() {
    let (fake, mut nic) = running(Quirks::default());
    let mut buf = [0; 1514];
    assert_eq!(nic.receive(&mut buf), Ok(None));
    for round in 0..times(10, 3) as u8 {
        let mut frames = 0u8;
        while fake.deliver(&[round ^ frames; 60]) {
            frames += 1;
        }
        // Buffers given back wait for a batch of 16 before the device sees them.
        assert!(frames >= 64 - 15, "{frames}");
        for frame in 0..frames {
            assert_eq!(nic.receive(&mut buf), Ok(Some(60)));
            assert_eq!(buf[..60], [round ^ frame; 60]);
        }
        assert_eq!(nic.receive(&mut buf), Ok(None));
    }
    assert!(fake.deliver(&[7; 1514]));
    assert_eq!(nic.receive(&mut buf), Ok(Some(1514)));
    assert_clean(&fake);
}

#[test]
fn buffers_are_given_back_with_one_doorbell_for_sixteen() {
    let (fake, mut nic) = running(Quirks::default());
    for _ in 0..160 {
        assert!(fake.deliver(&[1; 60]));
        assert_eq!(nic.receive(&mut [0; 60]), Ok(Some(60)));
    }
    assert_eq!(fake.take_doorbells(), [(RX, 0); 10]);
}

#[test]
fn a_frame_too_long_for_the_caller_is_dropped_and_the_next_one_comes() {
    let (fake, mut nic) = running(Quirks::default());
    assert!(fake.deliver(&[1; 200]) && fake.deliver(&[2; 100]));
    let mut buf = [0; 100];
    assert_eq!(nic.receive(&mut buf), Err(RxError::TooLong { len: 200 }));
    assert_eq!((nic.receive(&mut buf), buf), (Ok(Some(100)), [2; 100]));
    assert_eq!(nic.receive(&mut buf), Ok(None));
    assert_clean(&fake);
}

#[test]
fn a_device_that_names_an_mtu_gets_buffers_for_it() {
    let offered = features::VERSION_1 | features::MAC | features::MTU;
    for (mtu, ip_mtu, accepted) in
        [(9000, 9000, true), (1400, 1400, true), (65_535, 65_535, true), (67, 1500, false)]
    {
        let (fake, mut nic) = running(Quirks { features: offered, mtu, ..Quirks::default() });
        assert_eq!(nic.capabilities().ip_mtu, ip_mtu);
        assert_eq!(fake.accepted() & features::MTU != 0, accepted, "{mtu}");
        let frame = vec![0x5a; usize::from(ip_mtu) + 14];
        let mut buf = vec![0; frame.len()];
        for _ in 0..times(200, 2) {
            assert!(fake.deliver(&frame));
            assert_eq!(nic.receive(&mut buf), Ok(Some(frame.len())));
        }
        assert_eq!(buf, frame);
        assert_clean(&fake);
    }
    // Too little memory for one such frame: the feature is refused.
    let sizes = Sizes::new(16, 4).unwrap();
    let quirks = Quirks { features: offered, mtu: 9000, ..Quirks::default() };
    let fake = FakeVirtio::with_sizes(quirks, sizes);
    let mut nic = fake.driver_with(Identity::new(), sizes);
    start(&mut nic, &mut TestClock::default()).unwrap();
    assert_eq!((nic.capabilities().ip_mtu, fake.accepted() & features::MTU), (1500, 0));
    assert_clean(&fake);
}

#[test]
fn short_queues_still_carry_frames() {
    for (rx, tx, slots) in [(1, 4, 1), (2, 16, 5), (100, 100, 21), (0xffff, 0xffff, 85)] {
        let (fake, mut nic) = running(Quirks { queue_len: [rx, tx, 64], ..Quirks::default() });
        assert_eq!(nic.capabilities().tx_slots, slots);
        for number in 0..times(100, 20) {
            let ticket = send(&mut nic, number).unwrap();
            nic.kick();
            let frames = fake.fetch_frames();
            assert_eq!((frames.len(), &frames[0].2), (1, &header(number)));
            fake.push_used(TX, frames[0].0.into(), 0);
            assert_eq!(nic.poll_tx(), Ok(ticket));
            assert!(fake.deliver(&[1; 60]));
            assert_eq!(nic.receive(&mut [0; 60]), Ok(Some(60)));
        }
        assert_clean(&fake);
    }
}

#[test]
#[cfg_attr(miri, ignore = "140,000 frames take an interpreter too long")]
fn ring_indices_wrap() {
    let sizes = Sizes::new(16, 4).unwrap();
    let fake = FakeVirtio::with_sizes(Quirks::default(), sizes);
    let mut nic = fake.driver_with(Identity::new(), sizes);
    start(&mut nic, &mut TestClock::default()).unwrap();
    // Indices are free running in 16 bits; batches of 5 meet the wrap at every offset.
    let mut sent = 0u32;
    while sent < 70_000 {
        for _ in 0..5 {
            send(&mut nic, sent).unwrap();
            sent += 1;
        }
        nic.kick();
        let frames = fake.fetch_frames();
        assert_eq!(frames.len(), 5);
        assert_eq!(frames[4].2, header(sent - 1));
        for (head, ..) in frames {
            fake.push_used(TX, head.into(), 0);
        }
        assert_eq!(nic.poll_tx(), Ok(TxTicket(u64::from(sent))));
    }
    for number in 0..70_000u32 {
        assert!(fake.deliver(&header(number)));
        let mut buf = [0; 66];
        assert_eq!((nic.receive(&mut buf), &buf[..]), (Ok(Some(66)), &header(number)[..]));
    }
    assert_eq!(fake.used_index(TX), (sent % 65_536) as u16);
    assert_clean(&fake);
}
