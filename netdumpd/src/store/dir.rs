//! File names of the stock server, confined below the dump directory.
//!
//! Every name is resolved by the kernel (or cap-std) beneath an open
//! directory: neither `..` nor a symbolic link leads out of it.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, File, MetadataExt, OpenOptions, OpenOptionsExt};
use rustix::fs::{Mode, OFlags};

use super::{escape, journal};
use crate::core::HeraldPath;

/// Numbers tried for a host before giving up, as the stock server does.
const MAX_INDEX_TRIES: u64 = 1024;

/// Bytes set aside for a record: one with all its lists full fits, unless it is indented.
#[cfg(target_os = "linux")]
const RESERVED_LEN: u64 = 40 << 10;

/// Whether `dir` is where the journals are, by whatever name it was reached: a
/// dump among them would be taken for one when the server starts anew.
fn holds_journals(root: &Dir, dir: &Dir) -> io::Result<bool> {
    let journals = match root.open_dir(journal::DIR) {
        Ok(journals) => journals.dir_metadata()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let found = dir.dir_metadata()?;
    Ok((found.dev(), found.ino()) == (journals.dev(), journals.ino()))
}

/// The directory a dump goes to.
pub(super) struct DumpDir {
    pub(super) dir: Dir,
    /// Relative to the dump directory.
    pub(super) path: PathBuf,
}

impl DumpDir {
    /// The directory a herald asks for, or the default if that one cannot be used.
    pub(super) fn open(root: &Dir, path: &HeraldPath, default: &Path) -> io::Result<Self> {
        if let HeraldPath::Named(bytes) = path {
            let wanted = Path::new(OsStr::from_bytes(bytes));
            let found = root.open_dir(wanted).and_then(|dir| match holds_journals(root, &dir)? {
                true => Err(io::Error::other("the server's own directory")),
                false => Ok(dir),
            });
            match found {
                Ok(dir) => return Ok(Self { dir, path: wanted.to_owned() }),
                Err(error) => tracing::warn!(
                    "herald path \"{}\" cannot be used ({error}); using the default",
                    escape(bytes)
                ),
            }
        }
        let dir = root.open_dir(default)?;
        Ok(Self { dir, path: default.to_owned() })
    }

    /// A directory where a dump was.
    pub(super) fn reopen(root: &Dir, path: &Path) -> io::Result<Self> {
        Ok(Self { dir: root.open_dir(path)?, path: path.to_owned() })
    }

    /// Takes the next number of `host` and creates its info file. `announce` is
    /// told the number before there is a file of it.
    ///
    /// The number comes from the bounds file, or is the first free one. One
    /// whose files are there already is passed over: nothing is overwritten.
    pub(super) fn claim(
        &self,
        host: &str,
        mut announce: impl FnMut(u64) -> io::Result<()>,
    ) -> io::Result<(u64, File)> {
        let first = self.read_bounds(host).unwrap_or(0);
        for index in (first..).take(MAX_INDEX_TRIES as usize) {
            if self.is_taken(host, index) {
                continue;
            }
            announce(index)?;
            match self.create(&format!("info.{host}.{index}"), 0o600) {
                Ok(info) => {
                    self.write_bounds(host, index.saturating_add(1))?;
                    return Ok((index, info));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!("no free number for {host} from {first} on")))
    }

    /// A new file; never an old one, never through a link.
    pub(super) fn create(&self, name: &str, mode: u32) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(mode);
        self.dir.open_with(name, &options)
    }

    /// An old file, to go on with; never through a link.
    pub(super) fn open_old(&self, name: &str) -> io::Result<std::fs::File> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.dir, name, flags, Mode::empty())?.into())
    }

    /// A key file, to be read, if there is one.
    pub(super) fn open_key(&self, name: &str) -> Option<std::fs::File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Some(rustix::fs::openat(&self.dir, name, flags, Mode::empty()).ok()?.into())
    }

    pub(super) fn exists(&self, name: &str) -> bool {
        self.dir.symlink_metadata(name).is_ok()
    }

    /// Device and inode of a file.
    pub(super) fn identify(&self, name: &str) -> io::Result<(u64, u64)> {
        let metadata = self.dir.symlink_metadata(name)?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// Sets room aside for what [`DumpDir::replace`] is going to write, so that
    /// a full disk does not prevent it. Does nothing where that cannot be done.
    pub(super) fn reserve(&self, name: &str) {
        #[cfg(target_os = "linux")]
        if let Ok(file) = self.create(&temporary(name), 0o600) {
            let flags = rustix::fs::FallocateFlags::empty();
            if rustix::fs::fallocate(&file, flags, 0, RESERVED_LEN).is_err() {
                let _ = self.dir.remove_file(temporary(name));
            }
        }
    }

    /// Replaces a file by one with this content, which is durable afterwards
    /// if asked for (its name is not yet).
    pub(super) fn replace(&self, name: &str, content: &[u8], durable: bool) -> io::Result<()> {
        let temporary = temporary(name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file: std::fs::File = rustix::fs::openat(&self.dir, &temporary, flags, mode)?.into();
        file.write_all_at(content, 0)?;
        file.set_len(content.len() as u64)?;
        if durable {
            file.sync_all()?;
        }
        self.dir.rename(&temporary, &self.dir, name)
    }

    /// Makes the symbolic link `name` point to `target` in the same directory.
    pub(super) fn link(&self, target: &str, name: &str) -> io::Result<()> {
        // Of its target's name: two dumps of one host may end at the same time.
        let temporary = format!("{target}.link.tmp");
        let _ = self.dir.remove_file(&temporary);
        self.dir.symlink(target, &temporary)?;
        self.dir.rename(&temporary, &self.dir, name)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.dir.rename(from, &self.dir, to)
    }

    /// Makes the names durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.dir.open(".")?.sync_all()
    }

    fn is_taken(&self, host: &str, index: u64) -> bool {
        let names = [
            format!("vmcore.{host}.{index}"),
            format!("vmcore_encrypted.{host}.{index}"),
            format!("key.{host}.{index}"),
        ];
        let suffixed =
            names[..2].iter().flat_map(|name| ["", ".gz", ".zst"].map(|s| format!("{name}{s}")));
        suffixed.chain([names[2].clone()]).any(|name| self.dir.symlink_metadata(name).is_ok())
    }

    fn read_bounds(&self, host: &str) -> Option<u64> {
        let mut text = String::new();
        let file = self.dir.open(format!("bounds.{host}")).ok()?;
        file.take(64).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }

    fn write_bounds(&self, host: &str, next: u64) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = self.dir.open_with(format!("bounds.{host}"), &options)?;
        writeln!(file, "{next}")
    }
}

/// Where a file's next content is written.
fn temporary(name: &str) -> String {
    format!("{name}.tmp")
}
