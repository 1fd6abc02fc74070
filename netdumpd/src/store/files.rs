//! Dumps as files below one directory, named as the stock server names them.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use jiff::tz::TimeZone;

use super::digest::Digester;
use super::dump::OpenDump;
use super::finished::FinishedDump;
use super::journal;
use super::names::Names;
use super::quota::{DiskLimits, Quota};
use super::recover::{self, Recovered};
use super::{Piece, Store};
use crate::core::{DumpFile, DumpHeader, Fault, Herald, HeraldPath, Record, SessionId};

/// Where and how.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The dump directory; nothing outside of it is touched.
    pub dir: PathBuf,
    /// Directory below it for clients that ask for none.
    pub default_path: PathBuf,
    /// Time zone of `Dumptime` in info files.
    pub time_zone: TimeZone,
    /// Room that dumps may take.
    pub disk: DiskLimits,
}

/// The files of one dump, relative to the dump directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DumpPaths {
    /// The host's name in them.
    pub host: String,
    /// The image, by its present name.
    pub vmcore: PathBuf,
    /// The info file.
    pub info: PathBuf,
    /// The JSON record.
    pub sidecar: PathBuf,
    /// The key blob, if one came.
    pub key: Option<PathBuf>,
}

impl DumpPaths {
    pub(super) fn new(dir: &Path, names: &Names, has_key: bool) -> Self {
        Self {
            host: names.host.clone(),
            vmcore: dir.join(&names.vmcore),
            info: dir.join(names.info()),
            sidecar: dir.join(names.sidecar()),
            key: has_key.then(|| dir.join(names.key())),
        }
    }
}

/// Dumps as files.
///
/// Files are written by several threads at a time, each session's by one: each
/// thread's hand is a store of its own ([`FileStore::another`]) over what they
/// share.
pub struct FileStore {
    shared: Arc<Shared>,
    hosts: HashMap<SessionId, String>,
    open: HashMap<SessionId, OpenDump>,
    finished: HashMap<SessionId, FinishedDump>,
    paths: HashMap<SessionId, DumpPaths>,
}

/// What all stores over one dump directory have in common.
pub(super) struct Shared {
    pub(super) root: Dir,
    pub(super) config: StoreConfig,
    pub(super) quota: Quota,
    digester: Digester,
}

impl FileStore {
    /// Opens the dump directory.
    ///
    /// # Errors
    /// If it, or the default path below it, is no directory that can be used; the error names it.
    pub fn new(config: StoreConfig) -> io::Result<Self> {
        let name = |what: &Path, error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", what.display()))
        };
        let root = Dir::open_ambient_dir(&config.dir, ambient_authority())
            .map_err(|error| name(&config.dir, error))?;
        root.open_dir(&config.default_path).map_err(|error| name(&config.default_path, error))?;
        let quota = Quota::new(config.disk);
        journal::boot();
        Ok(Self::over(Arc::new(Shared { root, config, quota, digester: Digester::default() })))
    }

    /// Another store over the same directory, limits included, without sessions.
    pub fn another(&self) -> Self {
        Self::over(Arc::clone(&self.shared))
    }

    fn over(shared: Arc<Shared>) -> Self {
        let (hosts, open, finished, paths) = Default::default();
        Self { shared, hosts, open, finished, paths }
    }

    /// Finds the dumps of servers that died, and marks them as interrupted in
    /// their files. To be called before the first session.
    pub fn recover(&self) -> Vec<Recovered> {
        recover::recover(&self.shared)
    }

    /// Waits until the digests of all finished images are in their records, not
    /// longer than `limit`. Returns whether they are.
    pub fn wait_for_digests(&self, limit: Duration) -> bool {
        self.shared.digester.wait(limit)
    }

    /// The dump directory as it was given.
    pub fn dir(&self) -> &Path {
        &self.shared.config.dir
    }

    fn dump(&mut self, session: SessionId) -> Result<&mut OpenDump, Fault> {
        self.open.get_mut(&session).ok_or_else(|| Fault("the dump is not open".into()))
    }
}

impl Store for FileStore {
    fn open(
        &mut self,
        session: SessionId,
        peer: SocketAddr,
        path: &HeraldPath,
        herald: &Herald,
    ) -> Result<(), Fault> {
        let numeric = peer.ip().to_string();
        let host = self.hosts.get(&session).unwrap_or(&numeric);
        let dump = OpenDump::create(&self.shared, peer, host, path, herald)?;
        self.open.insert(session, dump);
        Ok(())
    }

    fn write(
        &mut self,
        session: SessionId,
        file: DumpFile,
        offset: u64,
        pieces: &[Piece],
    ) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        Ok(self.dump(session)?.write(&shared, file, offset, pieces)?)
    }

    fn record_header(
        &mut self,
        session: SessionId,
        seqno: u32,
        header: Option<&DumpHeader>,
    ) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        Ok(self.dump(session)?.record_header(&shared, seqno, header)?)
    }

    fn finish(&mut self, session: SessionId, record: &Record) -> Result<(), Fault> {
        self.dump(session)?.finish(record)?;
        if let Some(dump) = self.open.remove(&session) {
            self.paths.insert(session, dump.paths());
            self.finished.insert(session, dump.into_finished(record));
        }
        Ok(())
    }

    fn close(&mut self, session: SessionId, record: &Record) {
        if let Some(mut dump) = self.open.remove(&session) {
            dump.close(record);
            self.paths.insert(session, dump.paths());
        }
    }

    fn digest(&mut self, session: SessionId) {
        if let Some(dump) = self.finished.remove(&session) {
            self.shared.digester.queue(dump);
        }
    }

    /// One that would not be a plain file name is ignored.
    fn set_host(&mut self, session: SessionId, host: &str) {
        let is_plain = !host.is_empty()
            && host.len() <= 64
            && !host.starts_with('.')
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if is_plain {
            self.hosts.insert(session, host.to_owned());
        }
    }

    fn paths(&self, session: SessionId) -> Option<DumpPaths> {
        let open = self.open.get(&session).map(OpenDump::paths);
        open.or_else(|| self.paths.get(&session).cloned())
    }

    fn device(&self, session: SessionId) -> Option<u64> {
        self.open.get(&session).and_then(OpenDump::device)
    }
}
