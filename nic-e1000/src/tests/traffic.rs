//! Frames both ways, and the limits of each.

use debugnet_core::addr::{PhysAddr, PhysRange};

use nic_hal::{Identity, Limited};

use super::*;

#[test]
fn a_full_ring_loses_nothing() {
    for device in ALL {
        let (fake, mut nic) = running(device);
        let slots = u32::from(nic.capabilities().tx_slots);
        let payload = [fake.payload(0, &[1; 700]), fake.payload(4096, &[2; 748])];
        for number in 0..slots {
            nic.transmit(&frame(&header(number), Payload::Dma(&payload))).unwrap();
        }
        assert_eq!(send(&mut nic, 0), Err(TxError::Full));
        assert!(fake.take_frames().is_empty(), "nothing before the kick");
        assert_eq!(nic.poll_tx(), Ok(TxTicket(0)));
        nic.kick();
        assert_eq!(nic.poll_tx(), Ok(TxTicket(u64::from(slots))));
        let frames = fake.take_frames();
        assert_eq!(frames.len() as u32, slots);
        for (number, sent) in (0..).zip(&frames) {
            assert_eq!(sent[..74], header(number));
            assert_eq!(sent[74..], [&[1; 700][..], &[2; 748]].concat());
        }
        assert_eq!(send(&mut nic, 9), Ok(TxTicket(u64::from(slots) + 1)));
        assert_clean(&fake);
    }
}

#[test]
fn payload_out_of_reach_is_refused_and_changes_nothing() {
    for device in ALL {
        let fake = FakeIntel::new(device, Quirks::default());
        let mut nic = fake.driver_with(Limited::new(Identity::new(), 31));
        start(&mut nic, &mut fake.clock()).unwrap();
        let near = fake.payload(0, &[1; 100]);
        let far = PhysRange::new(PhysAddr(0x7fff_ffff), 2).unwrap();
        // The second segment: what the first one was queued with is taken back.
        for payload in [&[far][..], &[near, far]] {
            let sent = nic.transmit(&frame(&header(1), Payload::Dma(payload)));
            assert_eq!(sent, Err(TxError::NotReachable));
        }
        assert_eq!(nic.transmit(&frame(&header(2), Payload::Dma(&[near]))), Ok(TxTicket(1)));
        nic.kick();
        assert_eq!(fake.take_frames(), [[&header(2)[..], &[1; 100]].concat()]);
        assert_clean(&fake);
    }
}

#[test]
fn a_done_bit_nobody_was_asked_for_means_nothing() {
    for device in ALL {
        let (fake, mut nic) = running(device);
        send(&mut nic, 1).unwrap();
        // The whole transmit ring claims to be done, before the device was told of any of it.
        for descriptor in 0..256 {
            fake.scribble(descriptor * 16 + 12, &[1]);
        }
        assert_eq!(nic.poll_tx(), Ok(TxTicket(0)));
    }
}

#[test]
fn jumbo_frames_go_out_where_the_part_can() {
    for device in ALL {
        let (fake, mut nic) = running_with(device, Quirks::default(), |nic| nic.with_ip_mtu(9000));
        assert_eq!(nic.capabilities().ip_mtu, 9000);
        let bytes: Vec<u8> = (0..8926_u32).map(|at| (at % 251) as u8).collect();
        let payload = [fake.payload(1, &bytes[..4097]), fake.payload(5000, &bytes[4097..])];
        let mut sent = 0;
        while nic.transmit(&frame(&header(sent), Payload::Dma(&payload))).is_ok() {
            sent += 1;
        }
        assert!(sent >= u32::from(nic.capabilities().tx_slots));
        nic.kick();
        let frames = fake.take_frames();
        assert_eq!(frames.len() as u32, sent);
        assert!(frames.iter().all(|frame| frame[74..] == bytes));
        assert_clean(&fake);
    }
    let fake = FakeIntel::new(0x109a, Quirks::default());
    assert_eq!(fake.driver().with_ip_mtu(9000).capabilities().ip_mtu, 1500);
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let (fake, mut nic) = running(E1000);
    let three = [fake.payload(0, &[1; 8]); 3];
    let long = [PhysRange::new(PhysAddr(0x4000_0000), 1500).unwrap()];
    let mut refused = |header: &[u8], payload| nic.transmit(&frame(header, payload)).unwrap_err();
    assert_eq!(
        refused(&header(1), Payload::Dma(&three)),
        TxError::TooManySegments { count: 3, max: 2 }
    );
    assert_eq!(refused(&header(1), Payload::Dma(&long)), TxError::TooLong { len: 1574, max: 1522 });
    assert!(matches!(refused(&[0; 117], Payload::None), TxError::TooLong { max: 116, .. }));
    assert!(matches!(refused(&[0; 13], Payload::None), TxError::Device(_)));
    assert!(matches!(refused(&header(1), Payload::Bytes(&[1])), TxError::Device(_)));
    let summed = TxFrame {
        header: &header(1),
        payload: Payload::None,
        checksum: Checksum::Insert { start: 34, offset: 6 },
    };
    assert!(matches!(nic.transmit(&summed), Err(TxError::Device(_))));
    nic.kick();
    assert!(fake.take_frames().is_empty());
}

#[test]
fn only_our_address_and_broadcasts_come_in() {
    for device in ALL {
        let (fake, mut nic) = running(device);
        let mut other = incoming(60, 3);
        other[5] ^= 1;
        let second = [2, 0x33, 0x22, 0x11, 0x44, 0x55];
        for frame in [other, [&second[..], &[0; 54]].concat(), vec![0x01; 60]] {
            fake.deliver(&frame);
            assert_eq!(nic.receive(&mut [0; 60]), Ok(None));
        }
        assert!(fake.deliver(&[0xff; 60]));
        assert_eq!(nic.receive(&mut [0; 60]), Ok(Some(60)));
    }
}

#[test]
fn received_frames_are_whole_and_in_order() {
    for device in ALL {
        let (fake, mut nic) = running(device);
        for burst in [63_usize, 10, 47, 1, 63] {
            let mut posted = 0;
            while posted < burst && fake.deliver(&incoming(60 + posted * 20, posted as u8)) {
                posted += 1;
            }
            assert!(posted >= burst.min(48), "{posted} of {burst}");
            let mut buf = [0; 1514];
            for number in 0..posted {
                let len = nic.receive(&mut buf).unwrap().unwrap();
                assert_eq!(buf[..len], incoming(60 + number * 20, number as u8));
            }
            assert_eq!(nic.receive(&mut buf), Ok(None));
        }
        assert!(fake.deliver(&incoming(400, 1)) && fake.deliver(&incoming(60, 1)));
        assert_eq!(nic.receive(&mut [0; 399]), Err(RxError::TooLong { len: 400 }));
        assert_eq!(nic.receive(&mut [0; 399]), Ok(Some(60)));
        assert_clean(&fake);
    }
}
