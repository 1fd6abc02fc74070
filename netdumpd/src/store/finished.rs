//! A dump that is over but for its digest.

use std::io;

use super::dir::DumpDir;
use super::sidecar::{self, Frame};
use crate::core::Record;

/// What is left of a finished dump until its digest is in its record.
pub(super) struct FinishedDump {
    pub(super) vmcore: std::fs::File,
    pub(super) dir: DumpDir,
    pub(super) frame: Frame,
    pub(super) record: Record,
    /// Device and inode of its record.
    pub(super) sidecar: Option<(u64, u64)>,
}

impl FinishedDump {
    pub(super) fn vmcore_name(&self) -> &str {
        &self.frame.names.vmcore
    }

    /// Adds the image's digest to the record, unless that was moved away or
    /// replaced: the handler script may do as it likes with the files.
    pub(super) fn add_digest(&self, digest: &str) -> io::Result<()> {
        let name = self.frame.names.sidecar();
        if self.dir.identify(&name).ok() != self.sidecar {
            return Ok(());
        }
        let frame = Frame { sha256: Some(digest.to_owned()), ..self.frame.clone() };
        self.dir.replace(&name, &sidecar::render(&frame, Some(&self.record), true), true)
    }
}
