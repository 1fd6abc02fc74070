//! The open files of one dump.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, MetadataExt};

use jiff::Timestamp;

use super::Piece;
use super::dir::DumpDir;
use super::files::{DumpPaths, Shared};
use super::finished::FinishedDump;
use super::info;
use super::journal::{Journal, Origin};
use super::names::Names;
use super::sidecar::{self, Frame};
use super::sparse::SparseFile;
use super::write_back::WriteBack;
use crate::core::{DumpFile, DumpHeader, Herald, HeraldPath, Record};

/// Bytes written between two looks at the room that is left on the disk.
const CHECK_FREE_LEN: u64 = 4 << 20;

/// Files of a dump under way.
pub(super) struct OpenDump {
    dir: DumpDir,
    peer: SocketAddr,
    names: Names,
    vmcore: SparseFile,
    key: Option<std::fs::File>,
    info: std::fs::File,
    /// None only for a dump whose journal is being read.
    journal: Option<Journal>,
    started: Timestamp,
    /// None: now.
    ended: Option<Timestamp>,
    write_back: WriteBack,
    unchecked_len: u64,
    device: Option<u64>,
}

impl OpenDump {
    pub(super) fn create(
        shared: &Shared,
        peer: SocketAddr,
        host: &str,
        path: &HeraldPath,
        herald: &Herald,
    ) -> io::Result<Self> {
        let dir = DumpDir::open(&shared.root, path, &shared.config.default_path)?;
        shared.quota.admit(&shared.root, &dir.dir)?;
        let started = Timestamp::now();
        let origin = Origin {
            peer,
            host: host.to_owned(),
            herald: *herald,
            path: dir.path.clone(),
            started_us: u64::try_from(started.as_microsecond()).unwrap_or_default(),
        };
        let mut journal = Journal::create(&shared.root, &origin)?;
        match Self::create_files(&dir, &mut journal, &origin) {
            Ok((names, vmcore, info)) => Ok(Self {
                device: device_of(&info),
                dir,
                peer,
                names,
                vmcore: SparseFile::new(vmcore),
                key: None,
                info,
                journal: Some(journal),
                started,
                ended: None,
                write_back: WriteBack::default(),
                unchecked_len: 0,
            }),
            Err(error) => {
                journal.remove();
                Err(error)
            }
        }
    }

    fn create_files(
        dir: &DumpDir,
        journal: &mut Journal,
        origin: &Origin,
    ) -> io::Result<(Names, std::fs::File, std::fs::File)> {
        let host = &origin.host;
        let (index, info) = dir.claim(host, |index| journal.set_index(index))?;
        let mut info = info.into_std();
        let names = Names::new(host, index);
        let vmcore = dir.create(&names.vmcore, 0o600)?.into_std();
        info.write_all(info::opening(host, origin.peer.ip()).as_bytes())?;
        let frame = Frame {
            names: names.clone(),
            peer: origin.peer,
            has_key: false,
            started: timestamp(origin.started_us),
            ended: None,
            sha256: None,
        };
        dir.replace(&names.sidecar(), &sidecar::render(&frame, None, true), false)?;
        dir.reserve(&names.sidecar());
        Ok((names, vmcore, info))
    }

    /// Files of a dump that another process has left, to be closed.
    pub(super) fn reopen(
        dir: DumpDir,
        names: Names,
        origin: &Origin,
        ended_us: u64,
    ) -> io::Result<Self> {
        let vmcore = match dir.exists(&names.vmcore) {
            true => dir.open_old(&names.vmcore)?,
            // The other process did not get as far as that.
            false => dir.create(&names.vmcore, 0o600)?.into_std(),
        };
        let info = dir.open_old(&names.info())?;
        Ok(Self {
            vmcore: SparseFile::new(vmcore),
            key: dir.open_key(&names.key()),
            device: device_of(&info),
            info,
            dir,
            peer: origin.peer,
            names,
            journal: None,
            started: timestamp(origin.started_us),
            ended: Some(timestamp(ended_us)),
            write_back: WriteBack::default(),
            unchecked_len: 0,
        })
    }

    /// Paths relative to the dump directory.
    pub(super) fn paths(&self) -> DumpPaths {
        DumpPaths::new(&self.dir.path, &self.names, self.key.is_some())
    }

    /// Bytes that the image's file has.
    pub(super) fn vmcore_len(&self) -> io::Result<u64> {
        Ok(self.vmcore.file.metadata()?.len())
    }

    /// The file system's number.
    pub(super) fn device(&self) -> Option<u64> {
        self.device
    }

    pub(super) fn write(
        &mut self,
        shared: &Shared,
        file: DumpFile,
        offset: u64,
        pieces: &[Piece],
    ) -> io::Result<()> {
        let len = pieces.iter().map(|piece| piece.payload.len() as u64).sum();
        shared.quota.charge(&shared.root, len)?;
        self.unchecked_len += len;
        if self.unchecked_len >= CHECK_FREE_LEN {
            self.unchecked_len = 0;
            shared.quota.check_free(&self.vmcore.file)?;
        }
        match file {
            DumpFile::Vmcore => {
                let written = self.vmcore.write(offset, pieces)?;
                self.write_back.written(&self.vmcore.file, offset..offset + written);
            }
            DumpFile::Key => super::sparse::write_all(
                self.key_file()?,
                offset,
                pieces.iter().map(|piece| &piece.payload[..]),
            )?,
        }
        // After the payload and before its ack: what was acked is in there.
        self.journal()?.stored(file, offset, pieces)
    }

    pub(super) fn record_header(
        &mut self,
        shared: &Shared,
        seqno: u32,
        header: Option<&DumpHeader>,
    ) -> io::Result<()> {
        self.info.write_all(info::header(header, &shared.config.time_zone).as_bytes())?;
        self.journal()?.header(seqno, header)?;
        if let Some(header) = header {
            self.rename_by(header)?;
        }
        Ok(())
    }

    /// Gives the image the name that its header asks for.
    pub(super) fn rename_by(&mut self, header: &DumpHeader) -> io::Result<()> {
        let name = self.names.vmcore_by(header);
        if header.is_sound() && name != self.names.vmcore {
            self.dir.rename(&self.names.vmcore, &name)?;
            self.names.vmcore = name;
        }
        Ok(())
    }

    /// Makes everything durable. The record comes after the data: one that says
    /// complete is true. The journal goes last.
    pub(super) fn finish(&mut self, record: &Record) -> io::Result<()> {
        if let Some(len) = record.final_len {
            self.vmcore.set_len(len)?;
        }
        self.vmcore.file.sync_all()?;
        if let Some(key) = &self.key {
            key.sync_all()?;
        }
        self.write_sidecar(record)?;
        self.write_ending(&info::ending(record))?;
        self.update_links();
        self.dir.sync()?;
        if let Some(journal) = self.journal.take() {
            journal.remove();
        }
        Ok(())
    }

    /// Keeps what there is. Every step is tried, whatever became of the one before.
    pub(super) fn close(&mut self, record: &Record) {
        let tell = |what: &str, result: io::Result<()>| {
            if let Err(error) = &result {
                tracing::error!("{what} of {}: {error}", self.names.vmcore);
            }
            result.is_ok()
        };
        tell("vmcore", self.vmcore.file.sync_all());
        tell("key", self.key.as_ref().map_or(Ok(()), std::fs::File::sync_all));
        let has_record = tell("record", self.write_sidecar(record));
        let has_ending = tell("info file", self.write_ending(&info::ending(record)));
        tell("directory", self.dir.sync());
        // With neither, the next server is to try again.
        if (has_record || has_ending)
            && let Some(journal) = self.journal.take()
        {
            journal.remove();
        }
    }

    /// A dump that was closed by [`Self::finish`], for its digest.
    pub(super) fn into_finished(self, record: &Record) -> FinishedDump {
        let frame = self.frame();
        FinishedDump {
            vmcore: self.vmcore.file,
            sidecar: self.dir.identify(&frame.names.sidecar()).ok(),
            dir: self.dir,
            frame,
            record: record.clone(),
        }
    }

    /// Whether the info file has its last line.
    pub(super) fn has_ending(&self) -> io::Result<bool> {
        const LONGEST_LINE: u64 = 4096;
        let len = self.info.metadata()?.len();
        let tail_len = len.min(LONGEST_LINE);
        let mut tail = vec![0; tail_len as usize];
        self.info.read_exact_at(&mut tail, len - tail_len)?;
        let last = tail.strip_suffix(b"\n").and_then(|text| text.rsplit(|b| *b == b'\n').next());
        let endings = ["Dump complete", "Dump incomplete", "Dump unsuccessful"];
        Ok(last.is_some_and(|last| endings.iter().any(|word| last.starts_with(word.as_bytes()))))
    }

    /// Makes the names durable.
    pub(super) fn sync_names(&self) -> io::Result<()> {
        self.dir.sync()
    }

    /// The last lines of the info file.
    pub(super) fn write_ending(&self, text: &str) -> io::Result<()> {
        (&self.info).write_all(text.as_bytes())?;
        self.info.sync_all()
    }

    /// A link that cannot be made is no loss of data: it is told, not more.
    pub(super) fn update_links(&self) {
        for (target, kind) in [(&self.names.vmcore, "vmcore"), (&self.names.info(), "info")] {
            let name = format!("{kind}.{}.last", self.names.host);
            if let Err(error) = self.dir.link(target, &name) {
                tracing::warn!("link {name}: {error}");
            }
        }
    }

    fn write_sidecar(&self, record: &Record) -> io::Result<()> {
        let frame = self.frame();
        let name = self.names.sidecar();
        let indented = sidecar::render(&frame, Some(record), true);
        let written = self.dir.replace(&name, &indented, true);
        // What was set aside holds it without the spaces.
        written.or_else(|_| {
            self.dir.replace(&name, &sidecar::render(&frame, Some(record), false), true)
        })
    }

    fn frame(&self) -> Frame {
        Frame {
            names: self.names.clone(),
            peer: self.peer,
            has_key: self.key.is_some(),
            started: self.started,
            ended: Some(self.ended.unwrap_or_else(Timestamp::now)),
            sha256: None,
        }
    }

    fn journal(&mut self) -> io::Result<&mut Journal> {
        self.journal.as_mut().ok_or_else(|| io::Error::other("the dump is over"))
    }

    fn key_file(&mut self) -> io::Result<&std::fs::File> {
        let file = match self.key.take() {
            Some(file) => file,
            None => self.dir.create(&self.names.key(), 0o400)?.into_std(),
        };
        Ok(self.key.insert(file))
    }
}

/// Of microseconds since 1970; 1970 for a time beyond any calendar.
fn device_of(file: &std::fs::File) -> Option<u64> {
    Some(file.metadata().ok()?.dev())
}

fn timestamp(micros: u64) -> Timestamp {
    let micros = i64::try_from(micros).unwrap_or_default();
    Timestamp::from_microsecond(micros).unwrap_or_default()
}
