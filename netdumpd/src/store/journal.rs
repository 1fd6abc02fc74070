//! What of a dump is on disk, noted as it comes, for the day this process dies.
//!
//! A journal is made before any other file of a dump and removed after its
//! record is durable. An entry is written after the payload it tells of and
//! before its ack: whatever was acked is in there. It needs no fsync: a write
//! that the system took survives the death of the process, which is all that
//! is promised before FINISHED.
//!
//! Journals are in one directory, so that the next server finds them at once.
//! Each is locked by the process that writes it: the lock ends with it.
//!
//! The file is a head of 4096 bytes and entries of 32, all little-endian; none
//! crosses a page, so that no writer dies in the middle of one.

mod leftover;

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Piece;
use crate::core::{DumpFile, DumpHeader, HEADER_LEN, Herald, Identity};

pub(super) use leftover::Leftover;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use leftover::{Stored, take_entries};

/// Where journals are, below the dump directory; only while there are any.
pub(super) const DIR: &str = ".netdumpd";

const MAGIC: [u8; 8] = *b"netdumpj";
const VERSION: u32 = 1;
const HEAD_LEN: u64 = 4096;
const PATH_LEN: usize = 3072;
const BOOT_LEN: usize = 36;

/// Bytes of entries that a journal may always have; beyond, one for every
/// [`WRITTEN_PER_ENTRY_BYTE`] of payload. A client that scatters its messages
/// must not fill the disk with what is told of them.
const FREE_LEN: u64 = 32 << 20;
const WRITTEN_PER_ENTRY_BYTE: u64 = 16;

/// Bytes set aside at the start: enough for most dumps, so that a full disk meets the payload first.
const PREALLOCATED_LEN: u64 = HEAD_LEN + 4096;

const VMCORE: u8 = 1;
const KEY: u8 = 2;
const HEADER: u8 = 3;

#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Head {
    magic: [u8; 8],
    version: U32,
    has_index: u8,
    has_header: u8,
    is_ours: u8,
    host_len: u8,
    index: U64,
    started_us: U64,
    ip: [u8; 16],
    port: U16,
    path_len: U16,
    herald: U32,
    identity_version: U32,
    nonce: U16,
    unused: [u8; 2],
    boot: [u8; BOOT_LEN],
    host: [u8; 64],
    header: [u8; HEADER_LEN],
    path: [u8; PATH_LEN],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Entry {
    kind: u8,
    unused: [u8; 7],
    seqno: U32,
    count: U32,
    offset: U64,
    len: U64,
}

const ENTRY_LEN: u64 = size_of::<Entry>() as u64;
const _: () = assert!(size_of::<Entry>() == 32 && size_of::<Head>() as u64 <= HEAD_LEN);

impl Entry {
    /// Whether `next` is the same run going on.
    fn goes_on_with(&self, next: &Self) -> bool {
        let (count, len) = (self.count.get(), self.len.get());
        self.kind == next.kind
            && self.kind != HEADER
            && self.seqno.get().wrapping_add(count) == next.seqno.get()
            && self.offset.get().wrapping_add(len) == next.offset.get()
            && count.checked_add(next.count.get()).is_some()
    }

    fn extend(&mut self, next: &Self) {
        self.count += next.count;
        self.len += next.len;
    }
}

/// Who a dump is of, and where it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Origin {
    pub(super) peer: SocketAddr,
    pub(super) host: String,
    pub(super) herald: Herald,
    /// The directory, relative to the dump directory.
    pub(super) path: PathBuf,
    /// Since 1970.
    pub(super) started_us: u64,
}

/// A journal being written.
pub(super) struct Journal {
    file: std::fs::File,
    root: Dir,
    name: String,
    head: Head,
    last: Option<Entry>,
    /// Where the next entry goes.
    end: u64,
    /// Payload bytes told of.
    told: u64,
}

impl Journal {
    /// A new one, locked.
    pub(super) fn create(root: &Dir, origin: &Origin) -> io::Result<Self> {
        let head = Head::new(origin)?;
        let (name, file) = create_locked(root)?;
        let journal =
            Self { file, root: root.try_clone()?, name, head, last: None, end: HEAD_LEN, told: 0 };
        #[cfg(target_os = "linux")]
        {
            // A file system that cannot do this is no worse off than without.
            let keep = rustix::fs::FallocateFlags::KEEP_SIZE;
            let _ = rustix::fs::fallocate(&journal.file, keep, 0, PREALLOCATED_LEN);
        }
        journal.write_head()?;
        Ok(journal)
    }

    /// The dump's number is going to be this one.
    pub(super) fn set_index(&mut self, index: u64) -> io::Result<()> {
        self.head.has_index = 1;
        self.head.index = index.into();
        self.write_head()
    }

    /// Payloads were written one behind the other from `offset`.
    pub(super) fn stored(
        &mut self,
        file: DumpFile,
        offset: u64,
        pieces: &[Piece],
    ) -> io::Result<()> {
        let kind = match file {
            DumpFile::Vmcore => VMCORE,
            DumpFile::Key => KEY,
        };
        let mut at = offset;
        let entries = pieces.iter().map(|piece| {
            let len = piece.payload.len() as u64;
            let entry =
                Entry { count: piece.count.into(), ..Entry::new(kind, piece.seqno, at, len) };
            at += len;
            entry
        });
        self.append(entries)
    }

    /// A kernel dump header was noted.
    pub(super) fn header(&mut self, seqno: u32, header: Option<&DumpHeader>) -> io::Result<()> {
        if let Some(header) = header {
            self.head.has_header = 1;
            self.head.header = *header.raw;
            self.write_head()?;
        }
        self.append(std::iter::once(Entry::new(HEADER, seqno, 0, 0)))
    }

    /// The dump is over and its record durable.
    pub(super) fn remove(self) {
        let Self { root, name, .. } = self;
        remove(&root, &name);
    }

    fn append(&mut self, entries: impl Iterator<Item = Entry>) -> io::Result<()> {
        let mut runs: Vec<Entry> = self.last.into_iter().collect();
        let at = self.end - ENTRY_LEN * runs.len() as u64;
        for entry in entries {
            self.told += entry.len.get();
            match runs.last_mut() {
                Some(last) if last.goes_on_with(&entry) => last.extend(&entry),
                _ => runs.push(entry),
            }
        }
        let end = at + ENTRY_LEN * runs.len() as u64;
        if end - HEAD_LEN > FREE_LEN + self.told / WRITTEN_PER_ENTRY_BYTE {
            return Err(io::Error::other("the messages are too scattered to keep track of"));
        }
        self.file.write_all_at(runs.as_bytes(), at)?;
        (self.end, self.last) = (end, runs.last().copied());
        Ok(())
    }

    fn write_head(&self) -> io::Result<()> {
        self.file.write_all_at(self.head.as_bytes(), 0)
    }
}

impl Entry {
    fn new(kind: u8, seqno: u32, offset: u64, len: u64) -> Self {
        Self {
            kind,
            unused: [0; 7],
            seqno: seqno.into(),
            count: 1.into(),
            offset: offset.into(),
            len: len.into(),
        }
    }
}

impl Head {
    fn new(origin: &Origin) -> io::Result<Self> {
        let mut head = Self::new_zeroed();
        head.magic = MAGIC;
        head.version = VERSION.into();
        let ip = match origin.peer.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        head.ip = ip.octets();
        head.port = origin.peer.port().into();
        head.herald = origin.herald.seqno.into();
        if let Identity::Ours { version, nonce } = origin.herald.identity {
            (head.is_ours, head.identity_version, head.nonce) = (1, version.into(), nonce.into());
        }
        head.started_us = origin.started_us.into();
        head.boot = boot();
        let (host, path) = (origin.host.as_bytes(), origin.path.as_os_str().as_bytes());
        let (Some(host_field), Some(path_field)) =
            (head.host.get_mut(..host.len()), head.path.get_mut(..path.len()))
        else {
            return Err(io::Error::other("the path or the host's name is too long"));
        };
        host_field.copy_from_slice(host);
        path_field.copy_from_slice(path);
        // Both fit their fields, which are shorter than this.
        (head.host_len, head.path_len) = (host.len() as u8, (path.len() as u16).into());
        Ok(head)
    }

    /// `None` if it is no journal's, or of another version.
    fn origin(&self) -> Option<Origin> {
        if self.magic != MAGIC || self.version.get() != VERSION {
            return None;
        }
        let host = self.host.get(..usize::from(self.host_len))?;
        let path = self.path.get(..usize::from(self.path_len.get()))?;
        let ip = Ipv6Addr::from(self.ip).to_canonical();
        let identity = match self.is_ours {
            0 => Identity::Stock,
            _ => Identity::Ours { version: self.identity_version.get(), nonce: self.nonce.get() },
        };
        Some(Origin {
            peer: SocketAddr::new(ip, self.port.get()),
            host: String::from_utf8(host.to_vec()).ok()?,
            herald: Herald { seqno: self.herald.get(), identity },
            path: Path::new(std::ffi::OsStr::from_bytes(path)).to_owned(),
            started_us: self.started_us.get(),
        })
    }
}

/// What the head of a journal says, written once more: the same.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn head_stands(bytes: &[u8]) -> bool {
    let mut head = Head::new_zeroed();
    let len = bytes.len().min(size_of::<Head>());
    head.as_mut_bytes()[..len].copy_from_slice(&bytes[..len]);
    let Some(origin) = head.origin() else { return true };
    Head::new(&origin).is_ok_and(|head| head.origin() == Some(origin))
}

/// Which start of the machine this is; zeros where that cannot be told. Read
/// once, as a store is made: later a sandbox may keep the file from us.
pub(super) fn boot() -> [u8; BOOT_LEN] {
    static BOOT: OnceLock<[u8; BOOT_LEN]> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let id = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.first_chunk().copied().unwrap_or([0; BOOT_LEN])
    })
}

/// Journals of this process are numbered.
static NEXT: AtomicU64 = AtomicU64::new(0);

fn create_locked(root: &Dir) -> io::Result<(String, std::fs::File)> {
    const TRIES: u32 = 1000;
    for _ in 0..TRIES {
        match root.create_dir(DIR) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{DIR}/{}-{number}", std::process::id());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = match root.open_with(&name, &options) {
            Ok(file) => file.into_std(),
            // Left by a process of the same number, or the directory was
            // removed as empty just now.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        // A server that starts just now may have taken it for a leftover that tells nothing.
        if file.try_lock().is_ok() && file.metadata()?.nlink() > 0 {
            return Ok((name, file));
        }
    }
    Err(io::Error::other(format!("no free name for a journal in {DIR}")))
}

fn remove(root: &Dir, name: &str) {
    if let Err(error) = root.remove_file(name) {
        tracing::warn!("journal {name}: {error}");
    }
    // Refused as long as there are others.
    let _ = root.remove_dir(DIR);
}
