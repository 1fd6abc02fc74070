//! File names of the stock server, confined below the dump directory.
//!
//! Every name is resolved by the kernel (or cap-std) beneath an open
//! directory: neither `..` nor a symbolic link leads out of it.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, File, OpenOptions, OpenOptionsExt};

use super::escape;
use crate::core::HeraldPath;

/// Numbers tried for a host before giving up, as the stock server does.
const MAX_INDEX_TRIES: u64 = 1024;

/// The directory a dump goes to.
pub(super) struct DumpDir {
    dir: Dir,
    /// Relative to the dump directory.
    pub(super) path: PathBuf,
}

impl DumpDir {
    /// The directory a herald asks for, or the default if that one cannot be used.
    pub(super) fn open(root: &Dir, path: &HeraldPath, default: &Path) -> io::Result<Self> {
        if let HeraldPath::Named(bytes) = path {
            let wanted = Path::new(OsStr::from_bytes(bytes));
            match root.open_dir(wanted) {
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

    /// Takes the next number of `host` and creates its info file.
    ///
    /// The number comes from the bounds file, or is the first free one. One
    /// whose files are there already is passed over: nothing is overwritten.
    pub(super) fn claim(&self, host: &str) -> io::Result<(u64, File)> {
        let first = self.read_bounds(host).unwrap_or(0);
        for index in (first..).take(MAX_INDEX_TRIES as usize) {
            if self.is_taken(host, index) {
                continue;
            }
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
        options.write(true).create_new(true).mode(mode);
        self.dir.open_with(name, &options)
    }

    /// Replaces a file by one with this content, which is durable afterwards (its name not yet).
    pub(super) fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let temporary = format!("{name}.tmp");
        let _ = self.dir.remove_file(&temporary);
        let mut file = self.create(&temporary, 0o600)?;
        file.write_all(content)?;
        file.sync_all()?;
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
