//! The names of a dump's files in its directory, those of the stock server.

use crate::core::{Compression, DumpHeader};

/// A host and a number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Names {
    pub(super) host: String,
    pub(super) index: u64,
    /// The image's, which changes when a header says what it is.
    pub(super) vmcore: String,
}

impl Names {
    pub(super) fn new(host: &str, index: u64) -> Self {
        let host = host.to_owned();
        let vmcore = format!("vmcore.{host}.{index}");
        Self { host, index, vmcore }
    }

    /// The image's name by what a header says of it.
    pub(super) fn vmcore_by(&self, header: &DumpHeader) -> String {
        let stem = if header.is_encrypted() { "vmcore_encrypted" } else { "vmcore" };
        let suffix = match header.compression.filter(|_| header.is_sound()) {
            Some(Compression::Gzip) => ".gz",
            Some(Compression::Zstd) => ".zst",
            _ => "",
        };
        format!("{stem}.{}.{}{suffix}", self.host, self.index)
    }

    pub(super) fn info(&self) -> String {
        format!("info.{}.{}", self.host, self.index)
    }

    pub(super) fn sidecar(&self) -> String {
        format!("info.{}.{}.json", self.host, self.index)
    }

    pub(super) fn key(&self) -> String {
        format!("key.{}.{}", self.host, self.index)
    }
}
