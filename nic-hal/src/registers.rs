//! Device registers as a driver sees them: a window of little-endian words.

use core::fmt;

/// An access that was not made: outside the window or region, or not aligned to its width.
///
/// In a driver it means that an offset the *device* supplied was wrong, since
/// the driver's own offsets are constants inside windows it checked once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadAccess {
    /// Offset in bytes from the start of the window or region.
    pub offset: usize,
    /// Bytes that were to be read or written.
    pub len: usize,
}

impl fmt::Display for BadAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no access to {} bytes at {:#x}", self.len, self.offset)
    }
}

impl core::error::Error for BadAccess {}

/// A window of device registers.
///
/// Offsets count bytes from the start of the window. Values are in the CPU's
/// order; on the bus the words are little-endian, as PCI and virtio have them.
/// Each method makes exactly one access of its width. Reads take `&mut self`
/// because reading a register may change the device.
///
/// [`Mmio`](crate::Mmio) is the real thing. A test implements this trait with
/// a fake device, and the driver cannot tell.
pub trait Registers {
    /// Length of the window in bytes.
    fn window_len(&self) -> usize;

    /// Reads 8 bits at `offset`.
    ///
    /// # Errors
    /// [`BadAccess`] if that is outside the window.
    fn read8(&mut self, offset: usize) -> Result<u8, BadAccess>;

    /// Reads 16 bits at `offset`.
    ///
    /// # Errors
    /// [`BadAccess`] if that is outside the window or misaligned.
    fn read16(&mut self, offset: usize) -> Result<u16, BadAccess>;

    /// Reads 32 bits at `offset`.
    ///
    /// # Errors
    /// [`BadAccess`] if that is outside the window or misaligned.
    fn read32(&mut self, offset: usize) -> Result<u32, BadAccess>;

    /// Writes 8 bits at `offset`.
    ///
    /// # Errors
    /// [`BadAccess`] if that is outside the window.
    fn write8(&mut self, offset: usize, value: u8) -> Result<(), BadAccess>;

    /// Writes 16 bits at `offset`.
    ///
    /// # Errors
    /// [`BadAccess`] if that is outside the window or misaligned.
    fn write16(&mut self, offset: usize, value: u16) -> Result<(), BadAccess>;

    /// Writes 32 bits at `offset`.
    ///
    /// # Errors
    /// [`BadAccess`] if that is outside the window or misaligned.
    fn write32(&mut self, offset: usize, value: u32) -> Result<(), BadAccess>;
}

/// Whether `len` bytes at `offset` lie inside a window of `window_len` bytes.
pub(crate) const fn check_bounds(
    offset: usize,
    len: usize,
    window_len: usize,
) -> Result<(), BadAccess> {
    match offset.checked_add(len) {
        Some(end) if end <= window_len => Ok(()),
        _ => Err(BadAccess { offset, len }),
    }
}
