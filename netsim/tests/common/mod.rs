//! What the simulator tests share.
#![allow(dead_code, reason = "each test file uses a part")]

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::rc::Rc;

use debugnet_core::dump::{ImageStream, Outcome, Stability, Verdict};
use netsim::link::{Link, LinkConfig};
use netsim::pcap::Capture;
use netsim::ram::{Ram, SharedRam};
use netsim::rng::Rng;
use netsim::server::{CoreServer, Server};
use netsim::world::{Machine, World};

/// A world with netdumpd's core at its end.
pub(crate) type CoreWorld = Rc<RefCell<World<CoreServer>>>;

/// RAM of `len` random bytes from 0, the last page of it volatile.
pub(crate) fn random_ram(len: usize, seed: u64) -> SharedRam {
    let mut rng = Rng::new(seed);
    let mut bytes: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8 | 1).collect();
    let volatile = bytes.split_off(len - len.min(4096));
    let mut ram = Ram::new();
    let start = bytes.len() as u64;
    ram.add(0, bytes, Stability::Frozen);
    ram.add(start, volatile, Stability::Volatile);
    Rc::new(RefCell::new(ram))
}

/// Two links of the same kind and netdumpd's core.
pub(crate) fn world(link: &LinkConfig, seed: u64) -> CoreWorld {
    world_of(link.clone(), link.clone(), seed)
}

/// A link up, a link down, and netdumpd's core.
pub(crate) fn world_of(up: LinkConfig, down: LinkConfig, seed: u64) -> CoreWorld {
    let tolerates_damage = up.corrupt > 0.0;
    let links = (Link::new(up, 2 * seed), Link::new(down, 2 * seed + 1));
    let mut world = World::new(links.0, links.1, CoreServer::default());
    world.host.tolerates_damage = tolerates_damage;
    Rc::new(RefCell::new(world))
}

/// Lossy in both directions, 1 Gbit/s, 100 us there and back.
pub(crate) fn lossy(loss: f64) -> LinkConfig {
    let mut link = LinkConfig::new(1_000_000_000, 50);
    link.loss = loss;
    link
}

/// Panics unless the server has the machine's RAM, complete, and the client says so.
pub(crate) fn assert_identical(machine: &Machine, world: &CoreWorld, outcome: &Outcome) {
    let world = world.borrow();
    let truth = machine.ram.borrow().truth();
    let (image, finished) =
        world.server.image().unwrap_or_else(|| panic!("no dump arrived: {outcome:?}"));
    assert!(finished, "the server did not finish: {outcome:?}");
    assert_eq!(outcome.verdict, Verdict::Confirmed, "{outcome:?}");
    assert!(outcome.is_complete());
    let record = world.server.record().expect("a record");
    assert_eq!(record.verdict, netdumpd::core::Verdict::Complete, "{record:?}");
    assert!(record.holes.is_empty() && record.missing_seqnos == 0, "{record:?}");
    assert_same(image, &truth);
}

/// Panics with the first offset that differs.
pub(crate) fn assert_same(image: &[u8], truth: &[u8]) {
    assert_eq!(image.len(), truth.len(), "length of the image");
    if let Some(at) = image.iter().zip(truth).position(|(a, b)| a != b) {
        panic!("the image differs from offset {at:#x} on");
    }
}

/// Runs `check`; if it panics, runs it again with a capture and says where that is.
pub(crate) fn replayable(name: &str, seed: u64, check: impl Fn(Option<Capture<Box<dyn Write>>>)) {
    let run = |capture| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(capture)));
    if run(None).is_ok() {
        return;
    }
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{seed}.pcap"));
    let file: Box<dyn Write> = Box::new(BufWriter::new(File::create(&path).expect("a file")));
    let again = run(Some(Capture::new(file).expect("a capture")));
    let what = if again.is_err() { "failed" } else { "failed once and passed when repeated" };
    panic!("{name}, seed {seed}: {what}; frames in {}", path.display());
}

/// Fills a cell from the image; fewer bytes only at its end.
pub(crate) fn fill(image: &mut ImageStream<'_>, cell: &mut [u8]) -> usize {
    let mut len = 0;
    loop {
        match image.read(&mut cell[len..]) {
            0 => return len,
            more => len += more,
        }
    }
}
