//! The driver against the fake device.

mod lies;
mod order;
mod traffic;
mod transports;

use debugnet_core::nic::{Checksum, Nic, NicError, Payload, Start, TxError, TxFrame, TxTicket};
use debugnet_core::time::{Clock, Instant};
use nic_hal::{DmaMap, Identity};

use crate::fake::{FakeDriver, FakeVirtio, Quirks, RX, TX};
use crate::{Sizes, features};

/// Time that passes only by waiting, 100 us at a time; 1 ms where each look is dear.
#[derive(Default)]
struct TestClock(u64);

impl Clock for TestClock {
    fn now(&mut self) -> Instant {
        Instant::from_micros(self.0)
    }
    fn relax(&mut self) {
        self.0 += u64::from(times(100, 1_000));
    }
}

/// `count`; `few` under Miri, an interpreter, which takes some hundred times as long.
const fn times(count: u32, few: u32) -> u32 {
    if cfg!(miri) { few } else { count }
}

/// Runs the take-over to its end. The steps are counted: more than this is a hang.
fn start<M: DmaMap>(nic: &mut FakeDriver<M>, clock: &mut dyn Clock) -> Result<(), NicError> {
    for _ in 0..300_000 {
        match nic.poll_start(clock)? {
            Start::Ready => return Ok(()),
            Start::Again { .. } => clock.relax(),
        }
    }
    panic!("the take-over does not end");
}

/// A device and its driver, running, with the doorbells of the start forgotten.
fn running(quirks: Quirks) -> (FakeVirtio, FakeDriver) {
    let fake = FakeVirtio::new(quirks);
    let mut nic = fake.driver();
    start(&mut nic, &mut TestClock::default()).unwrap();
    fake.take_doorbells();
    (fake, nic)
}

/// A device and its driver, running, with memory for any interface.
fn running_on(quirks: Quirks) -> (FakeVirtio, FakeDriver) {
    let (fake, nic) = try_running_on(quirks, Sizes::ANY);
    (fake, nic.unwrap())
}

fn try_running_on(quirks: Quirks, sizes: Sizes) -> (FakeVirtio, Result<FakeDriver, NicError>) {
    let fake = FakeVirtio::with_sizes(quirks, sizes);
    let mut nic = fake.driver_with(Identity::new(), sizes);
    let started = start(&mut nic, &mut TestClock::default());
    (fake, started.map(|()| nic))
}

/// A header of a frame, the number in its last bytes.
fn header(number: u32) -> Vec<u8> {
    let mut header = vec![0xe0; 62];
    header.extend(number.to_be_bytes());
    header
}

fn send<M: DmaMap>(nic: &mut FakeDriver<M>, number: u32) -> Result<TxTicket, TxError> {
    let header = header(number);
    nic.transmit(&TxFrame { header: &header, payload: Payload::None, checksum: Checksum::Complete })
}

/// The driver did nothing against the specification, and kept to its memory.
#[track_caller]
fn assert_clean(fake: &FakeVirtio) {
    assert_eq!(fake.violations(), Vec::<String>::new());
    assert!(fake.margins_are_untouched());
}

#[test]
fn a_driver_may_move_to_the_crash_context() {
    fn assert_send<T: Send>() {}
    assert_send::<crate::tx::Transmitter>();
    assert_send::<crate::rx::Receiver>();
    #[cfg(target_arch = "x86_64")]
    assert_send::<crate::VirtioNet<crate::PciModern<nic_hal::pci::Cf8>, Identity>>();
}

#[test]
fn nothing_is_touched_before_the_crash() {
    let fake = FakeVirtio::new(Quirks::default());
    let mut nic = fake.driver();
    assert!(fake.config().writes().is_empty());
    assert_eq!((fake.status(), fake.resets()), (0x0f, 0));
    assert_eq!(send(&mut nic, 1), Err(TxError::Device(NicError::NotStarted)));
    assert_eq!(nic.poll_tx(), Err(NicError::NotStarted));
    nic.kick();
    assert!(fake.take_doorbells().is_empty());
    assert_eq!(fake.status(), 0x0f);
    assert_clean(&fake);
}

#[test]
fn a_device_in_use_is_taken_over() {
    let fake = FakeVirtio::new(Quirks { reset_looks: 7, ..Quirks::default() });
    let mut nic = fake.driver();
    let mut clock = TestClock::default();
    let mut steps = 0;
    loop {
        steps += 1;
        match nic.poll_start(&mut clock).unwrap() {
            Start::Ready => break,
            Start::Again { .. } => clock.relax(),
        }
        // The rings of the dead kernel stay out of reach: the bus is closed
        // until the device has let go of them.
        assert!(fake.resets() == 1 || !fake.config().is_bus_master());
        assert_eq!(fake.fetch(TX), None);
    }
    assert!(steps < 20, "{steps}");
    assert_eq!((fake.resets(), fake.status()), (1, 0x0f));
    // MSI-X is off, INTx is off, memory and mastering are on.
    assert_eq!(fake.config().get(0x40) >> 31, 0);
    assert_eq!(fake.config().get(0x04) & 0x0406, 0x0406);
    assert_eq!(fake.accepted(), features::VERSION_1 | features::MAC | features::STATUS);
    assert_eq!(fake.take_doorbells(), [(RX, 0)]);
    let capabilities = nic.capabilities();
    assert_eq!(capabilities.mac, Quirks::default().mac);
    assert_eq!(
        (capabilities.ip_mtu, capabilities.tx_slots, capabilities.max_segments),
        (1500, 85, 2)
    );
    assert_clean(&fake);
}

#[test]
fn bus_mastering_is_checked_at_each_start() {
    let (fake, mut nic) = running(Quirks::default());
    nic.stop().unwrap();
    fake.config().set(0x04, 0x0010_0000);
    start(&mut nic, &mut TestClock::default()).unwrap();
    assert_eq!(fake.config().get(0x04) & 0x0406, 0x0406);
    assert!(fake.deliver(&[1; 60]));
    assert_eq!(nic.receive(&mut [0; 100]), Ok(Some(60)));
    assert_clean(&fake);
}

#[test]
fn a_sleeping_device_is_woken_and_given_its_time() {
    let fake = FakeVirtio::new(Quirks::default());
    // Power management in D3, last in the list.
    fake.config().set(0xc4, fake.config().get(0xc4) | 0xd8 << 8);
    fake.config().set(0xd8, 0x0003_0001);
    fake.config().set(0xdc, 3);
    let mut nic = fake.driver();
    let mut clock = TestClock::default();
    start(&mut nic, &mut clock).unwrap();
    assert_eq!(fake.config().get(0xdc), 0);
    assert!(clock.0 >= 10_000, "{} us", clock.0);
    assert_clean(&fake);
}

#[test]
fn stop_is_quiet_and_a_new_start_works() {
    let (fake, mut nic) = running(Quirks { reset_looks: 3, ..Quirks::default() });
    let first = send(&mut nic, 1).unwrap();
    nic.kick();
    assert_eq!(fake.fetch_frames().len(), 1);
    assert_eq!(nic.poll_tx(), Ok(TxTicket::NONE));
    nic.stop().unwrap();
    assert_eq!(fake.status(), 0);
    assert_eq!(nic.poll_tx(), Ok(first));
    assert_eq!(send(&mut nic, 2), Err(TxError::Device(NicError::NotStarted)));
    start(&mut nic, &mut TestClock::default()).unwrap();
    // Tickets go on; the rings begin anew.
    assert_eq!(send(&mut nic, 3), Ok(TxTicket(2)));
    nic.kick();
    let frames = fake.fetch_frames();
    assert_eq!((frames.len(), frames[0].0, &frames[0].2), (1, 0, &header(3)));
    assert_clean(&fake);
}

#[test]
fn link_is_the_devices_word_if_it_gives_one() {
    use debugnet_core::nic::Link;
    let (fake, mut nic) = running(Quirks::default());
    assert_eq!(nic.link(), Link::Up);
    fake.change(|quirks| quirks.link_up = false);
    assert_eq!(nic.link(), Link::Down);
    let (_, mut nic) = running(Quirks {
        features: features::VERSION_1 | features::MAC,
        link_up: false,
        ..Quirks::default()
    });
    assert_eq!(nic.link(), Link::Unknown);
}

#[test]
fn an_address_comes_from_the_device_or_the_caller() {
    use debugnet_core::addr::MacAddr;
    let features = features::VERSION_1 | features::STATUS;
    let fake = FakeVirtio::new(Quirks { features, ..Quirks::default() });
    let refused = start(&mut fake.driver(), &mut TestClock::default());
    assert!(matches!(refused, Err(NicError::Unsupported(_))));
    let mac = MacAddr([2, 0, 0, 0, 0, 9]);
    let mut nic = fake.driver().with_fallback_mac(mac);
    start(&mut nic, &mut TestClock::default()).unwrap();
    assert_eq!(nic.capabilities().mac, mac);
    // A group address is no station, whatever the device says.
    let fake = FakeVirtio::new(Quirks { mac: MacAddr::BROADCAST, ..Quirks::default() });
    let mut nic = fake.driver().with_fallback_mac(mac);
    start(&mut nic, &mut TestClock::default()).unwrap();
    assert_eq!(nic.capabilities().mac, mac);
}
