//! The open files of one dump.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::Bytes;
use cap_std::fs::{Dir, File};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::dir::DumpDir;
use super::files::{DumpPaths, StoreConfig};
use super::{info, sidecar};
use crate::core::{Compression, DumpFile, DumpHeader, HeraldPath, Record};

/// Bytes written before their write-back is started.
const WRITE_BACK_LEN: u64 = 8 << 20;

/// Files of a dump under way.
pub(super) struct OpenDump {
    dir: DumpDir,
    host: String,
    peer: SocketAddr,
    index: u64,
    /// Name in the directory; changes when a header says what the image is.
    vmcore_name: String,
    vmcore: std::fs::File,
    key: Option<std::fs::File>,
    info: File,
    started: Timestamp,
    dirty: Option<std::ops::Range<u64>>,
    dirty_len: u64,
}

impl OpenDump {
    pub(super) fn create(
        root: &Dir,
        config: &StoreConfig,
        peer: SocketAddr,
        host: &str,
        path: &HeraldPath,
    ) -> io::Result<Self> {
        let dir = DumpDir::open(root, path, &config.default_path)?;
        let (index, info) = dir.claim(host)?;
        let vmcore_name = format!("vmcore.{host}.{index}");
        let vmcore = dir.create(&vmcore_name, 0o600)?.into_std();
        let mut dump = Self {
            dir,
            host: host.to_owned(),
            peer,
            index,
            vmcore_name,
            vmcore,
            key: None,
            info,
            started: Timestamp::now(),
            dirty: None,
            dirty_len: 0,
        };
        dump.info.write_all(info::opening(host, peer.ip()).as_bytes())?;
        dump.write_sidecar(None)?;
        Ok(dump)
    }

    /// Paths relative to the dump directory.
    pub(super) fn paths(&self) -> DumpPaths {
        let of = |name: String| -> PathBuf { self.dir.path.join(name) };
        DumpPaths {
            host: self.host.clone(),
            vmcore: of(self.vmcore_name.clone()),
            info: of(self.info_name()),
            sidecar: of(self.sidecar_name()),
            key: self.key.is_some().then(|| of(self.key_name())),
        }
    }

    pub(super) fn write(
        &mut self,
        file: DumpFile,
        offset: u64,
        payloads: &[Bytes],
    ) -> io::Result<()> {
        let target = match file {
            DumpFile::Vmcore => &self.vmcore,
            DumpFile::Key => self.key_file()?,
        };
        let written = write_at(target, offset, payloads)?;
        if file == DumpFile::Vmcore {
            self.start_write_back(offset..offset + written);
        }
        Ok(())
    }

    pub(super) fn record_header(
        &mut self,
        header: Option<&DumpHeader>,
        zone: &TimeZone,
    ) -> io::Result<()> {
        self.info.write_all(info::header(header, zone).as_bytes())?;
        let Some(header) = header.filter(|header| header.is_sound()) else { return Ok(()) };
        let stem = if header.is_encrypted() { "vmcore_encrypted" } else { "vmcore" };
        let suffix = match header.compression {
            Some(Compression::Gzip) => ".gz",
            Some(Compression::Zstd) => ".zst",
            _ => "",
        };
        let name = format!("{stem}.{}.{}{suffix}", self.host, self.index);
        if name != self.vmcore_name {
            self.dir.rename(&self.vmcore_name, &name)?;
            self.vmcore_name = name;
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, record: &Record) -> io::Result<()> {
        if let Some(len) = record.final_len {
            self.vmcore.set_len(len)?;
        }
        self.vmcore.sync_all()?;
        if let Some(key) = &self.key {
            key.sync_all()?;
        }
        self.write_sidecar(Some(record))?;
        self.update_links();
        self.info.write_all(info::ending(record).as_bytes())?;
        self.info.sync_all()?;
        self.dir.sync()
    }

    /// Keeps what there is. Every step is tried, whatever became of the one before.
    pub(super) fn close(&mut self, record: &Record) {
        let steps = [
            ("vmcore", self.vmcore.sync_all()),
            ("key", self.key.as_ref().map_or(Ok(()), std::fs::File::sync_all)),
            ("record", self.write_sidecar(Some(record))),
            ("info file", self.info.write_all(info::ending(record).as_bytes())),
            ("info file", self.info.sync_all()),
            ("directory", self.dir.sync()),
        ];
        for (what, result) in steps {
            if let Err(error) = result {
                tracing::error!("{what} of {}: {error}", self.vmcore_name);
            }
        }
    }

    fn write_sidecar(&self, record: Option<&Record>) -> io::Result<()> {
        let (info, key) = (self.info_name(), self.key_name());
        let frame = sidecar::Frame {
            host: &self.host,
            ip: self.peer.ip(),
            port: self.peer.port(),
            vmcore: &self.vmcore_name,
            info: &info,
            key: self.key.is_some().then_some(&key),
            started: self.started,
        };
        self.dir.replace(&self.sidecar_name(), &sidecar::render(&frame, record))
    }

    /// A link that cannot be made is no loss of data: it is told, not more.
    fn update_links(&self) {
        for (target, kind) in [(&self.vmcore_name, "vmcore"), (&self.info_name(), "info")] {
            let name = format!("{kind}.{}.last", self.host);
            if let Err(error) = self.dir.link(target, &name) {
                tracing::warn!("link {name}: {error}");
            }
        }
    }

    fn key_file(&mut self) -> io::Result<&std::fs::File> {
        let file = match self.key.take() {
            Some(file) => file,
            None => self.dir.create(&self.key_name(), 0o400)?.into_std(),
        };
        Ok(self.key.insert(file))
    }

    /// Has the kernel begin to write what is dirty, so that the fsync at
    /// FINISHED is short: a stock client waits 12 s for its ack.
    fn start_write_back(&mut self, range: std::ops::Range<u64>) {
        self.dirty_len += range.end - range.start;
        let dirty = match self.dirty.take() {
            Some(dirty) => dirty.start.min(range.start)..dirty.end.max(range.end),
            None => range,
        };
        if self.dirty_len < WRITE_BACK_LEN {
            self.dirty = Some(dirty);
            return;
        }
        self.dirty_len = 0;
        // On Linux this starts the write-back of dirty pages without waiting,
        // and lets go of clean ones, which nobody is going to read.
        #[cfg(target_os = "linux")]
        if let Some(len) = std::num::NonZeroU64::new(dirty.end - dirty.start) {
            // Advice may be ignored; the fsync does not depend on it.
            let _ = rustix::fs::fadvise(
                &self.vmcore,
                dirty.start,
                Some(len),
                rustix::fs::Advice::DontNeed,
            );
        }
    }

    fn info_name(&self) -> String {
        format!("info.{}.{}", self.host, self.index)
    }

    fn sidecar_name(&self) -> String {
        format!("info.{}.{}.json", self.host, self.index)
    }

    fn key_name(&self) -> String {
        format!("key.{}.{}", self.host, self.index)
    }
}

/// Writes all payloads one behind the other, in one call if the system does it. Returns their length.
fn write_at(file: &std::fs::File, offset: u64, payloads: &[Bytes]) -> io::Result<u64> {
    let mut at = offset;
    let mut ahead = 0u64;
    if payloads.len() > 1 {
        let slices: Vec<_> = payloads.iter().map(|payload| io::IoSlice::new(payload)).collect();
        ahead = rustix::io::pwritev(file, &slices, offset)? as u64;
    }
    for payload in payloads {
        let len = payload.len() as u64;
        let done = ahead.min(len);
        ahead -= done;
        file.write_all_at(&payload[done as usize..], at + done)?;
        at += len;
    }
    Ok(at - offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_land_one_behind_the_other() {
        let file = tempfile::tempfile().unwrap();
        let payloads = [&b"abc"[..], b"", b"de"].map(Bytes::from_static);
        assert_eq!(write_at(&file, 2, &payloads).unwrap(), 5);
        assert_eq!(write_at(&file, 9, &payloads[..1]).unwrap(), 3);
        let mut found = [0u8; 12];
        file.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(&found, b"\0\0abcde\0\0abc");
    }
}
