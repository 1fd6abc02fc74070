//! Where dumps go: the files of the stock server, or memory.

mod batch;
mod digest;
mod dir;
mod dump;
mod escape;
mod executor;
mod files;
mod finished;
mod info;
pub(crate) mod journal;
mod mem;
mod names;
mod quota;
mod recover;
mod sidecar;
mod sparse;
mod write_back;

use std::net::SocketAddr;

use bytes::Bytes;

use crate::core::{DumpFile, DumpHeader, Fault, Herald, HeraldPath, Record, SessionId};

pub(crate) use batch::{Done, carry_out};
pub(crate) use escape::harmless;
pub use escape::{escape, escape_keeping_newline};
pub use executor::Executor;
pub use files::{DumpPaths, FileStore, StoreConfig};
pub use quota::DiskLimits;
pub use recover::Recovered;
pub use sidecar::{Ranges, Span};
pub(crate) use sidecar::{end_name, verdict_name};

pub use mem::{Faults, MemDump, MemStore};

/// Takes what the core wants kept. One dump per session.
///
/// The payloads of some messages in sequence, one behind the other.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Number of the first message.
    pub seqno: u32,
    /// Messages.
    pub count: u32,
    /// Of all of them.
    pub payload: Bytes,
}

/// Calls for one session come in the order of the core's actions.
pub trait Store {
    /// Creates the files of a dump.
    ///
    /// # Errors
    /// If they cannot be; the herald is not answered then.
    fn open(
        &mut self,
        session: SessionId,
        peer: SocketAddr,
        path: &HeraldPath,
        herald: &Herald,
    ) -> Result<(), Fault>;

    /// Writes pieces that lie one behind the other from `offset`. Done when the
    /// data, and the knowledge that it is there, would survive the death of this
    /// process.
    ///
    /// # Errors
    /// If any of it could not be written; none of the payloads is acked then.
    fn write(
        &mut self,
        session: SessionId,
        file: DumpFile,
        offset: u64,
        pieces: &[Piece],
    ) -> Result<(), Fault>;

    /// Notes a kernel dump header, `None` for one that was too short.
    ///
    /// # Errors
    /// If it could not be noted.
    fn record_header(
        &mut self,
        session: SessionId,
        seqno: u32,
        header: Option<&DumpHeader>,
    ) -> Result<(), Fault>;

    /// Ends a dump whose FINISHED came: when this returns `Ok`, file contents
    /// and names would survive a loss of power.
    ///
    /// # Errors
    /// If that is not certain. [`Store::close`] follows.
    fn finish(&mut self, session: SessionId, record: &Record) -> Result<(), Fault>;

    /// Ends a dump in any other way: its record is kept as well as it goes.
    fn close(&mut self, session: SessionId, record: &Record);

    /// Has the digest of a finished dump's image computed and added to its
    /// record. Must not wait for it.
    fn digest(&mut self, _session: SessionId) {}

    /// The name a session's files are to have instead of the client's address.
    fn set_host(&mut self, _session: SessionId, _host: &str) {}

    /// The files of a session, also after they were closed, if it has any.
    fn paths(&self, _session: SessionId) -> Option<DumpPaths> {
        None
    }

    /// A number of the file system on which a session's files are, if it has any.
    fn device(&self, _session: SessionId) -> Option<u64> {
        None
    }
}
