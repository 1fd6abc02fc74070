//! The image: a list of extents in C, and the way to read RAM.

use core::ffi::c_void;

use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::dump::{self, DumpSource, ReadFault, ReadRam, Stability};

/// A run of RAM and its place in the image.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Offset of its first byte in the image.
    pub offset: u64,
    /// Physical address of its first byte.
    pub phys: u64,
    /// Bytes.
    pub len: u64,
    /// Not 0: the dump itself writes there (its stack, `memory`, the driver's rings), so
    /// that it is copied before it is sent.
    pub is_volatile: u8,
}

/// What is dumped.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// Given to `read`.
    pub context: *mut c_void,
    /// Extents, in the order of sending, without overlap in the image.
    pub extents: *const Extent,
    /// How many.
    pub extent_count: usize,
    /// Copies `len` bytes at `phys` to `to`, without borrowing or locking anything. 0, or
    /// not if they cannot be read: that part is then listed as not sent.
    pub read:
        Option<extern "C" fn(context: *mut c_void, phys: u64, to: *mut u8, len: usize) -> i32>,
}

impl Image {
    /// Whether it says what is dumped, and how that is read.
    pub(crate) fn is_whole(&self) -> bool {
        let has_extents = !self.extents.is_null() && self.extents.is_aligned();
        self.read.is_some() && (has_extents || self.extent_count == 0)
    }
}

/// The list as the core's source.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    image: Image,
    extents: &'a [Extent],
    pub(crate) next: usize,
}

impl<'a> Source<'a> {
    /// The list from its extent `next` on.
    ///
    /// # Safety
    /// `image.extents` is null or `image.extent_count` extents that stay as they are for `'a`.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn new(image: &'a Image, next: usize) -> Self {
        let extents = match image.extents.is_null() || !image.extents.is_aligned() {
            true => &[],
            // SAFETY: not null, aligned, and as many as the caller says.
            false => unsafe { core::slice::from_raw_parts(image.extents, image.extent_count) },
        };
        Self { image: *image, extents, next }
    }
}

impl ReadRam for Source<'_> {
    fn read(&mut self, at: PhysAddr, into: &mut [u8]) -> Result<(), ReadFault> {
        let Some(read) = self.image.read else { return Err(ReadFault { at }) };
        match read(self.image.context, at.0, into.as_mut_ptr(), into.len()) {
            0 => Ok(()),
            _ => Err(ReadFault { at }),
        }
    }
}

impl DumpSource for Source<'_> {
    fn next(&mut self) -> Option<dump::Extent> {
        loop {
            let extent = self.extents.get(self.next)?;
            self.next = self.next.saturating_add(1);
            let stability = match extent.is_volatile {
                0 => Stability::Frozen,
                _ => Stability::Volatile,
            };
            // A range that wraps is no RAM.
            if let Some(range) = PhysRange::new(PhysAddr(extent.phys), extent.len) {
                return Some(dump::Extent { offset: extent.offset, range, stability });
            }
        }
    }

    fn rewind(&mut self) {
        self.next = 0;
    }
}
