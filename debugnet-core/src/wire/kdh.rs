//! The kernel dump header, version 4 (FreeBSD `sys/sys/kerneldump.h`): 512
//! bytes, every integer big-endian, sent as the KDH message.

use zerocopy::network_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `magic` of a kernel dump, without its NUL padding.
pub const MAGIC: &[u8] = b"FreeBSD Kernel Dump";
/// Version written here.
pub const VERSION: u32 = 4;
/// `blocksize` netdump gives.
pub const BLOCK_SIZE: u32 = 4096;

/// `compression`: the image is stored as it is.
pub const COMPRESSION_NONE: u8 = 0;
/// `compression`: gzip.
pub const COMPRESSION_GZIP: u8 = 1;
/// `compression`: zstd.
pub const COMPRESSION_ZSTD: u8 = 2;

/// The header. Strings are NUL-padded; the last byte of each is NUL.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct KernelDumpHeader {
    /// [`MAGIC`].
    pub magic: [u8; 20],
    /// Machine architecture as FreeBSD names it: `amd64`, `aarch64`, `riscv64`, `armv7`.
    pub architecture: [u8; 12],
    /// [`VERSION`].
    pub version: U32,
    /// Version of the architecture's dump format.
    pub architecture_version: U32,
    /// Bytes of the image as sent (compressed, if it is).
    pub dump_length: U64,
    /// Seconds since 1970 (UTC).
    pub dump_time: U64,
    /// Bytes of the key blob, 0 if not encrypted.
    pub dump_key_size: U32,
    /// [`BLOCK_SIZE`].
    pub block_size: U32,
    /// Name of the machine.
    pub hostname: [u8; 64],
    /// Version of the kernel; by custom it ends with a newline.
    pub version_string: [u8; 192],
    /// Why it died.
    pub panic_string: [u8; 175],
    /// [`COMPRESSION_NONE`] and the rest.
    pub compression: u8,
    /// Bytes of the image uncompressed.
    pub dump_extent: U64,
    /// Zero.
    pub unused: [u8; 4],
    /// Makes the XOR of all 128 words zero.
    pub parity: U32,
}

impl KernelDumpHeader {
    /// 512 bytes.
    pub const LEN: usize = size_of::<Self>();

    /// A header with magic, version and block size, all else zero.
    pub fn new() -> Self {
        let mut header = Self::new_zeroed();
        header.reset();
        header
    }

    /// Makes it as [`KernelDumpHeader::new`] does, where it is.
    pub fn reset(&mut self) {
        self.as_mut_bytes().fill(0);
        copy_str(&mut self.magic, MAGIC);
        self.version = U32::new(VERSION);
        self.block_size = U32::new(BLOCK_SIZE);
    }

    /// Sets `parity` from all other fields.
    pub fn seal(&mut self) {
        self.parity = U32::new(0);
        self.parity = U32::new(parity(self.as_bytes()));
    }
}

impl Default for KernelDumpHeader {
    fn default() -> Self {
        Self::new()
    }
}

/// XOR of the big-endian 32-bit words of `bytes`: zero for a sealed header.
pub fn parity(bytes: &[u8]) -> u32 {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().fold(0, |parity, word| parity ^ u32::from_be_bytes(*word))
}

/// Copies as much of `text` as leaves a NUL at the end of `field`; the rest of `field` becomes NUL.
pub fn copy_str(field: &mut [u8], text: &[u8]) {
    field.fill(0);
    let room = field.len().saturating_sub(1);
    for (to, from) in field.iter_mut().take(room).zip(text) {
        *to = *from;
    }
}

const _: () = assert!(KernelDumpHeader::LEN == 512);

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn version_4_layout() {
        assert_eq!(offset_of!(KernelDumpHeader, version), 32);
        assert_eq!(offset_of!(KernelDumpHeader, dump_length), 40);
        assert_eq!(offset_of!(KernelDumpHeader, dump_time), 48);
        assert_eq!(offset_of!(KernelDumpHeader, dump_key_size), 56);
        assert_eq!(offset_of!(KernelDumpHeader, hostname), 64);
        assert_eq!(offset_of!(KernelDumpHeader, version_string), 128);
        assert_eq!(offset_of!(KernelDumpHeader, panic_string), 320);
        assert_eq!(offset_of!(KernelDumpHeader, compression), 495);
        assert_eq!(offset_of!(KernelDumpHeader, dump_extent), 496);
        assert_eq!(offset_of!(KernelDumpHeader, parity), 508);
    }

    #[test]
    fn sealed_header_has_no_parity_left() {
        let mut header = KernelDumpHeader::new();
        copy_str(&mut header.hostname, b"victim");
        header.dump_length = U64::new(0x1234_5678_9abc);
        header.seal();
        assert_ne!(header.parity.get(), 0);
        assert_eq!(parity(header.as_bytes()), 0);
    }

    #[test]
    fn strings_always_end_in_nul() {
        let mut field = [0xffu8; 4];
        copy_str(&mut field, b"abcdef");
        assert_eq!(&field, b"abc\0");
        copy_str(&mut field, b"x");
        assert_eq!(&field, b"x\0\0\0");
    }
}
