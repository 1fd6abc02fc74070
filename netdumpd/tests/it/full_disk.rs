//! A disk that fills up in the middle of a dump: that dump ends with a record,
//! the others go on.

use std::path::{Path, PathBuf};
use std::process::Command;

use debugnet_core::wire::debugnet::{FINISHED, HERALD, VMCORE};
use netdumpd::core::{Core, DumpFile, Limits, Socket};
use netdumpd::store::{DiskLimits, FileStore, Store, StoreConfig};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::stock_client::StockClient;
use crate::support::{Rig, message, pattern, skip};

const CLIENT: &str = "10.99.0.1:20024";
const OTHER: &str = "10.99.0.2:20024";

fn rig(dir: &Path, disk: DiskLimits) -> Rig<FileStore> {
    let config = StoreConfig {
        dir: dir.to_owned(),
        default_path: PathBuf::from("."),
        time_zone: jiff::tz::TimeZone::UTC,
        disk,
    };
    Rig::new(Core::new(Limits::default()), FileStore::new(config).unwrap())
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Sends pages of 4096 bytes until one is not acked; returns how many were.
fn fill(rig: &mut Rig<FileStore>, on: Socket) -> u32 {
    (0..10_000u32)
        .find(|n| {
            let page = message(VMCORE, n + 2, u64::from(*n) * 4096, &[7; 4096]);
            rig.datagram(on, CLIENT, &page).is_empty()
        })
        .expect("a limit")
}

#[test]
fn dumps_together_take_no_more_than_they_may() {
    let dir = tempfile::tempdir().unwrap();
    // What was there before counts.
    std::fs::write(dir.path().join("old"), pattern(1 << 20)).unwrap();
    let mut disk = DiskLimits::default();
    disk.max_total_len = Some(3 << 20);
    let mut rig = rig(dir.path(), disk);
    rig.datagram(Socket::Herald, CLIENT, &message(HERALD, 1, 0, b""));
    let on = Socket::Session(rig.last_session());
    let pages = fill(&mut rig, on);
    assert!((400..=512).contains(&pages), "{pages} pages beside the old file");
    assert!(rig.datagram(on, CLIENT, &message(FINISHED, 9999, 0, b"")).is_empty());
    let record = json(&dir.path().join("info.10.99.0.1.0.json"));
    assert_eq!((&record["result"], &record["end"]), (&"failed".into(), &"store_failed".into()));
    let why = record["error"]["message"].as_str().unwrap();
    assert!(why.contains("of the 3145728 bytes"), "{why}");
    assert_eq!(record["received_bytes"], u64::from(pages) * 4096);
    let info = std::fs::read_to_string(dir.path().join("info.10.99.0.1.0")).unwrap();
    assert!(info.lines().last().unwrap().starts_with("Dump unsuccessful: write error"), "{info}");
    // No room for another one.
    assert!(rig.datagram(Socket::Herald, OTHER, &message(HERALD, 1, 0, b"")).is_empty());
}

#[test]
fn the_room_to_stay_free_stays_free() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = DiskLimits::default();
    disk.min_free_len = u64::MAX / 2;
    let mut rig = rig(dir.path(), disk);
    assert!(rig.datagram(Socket::Herald, CLIENT, &message(HERALD, 1, 0, b"")).is_empty());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no file");
}

/// A client that scatters single bytes does not fill the disk with what is told of them.
#[test]
fn journals_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = rig(dir.path(), DiskLimits::default());
    rig.datagram(Socket::Herald, CLIENT, &message(HERALD, 1, 0, b""));
    let session = rig.last_session();
    let on = Socket::Session(session);
    let mut store_says_no = None;
    for n in 0..3_000_000u32 {
        let payload = bytes::Bytes::from_static(b"x");
        let piece = [netdumpd::store::Piece { seqno: n * 2, count: 1, payload }];
        let offset = u64::from(n % 1000) * 2;
        let written = rig.store.write(session, DumpFile::Vmcore, offset, &piece);
        if let Err(fault) = written {
            store_says_no = Some((n, fault.0));
            break;
        }
    }
    let (n, why) = store_says_no.expect("a limit");
    assert!(why.contains("too scattered"), "{why}");
    assert!(n > 1_000_000, "{n}");
    assert!(rig.datagram(on, CLIENT, &message(VMCORE, 77, 0, b"y")).is_empty());
    assert_eq!(json(&dir.path().join("info.10.99.0.1.0.json"))["result"], "failed");
}

/// A file system of 3 MiB below the dump directory, full in the middle of a dump.
#[test]
fn a_full_disk_ends_its_own_dump_only() {
    let name = "full_disk::a_full_disk_ends_its_own_dump_only";
    let may_mount = Command::new("unshare")
        .args(["-m", "sh", "-c", "mount -t tmpfs -o size=64k none /tmp"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !may_mount {
        return skip(name, "mounting a tmpfs is not permitted");
    }
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    // In a mount namespace of its own, which ends with it. What is on the small
    // file system is looked at through its process.
    let mut daemon = Command::new("unshare");
    daemon.args(["-m", "sh", "-c"]);
    daemon.arg("mount -t tmpfs -o size=3m none \"$0\" && exec \"$@\"");
    daemon.arg(&small).arg(env!("CARGO_BIN_EXE_netdumpd"));
    let mut daemon = Daemon::start_by(daemon, dir.path(), &["--min-free", "0"]);
    let inside = PathBuf::from(format!("/proc/{}/root", daemon.pid()))
        .join(small.canonicalize().unwrap().strip_prefix("/").unwrap());

    let mut other = StockClient::new("127.0.4.2");
    other.herald(daemon.address, b"");
    let image = pattern(8 << 20);
    let mut client = StockClient::new("127.0.4.1");
    client.retransmit = std::time::Duration::from_millis(200);
    client.herald(daemon.address, b"small\0");
    let info = inside.join("info.127.0.4.1.0");
    let is_over =
        || std::fs::read_to_string(&info).is_ok_and(|it| it.contains("Dump unsuccessful"));
    let acked = client.dump_until(&image, is_over);
    assert!((1 << 20..3 << 20).contains(&acked), "{acked} bytes were acked");
    // The other one had begun before, and ends after.
    other.dump(&image);
    other.finish();

    let mut ended = [daemon.event("finished"), daemon.event("finished")];
    ended.sort_by_key(|event| event["peer"].as_str().unwrap().to_owned());
    assert_eq!((&ended[0]["result"], &ended[0]["end"]), (&"failed".into(), &"store_failed".into()));
    assert!(ended[0]["error"].as_str().unwrap().contains("No space left"), "{}", ended[0]);
    assert_eq!(ended[1]["result"], "complete");
    let host = "127.0.4.1";
    let record = json(&inside.join(format!("info.{host}.0.json")));
    assert_eq!(record["result"], "failed", "the record found room");
    let info = std::fs::read_to_string(inside.join(format!("info.{host}.0"))).unwrap();
    assert!(info.lines().last().unwrap().starts_with("Dump unsuccessful: write error"), "{info}");
    let vmcore = std::fs::read(inside.join(format!("vmcore.{host}.0"))).unwrap();
    assert!(vmcore[..acked] == image[..acked], "what was acked is there");
    assert!(std::fs::read(dir.path().join("vmcore.127.0.4.2.0")).unwrap() == image);
}
