//! Dumps as files below one directory, named as the stock server names them.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use jiff::tz::TimeZone;

use super::Store;
use super::dump::OpenDump;
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

/// Dumps as files.
///
/// Files are written by several threads at a time, each session's by one: each
/// thread's hand is a store of its own ([`FileStore::another`]) over what they
/// share.
pub struct FileStore {
    shared: Arc<Shared>,
    hosts: HashMap<SessionId, String>,
    open: HashMap<SessionId, OpenDump>,
    paths: HashMap<SessionId, DumpPaths>,
}

/// What all stores over one dump directory have in common.
struct Shared {
    root: Dir,
    config: StoreConfig,
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
        Ok(Self::over(Arc::new(Shared { root, config })))
    }

    /// Another store over the same directory, limits included, without sessions.
    pub fn another(&self) -> Self {
        Self::over(Arc::clone(&self.shared))
    }

    fn over(shared: Arc<Shared>) -> Self {
        let (hosts, open, paths) = Default::default();
        Self { shared, hosts, open, paths }
    }

    /// The name a session's files are to have instead of the client's address.
    /// One that would not be a plain file name is ignored.
    pub fn set_host(&mut self, session: SessionId, host: &str) {
        let is_plain = !host.is_empty()
            && host.len() <= 64
            && !host.starts_with('.')
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if is_plain {
            self.hosts.insert(session, host.to_owned());
        }
    }

    /// The files of a session, also after they were closed.
    pub fn paths(&self, session: SessionId) -> Option<DumpPaths> {
        let open = self.open.get(&session).map(OpenDump::paths);
        open.or_else(|| self.paths.get(&session).cloned())
    }

    /// Forgets a session that is gone.
    pub fn forget(&mut self, session: SessionId) {
        self.hosts.remove(&session);
        self.open.remove(&session);
        self.paths.remove(&session);
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
        _: &Herald,
    ) -> Result<(), Fault> {
        let numeric = peer.ip().to_string();
        let host = self.hosts.get(&session).unwrap_or(&numeric);
        let dump = OpenDump::create(&self.shared.root, &self.shared.config, peer, host, path)?;
        self.open.insert(session, dump);
        Ok(())
    }

    fn write(
        &mut self,
        session: SessionId,
        file: DumpFile,
        offset: u64,
        payloads: &[Bytes],
        _: &[u32],
    ) -> Result<(), Fault> {
        Ok(self.dump(session)?.write(file, offset, payloads)?)
    }

    fn record_header(
        &mut self,
        session: SessionId,
        _: u32,
        header: Option<&DumpHeader>,
    ) -> Result<(), Fault> {
        let zone = self.shared.config.time_zone.clone();
        Ok(self.dump(session)?.record_header(header, &zone)?)
    }

    fn finish(&mut self, session: SessionId, record: &Record) -> Result<(), Fault> {
        self.dump(session)?.finish(record)?;
        if let Some(dump) = self.open.remove(&session) {
            self.paths.insert(session, dump.paths());
        }
        Ok(())
    }

    fn close(&mut self, session: SessionId, record: &Record) {
        if let Some(mut dump) = self.open.remove(&session) {
            dump.close(record);
            self.paths.insert(session, dump.paths());
        }
    }
}
