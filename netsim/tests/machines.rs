//! Machines of other kinds: small, slow, half-reachable, changing under the dump.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::{CoreWorld, assert_identical, assert_same, lossy, random_ram, world};
use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::dump::{
    DumpInfo, DumpSource, Extent, FailureKind, ImageStream, ReadFault, ReadRam, Reason, Stability,
    Transform, TransformError, Verdict,
};
use debugnet_core::nic::{ChecksumOffload, NicError, PayloadKind};
use debugnet_core::observer::{Blind, Event, Trace};
use debugnet_core::time::Instant;
use debugnet_core::wire::debugnet::{HERALD, MessageHeader, herald_word};
use debugnet_core::{Config, Limits};
use netsim::host::Datagram;
use netsim::link::Link;
use netsim::ram::{Ram, RamSource};
use netsim::rng::Rng;
use netsim::server::{Reply, Server};
use netsim::world::{CLIENT_IP, Machine, SERVER_IP, World};

const LEN: usize = 400_000;

fn machine(seed: u64) -> Machine {
    Machine::new(random_ram(LEN, seed))
}

fn config(words: &str) -> Config {
    Config::parse(&format!("server={SERVER_IP} client={CLIENT_IP} {words}")).unwrap()
}

/// The normal road: a NIC that fetches and sums. The CPU touches the volatile page only.
#[test]
fn no_byte_of_frozen_ram_is_touched_on_the_normal_road() {
    let mut machine = machine(1);
    machine.nic.checksum = ChecksumOffload::Insert;
    machine.config = config("zeros=send");
    let world = world(&lossy(0.01), 1);
    let outcome = machine.crash(&world);
    assert_identical(&machine, &world, &outcome);
    assert_eq!((outcome.bytes_read, outcome.bytes_copied), (4096, 4096));
    assert_eq!(machine.ram.borrow().cpu_read, 4096);
}

/// Without offload every byte is read once, whatever is sent again.
#[test]
fn a_software_sum_reads_each_byte_once() {
    let mut machine = machine(1);
    machine.config = config("zeros=send");
    let world = world(&lossy(0.0), 1);
    let outcome = machine.crash(&world);
    assert_identical(&machine, &world, &outcome);
    assert_eq!((outcome.bytes_read, outcome.bytes_copied), (LEN as u64, 4096));
    assert_eq!(machine.ram.borrow().cpu_read, LEN as u64);
}

#[test]
fn a_nic_that_takes_bytes() {
    for loss in [0.0, 0.05] {
        let mut machine = machine(2);
        machine.nic.payload = PayloadKind::Bytes;
        machine.nic.tx_slots = 4;
        machine.cells_reachable = false;
        machine.limits = Limits { slots: 16, cells: 2, ..Limits::DEFAULT };
        let world = world(&lossy(loss), 2);
        let outcome = machine.crash(&world);
        assert_identical(&machine, &world, &outcome);
        assert!(outcome.bytes_copied >= LEN as u64);
        assert!(outcome.cells_high_water <= 2);
    }
}

/// The smallest machine: 16 slots and one cell, which serves the herald's
/// path, the volatile page, every bounce and the header in turn.
#[test]
fn one_cell_is_enough() {
    for (payload, reach) in [(PayloadKind::Dma, 1 << 46), (PayloadKind::Bytes, u64::MAX)] {
        for seed in 0..10 {
            let mut machine = machine(seed);
            machine.config = config("path=lab");
            machine.limits = Limits::SMALLEST;
            machine.nic.payload = payload;
            machine.nic.reach = reach;
            machine.nic.tx_slots = 2;
            let world = world(&lossy(0.05), seed);
            let outcome = machine.crash(&world);
            if reach == 1 << 46 {
                // The cells lie above what this device reaches: an honest end.
                assert_eq!(outcome.failure.unwrap().kind, FailureKind::CellsNotReachable);
                continue;
            }
            assert_identical(&machine, &world, &outcome);
            assert_eq!(outcome.cells_high_water, 1);
        }
    }
}

/// RAM above what the device reaches is copied to cells, the rest is not.
#[test]
fn unreachable_ram_is_bounced() {
    let mut ram = Ram::new();
    let mut rng = Rng::new(5);
    let mut bytes = || -> Vec<u8> { (0..100_000).map(|_| rng.next_u64() as u8).collect() };
    ram.add(0, bytes(), Stability::Frozen);
    ram.add(0x10_0000, bytes(), Stability::Frozen);
    let mut machine = Machine::new(Rc::new(RefCell::new(ram)));
    machine.nic.checksum = ChecksumOffload::Insert;
    machine.nic.unreachable = Some((0x10_0000, 0x20_0000));
    machine.config = config("zeros=send");
    let world = world(&lossy(0.02), 5);
    let outcome = machine.crash(&world);
    assert_identical(&machine, &world, &outcome);
    let again = u64::from(outcome.retransmits) * 1448;
    assert!((100_000..=100_000 + again).contains(&outcome.bytes_copied), "{outcome:?}");
}

#[test]
fn a_clock_of_half_a_millisecond() {
    for (loss, seed) in [(0.0, 1), (0.01, 2), (0.05, 3), (0.2, 4)] {
        let mut machine = machine(seed);
        machine.clock_step_us = 500;
        let world = world(&lossy(loss), seed);
        let outcome = machine.crash(&world);
        assert_identical(&machine, &world, &outcome);
        assert!(outcome.elapsed_us < 10_000_000, "{outcome:?}");
    }
}

/// A device of the dead kernel still writes into a frozen page: the sum no
/// longer fits, and the page must not end the dump.
#[test]
fn a_page_that_changes_between_sum_and_fetch() {
    let machine = machine(3);
    let world = world(&lossy(0.0), 3);
    world.borrow_mut().host.tolerates_damage = true;
    for i in 0..4000u64 {
        let ram = machine.ram.clone();
        let at = world.borrow().now().after(1000 + i * 10);
        let change = move |_: &mut _| ram.borrow_mut().scribble(200_000, i as u8);
        world.borrow_mut().at(at, Box::new(change));
    }
    let outcome = machine.crash(&world);
    assert_eq!(outcome.verdict, Verdict::Confirmed, "{outcome:?}");
    assert!(world.borrow().host.damaged > 0, "the sum never failed: the test shows nothing");
    assert!(outcome.bytes_copied > 4096, "a copy was made");
    let world = world.borrow();
    let (image, finished) = world.server.image().unwrap();
    assert!(finished);
    let truth = machine.ram.borrow().truth();
    assert_same(&image[..200_000], &truth[..200_000]);
    assert_same(&image[200_001..], &truth[200_001..]);
}

/// Cells given to a NIC that does not stop are not used again: the next target
/// must do without them, or say that it cannot.
#[test]
fn a_nic_that_does_not_stop_keeps_its_cells() {
    let mut machine = machine(4);
    machine.nic.stop_fails = true;
    machine.limits = Limits { cells: 1, ..Limits::DEFAULT };
    machine.config = Config::parse(&format!(
        "server={SERVER_IP} client={CLIENT_IP} server={SERVER_IP} client={CLIENT_IP} path=lab"
    ))
    .unwrap();
    let world = world(&lossy(0.0), 4);
    world.borrow_mut().server.is_dead = true;
    let mut trace = Trace::<64>::new();
    let outcome = machine.crash_with(&world, None, &mut trace, &DumpInfo::default());
    // The first target got further, so its outcome is the one that is told.
    assert_eq!((outcome.target, outcome.targets_tried), (0, 2));
    assert!(!outcome.nic_stopped);
    let failures: Vec<_> = trace
        .events()
        .filter_map(|(_, event)| match event {
            Event::Failure(failure) => Some(failure.kind),
            _ => None,
        })
        .collect();
    assert_eq!(failures, [FailureKind::NoHerald, FailureKind::NoCells]);
}

#[test]
fn a_nic_that_dies_in_mid_dump() {
    let machine = machine(5);
    let world = world(&lossy(0.0), 5);
    let at = world.borrow().now().after(2_500);
    let die = |world: &mut netsim::world::World<_>| {
        world.device().expect("in the dump").borrow_mut().is_dead = true;
    };
    world.borrow_mut().at(at, Box::new(die));
    let outcome = machine.crash(&world);
    assert_eq!(outcome.verdict, Verdict::Failed);
    assert_eq!(outcome.failure.unwrap().kind, FailureKind::Nic(NicError::Gone));
    assert_eq!(outcome.acked_bytes + outcome.holes.bytes(), LEN as u64);
}

#[test]
fn the_link_is_waited_for_and_not_for_ever() {
    for (comes_up_us, expected) in [(3_000_000, true), (60_000_000, false)] {
        let machine = machine(6);
        let world = world(&lossy(0.0), 6);
        let now = world.borrow().now();
        for (at, up) in [(now, false), (now.after(comes_up_us), true)] {
            let set = move |world: &mut netsim::world::World<_>| {
                if let Some(device) = world.device() {
                    device.borrow_mut().link_up = up;
                }
            };
            world.borrow_mut().at(at, Box::new(set));
        }
        let outcome = machine.crash(&world);
        if expected {
            assert_identical(&machine, &world, &outcome);
        } else {
            assert_eq!(outcome.failure.unwrap().kind, FailureKind::NoLink);
            assert!(outcome.elapsed_us < 11_000_000);
        }
    }
}

/// A device that cannot reach the cells is refused before a frame has left:
/// the header at the end of a dump needs one.
#[test]
fn cells_out_of_reach_are_no_dump() {
    let mut machine = machine(7);
    machine.cells_reachable = false;
    let world = world(&lossy(0.0), 7);
    let outcome = machine.crash(&world);
    assert_eq!(outcome.failure.unwrap().kind, FailureKind::CellsNotReachable);
    assert_eq!((outcome.verdict, outcome.transmissions), (Verdict::Failed, 0));
    assert!(world.borrow().server.image().is_none());
}

/// The file has the length of all RAM, whichever part of it comes last.
#[test]
fn regions_in_any_order() {
    let mut rng = Rng::new(21);
    for order in [[0, 1, 2], [2, 0, 1], [2, 1, 0], [1, 2, 0]] {
        let mut ram = Ram::new();
        for index in order {
            let bytes = (0..50_000).map(|_| rng.next_u64() as u8).collect();
            ram.add(index * 0x2_0000, bytes, Stability::Frozen);
        }
        let mut machine = Machine::new(Rc::new(RefCell::new(ram)));
        machine.config = config("zeros=send");
        let world = world(&lossy(0.01), 21);
        let outcome = machine.crash(&world);
        assert_identical(&machine, &world, &outcome);
        assert_eq!(outcome.image_len, 0x4_0000 + 50_000);
        assert_eq!((outcome.sent_bytes, outcome.dump_bytes), (150_000, 150_000));
    }
}

/// A server that only listens: the consumer's words of the heralds.
#[derive(Default)]
struct Ear(Vec<u32>);

impl Server for Ear {
    fn datagram(&mut self, _: Instant, datagram: Datagram<'_>) {
        let (header, _) = MessageHeader::parse(datagram.payload).expect("a message");
        assert_eq!(header.kind.get(), HERALD);
        self.0.push(header.aux2.get());
    }

    fn poll_reply(&mut self, _: Instant) -> Option<Reply> {
        None
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn image(&self) -> Option<(&[u8], bool)> {
        None
    }
}

/// With `strict` the herald says nothing of us.
#[test]
fn a_strict_herald_is_a_stock_one() {
    for (words, is_ours) in [("no-progress=3", true), ("no-progress=3 strict=yes", false)] {
        let mut machine = machine(8);
        machine.config = config(words);
        let links = (Link::new(lossy(0.0), 1), Link::new(lossy(0.0), 2));
        let world = Rc::new(RefCell::new(World::new(links.0, links.1, Ear::default())));
        let outcome = machine.crash(&world);
        assert_eq!(outcome.failure.unwrap().kind, FailureKind::NoHerald);
        let heralds = &world.borrow().server.0;
        assert_eq!(heralds.len(), 3, "one a second");
        assert!(heralds.iter().all(|word| herald_word::parse(*word).is_some() == is_ours));
        assert!(is_ours || *heralds == [0; 3]);
    }
}

/// Memory that cannot be read is left out and said to be; the rest arrives.
#[test]
fn unreadable_memory_is_not_sent() {
    let machine = machine(7);
    let poison = PhysRange::new(PhysAddr(100_000), 3000).unwrap();
    machine.ram.borrow_mut().poison = Some(poison);
    let world = world(&lossy(0.01), 7);
    let outcome = machine.crash(&world);
    assert_eq!(outcome.verdict, Verdict::Confirmed);
    let failure = outcome.failure.expect("the first fault is named");
    assert!(matches!(failure.kind, FailureKind::Read(ReadFault { at }) if at.0 >= 97_000));
    let [gap] = outcome.not_sent.list() else { panic!("{:?}", outcome.not_sent) };
    assert_eq!(gap.reason, Reason::Unreadable);
    assert!(gap.offset <= 100_000 && gap.offset + gap.len >= 103_000 && gap.len <= 3000 + 2 * 1448);
    let world = world.borrow();
    let (image, finished) = world.server.image().unwrap();
    assert!(finished);
    let record = world.server.record().unwrap();
    assert!(record.holes.is_empty(), "not sent is no hole");
    assert_eq!(record.not_sent.listed.len(), 1);
    assert_eq!(record.not_sent.listed[0], gap.offset..gap.offset + gap.len);
    let truth = machine.ram.borrow().truth();
    let end = (gap.offset + gap.len) as usize;
    assert_same(&image[..gap.offset as usize], &truth[..gap.offset as usize]);
    assert_same(&image[end..], &truth[end..]);
}

/// What lies before a fault in the same piece is sent, and what is left out ends with a page.
#[test]
fn nothing_before_a_fault_is_left_out() {
    let machine = machine(7);
    machine.ram.borrow_mut().poison = PhysRange::new(PhysAddr(100_000), 10);
    let world = world(&lossy(0.0), 7);
    let outcome = machine.crash(&world);
    assert_eq!(outcome.verdict, Verdict::Confirmed);
    let [gap] = outcome.not_sent.list() else { panic!("{:?}", outcome.not_sent) };
    assert_eq!((gap.offset, gap.reason), (100_000, Reason::Unreadable));
    assert!((10..=1448).contains(&gap.len), "{}", gap.len);
    assert_eq!(outcome.sent_bytes + gap.len, LEN as u64);
}

/// RAM whose faults are said to be behind what was asked for.
struct Elsewhere(RamSource);

impl DumpSource for Elsewhere {
    fn next(&mut self) -> Option<Extent> {
        self.0.next()
    }

    fn rewind(&mut self) {
        self.0.rewind();
    }
}

impl ReadRam for Elsewhere {
    fn read(&mut self, at: PhysAddr, into: &mut [u8]) -> Result<(), ReadFault> {
        let behind = PhysAddr(at.0 + into.len() as u64);
        self.0.read(at, into).map_err(|_| ReadFault { at: behind })
    }
}

/// A fault that says it is somewhere else costs its piece, and is not looked for without end.
#[test]
fn a_fault_that_is_not_where_it_says() {
    let machine = machine(7);
    machine.ram.borrow_mut().poison = PhysRange::new(PhysAddr(100_000), 10);
    let world = world(&lossy(0.0), 7);
    let mut source = Elsewhere(RamSource::new(machine.ram.clone()));
    let outcome = machine.crash_from(&world, &mut source, None, &mut Blind, &DumpInfo::default());
    assert_eq!(outcome.verdict, Verdict::Confirmed, "{outcome:?}");
    let [gap] = outcome.not_sent.list() else { panic!("{:?}", outcome.not_sent) };
    assert!(gap.offset <= 100_000 && gap.offset + gap.len >= 100_010 && gap.len <= 4096);
}

/// The only copies of volatile RAM take all cells but one, which is for bounces.
#[test]
fn volatile_ram_fills_the_window_with_cells() {
    let mut ram = Ram::new();
    ram.add(0, vec![7; LEN], Stability::Volatile);
    let machine = Machine::new(Rc::new(RefCell::new(ram)));
    let world = world(&lossy(0.0), 3);
    let outcome = machine.crash(&world);
    assert_identical(&machine, &world, &outcome);
    assert_eq!(outcome.cells_high_water, 63);
}

/// A run of zeros that does not reach the end of its extent is left out in
/// pieces of 512 bytes, so that what follows stays aligned.
#[test]
fn short_zeros_are_sent() {
    let mut ram = Ram::new();
    for (start, zeros, len) in [(0, 700, 20_000), (0x1_0000, 400, 5000), (0x2_0000, 700, 700)] {
        let mut bytes = vec![7; len];
        bytes[..zeros].fill(0);
        ram.add(start, bytes, Stability::Frozen);
    }
    ram.add(0x3_0000, vec![7; 5000], Stability::Frozen);
    let machine = Machine::new(Rc::new(RefCell::new(ram)));
    let world = world(&lossy(0.0), 3);
    let outcome = machine.crash(&world);
    assert_identical(&machine, &world, &outcome);
    assert_eq!(outcome.zero_bytes, 512 + 700);
}

fn sparse_ram() -> Ram {
    let mut bytes = vec![0u8; 2 << 20];
    bytes[300_000..310_000].fill(7);
    bytes[1_000_001] = 9;
    let mut ram = Ram::new();
    ram.add(0x1000, bytes, Stability::Frozen);
    ram
}

/// Zeros cost nothing on the wire, and the file has its length all the same.
#[test]
fn zeros_are_left_out() {
    for (words, sent) in [("", 0..20_000), ("zeros=send", 2 << 20..(2 << 20) + 1)] {
        let mut machine = Machine::new(Rc::new(RefCell::new(sparse_ram())));
        machine.config = config(words);
        let world = world(&lossy(0.02), 8);
        let outcome = machine.crash(&world);
        assert_identical(&machine, &world, &outcome);
        assert!(sent.contains(&outcome.sent_bytes), "{words}: {}", outcome.sent_bytes);
        assert_eq!(outcome.zero_bytes + outcome.sent_bytes, 2 << 20);
        assert_eq!(outcome.dump_bytes, 2 << 20);
    }
}

/// The trivial transform: the image as one stream, each byte inverted.
struct Inverted;

impl Transform for Inverted {
    fn restart(&mut self) {}

    fn next(
        &mut self,
        image: &mut ImageStream<'_>,
        cell: &mut [u8],
    ) -> Result<usize, TransformError> {
        let len = common::fill(image, cell);
        cell[..len].iter_mut().for_each(|byte| *byte = !*byte);
        Ok(len)
    }

    fn compression(&self) -> u8 {
        0
    }
}

#[test]
fn a_transform_stands_between_source_and_wire() {
    let mut ram = Ram::new();
    ram.add(0, (0..LEN).map(|i| (i / 3) as u8).collect(), Stability::Frozen);
    let machine = Machine::new(Rc::new(RefCell::new(ram)));
    let world: CoreWorld = world(&lossy(0.03), 9);
    let info = DumpInfo { key: &[7; 5000], ..DumpInfo::default() };
    let outcome = machine.crash_with(&world, Some(&mut Inverted), &mut Blind, &info);
    assert_eq!(outcome.verdict, Verdict::Confirmed);
    let world = world.borrow();
    let (image, _) = world.server.image().unwrap();
    let inverted: Vec<u8> = machine.ram.borrow().truth().iter().map(|byte| !byte).collect();
    assert_same(image, &inverted);
    let (_, dump) = world.server.store.dumps().last().unwrap();
    assert_eq!(dump.key, [7; 5000]);
    assert_eq!(outcome.bytes_copied, LEN as u64);
}
