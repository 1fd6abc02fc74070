//! The driver against the fake device.

mod lies;
mod traffic;
mod traps;

use debugnet_core::addr::MacAddr;
use debugnet_core::nic::{
    Checksum, ChecksumOffload, Link, Nic, NicError, Payload, RxError, Start, TxError, TxFrame,
    TxTicket,
};
use debugnet_core::time::{Clock, Instant};
use nic_hal::DmaMap;

use crate::fake::{FakeDriver, FakeIntel, Quirks};
use crate::registers as reg;

const E1000: u16 = 0x100e;
const E1000E: u16 = 0x10d3;
const IGB: u16 = 0x10c9;
/// One part of each family.
#[cfg(not(miri))]
const ALL: [u16; 3] = [E1000, E1000E, IGB];
/// One part for each format of descriptors, for an interpreter.
#[cfg(miri)]
const ALL: [u16; 2] = [E1000, IGB];
/// For tests of many looks or polls, of which an interpreter does one part's.
#[cfg(not(miri))]
const LONG: [u16; 3] = ALL;
#[cfg(miri)]
const LONG: [u16; 1] = [E1000];
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// `count`; `few` under Miri, an interpreter, which takes some hundred times as long.
const fn times(count: u32, few: u32) -> u32 {
    if cfg!(miri) { few } else { count }
}

/// Runs the take-over to its end. The steps are counted: more than this is a hang.
fn start<M: DmaMap>(nic: &mut FakeDriver<M>, clock: &mut dyn Clock) -> Result<(), NicError> {
    for _ in 0..3_000_000 {
        match nic.poll_start(clock)? {
            Start::Ready => return Ok(()),
            Start::Again { .. } => clock.relax(),
        }
    }
    panic!("the take-over does not end");
}

/// A device and its driver, running, link up, past the second in which QEMU's
/// `e1000` is blind.
fn running_with(
    device: u16,
    quirks: Quirks,
    options: impl FnOnce(FakeDriver) -> FakeDriver,
) -> (FakeIntel, FakeDriver) {
    let fake = FakeIntel::new(device, quirks);
    let mut nic = options(fake.driver());
    start(&mut nic, &mut fake.clock()).unwrap();
    fake.pass_us(1_100_000);
    fake.take_log();
    (fake, nic)
}

fn running(device: u16) -> (FakeIntel, FakeDriver) {
    running_with(device, Quirks::default(), |nic| nic)
}

/// A header of 74 bytes, the number in its last ones.
fn header(number: u32) -> Vec<u8> {
    let mut header = vec![0xe0; 70];
    header.extend(number.to_be_bytes());
    header
}

fn frame<'a>(header: &'a [u8], payload: Payload<'a>) -> TxFrame<'a> {
    TxFrame { header, payload, checksum: Checksum::Complete }
}

fn send(nic: &mut FakeDriver, number: u32) -> Result<TxTicket, TxError> {
    nic.transmit(&frame(&header(number), Payload::None))
}

/// A frame for the driver's address.
fn incoming(len: usize, fill: u8) -> Vec<u8> {
    let mut bytes = MAC.to_vec();
    bytes.resize(len, fill);
    bytes
}

/// The driver did nothing it must not, and kept to its memory.
#[track_caller]
fn assert_clean(fake: &FakeIntel) {
    assert_eq!(fake.violations(), Vec::<String>::new());
    assert!(fake.margins_are_untouched());
}

/// The driver works: a frame goes out and one comes in.
#[track_caller]
fn assert_works(fake: &FakeIntel, nic: &mut FakeDriver) {
    fake.take_frames();
    let ticket = send(nic, 4711).unwrap();
    nic.kick();
    assert_eq!(fake.take_frames(), [header(4711)]);
    assert_eq!(nic.poll_tx(), Ok(ticket));
    assert!(fake.deliver(&incoming(60, 7)));
    let mut buf = [0; 64];
    assert_eq!(nic.receive(&mut buf), Ok(Some(60)));
    assert_eq!(buf[..60], incoming(60, 7));
}

/// How many bytes differ. By whole pieces first, which Miri does at once.
fn changed_bytes(now: &[u8], before: &[u8]) -> usize {
    let pieces = now.chunks(1024).zip(before.chunks(1024)).filter(|(now, before)| now != before);
    pieces
        .flat_map(|(now, before)| now.iter().zip(before))
        .filter(|(now, before)| now != before)
        .count()
}

/// Polls until a recovery is over; bounded by the driver's own promise.
fn settle(nic: &mut FakeDriver) -> Result<TxTicket, NicError> {
    for _ in 0..200_000 {
        nic.poll_tx()?;
        if nic.link() != Link::Unknown && nic.counters().resets > 0 {
            break;
        }
    }
    nic.poll_tx()
}

#[test]
fn a_driver_may_move_to_the_crash_context() {
    fn assert_send<T: Send>() {}
    #[cfg(target_arch = "x86_64")]
    assert_send::<crate::E1000<nic_hal::pci::Cf8, nic_hal::Identity>>();
    assert_send::<crate::tx::Transmitter>();
    assert_send::<crate::rx::Receiver>();
}

#[test]
fn nothing_is_touched_before_the_crash() {
    for device in ALL {
        let fake = FakeIntel::new(device, Quirks::default());
        let mut nic = fake.driver();
        assert_eq!(send(&mut nic, 1), Err(TxError::Device(NicError::NotStarted)));
        assert_eq!(nic.poll_tx(), Err(NicError::NotStarted));
        nic.kick();
        assert_eq!((fake.take_log(), fake.reads()), (vec![], 0));
        assert!(fake.config().writes().is_empty());
    }
}

#[test]
fn a_device_in_use_is_taken_over() {
    for device in ALL {
        let fake = FakeIntel::new(device, Quirks::default());
        let before = fake.dead_memory();
        let mut nic = fake.driver();
        let mut clock = fake.clock();
        let mut steps = 0;
        while nic.poll_start(&mut clock).unwrap() != Start::Ready {
            let accesses = fake.reads() + fake.take_log().len() as u64;
            if steps % times(1, 20) == 0 {
                fake.deliver(&[0xff; 60]);
            }
            // After the first three steps, which switch the receiver off, ...
            steps += 1;
            if steps == 3 {
                assert_eq!(fake.get(reg::RCTL), 0);
            }
            assert!(accesses < 1_000_000);
            clock.relax();
        }
        // ... the dead kernel's memory is left alone, and none of its frames go out.
        let written = changed_bytes(&fake.dead_memory(), &before);
        assert!(written <= 2 * (60 + 16), "{written}");
        assert!(fake.take_frames().is_empty());
        assert_eq!(fake.resets(), 1);
        assert_eq!(fake.config().get(0x50), 0x0080_0005, "MSI is off");
        assert_eq!(nic.capabilities().mac, MacAddr(MAC));
        assert_eq!(nic.capabilities().checksum, ChecksumOffload::None);
        assert!(nic.capabilities().tx_slots >= 64);
        fake.pass_us(1_100_000);
        assert_eq!(nic.link(), Link::Up);
        assert_works(&fake, &mut nic);
        assert_clean(&fake);

        assert_eq!(nic.stop(), Ok(()));
        assert!(!fake.config().is_bus_master() && fake.get(reg::RCTL) & reg::rctl::EN == 0);
        assert_eq!(send(&mut nic, 1), Err(TxError::Device(NicError::NotStarted)));
        // `stop` waits in configuration reads, which take no time here.
        fake.pass_us(1_000);
        start(&mut nic, &mut clock).unwrap();
        fake.pass_us(1_100_000);
        assert_works(&fake, &mut nic);
        assert_clean(&fake);
    }
}

#[test]
fn no_step_is_long() {
    for device in ALL {
        let fake = FakeIntel::new(device, Quirks::default());
        let mut nic = fake.driver();
        let mut clock = fake.clock();
        let mut before = 0;
        while nic.poll_start(&mut clock).unwrap() != Start::Ready {
            let now = fake.reads() + fake.take_log().len() as u64;
            assert!(now - before < 220, "{} accesses in a step", now - before);
            before = fake.reads();
            clock.relax();
        }
    }
}
