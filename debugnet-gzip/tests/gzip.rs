//! Dumps over a lossy wire, decompressed by another implementation (`flate2` over `miniz_oxide`).

use std::cell::RefCell;
use std::io::Read as _;
use std::rc::Rc;

use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::dump::{DumpInfo, Outcome, Reason, Stability, Transform, Verdict};
use debugnet_core::observer::Blind;
use debugnet_gzip::{Gzip, GzipError, Window};
use flate2::read::GzDecoder;
use netdumpd::core::Compression;
use netsim::link::{Link, LinkConfig};
use netsim::ram::Ram;
use netsim::rng::Rng;
use netsim::server::{CoreServer, Server};
use netsim::world::{Machine, World};

/// Text, zeros and noise, with a hole in the middle.
fn machine() -> Machine {
    let mut rng = Rng::new(3);
    let text: Vec<u8> =
        (0..60_000u32).flat_map(|i| format!("{} lines of log\n", i % 97).into_bytes()).collect();
    let noise = (0..100_000).map(|_| rng.next_u64() as u8);
    let mut ram = Ram::new();
    ram.add(0x1000, text.into_iter().chain(noise).collect(), Stability::Frozen);
    ram.add(0x40_0000, vec![0; 1 << 20], Stability::Frozen);
    ram.add(0x50_0000, vec![7; 5000], Stability::Volatile);
    Machine::new(Rc::new(RefCell::new(ram)))
}

fn world() -> Rc<RefCell<World<CoreServer>>> {
    let mut link = LinkConfig::new(1_000_000_000, 50);
    link.loss = 0.02;
    let links = (Link::new(link.clone(), 1), Link::new(link, 2));
    Rc::new(RefCell::new(World::new(links.0, links.1, CoreServer::default())))
}

fn decompress(file: &[u8]) -> Vec<u8> {
    let mut image = Vec::new();
    let mut decoder = GzDecoder::new(file);
    decoder.read_to_end(&mut image).expect("a whole gzip file");
    assert!(decoder.into_inner().is_empty(), "bytes behind the end");
    image
}

fn dump(machine: &Machine, gzip: &mut Gzip<'_>) -> (Outcome, Vec<u8>) {
    let world = world();
    let outcome = machine.crash_with(&world, Some(gzip), &mut Blind, &DumpInfo::default());
    assert_eq!(outcome.verdict, Verdict::Confirmed, "{outcome:?}");
    let world = world.borrow();
    let (_, dump) = world.server.store.dumps().last().unwrap();
    let header = dump.headers[0].as_ref().expect("a header");
    assert_eq!(header.compression, Some(Compression::Gzip));
    assert_eq!(header.dump_length, dump.vmcore.len() as u64, "as sent");
    assert_eq!(header.dump_extent, Some(outcome.image_len), "as it was");
    let (file, _) = world.server.image().unwrap();
    (outcome, file.to_vec())
}

#[test]
fn what_arrives_decompresses_to_the_image() {
    let machine = machine();
    let truth = machine.ram.borrow().truth();
    for (window, level) in [(Window::Small, 1), (Window::Large, 1), (Window::Large, 6)] {
        let mut workspace = vec![0x55; window.workspace_len()];
        let mut gzip = Gzip::new(&mut workspace, window, level).unwrap();
        // Twice: the second target gets all of it, too.
        for _ in 0..2 {
            let (outcome, file) = dump(&machine, &mut gzip);
            assert!(decompress(&file) == truth, "{window:?}, level {level}");
            assert!(file.len() * 5 < truth.len(), "{} of {}", file.len(), truth.len());
            assert_eq!(outcome.sent_bytes, file.len() as u64);
            assert!(outcome.is_complete() && outcome.not_sent.is_empty());
        }
    }
}

#[test]
fn what_cannot_be_read_is_zeros_and_said_to_be() {
    let machine = machine();
    machine.ram.borrow_mut().poison = PhysRange::new(PhysAddr(0x4000), 0x1000);
    let mut truth = machine.ram.borrow().truth();
    truth[0x4000..0x5000].fill(0);
    let mut workspace = vec![0; Window::Small.workspace_len()];
    let mut gzip = Gzip::new(&mut workspace, Window::Small, 1).unwrap();
    let (outcome, file) = dump(&machine, &mut gzip);
    assert!(decompress(&file) == truth);
    let [gap] = outcome.not_sent.list() else { panic!("{:?}", outcome.not_sent) };
    assert_eq!((gap.offset, gap.len, gap.reason), (0x4000, 0x1000, Reason::Unreadable));
}

/// The workspace is all there is, whatever its alignment: canaries around it stay as they are.
#[test]
fn memory_is_what_was_said() {
    for window in [Window::Small, Window::Large] {
        let len = window.workspace_len();
        for shift in [0, 1, 33] {
            let mut memory = vec![0xa5; len + 200];
            let (before, rest) = memory.split_at_mut(100 + shift);
            let (workspace, behind) = rest.split_at_mut(len);
            let gzip = Gzip::new(workspace, window, 9).unwrap();
            let used = gzip.used_len();
            assert!(used <= len && used > len - 16 * 1024, "{window:?}: {used} of {len}");
            assert_eq!(gzip.compression(), 1);
            println!("{window:?}: {used} bytes of {len}");
            assert!(before.iter().chain(behind.iter()).all(|byte| *byte == 0xa5));
        }
        let mut short = vec![0; len - 1];
        let error = Gzip::new(&mut short, window, 1).err();
        assert_eq!(error, Some(GzipError::Workspace { found: len - 1, need: len }));
    }
    let mut workspace = vec![0; Window::Large.workspace_len()];
    let error = Gzip::new(&mut workspace, Window::Large, 0).err().unwrap();
    assert_eq!(error.to_string(), "level 0, expected 1 to 9");
}
