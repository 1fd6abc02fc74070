//! Devices that lie, stall, break or vanish.

use proptest::prelude::*;

use super::*;

fn start_error(device: u16, quirks: Quirks) -> NicError {
    let fake = FakeIntel::new(device, quirks);
    let error = start(&mut fake.driver(), &mut fake.clock()).unwrap_err();
    assert!(fake.now_us() < 1_000_000, "{} us", fake.now_us());
    assert!(fake.margins_are_untouched());
    error
}

#[test]
fn a_reset_that_never_ends() {
    for device in ALL {
        let quirks = Quirks { reset_never_ends: true, ..Quirks::default() };
        assert_eq!(start_error(device, quirks), NicError::Timeout("e1000 reset"));
        let (fake, mut nic) = running(device);
        let ticket = send(&mut nic, 1).unwrap();
        fake.change(|quirks| quirks.reset_never_ends = true);
        assert_eq!(nic.stop(), Err(NicError::Timeout("e1000 reset")));
        assert!(!fake.config().is_bus_master(), "cut off all the same");
        assert!(nic.poll_tx().is_err(), "{ticket:?} is not complete");
    }
}

#[test]
fn a_dead_clock_does_not_hang_the_take_over() {
    struct Stopped;
    impl Clock for Stopped {
        fn now(&mut self) -> Instant {
            Instant::ZERO
        }
        fn relax(&mut self) {}
    }
    let quirks = Quirks { reset_never_ends: true, no_link: true, ..Quirks::default() };
    for device in ALL {
        let fake = FakeIntel::new(device, quirks);
        let error = start(&mut fake.driver(), &mut Stopped).unwrap_err();
        assert_eq!(error, NicError::Timeout("e1000 reset"));
        fake.change(|quirks| quirks.reset_never_ends = false);
        start(&mut fake.driver(), &mut Stopped).unwrap();
    }
}

#[test]
fn waits_that_need_not_succeed() {
    for device in ALL {
        let quirks = Quirks {
            master_never_stops: true,
            phy_never_ready: true,
            no_link: true,
            ..Quirks::default()
        };
        let fake = FakeIntel::new(device, quirks);
        let mut nic = fake.driver();
        start(&mut nic, &mut fake.clock()).unwrap();
        assert!(fake.now_us() < 300_000, "{} us", fake.now_us());
        assert_eq!(nic.link(), Link::Down);
        fake.change(|quirks| quirks.no_link = false);
        fake.pass_us(1_100_000);
        assert_eq!(nic.link(), Link::Up);
        assert_works(&fake, &mut nic);
        assert_eq!(nic.stop(), Ok(()));
    }
}

#[test]
fn queues_that_never_come_up() {
    let quirks = Quirks { queues_never_enable: true, ..Quirks::default() };
    assert_eq!(start_error(IGB, quirks), NicError::Timeout("e1000 queue enable"));
}

#[test]
fn a_device_that_is_not_there_or_vanishes() {
    for device in ALL {
        assert_eq!(start_error(device, Quirks { gone: true, ..Quirks::default() }), NicError::Gone);
        let fake = FakeIntel::new(device, Quirks::default());
        let mut nic = fake.driver();
        fake.config().set_absent(true);
        assert_eq!(start(&mut nic, &mut fake.clock()), Err(NicError::Gone));

        let (fake, mut nic) = running(device);
        send(&mut nic, 1).unwrap();
        fake.change(|quirks| quirks.gone = true);
        nic.kick();
        let noticed = (0..5_000).find_map(|_| nic.poll_tx().err());
        assert_eq!(noticed, Some(NicError::Gone));
        assert_eq!(send(&mut nic, 2), Err(TxError::Device(NicError::Gone)));
        assert_eq!(nic.stop(), Err(NicError::Gone));

        let (fake, mut nic) = running(device);
        fake.change(|quirks| quirks.gone = true);
        assert_eq!(nic.link(), Link::Unknown);
        let noticed = (0..10_000).find_map(|_| nic.receive(&mut [0; 60]).err());
        assert_eq!(noticed, Some(RxError::Device(NicError::Gone)));
    }
}

#[test]
fn a_device_that_resets_itself_is_taken_over_again_once() {
    for device in ALL {
        let (fake, mut nic) = running(device);
        assert_works(&fake, &mut nic);
        fake.reset_itself();
        let ticket = send(&mut nic, 1).unwrap();
        nic.kick();
        assert_eq!(settle(&mut nic), Ok(ticket));
        assert_eq!((nic.counters().resets, fake.resets()), (1, 2));
        fake.pass_us(1_100_000);
        assert_works(&fake, &mut nic);
        fake.reset_itself();
        let noticed = (0..10_000).find_map(|_| nic.receive(&mut [0; 60]).err());
        assert_eq!(noticed, Some(RxError::Device(NicError::Failed)));
        assert!(fake.margins_are_untouched());
    }
}

#[test]
fn frames_that_are_never_completed() {
    for device in ALL {
        let (fake, mut nic) = running(device);
        fake.change(|quirks| quirks.never_done = true);
        let ticket = send(&mut nic, 1).unwrap();
        nic.kick();
        assert_eq!(nic.poll_tx(), Ok(TxTicket(0)));
        let resets = (0..3_000_000).find(|_| {
            nic.poll_tx().unwrap();
            nic.counters().resets == 1
        });
        assert!(resets.is_some_and(|looks| looks > 100_000), "{resets:?}");
        assert_eq!(settle(&mut nic), Ok(ticket), "a reset completes all");
        fake.pass_us(1_100_000);
        send(&mut nic, 2).unwrap();
        nic.kick();
        let error = (0..3_000_000).find_map(|_| nic.poll_tx().err());
        assert_eq!(error, Some(NicError::Timeout("e1000 transmit")));
    }
}

#[test]
fn completions_out_of_order_hold_the_mark() {
    for device in ALL {
        let (fake, mut nic) = running(device);
        fake.change(|quirks| quirks.done_out_of_order = true);
        for number in 0..10 {
            send(&mut nic, number).unwrap();
        }
        nic.kick();
        assert_eq!(nic.poll_tx(), Ok(TxTicket(0)), "the first is not done, the second is");
    }
}

#[test]
fn lengths_and_states_that_cannot_be() {
    for device in ALL {
        let (fake, mut nic) = running(device);
        for len in [0, 13, 2049, 0xffff] {
            fake.change(|quirks| quirks.rx_len = Some(len));
            assert!(fake.deliver(&incoming(60, 1)));
            assert_eq!(nic.receive(&mut [0; 4096]), Err(RxError::Malformed), "{len}");
        }
        fake.change(|quirks| quirks.rx_len = None);
        fake.change(|quirks| quirks.rx_errors = 0x80);
        assert!(fake.deliver(&incoming(60, 1)));
        assert_eq!(nic.receive(&mut [0; 60]), Err(RxError::Malformed));
        fake.change(|quirks| quirks.rx_errors = 0);
        // Two pieces without an end, and the one that ends them: all dropped.
        fake.change(|quirks| quirks.rx_status_flip = 2);
        assert!(fake.deliver(&incoming(60, 1)) && fake.deliver(&incoming(60, 2)));
        fake.change(|quirks| quirks.rx_status_flip = 0);
        assert!(fake.deliver(&incoming(60, 3)));
        for _ in 0..3 {
            assert_eq!(nic.receive(&mut [0; 60]), Err(RxError::Malformed));
        }
        assert_eq!(nic.receive(&mut [0; 60]), Ok(None));
        assert_works(&fake, &mut nic);
        assert_clean(&fake);
    }
}

/// Something a test does to the driver, or the device to itself.
#[derive(Clone, Debug)]
enum Deed {
    Send(u8),
    Kick,
    Reap,
    Receive,
    Deliver(u16),
    Scribble(u32, u64),
    Noise(u64),
    ResetItself,
    Start(u16),
    Stop,
    Flip(u8),
    Pass(u32),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => any::<u8>().prop_map(Deed::Send),
        3 => Just(Deed::Kick),
        3 => Just(Deed::Reap),
        3 => Just(Deed::Receive),
        3 => (14u16..1600).prop_map(Deed::Deliver),
        2 => (0u32..5200, any::<u64>()).prop_map(|(at, word)| Deed::Scribble(at, word)),
        1 => any::<u64>().prop_map(Deed::Noise),
        1 => Just(Deed::ResetItself),
        1 => (0u16..600).prop_map(Deed::Start),
        1 => Just(Deed::Stop),
        1 => any::<u8>().prop_map(Deed::Flip),
        1 => (0u32..2_000_000).prop_map(Deed::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_lie_makes_the_driver_panic_hang_or_leave_its_memory(
        device in prop::sample::select(ALL.to_vec()),
        deeds in prop::collection::vec(deed(), 1..120),
    ) {
        let fake = FakeIntel::new(device, Quirks::default());
        let mut nic = fake.driver();
        let mut clock: FakeClock = fake.clock();
        let mut mark = TxTicket(0);
        let mut last = TxTicket(0);
        let payload = [fake.payload(3, &[5; 900]), fake.payload(4000, &[6; 400])];
        for deed in deeds {
            match deed {
                Deed::Send(segments) => {
                    let pieces = &payload[..usize::from(segments % 3)];
                    if let Ok(ticket) = nic.transmit(&frame(&header(1), Payload::Dma(pieces))) {
                        prop_assert_eq!(ticket, last.next());
                        last = ticket;
                    }
                }
                Deed::Kick => nic.kick(),
                Deed::Reap => {
                    for _ in 0..1100 {
                        if let Ok(now) = nic.poll_tx() {
                            prop_assert!(mark <= now && now <= last);
                            mark = now;
                        }
                    }
                }
                Deed::Receive => {
                    let mut buf = [0; 1514];
                    if let Ok(Some(len)) = nic.receive(&mut buf) {
                        prop_assert!((14..=1514).contains(&len));
                    }
                }
                Deed::Deliver(len) => { fake.deliver(&incoming(usize::from(len), 1)); }
                Deed::Scribble(at, word) => fake.scribble(u64::from(at), &word.to_le_bytes()),
                Deed::Noise(seed) => fake.change(|quirks| quirks.noise = seed & !1 | seed >> 63),
                Deed::ResetItself => fake.reset_itself(),
                Deed::Start(steps) => {
                    fake.change(|quirks| quirks.noise = 0);
                    for _ in 0..steps {
                        if !matches!(nic.poll_start(&mut clock), Ok(Start::Again { .. })) {
                            break;
                        }
                        clock.relax();
                    }
                }
                Deed::Stop => drop(nic.stop()),
                Deed::Flip(bits) => fake.change(|quirks| quirks.rx_status_flip = bits),
                Deed::Pass(us) => fake.pass_us(u64::from(us)),
            }
        }
        prop_assert!(fake.margins_are_untouched());
    }
}
