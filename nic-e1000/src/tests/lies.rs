//! Devices that lie, stall, break or vanish.

use proptest::prelude::*;

use super::*;
use crate::fake::fuzz;

fn start_error(device: u16, quirks: Quirks) -> NicError {
    let fake = FakeIntel::new(device, quirks);
    let error = start(&mut fake.driver(), &mut fake.clock()).unwrap_err();
    assert!(fake.now_us() < 1_000_000, "{} us", fake.now_us());
    assert!(fake.margins_are_untouched());
    error
}

#[test]
fn a_reset_that_never_ends() {
    for device in LONG {
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
#[cfg_attr(miri, ignore = "so many looks take an interpreter too long")]
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
    for device in LONG {
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
    for device in LONG {
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
    for device in LONG {
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
#[cfg_attr(miri, ignore = "so many polls take an interpreter too long")]
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What a device can be and do, as the fuzzer has it, at less depth.
    #[test]
    #[cfg_attr(miri, ignore = "a story may be of 100,000 looks; some of the kept ones are told")]
    fn no_lie_makes_the_driver_panic_hang_or_leave_its_memory(
        story in prop::collection::vec(any::<u8>(), 0..800),
    ) {
        fuzz::run(&story);
    }
}

#[test]
fn a_stop_in_the_middle_of_a_take_over_is_a_stop() {
    for device in LONG {
        for steps in [1, 3, 5, 210, 300, 330, 400, 600].into_iter().step_by(times(1, 3) as usize) {
            let fake = FakeIntel::new(device, Quirks::default());
            let (mut nic, mut clock) = (fake.driver(), fake.clock());
            for _ in 0..steps {
                if nic.poll_start(&mut clock).unwrap() == Start::Ready {
                    break;
                }
                clock.relax();
            }
            assert_eq!(nic.stop(), Ok(()));
            // Neither reset was disturbed: the fake notes that.
            assert_clean(&fake);
            start(&mut nic, &mut clock).unwrap();
            fake.pass_us(1_100_000);
            assert_works(&fake, &mut nic);
        }
    }
}

#[test]
fn what_the_fuzzer_found_stays_mended() {
    // An interpreter has time for a few.
    for story in nic_hal::host::corpus("nic_e1000").into_iter().step_by(times(1, 12) as usize) {
        fuzz::run(&story);
    }
}
