//! Recorded exchanges of the stock client with the stock server, replayed into ours.

use std::path::{Path, PathBuf};

use crate::support::{Recorded, Rig, datagrams};
use netdumpd::core::{Action, Basis, Core, Limits, Reason, Socket, Verdict};
use netdumpd::store::{DiskLimits, FileStore, MemStore, Store, StoreConfig};

const HERALD_PORT: u16 = 20023;
const CLIENT_PORT: u16 = 20024;
const CLIENT: &str = "10.99.0.1:20024";

/// As the stock server wrote it, ends of lines included.
const RECORDED_INFO: &str = "\
Dump from 10.99.0.1 [10.99.0.1]
  Architecture: amd64
  Architecture Version: 2
  Dump Length: 262144B (0 MB)
  Blocksize: 4096
  Compression: none
  Dumptime: Tue Nov 14 22:13:20 2023
  Hostname: peer
  Version String: FreeBSD shim  Panic String: test panic
  Header Parity Check: Pass
Dump complete
";

/// Replays the client's side; returns the recorded acks and ours.
fn replay<S: Store>(rig: &mut Rig<S>, recorded: &[Recorded]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for datagram in recorded {
        if datagram.source_port != CLIENT_PORT {
            assert_eq!(datagram.destination_port, CLIENT_PORT);
            theirs.push(datagram.payload.to_vec());
            continue;
        }
        let socket = match datagram.destination_port {
            HERALD_PORT => Socket::Herald,
            _ => Socket::Session(rig.last_session()),
        };
        let acks = rig.datagram(socket, CLIENT, &datagram.payload);
        ours.extend(acks.iter().map(|seqno| seqno.to_be_bytes().to_vec()));
        rig.now = rig.now.after(10);
    }
    (theirs, ours)
}

fn file_store(dir: &Path) -> FileStore {
    FileStore::new(StoreConfig {
        dir: dir.to_owned(),
        default_path: PathBuf::from("."),
        time_zone: jiff::tz::TimeZone::UTC,
        disk: DiskLimits::default(),
    })
    .unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn clean_run(capture: &str, path: &str, shield: bool) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join(path);
    std::fs::create_dir_all(&dir).unwrap();
    let recorded = datagrams(capture);
    let mut limits = Limits::default();
    limits.shield = shield;
    let mut rig = Rig::new(Core::new(limits), file_store(root.path()));
    let (mut theirs, mut ours) = replay(&mut rig, &recorded);
    assert!(theirs.len() > 60, "the capture was read");
    if shield {
        // The same acks, some of them later.
        theirs.sort();
        ours.sort();
    }
    assert!(ours == theirs, "{ours:?}");

    assert_eq!(
        names(&dir),
        [
            "bounds.10.99.0.1",
            "info.10.99.0.1.0",
            "info.10.99.0.1.0.json",
            "info.10.99.0.1.last",
            "vmcore.10.99.0.1.0",
            "vmcore.10.99.0.1.last",
        ]
    );
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(read("bounds.10.99.0.1"), "1\n");
    assert_eq!(read("info.10.99.0.1.0"), RECORDED_INFO);
    let link = |name: &str| std::fs::read_link(dir.join(name)).unwrap();
    assert_eq!(link("info.10.99.0.1.last"), Path::new("info.10.99.0.1.0"));
    assert_eq!(link("vmcore.10.99.0.1.last"), Path::new("vmcore.10.99.0.1.0"));

    // The image by the capture itself: payloads of VMCORE messages at their offsets.
    let mut image = vec![0; 262_144];
    for datagram in &recorded {
        let bytes = &datagram.payload;
        if datagram.source_port == CLIENT_PORT && bytes[..4] == [0, 0, 0, 3] {
            let offset = u64::from_be_bytes(bytes[8..16].try_into().unwrap()) as usize;
            image[offset..offset + bytes.len() - 24].copy_from_slice(&bytes[24..]);
        }
    }
    assert!(std::fs::read(dir.join("vmcore.10.99.0.1.0")).unwrap() == image);

    let json: serde_json::Value = serde_json::from_str(&read("info.10.99.0.1.0.json")).unwrap();
    assert_eq!(json["result"], "complete");
    assert_eq!(json["basis"], "sequence");
    assert_eq!(json["holes"]["count"], 0);
    assert_eq!(json["not_sent"]["count"], 0);
    assert_eq!(json["received_bytes"], 262_144);
    assert_eq!(json["header"]["panic_string"], "test panic");
    let handled: Vec<_> = rig
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Handle { reason, .. } => Some(*reason),
            _ => None,
        })
        .collect();
    assert_eq!(handled, [Reason::Success]);
}

#[test]
fn clean_run_at_mtu_1500() {
    clean_run("stock-mtu1500-clean.pcap", "good", false);
}

#[test]
fn clean_run_at_mtu_1500_with_the_shield() {
    clean_run("stock-mtu1500-clean.pcap", "good", true);
}

#[test]
fn clean_run_at_mtu_4148() {
    clean_run("stock-mtu4148-clean.pcap", "", true);
}

/// The stock server called this dump complete. Four packets of it never came.
#[test]
fn lossy_run_has_the_four_holes() {
    let recorded = datagrams("stock-mtu1500-loss2.pcap");
    let mut limits = Limits::default();
    limits.shield = false;
    let mut rig = Rig::new(Core::new(limits), MemStore::default());
    let (theirs, ours) = replay(&mut rig, &recorded);
    assert!(ours == theirs, "retransmits are acked as they were: {ours:?}");
    let (_, dump) = rig.store.dumps().next().unwrap();
    let record = dump.record.as_ref().unwrap();
    assert_eq!((record.verdict, record.basis), (Verdict::Incomplete, Basis::Sequence));
    assert_eq!(record.missing_seqnos, 4);
    let holes: Vec<_> =
        record.holes.listed.iter().map(|hole| (hole.start, hole.end - hole.start)).collect();
    assert_eq!(holes, [(266_488, 1448), (455_480, 1448), (505_088, 1448), (513_776, 1448)]);
    assert!(record.not_sent.is_empty());
    assert_eq!(record.stats.duplicates, 1);
}

#[test]
fn lossy_run_says_so_in_its_files() {
    let root = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(Core::new(Limits::default()), file_store(root.path()));
    replay(&mut rig, &datagrams("stock-mtu1500-loss2.pcap"));
    let info = std::fs::read_to_string(root.path().join("info.10.99.0.1.last")).unwrap();
    assert!(
        info.ends_with(
            "  Hole: 1448 bytes at 266488\n  Hole: 1448 bytes at 455480\n  \
             Hole: 1448 bytes at 505088\n  Hole: 1448 bytes at 513776\n\
             Dump incomplete: 4 messages missing, 5792 bytes in 4 holes\n"
        ),
        "{info}"
    );
}
