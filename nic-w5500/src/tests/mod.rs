//! The driver against the fake chip.

mod dump;
mod lies;

use debugnet_core::addr::{MacAddr, PhysAddr, PhysRange};
use debugnet_core::nic::{
    Checksum, ChecksumOffload, Link, Nic, NicError, Payload, PayloadKind, RxError, Start, TxError,
    TxFrame, TxTicket,
};
use debugnet_core::time::Clock;

use crate::chip::{common, socket};
use crate::fake::{FakeDriver, FakeW5500, Lies};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// `count`; `few` under Miri, an interpreter, which takes some hundred times as long.
const fn times(count: u32, few: u32) -> u32 {
    if cfg!(miri) { few } else { count }
}

/// Polls until the driver runs, within what it promises.
fn start(nic: &mut FakeDriver, clock: &mut dyn Clock) -> Result<(), NicError> {
    for _ in 0..10_000 {
        if nic.poll_start(clock)? == Start::Ready {
            return Ok(());
        }
        clock.relax();
    }
    panic!("the take-over does not end");
}

fn running() -> (FakeW5500, FakeDriver) {
    let fake = FakeW5500::new(Lies::default());
    let mut nic = fake.driver(MacAddr(MAC));
    start(&mut nic, &mut fake.clock()).unwrap();
    (fake, nic)
}

fn send(nic: &mut FakeDriver, header: &[u8], payload: &[u8]) -> Result<TxTicket, TxError> {
    let payload = if payload.is_empty() { Payload::None } else { Payload::Bytes(payload) };
    nic.transmit(&TxFrame { header, payload, checksum: Checksum::Complete })
}

/// Polls until `ticket` has left, within what a sound chip needs.
fn finish(nic: &mut FakeDriver, ticket: TxTicket) {
    for _ in 0..1_000 {
        if nic.poll_tx().unwrap() >= ticket {
            return;
        }
    }
    panic!("{ticket:?} never left");
}

fn incoming(len: usize, fill: u8) -> Vec<u8> {
    let mut bytes = MAC.to_vec();
    bytes.resize(len, fill);
    bytes
}

/// A frame goes out and one comes in.
#[track_caller]
fn assert_works(fake: &FakeW5500, nic: &mut FakeDriver) {
    fake.take_frames();
    let ticket = send(nic, &[7; 66], &[8; 1000]).unwrap();
    nic.kick();
    finish(nic, ticket);
    assert_eq!(fake.take_frames(), [[&[7; 66][..], &[8; 1000]].concat()]);
    assert!(fake.deliver(&incoming(60, 5)));
    let mut buf = [0; 128];
    assert_eq!(nic.receive(&mut buf), Ok(Some(60)));
    assert_eq!(buf[..60], incoming(60, 5));
    assert_eq!(fake.violations(), Vec::<String>::new());
}

#[test]
fn nothing_is_touched_before_the_crash() {
    let fake = FakeW5500::new(Lies::default());
    let mut nic = fake.driver(MacAddr(MAC));
    assert_eq!(send(&mut nic, &[0; 60], &[]), Err(TxError::Device(NicError::NotStarted)));
    assert_eq!(nic.poll_tx(), Err(NicError::NotStarted));
    assert_eq!(nic.receive(&mut [0; 64]), Err(RxError::Device(NicError::NotStarted)));
    assert_eq!(nic.link(), Link::Unknown);
    nic.kick();
    assert_eq!(fake.transfers(), 0);
}

#[test]
fn a_chip_in_use_is_taken_over() {
    let (fake, mut nic) = running();
    assert_eq!(fake.common(common::SIMR), 0, "no interrupts");
    assert_eq!(fake.socket(3, socket::SR), 0, "the dead firmware's socket is closed");
    for number in 0..8 {
        let kib = if number == 0 { 16 } else { 0 };
        assert_eq!(fake.socket(number, socket::TXBUF_SIZE), kib);
        assert_eq!(fake.socket(number, socket::RXBUF_SIZE), kib);
    }
    let caps = nic.capabilities();
    assert_eq!((caps.mac, caps.payload), (MacAddr(MAC), PayloadKind::Bytes));
    assert_eq!(caps.checksum, ChecksumOffload::None);
    assert_works(&fake, &mut nic);
    assert_eq!(nic.stop(), Ok(()));
    assert_eq!(fake.socket(0, socket::SR), 0);
    assert!(!fake.deliver(&incoming(60, 1)));
    start(&mut nic, &mut fake.clock()).unwrap();
    assert_works(&fake, &mut nic);
}

#[test]
fn no_step_is_long() {
    let fake = FakeW5500::new(Lies::default());
    let mut nic = fake.driver(MacAddr(MAC));
    let mut clock = fake.clock();
    loop {
        let before = fake.transfers();
        let start = nic.poll_start(&mut clock).unwrap();
        assert!(fake.transfers() - before <= 40, "{}", fake.transfers() - before);
        if start == Start::Ready {
            break;
        }
        clock.relax();
    }
}

#[test]
fn a_phy_that_negotiates_keeps_its_link() {
    // As left by the dead firmware: held at one speed.
    let (fake, mut nic) = running();
    let phy = fake.common(common::PHYCFGR);
    assert_eq!(phy & (common::PHY_MODE | common::PHY_RUN), common::PHY_AUTO | common::PHY_RUN);
    // Started again, it is left alone: a write would be seen as another value.
    nic.stop().unwrap();
    start(&mut nic, &mut fake.clock()).unwrap();
    assert_eq!(fake.common(common::PHYCFGR), phy);
    assert_eq!(nic.link(), Link::Up);
    fake.change(|lies| lies.no_link = true);
    assert_eq!(nic.link(), Link::Down);
}

#[test]
fn short_frames_are_padded_with_zeros() {
    let (fake, mut nic) = running();
    let ticket = send(&mut nic, &[9; 42], &[]).unwrap();
    nic.kick();
    finish(&mut nic, ticket);
    assert_eq!(fake.take_frames(), [[&[9; 42][..], &[0; 18]].concat()]);
}

#[test]
fn frames_leave_one_by_one_in_order_and_not_before_the_kick() {
    let (fake, mut nic) = running();
    let mut tickets = Vec::new();
    loop {
        match send(&mut nic, &[tickets.len() as u8; 66], &[1; 1448]) {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => break assert_eq!(error, TxError::Full),
        }
    }
    assert_eq!(tickets.len(), 10);
    for _ in 0..100 {
        assert_eq!(nic.poll_tx(), Ok(TxTicket::NONE));
    }
    assert!(fake.take_frames().is_empty());
    nic.kick();
    // Not kicked, so it stays.
    finish(&mut nic, tickets[0]);
    let late = send(&mut nic, &[99; 66], &[]).unwrap();
    finish(&mut nic, tickets[9]);
    for _ in 0..100 {
        assert_eq!(nic.poll_tx(), Ok(tickets[9]));
    }
    let firsts: Vec<u8> = fake.take_frames().iter().map(|frame| frame[0]).collect();
    assert_eq!(firsts, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    nic.kick();
    finish(&mut nic, late);
    assert_eq!(fake.take_frames()[0][0], 99);
    assert_eq!(fake.violations(), Vec::<String>::new());
}

#[test]
fn both_buffers_wrap() {
    let (fake, mut nic) = running();
    for round in 0..times(100, 40) as u8 {
        let payload = vec![round; 1000 + usize::from(round)];
        let ticket = send(&mut nic, &[round; 66], &payload).unwrap();
        nic.kick();
        finish(&mut nic, ticket);
        assert_eq!(fake.take_frames(), [[&[round; 66][..], &payload].concat()]);
        let frame = incoming(400 + 7 * usize::from(round), round);
        assert!(fake.deliver(&frame));
        let mut buf = [0; 1514];
        assert_eq!(nic.receive(&mut buf), Ok(Some(frame.len())));
        assert_eq!(&buf[..frame.len()], frame);
    }
    assert_eq!(nic.receive(&mut [0; 64]), Ok(None));
    assert_eq!(fake.violations(), Vec::<String>::new());
}

#[test]
fn what_does_not_fit_is_refused_or_dropped() {
    let (fake, mut nic) = running();
    assert_eq!(
        send(&mut nic, &[0; 66], &[0; 1449]),
        Err(TxError::TooLong { len: 1515, max: 1514 })
    );
    let range = PhysRange::new(PhysAddr(0), 4096).unwrap();
    let dma =
        TxFrame { header: &[0; 66], payload: Payload::Dma(&[range]), checksum: Checksum::Complete };
    assert_eq!(nic.transmit(&dma), Err(TxError::NotReachable));
    assert!(fake.deliver(&incoming(200, 1)) && fake.deliver(&incoming(60, 2)));
    assert_eq!(nic.receive(&mut [0; 128]), Err(RxError::TooLong { len: 200 }));
    assert_eq!(nic.receive(&mut [0; 128]), Ok(Some(60)));
}
