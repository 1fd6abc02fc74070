//! Dumps that a server which died has left behind.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;

use serde_json::Value;

use super::dir::DumpDir;
use super::dump::OpenDump;
use super::files::{DumpPaths, Shared};
use super::journal::Leftover;
use super::names::Names;
use crate::core::{KeyInfo, Reason, Record};

/// A dump of a server that died.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Whose it is.
    pub peer: SocketAddr,
    /// Its files.
    pub paths: DumpPaths,
    /// What the handler script is to be told.
    pub reason: Reason,
    /// The record that was written now; `None` if the dump had ended, and only
    /// the ack of its FINISHED is in doubt.
    pub record: Option<Record>,
}

/// Marks all of them in their files. Those of servers that live are left alone.
pub(super) fn recover(shared: &Shared) -> Vec<Recovered> {
    let mut found = Vec::new();
    for leftover in Leftover::all(&shared.root) {
        let origin = &leftover.origin;
        let shown = format!("dump of {} in {}", origin.host, origin.path.display());
        match settle(shared, &leftover) {
            Ok(recovered) => {
                found.extend(recovered);
                leftover.remove(&shared.root);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!("interrupted {shown}: its files are gone");
                leftover.remove(&shared.root);
            }
            // The journal stays for the next start.
            Err(error) => tracing::error!("interrupted {shown}: {error}"),
        }
    }
    found
}

fn settle(shared: &Shared, leftover: &Leftover) -> io::Result<Option<Recovered>> {
    let origin = &leftover.origin;
    let Some(index) = leftover.index else { return Ok(None) };
    let dir = DumpDir::reopen(&shared.root, &origin.path)?;
    let mut names = Names::new(&origin.host, index);
    if !dir.exists(&names.info()) {
        // It was about to be created: nothing was acked.
        return Ok(None);
    }
    let named = leftover.header.as_ref().map(|header| names.vmcore_by(header));
    if let Some(name) = named.filter(|name| dir.exists(name)) {
        names.vmcore = name;
    }
    let ended = ended_as(&dir, &names);
    let key = dir.open_key(&names.key());
    let mut dump = OpenDump::reopen(dir, names, origin, leftover.touched_us())?;
    if let Some(header) = &leftover.header {
        dump.rename_by(header)?;
    }
    let peer = origin.peer;
    if let Some(reason) = ended {
        dump.settle_ended(reason)?;
        return Ok(Some(Recovered { peer, paths: dump.paths(), reason, record: None }));
    }
    let key_len =
        key.as_ref().map_or(Ok(0), |key| key.metadata().map(|metadata| metadata.len()))?;
    let mut salvage = leftover.salvage(dump.vmcore_len()?, key_len)?;
    let mut head = [0; KeyInfo::LEN];
    if let Some(info) = key
        .filter(|key| key.read_exact_at(&mut head, 0).is_ok())
        .and_then(|_| KeyInfo::parse(&head))
    {
        salvage.set_key(info);
    }
    let lasted_us = leftover.touched_us().saturating_sub(origin.started_us);
    let record = salvage.record(peer, lasted_us);
    dump.close(&record);
    let reason = Reason::Interrupted;
    Ok(Some(Recovered { peer, paths: dump.paths(), reason, record: Some(record) }))
}

/// How the record says that the dump ended, if it does.
fn ended_as(dir: &DumpDir, names: &Names) -> Option<Reason> {
    let file = dir.dir.open(names.sidecar()).ok()?;
    let record: Value = serde_json::from_reader(io::BufReader::new(file)).ok()?;
    match (record.get("result")?.as_str()?, record.get("end")?.as_str()?) {
        ("receiving", _) => None,
        ("complete", _) => Some(Reason::Success),
        ("failed", _) => Some(Reason::Error),
        (_, "timed_out" | "stopped") => Some(Reason::Timeout),
        _ => Some(Reason::Incomplete),
    }
}

impl OpenDump {
    /// What a server does after it has written the record, as far as it is not done.
    fn settle_ended(&self, reason: Reason) -> io::Result<()> {
        if !self.has_ending()? {
            self.write_ending(match reason {
                Reason::Success => "Dump complete\n",
                _ => "Dump incomplete: see the record\n",
            })?;
        }
        if matches!(reason, Reason::Success | Reason::Incomplete) {
            self.update_links();
        }
        self.sync_names()
    }
}
