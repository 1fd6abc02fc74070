//! What the simulator tests share.
#![allow(dead_code, reason = "each test file uses a part")]

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher as _;
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

/// Panics if what the client says is not what happened: it claims nothing that
/// the server does not have, and the server claims nothing that is not so.
pub(crate) fn assert_true(machine: &Machine, world: &CoreWorld, outcome: &Outcome) {
    if outcome.verdict == Verdict::Confirmed {
        return assert_identical(machine, world, outcome);
    }
    let truth = machine.ram.borrow().truth();
    let world = world.borrow();
    let missing = outcome.holes.bytes() + outcome.not_sent.bytes() + outcome.zero_bytes;
    assert_eq!(outcome.acked_bytes + missing, outcome.dump_bytes, "{outcome:?}");
    assert!(outcome.failure.is_some(), "it does not say why: {outcome:?}");
    let (image, finished) = world.server.image().unwrap_or((&[], false));
    if outcome.verdict == Verdict::Unconfirmed {
        assert!(outcome.is_complete() && outcome.holes.is_empty(), "{outcome:?}");
        assert_same(image, &truth);
        return;
    }
    assert!(!finished && !outcome.is_complete(), "{outcome:?}");
    let complete =
        |record: &netdumpd::core::Record| record.verdict == netdumpd::core::Verdict::Complete;
    assert!(!world.server.record().is_some_and(complete), "the server believes in it");
    if outcome.holes.omitted() != 0 {
        return;
    }
    // All but the holes is there. What the file does not reach to is zeros.
    let mut image = image.to_vec();
    image.resize(truth.len(), 0);
    let mut holes = outcome.holes.list().to_vec();
    holes.sort_by_key(|gap| gap.offset);
    let mut at = 0;
    for gap in holes {
        let start = gap.offset as usize;
        assert_same(&image[at..start], &truth[at..start]);
        at = start + gap.len as usize;
    }
    assert_same(&image[at..], &truth[at..]);
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number was expected")))
}

/// The one that `NETSIM_SEED` names, or `NETSIM_SEEDS` (or `count`) others, new in each run.
pub(crate) fn seeds(count: u64) -> Vec<u64> {
    if let Some(seed) = from_environment("NETSIM_SEED") {
        return vec![seed];
    }
    let base = RandomState::new().hash_one(0);
    let count = from_environment("NETSIM_SEEDS").unwrap_or(count);
    (0..count).map(|i| base.wrapping_add(i)).collect()
}

/// Runs `check`. If it panics, or if `NETSIM_SEED` names this run, it is
/// repeated with a capture, and the capture's place is told.
pub(crate) fn replayable(name: &str, seed: u64, check: impl Fn(Option<Capture<Box<dyn Write>>>)) {
    let run = |capture| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(capture)));
    let is_replay = from_environment("NETSIM_SEED") == Some(seed);
    let first = run(None);
    if first.is_ok() && !is_replay {
        return;
    }
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{seed}.pcap"));
    let file: Box<dyn Write> = Box::new(BufWriter::new(File::create(&path).expect("a file")));
    let again = run(Some(Capture::new(file).expect("a capture")));
    let frames = format!("frames in {}", path.display());
    match (first.is_ok(), again.is_ok()) {
        (true, true) => eprintln!("{name}, seed {seed}: passed; {frames}"),
        (false, false) => panic!(
            "{name}, seed {seed}: failed; {frames}; replay: NETSIM_SEED={seed} cargo test -p \
             netsim {name} -- --nocapture"
        ),
        _ => panic!("{name}, seed {seed}: failed once and passed when repeated; {frames}"),
    }
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
