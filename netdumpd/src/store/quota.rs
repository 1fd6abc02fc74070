//! How much room dumps may take.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cap_std::fs::{Dir, MetadataExt};

/// What is there is counted anew at most this often.
const RECOUNT: Duration = Duration::from_secs(10);

/// Directories below each other that are counted.
const MAX_DEPTH: u32 = 16;

/// Room on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DiskLimits {
    /// Bytes that all files below the dump directory may take together. No limit by default.
    pub max_total_len: Option<u64>,
    /// Bytes of its file system that a dump leaves free. Default 64 MiB.
    pub min_free_len: u64,
}

impl Default for DiskLimits {
    fn default() -> Self {
        Self { max_total_len: None, min_free_len: 64 << 20 }
    }
}

/// Watches the limits, for all dumps.
pub(super) struct Quota {
    limits: DiskLimits,
    used: AtomicU64,
    counted: Mutex<Option<Instant>>,
}

impl Quota {
    pub(super) fn new(limits: DiskLimits) -> Self {
        Self { limits, used: AtomicU64::new(0), counted: Mutex::new(None) }
    }

    /// Whether a dump may begin in `dir`.
    pub(super) fn admit(&self, root: &Dir, dir: impl AsFd) -> io::Result<()> {
        self.charge(root, 0)?;
        self.check_free(dir)
    }

    /// `len` more bytes are going to be written.
    pub(super) fn charge(&self, root: &Dir, len: u64) -> io::Result<()> {
        let Some(limit) = self.limits.max_total_len else { return Ok(()) };
        let before = self.used.fetch_add(len, Ordering::Relaxed);
        let is_beyond = |used: u64| used.saturating_add(len.max(1)) > limit;
        if !self.was_counted() || is_beyond(before) {
            self.recount(root, len);
            let used = self.used.load(Ordering::Relaxed).saturating_sub(len);
            if is_beyond(used) {
                return Err(io::Error::other(format!(
                    "the dumps take {used} of the {limit} bytes they may take"
                )));
            }
        }
        Ok(())
    }

    /// Whether the file system of `file` has the room left that it is to have.
    pub(super) fn check_free(&self, file: impl AsFd) -> io::Result<()> {
        if self.limits.min_free_len == 0 {
            return Ok(());
        }
        let stat = rustix::fs::fstatvfs(file)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < self.limits.min_free_len {
            return Err(io::Error::other(format!(
                "{free} bytes are free on the disk, and {} are to stay free",
                self.limits.min_free_len
            )));
        }
        Ok(())
    }

    fn was_counted(&self) -> bool {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Files may have been removed since.
    fn recount(&self, root: &Dir, coming: u64) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.is_none_or(|at| at.elapsed() >= RECOUNT) {
            let used = count(root, MAX_DEPTH).saturating_add(coming);
            self.used.store(used, Ordering::Relaxed);
            *counted = Some(Instant::now());
        }
    }
}

/// Bytes that files take, links not followed. What cannot be read is not counted.
fn count(dir: &Dir, depth: u32) -> u64 {
    let Ok(entries) = dir.entries() else { return 0 };
    let of = |entry: io::Result<cap_std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let metadata = entry.metadata().ok()?;
        if metadata.is_dir() && depth > 0 {
            return Some(count(&entry.open_dir().ok()?, depth - 1));
        }
        metadata.is_file().then(|| metadata.blocks().saturating_mul(512))
    };
    entries.filter_map(of).fold(0, u64::saturating_add)
}
