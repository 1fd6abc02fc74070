//! The image: flat, a file offset is a physical address. `elf.rs` in the place of this
//! file makes it an ELF core.

use debugnet_core::DumpInfo;
use debugnet_core::dump::DumpSource;

use crate::fault::Registers;
use crate::ram::Ram;

/// Bytes of stack that a dump of this image needs.
pub(crate) const STACK_LEN: usize = 2048;

/// The image, as far as it is known at boot.
pub(crate) struct Image(Ram);

impl Image {
    /// Of all RAM.
    pub(crate) fn new() -> Option<Self> {
        Some(Self(Ram::new()))
    }

    /// Hands the image to `dump`.
    pub(crate) fn dump<T>(
        &mut self,
        _: &Registers,
        _: &DumpInfo<'_>,
        dump: impl FnOnce(&mut dyn DumpSource) -> T,
    ) -> T {
        dump(&mut self.0)
    }
}
