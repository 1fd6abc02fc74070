//! Devices that lie, stall, break or vanish.

use debugnet_core::nic::{Link, RxError};

use super::*;
use crate::fake::Bus;
use crate::transport::status;

fn start_error(quirks: Quirks) -> (FakeVirtio, NicError, TestClock) {
    let fake = FakeVirtio::new(quirks);
    let mut clock = TestClock::default();
    let error = start(&mut fake.driver(), &mut clock).unwrap_err();
    (fake, error, clock)
}

/// Polls until the driver has dealt with a fault; bounded by its own promise.
fn settle(nic: &mut FakeDriver) -> Result<TxTicket, NicError> {
    for _ in 0..5_000 {
        nic.poll_tx()?;
    }
    nic.poll_tx()
}

/// The driver works: a frame goes out and one comes in.
#[track_caller]
fn assert_works(fake: &FakeVirtio, nic: &mut FakeDriver) {
    let ticket = send(nic, 4711).unwrap();
    nic.kick();
    let frames = fake.fetch_frames();
    assert_eq!((frames.len(), &frames[0].2), (1, &header(4711)));
    fake.push_used(TX, frames[0].0.into(), 0);
    assert_eq!(nic.poll_tx(), Ok(ticket));
    assert!(fake.deliver(&[3; 60]));
    assert_eq!(nic.receive(&mut [0; 60]), Ok(Some(60)));
}

#[test]
fn a_reset_that_is_never_confirmed_ends_in_a_second() {
    let (fake, error, clock) = start_error(Quirks { reset_looks: u32::MAX, ..Quirks::default() });
    assert_eq!(error, NicError::Timeout("virtio reset"));
    assert!((1_000_000..1_100_000).contains(&clock.0), "{} us", clock.0);
    // It may still use the dead kernel's rings: it does not get ours, nor the bus.
    assert!(!fake.config().is_bus_master());
    assert_clean(&fake);
}

#[test]
#[cfg_attr(miri, ignore = "a hundred thousand looks take an interpreter too long")]
fn a_dead_clock_does_not_hang_the_reset() {
    struct Stopped;
    impl Clock for Stopped {
        fn now(&mut self) -> Instant {
            Instant::ZERO
        }
        fn relax(&mut self) {}
    }
    let fake = FakeVirtio::new(Quirks { reset_looks: u32::MAX, ..Quirks::default() });
    assert_eq!(start(&mut fake.driver(), &mut Stopped), Err(NicError::Timeout("virtio reset")));
}

#[test]
fn a_device_that_is_not_there() {
    let fake = FakeVirtio::new(Quirks::default());
    let mut nic = fake.driver();
    fake.config().set_absent(true);
    assert_eq!(start(&mut nic, &mut TestClock::default()), Err(NicError::Gone));
    assert_eq!(fake.transport().unwrap_err(), NicError::Gone);
    // The function answers, its registers do not.
    let (_, error, _) = start_error(Quirks { gone: true, ..Quirks::default() });
    assert_eq!(error, NicError::Gone);
}

#[test]
fn a_device_that_vanishes_while_it_runs() {
    let (fake, mut nic) = running(Quirks::default());
    send(&mut nic, 1).unwrap();
    nic.kick();
    fake.change(|quirks| quirks.gone = true);
    assert_eq!(settle(&mut nic), Err(NicError::Gone));
    assert_eq!(send(&mut nic, 2), Err(TxError::Device(NicError::Gone)));
    assert_eq!(nic.receive(&mut [0; 60]), Err(RxError::Device(NicError::Gone)));
    assert_eq!(nic.link(), Link::Unknown);
    assert_eq!(nic.stop(), Err(NicError::Gone));

    // Noticed by a client that only listens, too.
    let (fake, mut nic) = running(Quirks::default());
    fake.change(|quirks| quirks.gone = true);
    let noticed = (0..10_000).find_map(|_| nic.receive(&mut [0; 60]).err());
    assert_eq!(noticed, Some(RxError::Device(NicError::Gone)));
}

#[test]
fn features_that_are_refused() {
    let (fake, error, _) = start_error(Quirks { refuses_features: true, ..Quirks::default() });
    assert_eq!(error, NicError::Unsupported("virtio device refused our features"));
    assert_eq!(fake.status() & status::FAILED, status::FAILED);
    assert_clean(&fake);
    let (_, error, _) = start_error(Quirks { features: features::MAC, ..Quirks::default() });
    assert!(matches!(error, NicError::Unsupported(_)));
}

#[test]
fn an_iommu_needs_addresses_for_it() {
    let offered = features::VERSION_1 | features::MAC | features::ACCESS_PLATFORM;
    let quirks = Quirks { features: offered, ..Quirks::default() };
    let (_, error, _) = start_error(quirks);
    assert!(matches!(error, NicError::Unsupported(_)));
    let fake = FakeVirtio::new(quirks);
    let mut nic = fake.driver_with(Identity::through_iommu(), Sizes::DEFAULT);
    start(&mut nic, &mut TestClock::default()).unwrap();
    assert_eq!(fake.accepted(), offered);
}

#[test]
fn queues_that_cannot_be() {
    for queue_len in [[0, 256, 64], [256, 0, 64], [256, 2, 64], [256, 1, 64]] {
        let (fake, error, _) = start_error(Quirks { queue_len, ..Quirks::default() });
        assert!(matches!(error, NicError::Unsupported(_)), "{queue_len:?}: {error:?}");
        assert_clean(&fake);
    }
    // A length that is no power of two is cut to one: see `short_queues_still_carry_frames`.
}

#[test]
fn a_doorbell_outside_the_window() {
    for notify_off in [[0, 4, 2], [0xffff, 0, 0]] {
        let (_, error, _) = start_error(Quirks { notify_off, ..Quirks::default() });
        assert!(matches!(error, NicError::Protocol(_)), "{notify_off:?}: {error:?}");
    }
}

#[test]
fn a_configuration_that_never_stands_still() {
    let (_, error, _) = start_error(Quirks { restless: true, ..Quirks::default() });
    assert!(matches!(error, NicError::Protocol(_)));
}

#[test]
fn capabilities_that_lead_nowhere() {
    let broken = |offset: u16, word: u32| {
        let fake = FakeVirtio::new(Quirks::default());
        fake.config().set(offset, word);
        fake.transport().map(|_| ()).unwrap_err()
    };
    // Not a network device; no list; structures that are short, unassigned, or wrap.
    assert_eq!(broken(0x00, 0x1042_1af4), NicError::Unknown { id: 0x1af4_1042 });
    for (offset, word) in [(0x04, 2), (0x34, 0x3c), (0x8c, 0x37), (0x9c, 1), (0x18, 0xc), (0x18, 0)]
    {
        if offset == 0x18 && word == 0xc {
            // The upper half alone is an address too: clear it as well.
            let fake = FakeVirtio::new(Quirks::default());
            fake.config().set(0x1c, 0);
            fake.config().set(0x18, 0xc);
            assert!(matches!(fake.transport(), Err(NicError::Unsupported(_))));
            continue;
        }
        let error = broken(offset, word);
        assert!(matches!(error, NicError::Unsupported(_)), "{offset:#x}: {error:?}");
    }
    // A structure that ends behind the end of the address space is skipped, not wrapped.
    let fake = FakeVirtio::new(Quirks::default());
    fake.config().set(0x18, 0xffff_f00c);
    fake.config().set(0x1c, 0xffff_ffff);
    fake.config().set(0x88, 0xfff0);
    assert!(fake.transport().is_err());
}

#[test]
fn a_device_that_wants_a_reset_gets_one_and_only_one() {
    let (fake, mut nic) = running(Quirks { reset_looks: 300, ..Quirks::default() });
    let last = (0..10).map(|number| send(&mut nic, number).unwrap()).last().unwrap();
    nic.kick();
    assert_eq!(fake.fetch_frames().len(), 10);
    fake.set_status_bits(status::NEEDS_RESET);
    // Not complete before the device has let go: its payload could change under it.
    let mut polls = 0;
    while nic.poll_tx() == Ok(TxTicket::NONE) {
        polls += 1;
        assert!(polls < 5_000);
        if nic.counters().resets == 1 && fake.resets() == 1 {
            assert_eq!(send(&mut nic, 99), Err(TxError::Full));
        }
    }
    assert_eq!((fake.resets(), nic.counters().resets), (2, 1));
    assert_eq!(settle(&mut nic), Ok(last));
    assert_works(&fake, &mut nic);
    assert_clean(&fake);
    send(&mut nic, 1).unwrap();
    nic.kick();
    fake.set_status_bits(status::NEEDS_RESET);
    assert_eq!(settle(&mut nic), Err(NicError::Failed));
    assert_eq!(nic.poll_tx(), Err(NicError::Failed));
    nic.stop().unwrap();
    assert_eq!(fake.status(), 0);
}

#[test]
#[cfg_attr(miri, ignore = "fifty thousand looks, each with pauses, take an interpreter too long")]
fn a_recovery_that_is_never_confirmed_ends() {
    let (fake, mut nic) = running(Quirks::default());
    send(&mut nic, 1).unwrap();
    nic.kick();
    fake.change(|quirks| quirks.reset_looks = u32::MAX);
    fake.set_status_bits(status::NEEDS_RESET);
    assert_eq!(settle(&mut nic), Err(NicError::Timeout("virtio reset")));
    assert_eq!(nic.stop(), Err(NicError::Timeout("virtio reset")));
    // Cut off from the bus, since nothing else can be done.
    assert!(!fake.config().is_bus_master());
    assert_clean(&fake);
}

#[test]
#[cfg_attr(miri, ignore = "fifty thousand looks, each with pauses, take an interpreter too long")]
fn stop_says_so_if_the_device_does_not_confirm() {
    let (fake, mut nic) = running(Quirks::default());
    send(&mut nic, 1).unwrap();
    nic.kick();
    fake.change(|quirks| quirks.reset_looks = u32::MAX);
    assert_eq!(nic.stop(), Err(NicError::Timeout("virtio reset")));
    assert_eq!(nic.poll_tx(), Err(NicError::Timeout("virtio reset")));
    assert!(!fake.config().is_bus_master());
}

/// A lie in the used ring of the transmit queue, on every transport (under Miri, on
/// one): the driver recovers once and then gives up with the truth.
fn lie_twice(lie: impl Fn(&FakeVirtio, u16)) {
    for bus in Bus::ALL.into_iter().step_by(times(1, 4) as usize) {
        lie_twice_on(bus, &lie);
    }
}

fn lie_twice_on(bus: Bus, lie: impl Fn(&FakeVirtio, u16)) {
    let (fake, mut nic) = running_on(Quirks::on(bus));
    for round in 1..=2u32 {
        for number in 0..3 {
            send(&mut nic, number).unwrap();
        }
        nic.kick();
        let frames = fake.fetch_frames();
        lie(&fake, frames[0].0);
        let settled = settle(&mut nic);
        assert_clean(&fake);
        if round == 1 {
            assert_eq!((settled, nic.counters().resets), (Ok(TxTicket(3)), 1));
            assert_works(&fake, &mut nic);
        } else {
            assert!(matches!(settled, Err(NicError::Protocol(_))), "{settled:?}");
            assert!(send(&mut nic, 0).is_err());
            nic.kick();
            nic.stop().unwrap();
        }
    }
}

#[test]
fn completions_that_cannot_be() {
    lie_twice(|fake, head| {
        fake.push_used(TX, head.into(), 0);
        fake.push_used(TX, head.into(), 0);
    });
    lie_twice(|fake, head| fake.push_used(TX, u32::from(head) + 1, 0));
    lie_twice(|fake, _| fake.push_used(TX, 255, 0));
    lie_twice(|fake, _| fake.push_used(TX, 85 * 3, 0));
    lie_twice(|fake, head| fake.push_used(TX, u32::from(head) | 0x1_0000, 0));
    lie_twice(|fake, _| fake.push_used(TX, u32::MAX, u32::MAX));
    lie_twice(|fake, _| fake.push_used(TX, 84 * 3, 0));
}

#[test]
fn used_indices_that_jump() {
    lie_twice(|fake, _| fake.set_used_index(TX, fake.used_index(TX).wrapping_add(4)));
    lie_twice(|fake, _| fake.set_used_index(TX, fake.used_index(TX).wrapping_sub(1)));
    lie_twice(|fake, _| fake.set_used_index(TX, 0x8000));
}

#[test]
fn a_length_on_the_transmit_side_means_nothing() {
    let (fake, mut nic) = running(Quirks::default());
    let ticket = send(&mut nic, 1).unwrap();
    nic.kick();
    let head = fake.fetch_frames()[0].0;
    fake.push_used(TX, head.into(), u32::MAX);
    assert_eq!((nic.poll_tx(), nic.counters().resets), (Ok(ticket), 0));
}

#[test]
fn a_device_that_never_completes_is_kicked_again_and_reported_as_it_is() {
    let (fake, mut nic) = running(Quirks::default());
    while send(&mut nic, 0).is_ok() {}
    nic.kick();
    assert_eq!(fake.fetch_frames().len(), 85);
    fake.take_doorbells();
    for _ in 0..10_240 {
        assert_eq!(nic.poll_tx(), Ok(TxTicket::NONE));
    }
    assert_eq!(fake.take_doorbells(), [(TX, 1); 10]);
    assert_eq!(nic.counters().rekicks, 10);
    assert_eq!(send(&mut nic, 0), Err(TxError::Full));
    nic.stop().unwrap();
    assert_eq!(nic.poll_tx(), Ok(TxTicket(85)));
}

#[test]
fn frames_not_yet_kicked_are_not_kicked_by_a_stall() {
    let (fake, mut nic) = running(Quirks::default());
    send(&mut nic, 1).unwrap();
    for _ in 0..5_000 {
        assert_eq!(nic.poll_tx(), Ok(TxTicket::NONE));
    }
    assert!(fake.take_doorbells().is_empty());
    assert_eq!(fake.fetch(TX), None);
}

#[test]
fn a_device_that_loses_a_doorbell_is_woken() {
    let (fake, mut nic) = running(Quirks::default());
    for _ in 0..4_096 {
        assert_eq!(nic.receive(&mut [0; 60]), Ok(None));
    }
    assert_eq!(fake.take_doorbells(), [(RX, 0)]);
}

#[test]
fn a_device_that_stops_by_itself_is_started_again() {
    let (fake, mut nic) = running(Quirks::default());
    let mut buf = [0; 60];
    fake.lose_state();
    let mut polls = 0;
    while nic.counters().resets == 0 {
        assert_eq!(nic.receive(&mut buf), Ok(None));
        polls += 1;
        assert!(polls < 10_000);
    }
    assert_eq!(nic.receive(&mut buf), Ok(None));
    assert_works(&fake, &mut nic);
}

#[test]
fn received_lengths_that_cannot_be_cost_one_frame_each() {
    let (fake, mut nic) = running(Quirks::default());
    let mut buf = [0; 4096];
    let whole = [0; crate::header::MAX];
    for _ in 0..times(50, 3) {
        for len in [0, 11, 12, 25, 2049, 4096, 0x1_0000, u32::MAX] {
            assert!(fake.deliver_as(whole, &[1; 60], len));
            assert_eq!(nic.receive(&mut buf), Err(RxError::Malformed), "{len}");
        }
        // As much as the buffer holds, which the device need not have written.
        assert!(fake.deliver_as(whole, &[1; 60], 2048));
        assert_eq!(nic.receive(&mut buf), Ok(Some(2036)));
    }
    for (at, value) in [(0, 1), (1, 1), (10, 2), (11, 1)] {
        let mut virtio_header = whole;
        virtio_header[at] = value;
        assert!(fake.deliver_as(virtio_header, &[1; 60], 72));
        assert_eq!(nic.receive(&mut buf), Err(RxError::Malformed), "byte {at}");
    }
    assert_works(&fake, &mut nic);
    assert_eq!(nic.counters().resets, 0);
    assert_clean(&fake);
}

#[test]
fn a_device_that_leaves_the_header_alone_is_not_confused_with_the_last_frame() {
    let (fake, mut nic) = running(Quirks { queue_len: [1, 256, 64], ..Quirks::default() });
    let mut spanning = [0; crate::header::MAX];
    spanning[10] = 2;
    assert!(fake.deliver_as(spanning, &[1; 60], 72));
    assert_eq!(nic.receive(&mut [0; 60]), Err(RxError::Malformed));
    // The one buffer comes back with a clean header.
    let chain = fake.fetch(RX).unwrap();
    fake.push_used(RX, chain.head.into(), 72);
    assert_eq!(nic.receive(&mut [0; 60]), Ok(Some(60)));
}

#[test]
fn received_buffers_that_cannot_be() {
    for (id, ahead) in [(64, 0), (u32::MAX, 0), (0x1_0000, 0), (0, 65), (0, 0x8000)] {
        let (fake, mut nic) = running(Quirks::default());
        for round in 1..=2 {
            if ahead == 0 {
                fake.push_used(RX, id, 72);
            } else {
                fake.set_used_index(RX, fake.used_index(RX).wrapping_add(ahead));
            }
            let outcome = (0..5_000).try_for_each(|_| nic.receive(&mut [0; 60]).map(|_| ()));
            if round == 1 {
                assert_eq!((outcome, nic.counters().resets), (Ok(()), 1));
                assert_works(&fake, &mut nic);
            } else {
                let protocol = matches!(outcome, Err(RxError::Device(NicError::Protocol(_))));
                assert!(protocol, "{outcome:?}");
            }
        }
        assert_clean(&fake);
    }
}

#[test]
fn a_buffer_given_back_twice() {
    let (fake, mut nic) = running(Quirks::default());
    assert!(fake.deliver(&[1; 60]));
    // The driver takes it, posts it again (outstanding once more), so that a
    // repeat is a frame of nothing; a repeat *before* that is a breach.
    assert_eq!(nic.receive(&mut [0; 60]), Ok(Some(60)));
    fake.push_used(RX, 0, 72);
    assert!(matches!(nic.receive(&mut [0; 60]), Ok(Some(60))));
    assert_clean(&fake);
}

#[test]
fn descriptors_that_the_device_overwrites_are_not_believed() {
    let (fake, mut nic) = running(Quirks::default());
    for number in 0..times(300, 30) {
        fake.scribble_descriptors(0xff);
        let ticket = send(&mut nic, number).unwrap();
        nic.kick();
        let frames = fake.fetch_frames();
        assert_eq!((frames.len(), &frames[0].2), (1, &header(number)));
        fake.push_used(TX, frames[0].0.into(), 0);
        assert_eq!(nic.poll_tx(), Ok(ticket));
    }
    assert_clean(&fake);
}
