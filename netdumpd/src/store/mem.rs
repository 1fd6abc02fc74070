//! Dumps in memory, for simulators and tests, with failures on demand.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{Piece, Store};
use crate::core::{DumpFile, DumpHeader, Fault, Herald, HeraldPath, Record, SessionId};

/// Dumps in memory.
#[derive(Clone, Debug)]
pub struct MemStore {
    dumps: BTreeMap<SessionId, MemDump>,
    /// What is to fail.
    pub faults: Faults,
    /// Longest file in bytes; a write beyond fails. Default 256 MiB.
    pub max_len: u64,
}

impl Default for MemStore {
    fn default() -> Self {
        Self { dumps: BTreeMap::new(), faults: Faults::default(), max_len: 256 << 20 }
    }
}

/// Failures on demand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Files cannot be opened.
    pub open: bool,
    /// A write to the vmcore that touches this byte fails.
    pub write_at: Option<u64>,
    /// Kernel dump headers cannot be noted.
    pub header: bool,
    /// Nothing can be made durable.
    pub finish: bool,
}

/// One dump in memory.
#[derive(Clone, Debug)]
pub struct MemDump {
    /// Whose it is.
    pub peer: SocketAddr,
    /// Where it was to go.
    pub path: HeraldPath,
    /// The image; what never came is zero.
    pub vmcore: Vec<u8>,
    /// The key blob.
    pub key: Vec<u8>,
    /// Headers in the order they were noted.
    pub headers: Vec<Option<DumpHeader>>,
    /// The record, once the dump has ended.
    pub record: Option<Record>,
    /// Whether it ended with FINISHED and everything durable.
    pub is_finished: bool,
}

impl MemStore {
    /// The dump of a session.
    pub fn dump(&self, session: SessionId) -> Option<&MemDump> {
        self.dumps.get(&session)
    }

    /// All dumps, oldest first.
    pub fn dumps(&self) -> impl Iterator<Item = (SessionId, &MemDump)> {
        self.dumps.iter().map(|(session, dump)| (*session, dump))
    }

    fn open_dump(&mut self, session: SessionId) -> Result<&mut MemDump, Fault> {
        let dump = self.dumps.get_mut(&session).filter(|dump| dump.record.is_none());
        dump.ok_or_else(|| Fault("the dump is not open".into()))
    }
}

impl Store for MemStore {
    fn open(
        &mut self,
        session: SessionId,
        peer: SocketAddr,
        path: &HeraldPath,
        _: &Herald,
    ) -> Result<(), Fault> {
        if self.faults.open {
            return Err(Fault("no file on demand".into()));
        }
        let dump = MemDump {
            peer,
            path: path.clone(),
            vmcore: Vec::new(),
            key: Vec::new(),
            headers: Vec::new(),
            record: None,
            is_finished: false,
        };
        self.dumps.insert(session, dump);
        Ok(())
    }

    fn write(
        &mut self,
        session: SessionId,
        file: DumpFile,
        offset: u64,
        pieces: &[Piece],
    ) -> Result<(), Fault> {
        let (fail_at, max_len) = (self.faults.write_at, self.max_len);
        let dump = self.open_dump(session)?;
        let mut at = offset;
        for Piece { payload, .. } in pieces {
            let end = at.saturating_add(payload.len() as u64);
            if file == DumpFile::Vmcore && fail_at.is_some_and(|byte| (at..end).contains(&byte)) {
                return Err(Fault("no write on demand".into()));
            }
            if end > max_len {
                return Err(Fault("the memory set aside is full".into()));
            }
            let bytes = match file {
                DumpFile::Vmcore => &mut dump.vmcore,
                DumpFile::Key => &mut dump.key,
            };
            let range = at as usize..end as usize;
            if bytes.len() < range.end {
                bytes.resize(range.end, 0);
            }
            bytes[range].copy_from_slice(payload);
            at = end;
        }
        Ok(())
    }

    fn record_header(
        &mut self,
        session: SessionId,
        _: u32,
        header: Option<&DumpHeader>,
    ) -> Result<(), Fault> {
        if self.faults.header {
            return Err(Fault("no note on demand".into()));
        }
        self.open_dump(session)?.headers.push(header.cloned());
        Ok(())
    }

    fn finish(&mut self, session: SessionId, record: &Record) -> Result<(), Fault> {
        if self.faults.finish {
            return Err(Fault("no sync on demand".into()));
        }
        let max_len = self.max_len;
        let dump = self.open_dump(session)?;
        if let Some(len) = record.final_len {
            if len > max_len {
                return Err(Fault("the memory set aside is full".into()));
            }
            dump.vmcore.resize(len as usize, 0);
        }
        dump.is_finished = true;
        dump.record = Some(record.clone());
        Ok(())
    }

    fn close(&mut self, session: SessionId, record: &Record) {
        if let Ok(dump) = self.open_dump(session) {
            dump.record = Some(record.clone());
        }
    }
}
