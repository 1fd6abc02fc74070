//! Journals that a dead process has left.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use cap_std::fs::{Dir, OpenOptions};
use zerocopy::{FromZeros, IntoBytes};

use super::{DIR, ENTRY_LEN, Entry, HEAD_LEN, HEADER, Head, KEY, Origin, VMCORE, boot, remove};
use crate::core::{DumpFile, DumpHeader, Limits, Salvage};

/// Entries read at a time.
const READ_ENTRIES: u64 = 4096;

/// A journal whose writer is dead.
pub(in crate::store) struct Leftover {
    file: std::fs::File,
    name: String,
    pub(in crate::store) origin: Origin,
    /// Its number, if it got as far as having one.
    pub(in crate::store) index: Option<u64>,
    pub(in crate::store) header: Option<DumpHeader>,
    /// The machine went down as well: what was noted may not have reached the disk.
    machine_restarted: bool,
}

/// Whether a journal is called so: by process and number. Nothing else is touched.
fn is_journal(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.split_once('-').is_some_and(|(process, count)| number(process) && number(count))
}

impl Leftover {
    /// All of them; those that cannot be understood are told and removed.
    pub(in crate::store) fn all(root: &Dir) -> Vec<Self> {
        let entries = match root.read_dir(DIR) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                tracing::error!("{DIR}: {error}");
                return Vec::new();
            }
        };
        let mut names: Vec<_> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| is_journal(name))
            .map(|name| format!("{DIR}/{name}"))
            .collect();
        names.sort();
        let mut found = Vec::new();
        for name in names {
            match Self::open(root, &name) {
                Ok(Some(leftover)) => found.push(leftover),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!("journal {name} tells nothing: {error}");
                    remove(root, &name);
                }
            }
        }
        found
    }

    /// `None` if its writer lives.
    fn open(root: &Dir, name: &str) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = root.open_with(name, &options)?.into_std();
        if file.try_lock().is_err() {
            return Ok(None);
        }
        let mut head = Head::new_zeroed();
        file.read_exact_at(head.as_mut_bytes(), 0)?;
        let origin = head.origin().ok_or_else(|| io::Error::other("no journal of this version"))?;
        let header = if head.has_header != 0 { DumpHeader::parse(&head.header) } else { None };
        let index = (head.has_index != 0).then_some(head.index.get());
        let machine_restarted = head.boot != boot();
        let name = name.to_owned();
        Ok(Some(Self { file, name, origin, index, header, machine_restarted }))
    }

    /// When it was last written, since 1970.
    pub(in crate::store) fn touched_us(&self) -> u64 {
        let modified = self.file.metadata().and_then(|metadata| metadata.modified()).ok();
        let since = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        since.map_or(self.origin.started_us, |since| since.as_micros() as u64)
    }

    /// All that it tells.
    pub(in crate::store) fn salvage(&self, vmcore_len: u64, key_len: u64) -> io::Result<Salvage> {
        let stored = Stored::new(vmcore_len, key_len, self.header.as_ref());
        let mut salvage = Salvage::new(self.origin.herald, &Limits::default());
        let mut file = &self.file;
        file.seek(SeekFrom::Start(HEAD_LEN))?;
        take_entries(file, stored, &mut salvage)?;
        if let Some(header) = &self.header {
            salvage.set_header(header.clone());
        }
        if self.machine_restarted {
            salvage.machine_restarted();
        }
        Ok(salvage)
    }

    /// What it told is in the dump's record now.
    pub(in crate::store) fn remove(self, root: &Dir) {
        remove(root, &self.name);
    }
}

/// Bytes that a dump's files have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    pub(crate) vmcore_len: u64,
    pub(crate) key_len: u64,
    /// The image may have been cut by its own server.
    is_cut: bool,
}

impl Stored {
    pub(crate) fn new(vmcore_len: u64, key_len: u64, header: Option<&DumpHeader>) -> Self {
        // The padding behind a compressed image goes when the dump is finished, before its record is written.
        let length =
            header.filter(|header| header.is_compressed()).and_then(DumpHeader::sound_length);
        Self { vmcore_len, key_len, is_cut: length == Some(vmcore_len) }
    }
}

/// Takes what a journal's entries tell. An entry is written after its payload: one that tells
/// of bytes beyond the end of the file is damaged, unless they were cut off. It is believed up
/// to there, and no other is believed less for it.
pub(crate) fn take_entries(
    mut entries: impl Read,
    stored: Stored,
    salvage: &mut Salvage,
) -> io::Result<()> {
    let mut block = Vec::new();
    loop {
        block.clear();
        entries.by_ref().take(ENTRY_LEN * READ_ENTRIES).read_to_end(&mut block)?;
        if block.is_empty() {
            return Ok(());
        }
        let (whole, cut) = block.as_chunks::<{ ENTRY_LEN as usize }>();
        if !cut.is_empty() {
            salvage.journal_damaged();
        }
        for entry in whole {
            take_entry(&zerocopy::transmute!(*entry), stored, salvage);
        }
    }
}

fn take_entry(entry: &Entry, stored: Stored, salvage: &mut Salvage) {
    let Entry { seqno, count, offset, len, .. } = entry;
    let (seqno, count, offset, len) = (seqno.get(), count.get(), offset.get(), len.get());
    let (file, file_len, is_cut) = match entry.kind {
        VMCORE => (DumpFile::Vmcore, stored.vmcore_len, stored.is_cut),
        KEY => (DumpFile::Key, stored.key_len, false),
        HEADER => return salvage.header(seqno),
        _ => return salvage.journal_damaged(),
    };
    let end = offset.checked_add(len);
    if len == 0 || end.is_some_and(|end| end <= file_len) {
        salvage.payload(file, seqno, count, offset, len);
        return;
    }
    let rest_len = file_len.checked_sub(offset).filter(|len| *len > 0);
    if is_cut && end.is_some() {
        // They were stored, all of them.
        salvage.payload(file, seqno, count, offset.min(file_len), rest_len.unwrap_or_default());
        return;
    }
    salvage.journal_damaged();
    if let Some(len) = rest_len {
        // Of how many messages the rest was is not known.
        salvage.payload(file, seqno, 1, offset, len);
    }
}
