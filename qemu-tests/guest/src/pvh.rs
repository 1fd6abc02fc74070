//! What a PVH loader hands over: `hvm_start_info` and its memory map (Xen
//! public headers, `arch-x86/hvm/start_info.h`). Little-endian.

use debugnet_core::addr::{PhysAddr, PhysRange};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// `hvm_start_info`, version 1, 56 bytes.
#[derive(Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct StartInfo {
    magic: U32,
    version: U32,
    /// Reserved bits, module count, module list: not used here.
    _flags: U32,
    _module_count: U32,
    _modules: U64,
    /// Physical address of the NUL-terminated command line, 0 if there is none.
    pub cmdline: U64,
    /// Physical address of the ACPI RSDP, 0 if there is none.
    pub rsdp: U64,
    /// Physical address of the memory map.
    pub memory_map: U64,
    /// Entries in the memory map.
    pub memory_map_len: U32,
    _reserved: U32,
}

impl StartInfo {
    /// Size in bytes.
    pub const LEN: usize = size_of::<Self>();
    const MAGIC: u32 = 0x336e_c578;

    /// Checks the magic and that the version has a memory map.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, &'static str> {
        let info = Self::read_from_bytes(bytes).map_err(|_| "start info: wrong size")?;
        if info.magic.get() != Self::MAGIC {
            return Err("start info: wrong magic");
        }
        if info.version.get() < 1 {
            return Err("start info: version 0 has no memory map");
        }
        Ok(info)
    }
}

/// `hvm_memmap_table_entry`, 24 bytes.
#[derive(Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct MemoryMapEntry {
    start: U64,
    len: U64,
    kind: U32,
    _reserved: U32,
}

impl MemoryMapEntry {
    /// Size in bytes.
    pub const LEN: usize = size_of::<Self>();
    const RAM: u32 = 1;

    /// Reads one entry.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Option<Self> {
        Self::read_from_bytes(bytes).ok()
    }

    /// Its memory, or `None` if it wraps.
    pub fn range(&self) -> Option<PhysRange> {
        PhysRange::new(PhysAddr(self.start.get()), self.len.get())
    }

    /// Type as numbered by ACPI: 1 is RAM.
    pub fn kind(&self) -> u32 {
        self.kind.get()
    }

    /// Whether it is RAM that a kernel may use.
    pub fn is_ram(&self) -> bool {
        self.kind() == Self::RAM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_header() {
        assert_eq!((StartInfo::LEN, MemoryMapEntry::LEN), (56, 24));
    }

    #[test]
    fn fields_are_where_the_loader_puts_them() {
        let mut bytes = [0_u8; StartInfo::LEN];
        bytes[0..4].copy_from_slice(&0x336e_c578_u32.to_le_bytes());
        bytes[4..8].copy_from_slice(&1_u32.to_le_bytes());
        bytes[24..32].copy_from_slice(&0x1111_u64.to_le_bytes());
        bytes[32..40].copy_from_slice(&0x2222_u64.to_le_bytes());
        bytes[40..48].copy_from_slice(&0x3333_u64.to_le_bytes());
        bytes[48..52].copy_from_slice(&4_u32.to_le_bytes());
        let info = StartInfo::parse(&bytes).unwrap();
        assert_eq!(
            (info.cmdline.get(), info.rsdp.get(), info.memory_map.get()),
            (0x1111, 0x2222, 0x3333)
        );
        assert_eq!(info.memory_map_len.get(), 4);
        bytes[4] = 0;
        assert!(StartInfo::parse(&bytes).is_err());
        bytes[0] = 0;
        assert!(StartInfo::parse(&bytes).is_err());
    }

    #[test]
    fn entries_say_what_is_ram() {
        let mut bytes = [0_u8; MemoryMapEntry::LEN];
        bytes[0..8].copy_from_slice(&0x10_0000_u64.to_le_bytes());
        bytes[8..16].copy_from_slice(&0xfee_0000_u64.to_le_bytes());
        bytes[16] = 1;
        let entry = MemoryMapEntry::parse(&bytes).unwrap();
        assert!(entry.is_ram());
        assert_eq!(entry.range().unwrap().end(), PhysAddr(0xffe_0000));
        bytes[16] = 2;
        assert!(!MemoryMapEntry::parse(&bytes).unwrap().is_ram());
        bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(MemoryMapEntry::parse(&bytes).unwrap().range().is_none());
    }
}
