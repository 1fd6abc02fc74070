//! Names, confinement and durability of real files.

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use debugnet_core::wire::debugnet::{EKCD_KEY, FINISHED, HERALD, KDH, VMCORE};
use netdumpd::core::{Core, DumpFile, Herald, HeraldPath, Identity, Limits, SessionId, Socket};
use netdumpd::store::{DiskLimits, FileStore, Piece, Store, StoreConfig};
use zerocopy::IntoBytes;

use crate::support::{Rig, dump_header, message, pattern};

const CLIENT: &str = "10.99.0.1:20024";

fn store(dir: &Path) -> FileStore {
    let config = StoreConfig {
        dir: dir.to_owned(),
        default_path: PathBuf::from("."),
        time_zone: jiff::tz::TimeZone::UTC,
        disk: DiskLimits::default(),
    };
    FileStore::new(config).unwrap()
}

fn open(store: &mut FileStore, id: u64, path: &HeraldPath) -> Result<PathBuf, String> {
    let peer: SocketAddr = CLIENT.parse().unwrap();
    let herald = Herald { seqno: 1, identity: Identity::Stock };
    store.open(SessionId(id), peer, path, &herald).map_err(|fault| fault.0)?;
    Ok(store.paths(SessionId(id)).unwrap().vmcore)
}

fn named(path: &str) -> HeraldPath {
    HeraldPath::Named(path.as_bytes().to_vec())
}

#[test]
fn paths_do_not_lead_out_of_the_dump_directory() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("crash");
    let outside = root.path().join("outside");
    std::fs::create_dir_all(dir.join("in/side")).unwrap();
    std::fs::create_dir_all(&outside).unwrap();
    symlink(&outside, dir.join("absolute-link")).unwrap();
    symlink("../outside", dir.join("relative-link")).unwrap();
    symlink("in/side", dir.join("good-link")).unwrap();
    std::fs::write(dir.join("a-file"), b"").unwrap();
    let mut store = store(&dir);
    let long = "x".repeat(1000);
    let outside_text = outside.to_str().unwrap().to_owned();
    let bad = [
        "../outside",
        "in/../../outside",
        &outside_text,
        "/",
        "..",
        "missing",
        "absolute-link",
        "relative-link",
        "a-file",
        &long,
        "\u{1b}[2J",
    ];
    for (n, path) in bad.into_iter().enumerate() {
        let vmcore = open(&mut store, n as u64, &named(path)).unwrap();
        assert_eq!(vmcore, PathBuf::from(format!("./vmcore.10.99.0.1.{n}")), "{path}");
        assert!(dir.join(vmcore).is_file());
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(
        open(&mut store, 100, &named("in/side")).unwrap(),
        Path::new("in/side/vmcore.10.99.0.1.0")
    );
    assert_eq!(
        open(&mut store, 101, &named("good-link")).unwrap(),
        Path::new("good-link/vmcore.10.99.0.1.1")
    );
}

/// There it would be taken for one, and removed, when the server starts anew.
#[test]
fn no_dump_goes_among_the_journals() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::os::unix::fs::symlink(".netdumpd", dir.path().join("link")).unwrap();
    let mut store = store(dir.path());
    open(&mut store, 0, &named("sub")).unwrap();
    assert!(dir.path().join(".netdumpd").is_dir());
    for (n, path) in [".netdumpd", "sub/../.netdumpd", "link", "./link/."].into_iter().enumerate() {
        let vmcore = open(&mut store, 1 + n as u64, &named(path)).unwrap();
        assert_eq!(vmcore, PathBuf::from(format!("./vmcore.10.99.0.1.{n}")), "{path}");
    }
    // Nor is anything but a journal removed from there.
    std::fs::write(dir.path().join(".netdumpd/notes"), "mine").unwrap();
    drop(store);
    self::store(dir.path()).recover();
    assert_eq!(std::fs::read(dir.path().join(".netdumpd/notes")).unwrap(), b"mine");
}

#[test]
fn planted_links_are_not_followed() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("crash");
    std::fs::create_dir(&dir).unwrap();
    let victim = root.path().join("victim");
    std::fs::write(&victim, b"precious").unwrap();
    for name in ["vmcore.10.99.0.1.0", "info.10.99.0.1.1", "key.10.99.0.1.2"] {
        symlink(&victim, dir.join(name)).unwrap();
    }
    let mut store = store(&dir);
    let vmcore = open(&mut store, 1, &HeraldPath::Default).unwrap();
    assert_eq!(vmcore, Path::new("./vmcore.10.99.0.1.3"));
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
}

#[test]
fn numbers_never_reuse_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut store = store(dir.path());
    for (content, expected) in [
        (None, 0),
        (None, 1),
        (Some("7\n"), 7),
        (Some("0\n"), 2),
        (Some("nonsense"), 3),
        (Some(""), 4),
        (Some("99999999999999999999999"), 5),
    ] {
        if let Some(content) = content {
            std::fs::write(at("bounds.10.99.0.1"), content).unwrap();
        }
        let vmcore = open(&mut store, 100 + expected, &HeraldPath::Default).unwrap();
        assert_eq!(vmcore, PathBuf::from(format!("./vmcore.10.99.0.1.{expected}")));
        let bounds = std::fs::read_to_string(at("bounds.10.99.0.1")).unwrap();
        assert_eq!(bounds, format!("{}\n", expected + 1));
    }
    // An image whose info file was removed is kept, too.
    std::fs::remove_file(at("info.10.99.0.1.6")).unwrap_err();
    std::fs::write(at("vmcore_encrypted.10.99.0.1.6.zst"), b"precious").unwrap();
    let vmcore = open(&mut store, 200, &HeraldPath::Default).unwrap();
    assert_eq!(vmcore, Path::new("./vmcore.10.99.0.1.8"), "7 is taken as well");
}

#[test]
fn encrypted_and_compressed() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(Core::new(Limits::default()), store(dir.path()));
    rig.datagram(Socket::Herald, CLIENT, &message(HERALD, 1, 0, b""));
    let on = Socket::Session(rig.last_session());
    let mut header = dump_header(5000);
    header.dump_key_size = 4096.into();
    header.compression = 2;
    header.seal();
    let header = message(KDH, 4, 0, header.as_bytes());
    assert_eq!(rig.datagram(on, CLIENT, &message(EKCD_KEY, 2, 0, &pattern(4096))), [2]);
    assert_eq!(rig.datagram(on, CLIENT, &message(VMCORE, 3, 0, &pattern(8192))), [3]);
    assert_eq!(rig.datagram(on, CLIENT, &header), [4]);
    assert_eq!(rig.datagram(on, CLIENT, &header), [4]);
    assert_eq!(rig.datagram(on, CLIENT, &message(FINISHED, 5, 0, b"")), [5]);

    let at = |name: &str| dir.path().join(name);
    let vmcore = at("vmcore_encrypted.10.99.0.1.0.zst");
    assert_eq!(std::fs::read(&vmcore).unwrap(), pattern(8192)[..5000]);
    assert_eq!(std::fs::read(at("key.10.99.0.1.0")).unwrap(), pattern(4096));
    assert_eq!(
        std::fs::read_link(at("vmcore.10.99.0.1.last")).unwrap(),
        Path::new("vmcore_encrypted.10.99.0.1.0.zst")
    );
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(at("key.10.99.0.1.0")), 0o400);
    for name in ["info.10.99.0.1.0", "bounds.10.99.0.1", "info.10.99.0.1.0.json"] {
        assert_eq!(mode(at(name)), 0o600, "{name}");
    }
    assert_eq!(mode(vmcore), 0o600);
    let info = std::fs::read_to_string(at("info.10.99.0.1.0")).unwrap();
    assert_eq!(info.matches("Compression: zstd").count(), 1);
    let json = std::fs::read_to_string(at("info.10.99.0.1.0.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["vmcore"], "vmcore_encrypted.10.99.0.1.0.zst");
    assert_eq!(json["key"], "key.10.99.0.1.0");
    assert_eq!(json["result"], "complete");
}

#[test]
fn links_are_replaced_and_an_interrupted_dump_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(Core::new(Limits::default()), store(dir.path()));
    for n in 0..2 {
        let client = format!("10.99.0.1:{}", 20024 + n);
        rig.datagram(Socket::Herald, &client, &message(HERALD, 1, 0, b""));
        let on = Socket::Session(rig.last_session());
        let json = std::fs::read_to_string(dir.path().join(format!("info.10.99.0.1.{n}.json")));
        assert!(json.unwrap().contains("\"result\": \"receiving\""));
        assert_eq!(rig.datagram(on, &client, &message(FINISHED, 2, 0, b"")), [2]);
        let link = std::fs::read_link(dir.path().join("vmcore.10.99.0.1.last")).unwrap();
        assert_eq!(link, PathBuf::from(format!("vmcore.10.99.0.1.{n}")));
    }
}

#[test]
fn elided_pages_take_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path());
    let vmcore = open(&mut store, 1, &HeraldPath::Default).unwrap();
    let page = [Piece { seqno: 2, count: 1, payload: Bytes::from(pattern(4096)) }];
    store.write(SessionId(1), DumpFile::Vmcore, 1 << 30, &page).unwrap();
    let meta = std::fs::metadata(dir.path().join(vmcore)).unwrap();
    assert_eq!(meta.len(), (1 << 30) + 4096);
    assert!(meta.blocks() * 512 < 1 << 20);
}

/// The kernel takes no offset from 2^63 on, whatever the file system.
#[test]
fn a_write_the_system_refuses_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let mut limits = Limits::default();
    limits.max_dump_len = u64::MAX;
    let mut rig = Rig::new(Core::new(limits), store(dir.path()));
    rig.datagram(Socket::Herald, CLIENT, &message(HERALD, 1, 0, b""));
    let on = Socket::Session(rig.last_session());
    assert_eq!(rig.datagram(on, CLIENT, &message(VMCORE, 2, 0, &pattern(100))), [2]);
    assert!(rig.datagram(on, CLIENT, &message(VMCORE, 3, 1 << 63, &pattern(100))).is_empty());
    assert!(rig.datagram(on, CLIENT, &message(VMCORE, 4, 100, &pattern(100))).is_empty());
    assert!(rig.datagram(on, CLIENT, &message(FINISHED, 5, 0, b"")).is_empty());
    let at = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let info = at("info.10.99.0.1.0");
    assert!(
        info.contains("\nDump unsuccessful: write error @ offset 0x8000000000000000: "),
        "{info}"
    );
    assert!(at("info.10.99.0.1.0.json").contains("\"result\": \"failed\""));
    assert_eq!(std::fs::read(dir.path().join("vmcore.10.99.0.1.0")).unwrap(), pattern(100));
}

/// A directory that has gone away cannot be made durable.
#[test]
fn a_dump_that_cannot_be_made_durable_is_not_finished() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(Core::new(Limits::default()), store(dir.path()));
    rig.datagram(Socket::Herald, CLIENT, &message(HERALD, 1, 0, b""));
    let on = Socket::Session(rig.last_session());
    assert_eq!(rig.datagram(on, CLIENT, &message(VMCORE, 2, 0, &pattern(100))), [2]);
    std::fs::remove_dir_all(dir.path()).unwrap();
    assert!(rig.datagram(on, CLIENT, &message(FINISHED, 3, 0, b"")).is_empty());
    assert!(rig.datagram(on, CLIENT, &message(FINISHED, 3, 0, b"")).is_empty());
}

#[test]
fn hosts_that_are_no_file_names_are_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path());
    for (n, host) in ["", "..", ".hidden", "a/b", "a\nb", &"x".repeat(65)].iter().enumerate() {
        store.set_host(SessionId(n as u64), host);
        let vmcore = open(&mut store, n as u64, &HeraldPath::Default).unwrap();
        assert_eq!(vmcore, PathBuf::from(format!("./vmcore.10.99.0.1.{n}")));
    }
    store.set_host(SessionId(50), "victim");
    assert_eq!(open(&mut store, 50, &HeraldPath::Default).unwrap(), Path::new("./vmcore.victim.0"));
    let info = std::fs::read_to_string(dir.path().join("info.victim.0")).unwrap();
    assert_eq!(info, "Dump from victim [10.99.0.1]\n");
}

#[test]
fn a_missing_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = |dir: PathBuf, default: &str| StoreConfig {
        dir,
        default_path: default.into(),
        time_zone: jiff::tz::TimeZone::UTC,
        disk: DiskLimits::default(),
    };
    let error = FileStore::new(config(dir.path().join("none"), ".")).err().unwrap();
    assert!(error.to_string().contains("/none: "), "{error}");
    let error = FileStore::new(config(dir.path().to_owned(), "../up")).err().unwrap();
    assert!(error.to_string().contains("../up: "), "{error}");
}
