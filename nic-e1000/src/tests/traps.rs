//! What QEMU's models and the real parts do unlike one another: one test for
//! each trap, which fails when its cure is taken out of the driver.

use debugnet_core::nic::Payload;

use super::*;
use crate::registers::{ctrl, rctl, tctl};

/// Writes of the take-over, in order.
fn take_over(device: u16, quirks: Quirks) -> (FakeIntel, FakeDriver, Vec<(usize, u32)>) {
    let fake = FakeIntel::new(device, quirks);
    let mut nic = fake.driver();
    start(&mut nic, &mut fake.clock()).unwrap();
    let log = fake.take_log();
    (fake, nic, log)
}

fn position(log: &[(usize, u32)], wanted: impl Fn(usize, u32) -> bool) -> usize {
    log.iter().position(|(at, value)| wanted(*at, *value)).expect("written")
}

#[test]
fn trap_1_a_reset_that_changes_nothing() {
    for device in ALL {
        let quirks = Quirks { reset_keeps_registers: true, ..Quirks::default() };
        let (fake, mut nic, _) = take_over(device, quirks);
        // Everything the dead kernel left is overwritten by hand.
        for register in [reg::MTA + 8, reg::VFTA + 8, reg::RAL0 + 8, reg::RAH0 + 8] {
            assert_eq!(fake.get(register), 0, "{register:#x}");
        }
        if device == E1000E {
            assert_eq!((fake.get(reg::RFCTL), fake.get(reg::MRQC)), (0, 0));
        }
        if device == IGB {
            assert_eq!((fake.get(reg::UTA + 8), fake.get(reg::VT_CTL)), (0, 0));
        }
        let control = fake.get(reg::CTRL);
        assert_eq!(control & (ctrl::RFCE | ctrl::TFCE | ctrl::VME), 0);
        assert_eq!(control & ctrl::GIO_MASTER_DISABLE, 0);
        fake.pass_us(1_100_000);
        assert_works(&fake, &mut nic);
        assert_clean(&fake);
    }
}

#[test]
fn trap_1_rings_are_dropped_before_the_reset() {
    for device in ALL {
        // The fake notes a reset with a ring in the device.
        let (fake, _, log) = take_over(device, Quirks::default());
        assert_clean(&fake);
        let reset = position(&log, |at, value| at == reg::CTRL && value & ctrl::RST != 0);
        let off = position(&log, |at, value| at == reg::RCTL && value == 0);
        assert!(off < reset);
    }
}

#[test]
fn trap_2_rctl_is_written_once_to_enable() {
    for device in ALL {
        let (_, _, log) = take_over(device, Quirks::default());
        let writes: Vec<_> = log.iter().filter(|(at, _)| *at == reg::RCTL).collect();
        assert_eq!(writes.len(), 2, "off, and on: {writes:x?}");
        let on = position(&log, |at, value| at == reg::RCTL && value & rctl::EN != 0);
        let transmitter = position(&log, |at, value| at == reg::TCTL && value & tctl::EN != 0);
        // Nothing but the receive tail comes after it.
        assert!(transmitter < on && on == log.len() - 2, "{on} of {}", log.len());
    }
}

#[test]
fn trap_2_the_e1000_is_blind_for_a_second_and_the_driver_waits() {
    let (fake, mut nic, _) = take_over(E1000, Quirks::default());
    assert!(!fake.deliver(&incoming(60, 1)));
    assert_eq!(nic.receive(&mut [0; 60]), Ok(None));
    fake.pass_us(1_000_000);
    assert!(fake.deliver(&incoming(60, 1)));
    assert_eq!(nic.receive(&mut [0; 60]), Ok(Some(60)));
}

#[test]
fn trap_3_stale_indices_send_nothing() {
    for device in ALL {
        let quirks = Quirks { reset_keeps_registers: true, ..Quirks::default() };
        let (fake, ..) = take_over(device, quirks);
        assert!(fake.take_frames().is_empty());
        // The fake notes a transmitter that is switched on with any.
        assert_clean(&fake);
    }
}

#[test]
fn trap_3b_an_igb_gets_its_tail_after_the_transmitter_is_on() {
    let (fake, mut nic) = running(IGB);
    let ticket = send(&mut nic, 1).unwrap();
    nic.kick();
    assert_eq!(fake.take_frames().len(), 1);
    assert_eq!(nic.poll_tx(), Ok(ticket));
}

#[test]
fn trap_4_an_igb_has_no_link_until_it_negotiates() {
    let (fake, mut nic, log) = take_over(IGB, Quirks::default());
    position(&log, |at, value| at == reg::MDIC && value & 0xffff == 0x1340);
    assert_eq!(nic.link(), Link::Down);
    fake.pass_us(500_000);
    assert_eq!(nic.link(), Link::Up);
    // The others keep their link, and it is not taken down.
    for device in [E1000, E1000E] {
        let (_, mut nic, log) = take_over(device, Quirks::default());
        assert!(log.iter().all(|(at, _)| *at != reg::MDIC));
        assert_eq!(nic.link(), Link::Up);
    }
}

#[test]
fn trap_5_a_frame_is_never_cut_by_a_tail() {
    let batches = times(500, 60);
    for device in ALL {
        let (fake, mut nic) = running(device);
        let payload = [fake.payload(0, &[1; 500]), fake.payload(8000, &[2; 300])];
        let mut sent = 0;
        // Batches of one to three frames, around the ring some times (under Miri: once).
        for round in 0..batches {
            for number in 0..=round % 3 {
                nic.transmit(&frame(&header(number), Payload::Dma(&payload))).unwrap();
                sent += 1;
            }
            nic.kick();
            nic.kick();
            nic.poll_tx().unwrap();
        }
        assert_eq!(nic.poll_tx(), Ok(TxTicket(sent)));
        let frames = fake.take_frames();
        assert_eq!(frames.len() as u64, sent);
        assert!(frames.iter().all(|frame| frame.len() == 874));
        let tails = fake.take_log().iter().filter(|(at, _)| at & 0xff == 0x18).count();
        assert_eq!(tails, batches as usize, "one tail for each batch");
        assert_clean(&fake);
    }
}

#[test]
fn trap_6_empty_segments_vanish() {
    for device in ALL {
        let (fake, mut nic) = running(device);
        let empty = fake.payload(64, &[]);
        let full = fake.payload(0, &[9; 100]);
        for payload in [[empty, full], [full, empty]] {
            nic.transmit(&frame(&header(1), Payload::Dma(&payload))).unwrap();
        }
        nic.transmit(&frame(&header(1), Payload::Dma(&[empty, empty]))).unwrap();
        nic.transmit(&frame(&header(1), Payload::Dma(&[empty, full, full]))).unwrap();
        nic.kick();
        let lens: Vec<_> = fake.take_frames().iter().map(Vec::len).collect();
        assert_eq!(lens, [174, 174, 74, 274]);
    }
}

#[test]
fn trap_7_the_arbitration_of_an_e1000e_is_on() {
    let fake = FakeIntel::new(E1000E, Quirks { reset_keeps_registers: true, ..Quirks::default() });
    fake.set(reg::TARC0, 0);
    let mut nic = fake.driver();
    start(&mut nic, &mut fake.clock()).unwrap();
    assert_works(&fake, &mut nic);
}

#[test]
fn trap_8_an_igb_gets_advanced_descriptors() {
    let (fake, mut nic) = running(IGB);
    assert_works(&fake, &mut nic);
    // The fake notes legacy descriptors, and frames without their length.
    assert_clean(&fake);
}

#[test]
fn trap_9_a_device_cut_off_the_bus() {
    for device in LONG {
        let fake = FakeIntel::new(device, Quirks::default());
        fake.config().set(4, 0x0010_0002);
        let mut nic = fake.driver();
        let mut clock = fake.clock();
        // It gets the bus back, but not while it holds the dead kernel's rings.
        while nic.poll_start(&mut clock).unwrap() != Start::Ready {
            assert!(!fake.config().is_bus_master() || fake.resets() == 1);
            clock.relax();
        }
        fake.pass_us(1_100_000);
        assert_works(&fake, &mut nic);
        // Cut off while it runs: the head moves, nothing is done; it is taken over again.
        fake.config().set(4, 0x0010_0002);
        let ticket = send(&mut nic, 2).unwrap();
        nic.kick();
        assert!(nic.poll_tx().unwrap() < ticket);
        assert_eq!(settle(&mut nic), Ok(ticket));
        fake.pass_us(1_100_000);
        assert_works(&fake, &mut nic);
    }
}

#[test]
fn trap_12_short_frames_are_padded_by_the_driver() {
    for device in ALL {
        let (fake, mut nic) = running(device);
        let tail = [fake.payload(0, &[7; 5])];
        nic.transmit(&frame(&[0xaa; 14], Payload::None)).unwrap();
        nic.transmit(&frame(&[0xbb; 42], Payload::Dma(&tail))).unwrap();
        nic.transmit(&frame(&[0xcc; 59], Payload::None)).unwrap();
        nic.kick();
        let frames = fake.take_frames();
        assert!(frames.iter().all(|frame| frame.len() == 60));
        assert_eq!(frames[0], [&[0xaa; 14][..], &[0; 46]].concat());
        assert_eq!(frames[1], [&[0xbb; 42][..], &[7; 5], &[0; 13]].concat());
        // A cell that held a longer header does not leak it.
        for number in 0..times(200, 80) {
            send(&mut nic, number).unwrap();
            nic.transmit(&frame(&[1; 20], Payload::None)).unwrap();
            nic.kick();
            nic.poll_tx().unwrap();
        }
        let short = fake.take_frames().into_iter().filter(|frame| frame.len() == 60);
        assert!(short.into_iter().all(|frame| frame[20..] == [0; 40]));
        assert_clean(&fake);
    }
}

#[test]
fn trap_14_the_checksum_seed_and_the_context_after_every_reset() {
    for device in ALL {
        let (fake, mut nic) =
            running_with(device, Quirks::default(), |nic| nic.with_checksum_offload(true));
        assert_eq!(nic.capabilities().checksum, ChecksumOffload::Insert);
        let payload = [fake.payload(0, &[0x11; 333])];
        let mut header = vec![0; 74];
        header[12] = 8;
        header[14] = 0x45;
        header[23] = 17;
        header[26..34].copy_from_slice(&[10, 0, 2, 15, 10, 0, 2, 2]);
        let udp_len = (40u16 + 333).to_be_bytes();
        header[38..40].copy_from_slice(&udp_len);
        let pseudo: u32 = [0x0a00, 0x020f, 0x0a00, 0x0202, 17, 373].iter().sum();
        header[40..42].copy_from_slice(&(pseudo as u16).to_be_bytes());
        let udp = TxFrame {
            header: &header,
            payload: Payload::Dma(&payload),
            checksum: Checksum::Insert { start: 34, offset: 6 },
        };
        for _ in 0..2 {
            nic.transmit(&udp).unwrap();
            send(&mut nic, 5).unwrap();
            nic.transmit(&udp).unwrap();
            nic.kick();
            let frames = fake.take_frames();
            assert_eq!((frames.len(), &frames[0]), (3, &frames[2]));
            assert_eq!(frames[1], super::header(5), "frames without a sum between");
            // Summed here, word by word: the pseudo header and all of UDP make ones.
            let mut total = pseudo;
            for pair in frames[0][34..].chunks(2) {
                total += u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
            }
            let folded = (total & 0xffff) + (total >> 16);
            assert_eq!((folded & 0xffff) + (folded >> 16), 0xffff);
            // The context went with the reset: the fake complains if it is not written again.
            nic.stop().unwrap();
            fake.pass_us(1_000);
            start(&mut nic, &mut fake.clock()).unwrap();
        }
        assert_clean(&fake);
        let tcp = TxFrame { checksum: Checksum::Insert { start: 34, offset: 16 }, ..udp };
        assert!(matches!(nic.transmit(&tcp), Err(TxError::Device(NicError::Unsupported(_)))));
    }
}

#[test]
fn trap_gio_master_disable_is_for_pci_express_only() {
    for device in ALL {
        let (fake, _, log) = take_over(device, Quirks::default());
        let disabled =
            log.iter().any(|(at, value)| *at == reg::CTRL && value & ctrl::GIO_MASTER_DISABLE != 0);
        assert_eq!(disabled, device != E1000);
        assert!(fake.now_us() < 100_000, "{} us", fake.now_us());
    }
}

#[test]
fn trap_head_write_back_is_off() {
    let quirks = Quirks { reset_keeps_registers: true, ..Quirks::default() };
    let (fake, mut nic, _) = take_over(IGB, quirks);
    assert_eq!(fake.get(reg::TX_IGB + 0x38), 0);
    let ticket = send(&mut nic, 1).unwrap();
    nic.kick();
    assert_eq!(nic.poll_tx(), Ok(ticket));
    assert_clean(&fake);
}

#[test]
fn trap_20_the_receive_tail_stays_inside_the_ring() {
    let count = times(500, 100);
    for device in ALL {
        let (fake, mut nic) = running(device);
        for number in 0..count {
            assert!(fake.deliver(&incoming(100, number as u8)), "{number}");
            assert_eq!(nic.receive(&mut [0; 1514]), Ok(Some(100)));
        }
        let tails: Vec<_> =
            fake.take_log().into_iter().filter(|(at, _)| at & 0xff == 0x18).collect();
        assert!(tails.iter().all(|(_, tail)| *tail < 64));
        assert_eq!(tails.len() as u32, count / 16, "in batches");
        assert_clean(&fake);
    }
}

#[test]
fn trap_mac_the_live_address_then_the_reloaded_one_then_the_nvm() {
    for device in ALL {
        // Set by the dead kernel: kept over a reset that restores the NVM's.
        let fake = FakeIntel::new(device, Quirks::default());
        fake.set(reg::RAL0, 0x4433_2202);
        fake.set(reg::RAH0, reg::RAH_AV | 0x6655);
        let mut nic = fake.driver();
        start(&mut nic, &mut fake.clock()).unwrap();
        assert_eq!(nic.capabilities().mac, MacAddr([2, 0x22, 0x33, 0x44, 0x55, 0x66]));
        // None that is valid: the NVM's, through the register if the reset brings none.
        let quirks = Quirks { reset_keeps_registers: true, ..Quirks::default() };
        let fake = FakeIntel::new(device, quirks);
        fake.set(reg::RAH0, 0);
        let mut nic = fake.driver();
        start(&mut nic, &mut fake.clock()).unwrap();
        assert_eq!(nic.capabilities().mac, MacAddr(MAC));
        // None anywhere.
        let fake = FakeIntel::new(device, Quirks { nvm_never_done: true, ..quirks });
        fake.set(reg::RAH0, 0);
        let error = start(&mut fake.driver(), &mut fake.clock()).unwrap_err();
        assert!(matches!(error, NicError::Unsupported(_)));
        let mut nic = fake.driver().with_fallback_mac(MacAddr([2, 0, 0, 0, 0, 9]));
        start(&mut nic, &mut fake.clock()).unwrap();
        assert_eq!(nic.capabilities().mac, MacAddr([2, 0, 0, 0, 0, 9]));
    }
}
