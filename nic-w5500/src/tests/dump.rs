//! A whole dump over the chip, into netdumpd's core. `netsim` is the far end:
//! smoltcp reads every frame there.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;

use debugnet_core::dump::{DumpInfo, Outcome, Stability, Verdict};
use debugnet_core::observer::Blind;
use debugnet_core::time::Instant;
use debugnet_core::{Cells, Config, Io, Limits, Memory, Progress, Slot, arm, memory_needed};
use netsim::host::{Host, Input};
use netsim::ram::{Ram, RamSource};
use netsim::rng::Rng;
use netsim::server::{CoreServer, Server};

use super::*;
use crate::fake::FakeClock;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// The wire behind the chip. It moves whenever the machine looks at its clock.
struct Wire {
    fake: FakeW5500,
    clock: FakeClock,
    host: Host,
    server: CoreServer,
    rng: Rng,
    /// Of a hundred frames, how many are lost, each way.
    loss_pct: u64,
}

impl Wire {
    fn pass(&mut self, now: Instant) {
        for frame in self.fake.take_frames() {
            if self.rng.next_u64() % 100 < self.loss_pct {
                continue;
            }
            match self.host.receive(&frame) {
                Input::Dropped => {}
                Input::Reply(reply) => self.deliver(&reply),
                Input::Datagram(datagram) => self.server.datagram(now, datagram),
            }
        }
        if self.server.poll_timeout().is_some_and(|at| at <= now) {
            self.server.handle_timeout(now);
        }
        while let Some(reply) = self.server.poll_reply(now) {
            if let Some(frame) = self.host.datagram(reply.from_port, reply.to, &reply.payload) {
                self.deliver(&frame);
            }
        }
    }

    fn deliver(&mut self, frame: &[u8]) {
        if self.rng.next_u64() % 100 >= self.loss_pct {
            self.fake.deliver(frame);
        }
    }
}

impl Clock for Wire {
    fn now(&mut self) -> Instant {
        let now = self.clock.now();
        self.pass(now);
        now
    }

    fn relax(&mut self) {
        self.clock.relax();
    }
}

/// Dumps half a mebibyte, under Miri three pages, over `fake` with the smallest memory there is.
fn dump(fake: &FakeW5500, loss_pct: u64) -> (Outcome, Wire, Vec<u8>) {
    let mut rng = Rng::new(7);
    let truth: Vec<u8> = (0..times(512 << 10, 3 << 12)).map(|_| rng.next_u64() as u8).collect();
    let mut ram = Ram::new();
    ram.add(0, truth.clone(), Stability::Frozen);
    let ram = Rc::new(RefCell::new(ram));

    let needs = memory_needed(&Limits::SMALLEST);
    let (mut slots, mut index) = (vec![Slot::EMPTY; needs.slots], vec![0; needs.index]);
    let (mut cells, mut rx) = (vec![0; needs.cell_bytes], vec![0; needs.rx]);
    let cells = Cells { bytes: &mut cells, phys: None };
    let memory = Memory { slots: &mut slots, index: &mut index, cells, rx: &mut rx };
    let config = Config::parse(&format!("server={SERVER} client=10.99.0.1")).unwrap();
    let mut armed = arm(config, memory).unwrap();

    let mut nic = fake.driver(MacAddr(MAC));
    let mut wire = Wire {
        fake: fake.clone(),
        clock: fake.clock(),
        host: Host::new(MacAddr([2, 0, 0, 0, 0, 2]), SERVER),
        server: CoreServer::default(),
        rng: Rng::new(8),
        loss_pct,
    };
    let mut io = Io {
        clock: &mut wire,
        source: &mut RamSource::new(ram),
        transform: None,
        info: &DumpInfo::default(),
        observer: &mut Blind,
        progress: &Progress::new(),
    };
    let outcome = armed.dump(&mut [&mut nic], &mut io);
    (outcome, wire, truth)
}

#[track_caller]
fn assert_identical((outcome, wire, truth): &(Outcome, Wire, Vec<u8>)) {
    assert_eq!(outcome.verdict, Verdict::Confirmed, "{outcome:?}");
    let (image, finished) = wire.server.image().unwrap();
    assert!(finished && image == truth);
}

#[test]
fn a_dump_over_a_sound_chip_is_identical() {
    let fake = FakeW5500::new(Lies::default());
    let done = dump(&fake, 0);
    assert_identical(&done);
    assert_eq!(done.0.retransmits, 0);
    assert_eq!(fake.violations(), Vec::<String>::new());
}

#[test]
fn a_dump_survives_a_bad_wire_on_a_bad_bus() {
    let fake = FakeW5500::new(Lies { bus_fails_every: Some(50), ..Lies::default() });
    let done = dump(&fake, 2);
    assert_identical(&done);
    assert!(done.0.retransmits > 0);
    assert_eq!(fake.violations(), Vec::<String>::new());
}

#[test]
fn a_dump_over_a_bus_that_dies_says_so() {
    let fake = FakeW5500::new(Lies { bus_fails_every: Some(1), ..Lies::default() });
    let (outcome, ..) = dump(&fake, 0);
    assert_eq!(outcome.verdict, Verdict::Failed);
    assert_eq!(outcome.acked_bytes, 0);
}
