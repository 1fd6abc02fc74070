//! What the client says of its dump: the kernel dump header in all four
//! layouts, and the head of the key blob (FreeBSD `sys/sys/kerneldump.h`).

use debugnet_core::wire::kdh;
use serde::Serialize;
use zerocopy::network_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// Bytes of a kernel dump header in every version.
pub const HEADER_LEN: usize = kdh::KernelDumpHeader::LEN;

const TEXT_MAGIC: &[u8] = b"FreeBSD Text Dump";

/// How the image is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As it was in memory.
    None,
    /// A gzip stream.
    Gzip,
    /// A zstd frame.
    Zstd,
    /// A number this server does not know.
    Unknown(u8),
}

impl Compression {
    /// `none`, `gzip`, `zstd`, `???`, as the info file has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Unknown(_) => "???",
        }
    }
}

/// What is wrong with a kernel dump header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderProblem {
    /// The XOR of its words is not zero.
    Parity,
    /// `magic` is that of no dump.
    Magic,
    /// A version other than 1 to 4; read with the layout of version 4.
    Version,
}

/// A kernel dump header, read with the layout of its version.
///
/// Strings are the bytes before the first NUL, as they came: escape them
/// before they reach a terminal, a log or a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DumpHeader {
    /// `amd64` and the like.
    pub architecture: Vec<u8>,
    /// Header version, 1 to 4.
    pub version: u32,
    /// Version of the architecture's dump format.
    pub architecture_version: u32,
    /// Bytes of the image as sent.
    pub dump_length: u64,
    /// Bytes of the image uncompressed; `None` before version 3.
    pub dump_extent: Option<u64>,
    /// Seconds since 1970 (UTC).
    pub dump_time: u64,
    /// Bytes of the key blob, 0 if not encrypted or version 1.
    pub key_size: u32,
    /// Block size in bytes.
    pub block_size: u32,
    /// `None` before version 3, which had no compression.
    pub compression: Option<Compression>,
    /// Name of the machine.
    pub hostname: Vec<u8>,
    /// Version of the kernel; by custom it ends with a newline.
    pub version_string: Vec<u8>,
    /// Why it died.
    pub panic_string: Vec<u8>,
    /// The 512 bytes as they came.
    pub raw: Box<[u8; HEADER_LEN]>,
    /// What is wrong with it. If anything is, none of the fields is acted on.
    pub problems: Vec<HeaderProblem>,
}

impl DumpHeader {
    /// Reads the first 512 bytes of `payload`; `None` if there are fewer.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let bytes = payload.first_chunk::<HEADER_LEN>()?;
        let version = V1::ref_from_bytes(bytes).ok()?.version.get();
        let mut header = match version {
            1 => V1::ref_from_bytes(bytes).ok()?.read(),
            2 => V2::ref_from_bytes(bytes).ok()?.read(),
            3 => V3::ref_from_bytes(bytes).ok()?.read(),
            _ => read_v4(kdh::KernelDumpHeader::ref_from_bytes(bytes).ok()?),
        };
        *header.raw = *bytes;
        if kdh::parity(bytes) != 0 {
            header.problems.push(HeaderProblem::Parity);
        }
        let magic = text(&bytes[..20]);
        if magic != kdh::MAGIC && magic != TEXT_MAGIC {
            header.problems.push(HeaderProblem::Magic);
        }
        if !(1..=4).contains(&version) {
            header.problems.push(HeaderProblem::Version);
        }
        Some(header)
    }

    /// Whether nothing is wrong with it, so that its length, key size and compression count.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether the image is stored compressed.
    pub fn is_compressed(&self) -> bool {
        self.is_sound() && matches!(self.compression, Some(Compression::Gzip | Compression::Zstd))
    }

    /// Whether the image is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.is_sound() && self.key_size > 0
    }

    /// `dump_length`, if the header is sound.
    pub fn sound_length(&self) -> Option<u64> {
        self.is_sound().then_some(self.dump_length)
    }
}

/// The bytes before the first NUL, all of them if there is none.
fn text(field: &[u8]) -> Vec<u8> {
    field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

fn compression(value: u8) -> Compression {
    match value {
        kdh::COMPRESSION_NONE => Compression::None,
        kdh::COMPRESSION_GZIP => Compression::Gzip,
        kdh::COMPRESSION_ZSTD => Compression::Zstd,
        other => Compression::Unknown(other),
    }
}

fn read_v4(header: &kdh::KernelDumpHeader) -> DumpHeader {
    DumpHeader {
        architecture: text(&header.architecture),
        version: header.version.get(),
        architecture_version: header.architecture_version.get(),
        dump_length: header.dump_length.get(),
        dump_extent: Some(header.dump_extent.get()),
        dump_time: header.dump_time.get(),
        key_size: header.dump_key_size.get(),
        block_size: header.block_size.get(),
        compression: Some(compression(header.compression)),
        hostname: text(&header.hostname),
        version_string: text(&header.version_string),
        panic_string: text(&header.panic_string),
        raw: Box::new([0; HEADER_LEN]),
        problems: Vec::new(),
    }
}

/// Version 1: no key, no compression.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct V1 {
    magic: [u8; 20],
    architecture: [u8; 12],
    version: U32,
    architecture_version: U32,
    dump_length: U64,
    dump_time: U64,
    block_size: U32,
    hostname: [u8; 64],
    version_string: [u8; 192],
    panic_string: [u8; 192],
    parity: U32,
}

impl V1 {
    fn read(&self) -> DumpHeader {
        DumpHeader {
            architecture: text(&self.architecture),
            version: self.version.get(),
            architecture_version: self.architecture_version.get(),
            dump_length: self.dump_length.get(),
            dump_extent: None,
            dump_time: self.dump_time.get(),
            key_size: 0,
            block_size: self.block_size.get(),
            compression: None,
            hostname: text(&self.hostname),
            version_string: text(&self.version_string),
            panic_string: text(&self.panic_string),
            raw: Box::new([0; HEADER_LEN]),
            problems: Vec::new(),
        }
    }
}

/// Version 2: adds the key's size.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct V2 {
    magic: [u8; 20],
    architecture: [u8; 12],
    version: U32,
    architecture_version: U32,
    dump_length: U64,
    dump_time: U64,
    key_size: U32,
    block_size: U32,
    hostname: [u8; 64],
    version_string: [u8; 192],
    panic_string: [u8; 188],
    parity: U32,
}

impl V2 {
    fn read(&self) -> DumpHeader {
        DumpHeader {
            architecture: text(&self.architecture),
            version: self.version.get(),
            architecture_version: self.architecture_version.get(),
            dump_length: self.dump_length.get(),
            dump_extent: None,
            dump_time: self.dump_time.get(),
            key_size: self.key_size.get(),
            block_size: self.block_size.get(),
            compression: None,
            hostname: text(&self.hostname),
            version_string: text(&self.version_string),
            panic_string: text(&self.panic_string),
            raw: Box::new([0; HEADER_LEN]),
            problems: Vec::new(),
        }
    }
}

/// Version 3: adds extent and compression, and moves all behind them.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct V3 {
    magic: [u8; 20],
    architecture: [u8; 12],
    version: U32,
    architecture_version: U32,
    dump_length: U64,
    dump_extent: U64,
    dump_time: U64,
    key_size: U32,
    block_size: U32,
    compression: u8,
    hostname: [u8; 64],
    version_string: [u8; 192],
    panic_string: [u8; 179],
    parity: U32,
}

impl V3 {
    fn read(&self) -> DumpHeader {
        DumpHeader {
            architecture: text(&self.architecture),
            version: self.version.get(),
            architecture_version: self.architecture_version.get(),
            dump_length: self.dump_length.get(),
            dump_extent: Some(self.dump_extent.get()),
            dump_time: self.dump_time.get(),
            key_size: self.key_size.get(),
            block_size: self.block_size.get(),
            compression: Some(compression(self.compression)),
            hostname: text(&self.hostname),
            version_string: text(&self.version_string),
            panic_string: text(&self.panic_string),
            raw: Box::new([0; HEADER_LEN]),
            problems: Vec::new(),
        }
    }
}

/// The head of the key blob: cipher, 32 bytes of IV, size of the encrypted key behind it.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct KeyBlob {
    encryption: u8,
    iv: [u8; 32],
    encrypted_key_size: U32,
}

/// What the key blob says of the encryption.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct KeyInfo {
    /// 1 AES-256-CBC, 2 ChaCha20.
    pub cipher: u8,
    /// Bytes of the RSA-encrypted key.
    pub encrypted_key_len: u32,
}

impl KeyInfo {
    /// 37 bytes, the key itself not included.
    pub const LEN: usize = size_of::<KeyBlob>();

    /// Reads the head of the blob; `None` if `payload` is shorter than its 37 bytes.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (blob, _) = KeyBlob::ref_from_prefix(payload).ok()?;
        Some(Self { cipher: blob.encryption, encrypted_key_len: blob.encrypted_key_size.get() })
    }
}

const _: () = assert!(
    size_of::<V1>() == HEADER_LEN
        && size_of::<V2>() == HEADER_LEN
        && size_of::<V3>() == HEADER_LEN
        && size_of::<KeyBlob>() == 37
);

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;
    use zerocopy::IntoBytes;

    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let parity = kdh::parity(&bytes);
        put(&mut bytes, 508, &parity.to_be_bytes());
        bytes
    }

    /// Offsets as FreeBSD's compiler lays the four versions out.
    #[test]
    fn layouts() {
        assert_eq!(offset_of!(V1, hostname), 60);
        assert_eq!(offset_of!(V1, version_string), 124);
        assert_eq!(offset_of!(V1, panic_string), 316);
        assert_eq!(offset_of!(V2, key_size), 56);
        assert_eq!(offset_of!(V2, panic_string), 320);
        assert_eq!(offset_of!(V3, dump_extent), 48);
        assert_eq!(offset_of!(V3, compression), 72);
        assert_eq!(offset_of!(V3, panic_string), 329);
        assert!(offset_of!(V1, parity) == 508 && offset_of!(V3, parity) == 508);
    }

    #[test]
    fn every_version_is_read_with_its_own_layout() {
        for (version, host_at, length_only) in [(1u32, 60, true), (2, 64, true), (3, 73, false)] {
            let mut bytes = vec![0; HEADER_LEN];
            put(&mut bytes, 0, kdh::MAGIC);
            put(&mut bytes, 20, b"armv7");
            put(&mut bytes, 32, &version.to_be_bytes());
            put(&mut bytes, 40, &0x1_0000_0000u64.to_be_bytes());
            put(&mut bytes, host_at, b"victim");
            if version == 3 {
                bytes[72] = 2;
            }
            let header = DumpHeader::parse(&sealed(bytes)).unwrap();
            assert!(header.is_sound(), "{:?}", header.problems);
            assert_eq!(header.version, version);
            assert_eq!(header.architecture, b"armv7");
            assert_eq!(header.dump_length, 0x1_0000_0000);
            assert_eq!(header.hostname, b"victim");
            assert_eq!(header.compression.is_none(), length_only);
            assert_eq!(header.is_compressed(), version == 3);
        }
        let mut v4 = kdh::KernelDumpHeader::new();
        kdh::copy_str(&mut v4.panic_string, b"boom");
        v4.dump_key_size = U32::new(4096);
        v4.seal();
        let header = DumpHeader::parse(v4.as_bytes()).unwrap();
        assert!(header.is_sound() && header.is_encrypted());
        assert_eq!(header.panic_string, b"boom");
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(DumpHeader::parse(&[0; 511]), None);
        let header = DumpHeader::parse(&[0xab; 512]).unwrap();
        assert_eq!(header.problems, [HeaderProblem::Magic, HeaderProblem::Version]);
        assert!(
            !header.is_compressed() && !header.is_encrypted() && header.sound_length().is_none()
        );
        let mut v4 = kdh::KernelDumpHeader::new();
        v4.seal();
        v4.unused[0] = 1;
        assert_eq!(DumpHeader::parse(v4.as_bytes()).unwrap().problems, [HeaderProblem::Parity]);
    }

    #[test]
    fn key_blob() {
        let mut blob = vec![0; 4096];
        blob[0] = 2;
        put(&mut blob, 33, &256u32.to_be_bytes());
        assert_eq!(KeyInfo::parse(&blob), Some(KeyInfo { cipher: 2, encrypted_key_len: 256 }));
        assert_eq!(KeyInfo::parse(&blob[..36]), None);
    }
}
