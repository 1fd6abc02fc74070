//! A chip or a bus that fails, stalls or lies.

use proptest::prelude::*;

use super::*;
use crate::fake::fuzz;

fn start_error(lies: Lies) -> NicError {
    let fake = FakeW5500::new(lies);
    let error = start(&mut fake.driver(MacAddr(MAC)), &mut fake.clock()).unwrap_err();
    assert!(fake.now_us() < 1_000_000, "{} us", fake.now_us());
    error
}

#[test]
fn chips_that_are_not_there_or_not_this_one() {
    assert_eq!(start_error(Lies { gone: true, ..Lies::default() }), NicError::Gone);
    let other = Lies { version: Some(0x51), ..Lies::default() };
    assert_eq!(start_error(other), NicError::Unknown { id: 0x51 });
    assert_eq!(start_error(Lies { version: Some(0), ..Lies::default() }), NicError::Gone);
}

#[test]
fn resets_and_commands_that_never_end() {
    let reset = Lies { reset_never_ends: true, ..Lies::default() };
    assert_eq!(start_error(reset), NicError::Timeout("W5500 reset"));
    let command = Lies { commands_never_taken: true, ..Lies::default() };
    assert_eq!(start_error(command), NicError::Protocol("W5500: a command that is never taken"));
    let open = Lies { never_opens: true, ..Lies::default() };
    assert_eq!(start_error(open), NicError::Protocol("W5500: socket 0 does not open"));
}

#[test]
fn a_dead_clock_does_not_hang_the_take_over() {
    struct Stopped;
    impl Clock for Stopped {
        fn now(&mut self) -> debugnet_core::time::Instant {
            debugnet_core::time::Instant::ZERO
        }
        fn relax(&mut self) {}
    }
    let fake = FakeW5500::new(Lies { reset_never_ends: true, ..Lies::default() });
    let error = start(&mut fake.driver(MacAddr(MAC)), &mut Stopped).unwrap_err();
    assert_eq!(error, NicError::Timeout("W5500 reset"));
}

#[test]
fn a_bus_that_fails_now_and_then_loses_no_frame() {
    for every in [4, 5, 7, 9, 11, 13].into_iter().step_by(times(1, 3) as usize) {
        let (fake, mut nic) = running();
        fake.change(|lies| lies.bus_fails_every = Some(every));
        let mut wanted = Vec::new();
        for number in 0..times(50, 10) as u8 {
            let frame = vec![number; 100];
            let ticket = (0..20).find_map(|_| send(&mut nic, &frame, &[]).ok()).unwrap();
            nic.kick();
            for _ in 0..100_000 {
                if nic.poll_tx().unwrap() >= ticket {
                    break;
                }
            }
            assert_eq!(nic.poll_tx(), Ok(ticket), "every {every}, frame {number}");
            wanted.push(frame);
        }
        assert_eq!(fake.take_frames(), wanted, "every {every}");
        assert!(nic.counters().bus_errors > 0);
        assert_eq!(nic.counters().reopened, 0);
        assert_eq!(fake.violations(), Vec::<String>::new());
    }
}

#[test]
fn a_bus_that_fails_now_and_then_receives_all_the_same() {
    let (fake, mut nic) = running();
    fake.change(|lies| lies.bus_fails_every = Some(5));
    for number in 0..times(50, 10) as u8 {
        assert!(fake.deliver(&incoming(60 + usize::from(number), number)));
        let mut buf = [0; 256];
        let found = (0..20).find_map(|_| nic.receive(&mut buf).ok().flatten());
        assert_eq!(found, Some(60 + usize::from(number)));
        assert_eq!(buf[6], number);
    }
    assert_eq!(nic.counters().reopened, 0);
}

#[test]
fn a_bus_that_fails_for_good_is_said() {
    let (fake, mut nic) = running();
    fake.change(|lies| lies.bus_fails_every = Some(1));
    let error = (0..100).find_map(|_| match send(&mut nic, &[0; 60], &[]) {
        Err(TxError::Full) => None,
        other => Some(other),
    });
    assert_eq!(error, Some(Err(TxError::Device(NicError::Bus))));
    assert_eq!(nic.poll_tx(), Err(NicError::Bus));
    assert_eq!(nic.receive(&mut [0; 60]), Err(RxError::Device(NicError::Bus)));
    assert_eq!(nic.stop(), Ok(()));
    let dead = Lies { bus_fails_every: Some(1), ..Lies::default() };
    assert_eq!(start_error(dead), NicError::Bus);
}

#[test]
fn a_chip_that_resets_itself_is_opened_again() {
    let (fake, mut nic) = running();
    assert_works(&fake, &mut nic);
    fake.reset_itself();
    let ticket = send(&mut nic, &[1; 60], &[]).unwrap();
    nic.kick();
    let left = (0..2_000).find(|_| nic.poll_tx().unwrap() >= ticket);
    assert!(left.is_some(), "a reset completes all tickets");
    assert_eq!(nic.counters().reopened, 1);
    assert_works(&fake, &mut nic);
    // Also when nothing is sent.
    fake.reset_itself();
    for _ in 0..5_000 {
        assert_eq!(nic.receive(&mut [0; 60]), Ok(None));
    }
    assert_eq!(nic.counters().reopened, 2);
    assert_works(&fake, &mut nic);
    // Not for ever, which takes an interpreter too long to see.
    if cfg!(miri) {
        return;
    }
    let error = (0..100_000).find_map(|_| {
        fake.reset_itself();
        nic.receive(&mut [0; 60]).err()
    });
    assert_eq!(error, Some(RxError::Device(NicError::Failed)));
}

#[test]
fn a_chip_that_goes_is_noticed() {
    let (fake, mut nic) = running();
    fake.change(|lies| lies.gone = true);
    let error = (0..10_000)
        .find_map(|_| nic.receive(&mut [0; 60]).err().filter(|e| *e != RxError::Malformed));
    assert_eq!(error, Some(RxError::Device(NicError::Gone)));
    assert_eq!(nic.link(), Link::Unknown);
}

#[test]
#[cfg_attr(miri, ignore = "a quarter of a million looks take an interpreter too long")]
fn frames_that_never_leave() {
    let (fake, mut nic) = running();
    fake.change(|lies| lies.never_sends = true);
    let mut looks = 0_u64;
    let error = (0..5_000_000_u64).find_map(|_| {
        if send(&mut nic, &[0; 60], &[]).is_ok() {
            nic.kick();
        }
        looks += 1;
        nic.poll_tx().err()
    });
    assert_eq!(error, Some(NicError::Timeout("W5500 transmit")));
    assert!(looks > 250_000, "{looks}");
}

#[test]
fn frames_that_are_given_up_on_make_room() {
    let (fake, mut nic) = running();
    fake.change(|lies| lies.send_times_out = true);
    for _ in 0..30 {
        let ticket = send(&mut nic, &[0; 60], &[]).unwrap();
        nic.kick();
        finish(&mut nic, ticket);
    }
    assert!(fake.take_frames().is_empty());
    fake.change(|lies| lies.send_times_out = false);
    assert_works(&fake, &mut nic);
}

#[test]
fn lengths_that_cannot_be_cost_what_was_received_and_no_more() {
    for prefix in [0, 1, 2, 15, 1517, 0x4001, 0xffff] {
        let (fake, mut nic) = running();
        fake.change(|lies| lies.rx_prefix = Some(prefix));
        assert!(fake.deliver(&incoming(60, 1)));
        assert_eq!(nic.receive(&mut [0; 4096]), Err(RxError::Malformed), "{prefix:#x}");
        fake.change(|lies| lies.rx_prefix = None);
        assert_eq!(nic.counters().reopened, 1);
        assert_works(&fake, &mut nic);
    }
    for waiting in [1, 61, 0x4001, 0xffff] {
        let (fake, mut nic) = running();
        fake.change(|lies| lies.rx_waiting = Some(waiting));
        assert!(fake.deliver(&incoming(60, 1)));
        assert_eq!(nic.receive(&mut [0; 4096]), Err(RxError::Malformed), "{waiting:#x}");
        fake.change(|lies| lies.rx_waiting = None);
        assert_works(&fake, &mut nic);
    }
    let (fake, mut nic) = running();
    fake.change(|lies| lies.counters_unsteady = true);
    assert_eq!(nic.receive(&mut [0; 64]), Err(RxError::Malformed));
    fake.change(|lies| lies.counters_unsteady = false);
    assert_works(&fake, &mut nic);
}

#[test]
fn garbage_on_every_read_is_an_error_and_passes() {
    for noise in 1..u64::from(times(200, 3)) {
        let fake = FakeW5500::new(Lies { noise, ..Lies::default() });
        let started = start(&mut fake.driver(MacAddr(MAC)), &mut fake.clock());
        assert!(started.is_err(), "noise {noise} was taken for a chip");
        assert!(fake.now_us() < 1_000_000, "{} us", fake.now_us());

        let (fake, mut nic) = running();
        let last = send(&mut nic, &[7; 60], &[]).unwrap();
        fake.change(|lies| lies.noise = noise);
        let mut failed = false;
        for _ in 0..100 {
            nic.kick();
            match nic.poll_tx() {
                Ok(mark) => assert!(mark <= last, "{mark:?} was never sent"),
                Err(_) => failed = true,
            }
            let mut buf = [0; 1514];
            match nic.receive(&mut buf) {
                Ok(Some(len)) => assert!((14..=1514).contains(&len), "{len}"),
                Ok(None) => {}
                Err(_) => failed = true,
            }
        }
        assert!(failed, "noise {noise} went unnoticed");
        // A take-over needs nothing of what was before.
        fake.change(|lies| lies.noise = 0);
        let mut again = fake.driver(MacAddr(MAC));
        start(&mut again, &mut fake.clock()).unwrap();
        assert_works(&fake, &mut again);
    }
}

/// README.md has a row for each lie, with tests that tell it.
#[test]
#[cfg_attr(miri, ignore = "looks at documents, not at memory")]
fn each_lie_is_listed_with_its_tests() {
    let fake = include_str!("../fake.rs");
    let (_, lies) = fake.split_once("pub struct Lies {").unwrap();
    let (lies, _) = lies.split_once("\n}").unwrap();
    let fields: Vec<&str> = lies
        .lines()
        .filter_map(|line| Some(line.trim().strip_prefix("pub ")?.split_once(':')?.0))
        .collect();
    assert!(fields.len() > 10, "{fields:?}");
    let tests = [include_str!("mod.rs"), include_str!("dump.rs"), include_str!("lies.rs")].concat();
    let bodies: Vec<&str> = tests.split("#[test]").skip(1).collect();
    let readme = include_str!("../../README.md");
    for field in fields {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{field}` |")));
        let row = row.unwrap_or_else(|| panic!("README.md has no row for {field}"));
        let named: Vec<&str> = row.split('`').skip(3).step_by(2).collect();
        assert!(!named.is_empty(), "no test for {field}");
        for name in named {
            let body = bodies.iter().find(|body| body.contains(&format!("fn {name}(")));
            let body = body.unwrap_or_else(|| panic!("no test {name}"));
            assert!(body.contains(field), "{name} does not tell the lie {field}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What a chip and its bus can be and do, as the fuzzer has it, at less depth.
    #[test]
    #[cfg_attr(miri, ignore = "a story may be of 100,000 looks; some of the kept ones are told")]
    fn no_lie_makes_the_driver_panic_or_hang(story in prop::collection::vec(any::<u8>(), 0..800)) {
        fuzz::run(&story);
    }
}

#[test]
fn what_the_fuzzer_found_stays_mended() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/nic_w5500");
    let entries: Vec<_> = std::fs::read_dir(dir).expect("the target's corpus").collect();
    assert!(entries.len() > 10, "{} stories in {dir}", entries.len());
    for entry in entries.into_iter().step_by(times(1, 12) as usize) {
        fuzz::run(&std::fs::read(entry.unwrap().path()).unwrap());
    }
}
