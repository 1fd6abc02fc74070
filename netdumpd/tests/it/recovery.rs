//! What the next server makes of the dumps of one that died. Dropping a store
//! is what death does to it: descriptors are closed, nothing is written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use debugnet_core::wire::debugnet::{EKCD_KEY, FINISHED, HERALD, KDH, VMCORE, herald_word};
use netdumpd::core::{Core, End, Limits, Note, Reason, Socket, Verdict};
use netdumpd::store::{DiskLimits, FileStore, StoreConfig};
use proptest::prelude::*;
use serde_json::Value;
use zerocopy::IntoBytes;

use crate::support::{Rig, dump_header, message, message_with, pattern};

const CLIENT: &str = "10.99.0.1:20024";
const JOURNALS: &str = ".netdumpd";
/// Where a journal has the number of the machine's start.
const BOOT_AT: usize = 64;

fn store(dir: &Path) -> FileStore {
    let config = StoreConfig {
        dir: dir.to_owned(),
        default_path: PathBuf::from("."),
        time_zone: jiff::tz::TimeZone::UTC,
        disk: DiskLimits::default(),
    };
    FileStore::new(config).unwrap()
}

fn rig(dir: &Path) -> Rig<FileStore> {
    Rig::new(Core::new(Limits::default()), store(dir))
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn last_line(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().last().unwrap().to_owned()
}

#[test]
fn an_interrupted_dump_is_marked_with_all_that_was_acked() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    let at = |name: &str| dir.path().join("sub").join(name);
    let mut rig = rig(dir.path());
    let herald = message_with(HERALD, 1, 0, herald_word::new(77), b"sub\0");
    rig.datagram(Socket::Herald, CLIENT, &herald);
    let on = Socket::Session(rig.last_session());
    let mut header = dump_header(100_000);
    header.dump_key_size = 4096.into();
    header.compression = 2;
    header.seal();
    let mut key = pattern(4096);
    key[..37].fill(0);
    key[0] = 2;
    let image = pattern(5000);
    // 5 is lost; between 6 and 7 something was not sent.
    for (seqno, sent) in [
        (2, message(EKCD_KEY, 2, 0, &key)),
        (3, message(VMCORE, 3, 0, &image[..1000])),
        (4, message(VMCORE, 4, 1000, &image[1000..2000])),
        (6, message(VMCORE, 6, 3000, &image[3000..4000])),
        (7, message(VMCORE, 7, 4500, &image[4500..])),
        (8, message(KDH, 8, 0, header.as_bytes())),
    ] {
        assert_eq!(rig.datagram(on, CLIENT, &sent), [seqno]);
    }
    assert!(at("vmcore_encrypted.10.99.0.1.0.zst").exists(), "named as what it is");
    assert_eq!(json(&at("info.10.99.0.1.0.json"))["result"], "receiving");
    drop(rig);

    let next = store(dir.path());
    let found = next.recover();
    let [recovered] = &found[..] else { panic!("{found:?}") };
    assert_eq!(recovered.reason, Reason::Interrupted);
    assert_eq!(recovered.peer, CLIENT.parse().unwrap());
    let record = recovered.record.as_ref().unwrap();
    assert_eq!((record.verdict, &record.end), (Verdict::Incomplete, &End::Interrupted));
    assert_eq!(record.missing_seqnos, 1);
    assert_eq!(record.holes.listed[0], 2000..3000);
    assert_eq!(record.not_sent.listed[0], 4000..4500);
    assert_eq!(record.stats.covered_bytes, 3500);
    assert!(record.notes.is_empty(), "{:?}", record.notes);

    let record = json(&at("info.10.99.0.1.0.json"));
    assert_eq!((&record["result"], &record["end"]), (&"incomplete".into(), &"interrupted".into()));
    assert_eq!(record["header"]["panic_string"], "test panic");
    assert_eq!(record["encryption"]["cipher"], 2);
    assert_eq!(record["vmcore"], "vmcore_encrypted.10.99.0.1.0.zst");
    assert_eq!(record["key"], "key.10.99.0.1.0");
    assert_eq!(record["holes"]["ranges"][0]["offset"], 2000);
    let info = at("info.10.99.0.1.0");
    assert_eq!(last_line(&info), "Dump incomplete: server was interrupted");
    let vmcore = std::fs::read(at("vmcore_encrypted.10.99.0.1.0.zst")).unwrap();
    assert!(vmcore[..2000] == image[..2000] && vmcore[3000..4000] == image[3000..4000]);
    assert!(vmcore[4500..] == image[4500..]);

    assert!(!dir.path().join(JOURNALS).exists(), "nothing is left of it");
    assert!(!at("info.10.99.0.1.0.json.tmp").exists());
    assert!(next.recover().is_empty(), "it is marked once");
    assert_eq!(last_line(&info), "Dump incomplete: server was interrupted");
}

#[test]
fn dumps_of_a_server_that_lives_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = rig(dir.path());
    rig.datagram(Socket::Herald, CLIENT, &message(HERALD, 1, 0, b""));
    let on = Socket::Session(rig.last_session());
    assert_eq!(rig.datagram(on, CLIENT, &message(VMCORE, 2, 0, &pattern(100))), [2]);
    assert!(store(dir.path()).recover().is_empty());
    assert_eq!(rig.datagram(on, CLIENT, &message(FINISHED, 3, 0, b"")), [3]);
    assert_eq!(last_line(&dir.path().join("info.10.99.0.1.0")), "Dump complete");
    assert!(!dir.path().join(JOURNALS).exists());
}

/// It died between making everything durable and acking FINISHED.
#[test]
fn a_dump_that_had_ended_keeps_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = rig(dir.path());
    rig.datagram(Socket::Herald, CLIENT, &message(HERALD, 1, 0, b""));
    let on = Socket::Session(rig.last_session());
    assert_eq!(rig.datagram(on, CLIENT, &message(VMCORE, 2, 0, &pattern(100))), [2]);
    let journals = dir.path().join(JOURNALS);
    let journal = std::fs::read_dir(&journals).unwrap().next().unwrap().unwrap().path();
    let content = std::fs::read(&journal).unwrap();
    assert_eq!(rig.datagram(on, CLIENT, &message(FINISHED, 3, 0, b"")), [3]);
    assert!(rig.store.wait_for_digests(Duration::from_secs(60)));
    drop(rig);
    let at = |name: &str| dir.path().join(name);
    let before = std::fs::read(at("info.10.99.0.1.0.json")).unwrap();
    for name in ["vmcore.10.99.0.1.last", "info.10.99.0.1.last"] {
        std::fs::remove_file(at(name)).unwrap();
    }
    std::fs::write(at("info.10.99.0.1.0"), "Dump from 10.99.0.1 [10.99.0.1]\n").unwrap();
    std::fs::create_dir(&journals).unwrap();
    std::fs::write(&journal, content).unwrap();

    let found = store(dir.path()).recover();
    let [recovered] = &found[..] else { panic!("{found:?}") };
    assert_eq!((recovered.reason, recovered.record.is_none()), (Reason::Success, true));
    assert_eq!(std::fs::read(at("info.10.99.0.1.0.json")).unwrap(), before);
    assert_eq!(last_line(&at("info.10.99.0.1.0")), "Dump complete");
    assert_eq!(
        std::fs::read_link(at("vmcore.10.99.0.1.last")).unwrap(),
        Path::new("vmcore.10.99.0.1.0")
    );
    assert!(!journals.exists());
}

#[test]
fn journals_that_tell_nothing_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let journals = dir.path().join(JOURNALS);
    std::fs::create_dir(&journals).unwrap();
    std::fs::write(journals.join("1-0"), b"").unwrap();
    std::fs::write(journals.join("1-1"), b"short").unwrap();
    std::fs::write(journals.join("1-2"), vec![0x55; 10_000]).unwrap();
    assert!(store(dir.path()).recover().is_empty());
    assert!(!journals.exists());
    // And none of it stands in the way.
    let mut rig = rig(dir.path());
    assert_eq!(rig.datagram(Socket::Herald, CLIENT, &message(HERALD, 1, 0, b"")), [1]);
}

/// Someone has tidied up before the server came back.
#[test]
fn files_that_are_gone_are_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    for path in [&b"sub\0"[..], b""] {
        let mut rig = rig(dir.path());
        assert_eq!(rig.datagram(Socket::Herald, CLIENT, &message(HERALD, 1, 0, path)), [1]);
    }
    std::fs::remove_dir_all(dir.path().join("sub")).unwrap();
    std::fs::remove_file(dir.path().join("info.10.99.0.1.0")).unwrap();
    assert!(store(dir.path()).recover().is_empty());
    assert!(!dir.path().join(JOURNALS).exists());
}

#[test]
fn after_a_loss_of_power_the_record_says_that_it_may_be_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = rig(dir.path());
    rig.datagram(Socket::Herald, CLIENT, &message(HERALD, 1, 0, b""));
    let on = Socket::Session(rig.last_session());
    assert_eq!(rig.datagram(on, CLIENT, &message(VMCORE, 2, 0, &pattern(100))), [2]);
    drop(rig);
    let journals = dir.path().join(JOURNALS);
    let journal = std::fs::read_dir(&journals).unwrap().next().unwrap().unwrap().path();
    let mut content = std::fs::read(&journal).unwrap();
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    assert!(content[BOOT_AT..].starts_with(boot.trim_ascii_end()));
    content[BOOT_AT] ^= 1;
    std::fs::write(&journal, content).unwrap();
    let found = store(dir.path()).recover();
    let record = found[0].record.as_ref().unwrap();
    assert!(record.notes.contains(&Note::MachineRestarted));
}

/// An entry of a journal, as its documentation has it.
fn entry(kind: u8, seqno: u32, offset: u64, len: u64) -> Vec<u8> {
    let words = [seqno.to_le_bytes(), 1u32.to_le_bytes()].concat();
    let places = [offset.to_le_bytes(), len.to_le_bytes()].concat();
    [vec![kind, 0, 0, 0, 0, 0, 0, 0], words, places].concat()
}

#[test]
fn a_damaged_journal_loses_nothing_that_its_sound_entries_tell() {
    const ENTRIES_AT: usize = 4096;
    let damages = [
        vec![entry(1, 3, 0, u64::MAX), entry(1, 4, 1, u64::MAX)],
        vec![entry(1, 3, u64::MAX, u64::MAX), entry(2, 4, 0, u64::MAX), entry(2, 5, 1, u64::MAX)],
        vec![entry(0, 0, 0, 0), entry(99, 1, 2, 3)],
        vec![vec![1; 31]],
    ];
    for (n, damage) in damages.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut rig = rig(dir.path());
        rig.datagram(Socket::Herald, CLIENT, &message(HERALD, 1, 0, b""));
        let on = Socket::Session(rig.last_session());
        assert_eq!(rig.datagram(on, CLIENT, &message(VMCORE, 2, 500, &pattern(100))), [2]);
        drop(rig);
        let journals = dir.path().join(JOURNALS);
        let journal = std::fs::read_dir(&journals).unwrap().next().unwrap().unwrap().path();
        let mut content = std::fs::read(&journal).unwrap();
        assert_eq!(content.len(), ENTRIES_AT + 32);
        if n == 0 {
            // The damage comes before as well.
            content.splice(ENTRIES_AT..ENTRIES_AT, entry(7, 0, 0, 0));
        }
        content.extend(damage.concat());
        std::fs::write(&journal, content).unwrap();

        let found = store(dir.path()).recover();
        let record = found[0].record.as_ref().unwrap();
        assert!(record.notes.contains(&Note::JournalDamaged), "{n}: {record:?}");
        assert_eq!(record.received_end, 600, "{n}");
        let is_told = |range: &std::ops::Range<u64>| range.start < 600 && range.end > 500;
        let missing = record.holes.listed.iter().chain(&record.not_sent.listed);
        assert!(!missing.into_iter().any(is_told), "{n}: {record:?}");
        assert!(record.stats.covered_bytes >= 100, "{n}");
        assert_eq!(std::fs::metadata(dir.path().join("vmcore.10.99.0.1.0")).unwrap().len(), 600);
        assert!(!journals.exists());
    }
}

/// It died as it finished a compressed dump: the padding was cut off, and the record not yet written.
#[test]
fn an_image_cut_by_its_own_server_is_no_damaged_journal() {
    const PAYLOAD_LEN: usize = 1000;
    // The length that the header tells, whether it is compressed, the length of the file, and
    // whether that is damage. The cut is in the last message, between two, or took two.
    let cases = [
        (3500, true, 3500, false),
        (3000, true, 3000, false),
        (1500, true, 1500, false),
        (3500, true, 3400, true),
        (3500, true, 3600, true),
        (3500, false, 3500, true),
    ];
    for (length, is_compressed, file_len, is_damaged) in cases {
        let case = (length, is_compressed, file_len);
        let dir = tempfile::tempdir().unwrap();
        let mut rig = rig(dir.path());
        rig.datagram(Socket::Herald, CLIENT, &message(HERALD, 1, 0, b""));
        let on = Socket::Session(rig.last_session());
        let image = pattern(4 * PAYLOAD_LEN);
        // The last one does not lie behind those before it in number: an entry of its own.
        for (seqno, place) in [(2, 0), (3, 1), (4, 2), (6, 3)] {
            let offset = place * PAYLOAD_LEN;
            let sent = message(VMCORE, seqno, offset as u64, &image[offset..][..PAYLOAD_LEN]);
            assert_eq!(rig.datagram(on, CLIENT, &sent), [seqno]);
        }
        let mut header = dump_header(length);
        header.compression = if is_compressed { 1 } else { 0 };
        header.seal();
        assert_eq!(rig.datagram(on, CLIENT, &message(KDH, 5, 0, header.as_bytes())), [5]);
        drop(rig);
        let name = if is_compressed { "vmcore.10.99.0.1.0.gz" } else { "vmcore.10.99.0.1.0" };
        let vmcore = std::fs::File::options().write(true).open(dir.path().join(name)).unwrap();
        vmcore.set_len(file_len).unwrap();

        let found = store(dir.path()).recover();
        let record = found[0].record.as_ref().unwrap();
        let has_note = record.notes.contains(&Note::JournalDamaged);
        assert_eq!(has_note, is_damaged, "{case:?}: {record:?}");
        assert_eq!((record.verdict, &record.end), (Verdict::Incomplete, &End::Interrupted));
        assert_eq!((record.received_end, record.stats.covered_bytes), (file_len, file_len));
        if !is_damaged {
            assert_eq!(record.missing_seqnos, 0, "{case:?}: {record:?}");
            assert_eq!((record.holes.bytes, record.not_sent.bytes), (0, 0), "{case:?}");
            assert_eq!(record.stats.messages, 6, "{case:?}");
        }
        assert_eq!(std::fs::metadata(dir.path().join(name)).unwrap().len(), file_len);
    }
}

/// The server that is locked down cannot read which start of the machine this
/// is: it has to have done so before.
#[test]
fn the_journal_of_the_real_server_knows_the_start_of_the_machine() {
    let Ok(boot) = std::fs::read("/proc/sys/kernel/random/boot_id") else {
        return crate::support::skip(
            "the start of the machine",
            "this system has no number for it",
        );
    };
    let dir = tempfile::tempdir().unwrap();
    let daemon = crate::daemon::Daemon::start(dir.path(), &[]);
    let mut client = crate::stock_client::StockClient::new("127.0.0.1");
    client.herald(daemon.address, b"");
    let journal = std::fs::read_dir(dir.path().join(JOURNALS)).unwrap().next().unwrap().unwrap();
    let content = std::fs::read(journal.path()).unwrap();
    assert!(content[BOOT_AT..].starts_with(boot.trim_ascii_end()));
}

#[test]
fn the_digest_of_a_finished_image_is_in_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = rig(dir.path());
    rig.datagram(Socket::Herald, CLIENT, &message(HERALD, 1, 0, b""));
    let on = Socket::Session(rig.last_session());
    assert_eq!(rig.datagram(on, CLIENT, &message(VMCORE, 2, 0, b"abc")), [2]);
    assert_eq!(rig.datagram(on, CLIENT, &message(FINISHED, 3, 0, b"")), [3]);
    assert!(rig.store.wait_for_digests(Duration::from_secs(60)));
    let record = json(&dir.path().join("info.10.99.0.1.0.json"));
    assert_eq!(
        record["sha256"],
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(record["result"], "complete");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever came in whatever order: the record of the interrupted dump
    /// covers exactly what was acked, and the file holds it.
    #[test]
    fn the_journal_tells_all_that_was_acked(
        messages in prop::collection::vec((0u32..40, 0u64..60, 1usize..3000, any::<bool>()), 1..60),
        first in any::<u32>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut limits = Limits::default();
        limits.shield = false;
        let mut rig = Rig::new(Core::new(limits), store(dir.path()));
        let herald = message(HERALD, first, 0, b"");
        rig.datagram(Socket::Herald, CLIENT, &herald);
        let on = Socket::Session(rig.last_session());
        let mut image = Vec::new();
        let mut acked = vec![false; 200_000];
        for (n, (seqno, place, len, is_zero)) in messages.into_iter().enumerate() {
            let (offset, seqno) = (place * 1500, first.wrapping_add(seqno + 1));
            let payload = vec![if is_zero { 0 } else { n as u8 + 1 }; len];
            let sent = message(VMCORE, seqno, offset, &payload);
            let was_known = acked[offset as usize..offset as usize + len].iter().all(|byte| *byte);
            let before = rig.core.status(rig.last_session()).unwrap().stats.vmcore_bytes;
            prop_assert_eq!(rig.datagram(on, CLIENT, &sent), [seqno]);
            let after = rig.core.status(rig.last_session()).unwrap().stats.vmcore_bytes;
            if after == before {
                prop_assert!(was_known, "acked without being stored");
                continue;
            }
            let range = offset as usize..offset as usize + len;
            image.resize(image.len().max(range.end), 0);
            image[range.clone()].copy_from_slice(&payload);
            acked[range].fill(true);
        }
        drop(rig);
        let found = store(dir.path()).recover();
        prop_assert_eq!(found.len(), 1);
        let record = found[0].record.as_ref().unwrap();
        prop_assert_eq!(record.stats.covered_bytes, acked.iter().filter(|byte| **byte).count() as u64);
        prop_assert_eq!(record.received_end, image.len() as u64);
        for missing in record.holes.listed.iter().chain(&record.not_sent.listed) {
            let range = missing.start as usize..missing.end as usize;
            prop_assert!(acked[range].iter().all(|byte| !byte));
        }
        let vmcore = std::fs::read(dir.path().join(&found[0].paths.vmcore)).unwrap();
        prop_assert!(vmcore == image);
    }
}
