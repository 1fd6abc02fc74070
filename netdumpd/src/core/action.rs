//! What the core asks its caller to do.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use debugnet_core::wire::debugnet::Ack;
use serde::{Deserialize, Serialize};

use super::header::DumpHeader;
use super::herald::{Herald, HeraldPath};
use super::record::Record;

/// A session, from its herald until its socket is closed. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which socket a datagram came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Socket {
    /// The one heralds are sent to.
    Herald,
    /// A session's own.
    Session(SessionId),
}

/// The files of a dump that take payload.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DumpFile {
    /// The image.
    Vmcore,
    /// The key of an encrypted image.
    Key,
}

/// Why something asked for could not be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault(pub String);

impl<E: std::error::Error> From<E> for Fault {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Why the handler script runs: its first argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// A complete dump.
    Success,
    /// A dump with holes, or one given up for the next.
    Incomplete,
    /// The client fell silent, or the server was stopped.
    Timeout,
    /// The dump could not be stored.
    Error,
    /// The server died during the dump; the next one found it.
    Interrupted,
}

impl Reason {
    /// The word the script sees.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Incomplete => "incomplete",
            Self::Timeout => "timeout",
            Self::Error => "error",
            Self::Interrupted => "interrupted",
        }
    }
}

/// One line for the log. Nothing in here is text from the network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A herald beyond the limits on sessions: no answer.
    TooManySessions,
    /// More heralds in this second than the limit allows: no answer. Told once a second.
    TooManyHeralds,
    /// A herald's path without NUL at the end, or too long; the default is used.
    UnusablePath,
    /// A message for bytes beyond the limit: no ack. Told once a session.
    OffsetRefused {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u32,
    },
    /// A herald while the same client's dump is running: a new dump if the client goes on with it.
    Provisional,
    /// Nothing followed such a herald.
    ProvisionalExpired,
    /// Socket or files could not be opened: no answer.
    CannotStart(Fault),
}

/// What is to be done next. Those of one session are to be carried out in
/// order; between sessions there is no order.
#[derive(Clone, Debug)]
pub enum Action {
    /// Open the session's socket, on a free port of `local`. Answer with
    /// [`Core::bound`](super::Core::bound).
    Bind {
        /// The session.
        session: SessionId,
        /// Where its client is.
        peer: SocketAddr,
        /// The address the herald was sent to.
        local: IpAddr,
    },
    /// Create the files. Answer with [`Core::opened`](super::Core::opened).
    Open {
        /// The session.
        session: SessionId,
        /// Where its client is.
        peer: SocketAddr,
        /// Where it wants its files.
        path: HeraldPath,
        /// Who it says it is.
        herald: Herald,
    },
    /// Send an ack from the session's socket.
    Reply {
        /// The session.
        session: SessionId,
        /// Where to.
        peer: SocketAddr,
        /// The four bytes.
        ack: Ack,
    },
    /// Write payload. Answer with [`Core::written`](super::Core::written).
    Write {
        /// The session.
        session: SessionId,
        /// Number of the first message, to be given back.
        seqno: u32,
        /// Messages in sequence whose payloads these are.
        count: u32,
        /// Which file.
        file: DumpFile,
        /// Where in it.
        offset: u64,
        /// What.
        payload: Bytes,
    },
    /// Note the kernel dump header in the info file; rename the vmcore if it
    /// is encrypted or compressed. Answer with
    /// [`Core::header_recorded`](super::Core::header_recorded).
    RecordHeader {
        /// The session.
        session: SessionId,
        /// Number of the message, to be given back.
        seqno: u32,
        /// `None`: one came that was too short.
        header: Option<Arc<DumpHeader>>,
    },
    /// Make everything durable (files, directory), give the vmcore its length,
    /// set the links, write the record, close the files. Answer with
    /// [`Core::finished`](super::Core::finished).
    Finish {
        /// The session.
        session: SessionId,
        /// The record to write.
        record: Box<Record>,
    },
    /// Write the record of a dump that ended otherwise, as well as it goes, and close the files.
    Close {
        /// The session.
        session: SessionId,
        /// The record to write.
        record: Box<Record>,
    },
    /// Compute the digest of a finished dump's image and add it to its record,
    /// sometime: nothing waits for it. Its FINISHED has been acked.
    Digest {
        /// The session.
        session: SessionId,
    },
    /// Run the handler script; the files are closed.
    Handle {
        /// The session.
        session: SessionId,
        /// Its first argument.
        reason: Reason,
    },
    /// Close the socket; the session is gone.
    Release {
        /// The session.
        session: SessionId,
    },
    /// Tell the operator.
    Notice {
        /// The session, if it is about one that exists.
        session: Option<SessionId>,
        /// Whose datagram brought it up.
        peer: SocketAddr,
        /// What.
        notice: Notice,
    },
}
