//! A disk that stops in the middle of a dump, while the loop itself writes to it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::Daemon;
use crate::stock_client::StockClient;
use crate::support::{pattern, skip};

/// Thaws it, whatever becomes of the test: what waits for it cannot be killed.
struct Frozen(PathBuf);

impl Frozen {
    fn new(mount: &Path) -> Option<Self> {
        let is_frozen = freeze("-f", mount);
        is_frozen.then(|| Self(mount.to_owned()))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        freeze("-u", &self.0);
    }
}

fn freeze(how: &str, mount: &Path) -> bool {
    Command::new("fsfreeze").arg(how).arg(mount).status().is_ok_and(|status| status.success())
}

/// Makes a disk of a file; why that cannot be, if so.
fn disk(image: &Path) -> Result<(), &'static str> {
    std::fs::File::create(image).unwrap().set_len(64 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image).status();
    if !made.is_ok_and(|status| status.success()) {
        return Err("no mkfs.ext4");
    }
    let may_mount = Command::new("unshare")
        .args([
            "-m",
            "sh",
            "-c",
            "mount -o loop \"$0\" /mnt && fsfreeze -f /mnt && fsfreeze -u /mnt",
        ])
        .arg(image)
        .output();
    match may_mount {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err("mounting a file, or fsfreeze, is not permitted"),
    }
}

#[test]
fn it_holds_up_its_own_client_only() {
    let dir = tempfile::tempdir().unwrap();
    let (image, below) = (dir.path().join("disk"), dir.path().join("disk.mnt"));
    if let Err(reason) = disk(&image) {
        return skip("frozen_disk::it_holds_up_its_own_client_only", reason);
    }
    std::fs::create_dir(&below).unwrap();
    // In a mount namespace of its own, which ends with it.
    let mut server = Command::new("unshare");
    server.args(["-m", "sh", "-c", "mount -o loop \"$0\" \"$1\" && shift && exec \"$@\""]);
    server.arg(&image).arg(&below).arg(env!("CARGO_BIN_EXE_netdumpd"));
    let mut daemon = Daemon::start_by(server, dir.path(), &["--min-free", "0"]);
    let mount = PathBuf::from(format!("/proc/{}/root", daemon.pid()))
        .join(below.canonicalize().unwrap().strip_prefix("/").unwrap());
    let address = daemon.address;

    let content = pattern(6 << 20);
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (frozen, is_frozen) = std::sync::mpsc::channel();
    let theirs = content.clone();
    let stuck = std::thread::spawn(move || {
        let mut client = StockClient::new("127.0.6.1");
        client.herald(address, b"disk.mnt\0");
        // So far the disk is quick.
        client.dump_part(&theirs, 0..2 << 20);
        begun.send(()).unwrap();
        is_frozen.recv().unwrap();
        client.dump_part(&theirs, 2 << 20..6 << 20);
        client.finish();
    });
    has_begun.recv().unwrap();
    let guard = Frozen::new(&mount).expect("it could be frozen before");
    frozen.send(()).unwrap();
    // Several one after the other: also after the loop was stuck once.
    for n in 0..3 {
        let mut other = StockClient::new(&format!("127.0.6.{}", n + 2));
        other.herald(address, b"");
        other.dump(&content);
        other.finish();
        let finished = daemon.event("finished");
        assert_eq!(finished["result"], "complete");
        assert!(finished["peer"].as_str().unwrap().starts_with(&format!("127.0.6.{}:", n + 2)));
    }
    assert!(!stuck.is_finished(), "its disk stands still");
    drop(guard);
    stuck.join().unwrap();
    let finished = daemon.event("finished");
    assert_eq!(
        (&finished["result"], &finished["duplicates"].is_u64()),
        (&"complete".into(), &true)
    );
    assert!(std::fs::read(mount.join("vmcore.127.0.6.1.0")).unwrap() == content);
}
