//! Facts about the machine that died, and the kernel dump header made of them.

use zerocopy::FromBytes;
use zerocopy::network_endian::{U32, U64};

use crate::wire::kdh::{KernelDumpHeader, copy_str};

/// What the kernel dump header says besides lengths. Strings are cut to fit.
#[derive(Clone, Copy, Debug, Default)]
pub struct DumpInfo<'a> {
    /// As FreeBSD names it, at most 11 bytes: `amd64`, `aarch64`, `riscv64`.
    pub architecture: &'a str,
    /// Version of the architecture's dump format: 2 for amd64, 1 for most others.
    pub architecture_version: u32,
    /// Name of the machine, at most 63 bytes.
    pub hostname: &'a str,
    /// Version of the kernel, at most 191 bytes; a newline at the end is custom.
    pub version: &'a str,
    /// Why it died, at most 174 bytes.
    pub panic: &'a str,
    /// Seconds since 1970 (UTC), 0 if unknown.
    pub time_s: u64,
    /// The key blob of an encrypted image: encryption code, IV, encrypted key, padding. Empty if none.
    pub key: &'a [u8],
}

impl DumpInfo<'_> {
    /// Writes the sealed header of an image of `length` bytes as sent and `extent` bytes in
    /// memory to the front of `cell`; nothing where that is too short.
    ///
    /// In place: its 512 bytes are much for the stack of a small machine.
    pub(crate) fn header(&self, cell: &mut [u8], length: u64, extent: u64, compression: u8) {
        let Ok((header, _)) = KernelDumpHeader::mut_from_prefix(cell) else { return };
        header.reset();
        copy_str(&mut header.architecture, self.architecture.as_bytes());
        header.architecture_version = U32::new(self.architecture_version);
        header.dump_length = U64::new(length);
        header.dump_extent = U64::new(extent);
        header.dump_time = U64::new(self.time_s);
        header.dump_key_size = U32::new(u32::try_from(self.key.len()).unwrap_or(u32::MAX));
        copy_str(&mut header.hostname, self.hostname.as_bytes());
        copy_str(&mut header.version_string, self.version.as_bytes());
        copy_str(&mut header.panic_string, self.panic.as_bytes());
        header.compression = compression;
        header.seal();
    }
}
