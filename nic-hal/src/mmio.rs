//! Memory-mapped device registers.

use core::ptr::NonNull;

use crate::registers::{BadAccess, Registers, check_bounds};

/// A bounds-checked window of memory-mapped device registers.
///
/// ```
/// use core::ptr::NonNull;
/// use nic_hal::{Mmio, Registers};
///
/// let mut block = [0u32; 4];
/// let base = NonNull::new(block.as_mut_ptr().cast()).unwrap();
/// // SAFETY: the array stands in for a register block; only `window` uses it.
/// let mut window = unsafe { Mmio::new(base, 16) }.unwrap();
/// window.write32(4, 0xabcd).unwrap();
/// assert_eq!(window.read16(4), Ok(0xabcd));
/// assert!(window.read32(16).is_err() && window.read32(2).is_err());
/// ```
#[derive(Debug)]
pub struct Mmio {
    base: NonNull<u8>,
    len: usize,
}

impl Mmio {
    /// A window of `len` bytes of registers mapped at `base`, or `None` if
    /// `base` is not 4-byte aligned or the window would wrap around.
    ///
    /// # Safety
    /// From now until the machine resets, the `len` bytes at `base` stay mapped
    /// as device memory (uncached, not write-combining), and they are registers
    /// that tolerate accesses of 1, 2 and 4 bytes. Code that used them before
    /// may have left them in any state, but does not run again while this
    /// window is in use.
    #[allow(unsafe_code)]
    pub unsafe fn new(base: NonNull<u8>, len: usize) -> Option<Self> {
        let address = base.as_ptr().addr();
        (address.is_multiple_of(4) && address.checked_add(len).is_some())
            .then_some(Self { base, len })
    }

    /// The same as [`Mmio::new`] for registers at the address `base`.
    ///
    /// # Safety
    /// As for [`Mmio::new`].
    #[allow(unsafe_code)]
    pub unsafe fn at(base: usize, len: usize) -> Option<Self> {
        let base = NonNull::new(core::ptr::with_exposed_provenance_mut(base))?;
        // SAFETY: the caller makes the promise of `new` for this very address.
        unsafe { Self::new(base, len) }
    }

    const fn address_of(&self, offset: usize, width: usize) -> Result<*mut u8, BadAccess> {
        if let Err(bad) = check_bounds(offset, width, self.len) {
            return Err(bad);
        }
        // `width` is a power of two and `base` is aligned to 4, so the offset decides.
        if offset & width.wrapping_sub(1) != 0 {
            return Err(BadAccess { offset, len: width });
        }
        Ok(self.base.as_ptr().wrapping_add(offset))
    }
}

// SAFETY: the window is the only handle on its registers (the promise of
// `new`), and registers do not care which thread of control touches them.
#[allow(unsafe_code)]
unsafe impl Send for Mmio {}

macro_rules! access {
    ($read:ident, $write:ident, $width:literal, $value:ty) => {
        #[allow(unsafe_code)]
        fn $read(&mut self, offset: usize) -> Result<$value, BadAccess> {
            let address = self.address_of(offset, $width)?;
            // SAFETY: inside the window and aligned (just checked); the window is
            // mapped until the machine resets, and no reference into it exists.
            Ok(<$value>::from_le(unsafe { raw::$read(address.cast()) }))
        }

        #[allow(unsafe_code)]
        fn $write(&mut self, offset: usize, value: $value) -> Result<(), BadAccess> {
            let address = self.address_of(offset, $width)?;
            // SAFETY: as for the read; `&mut self` makes this the only writer. What
            // the device then does to memory is what its owner gave it to use.
            unsafe { raw::$write(address.cast(), value.to_le()) };
            Ok(())
        }
    };
}

impl Registers for Mmio {
    fn window_len(&self) -> usize {
        self.len
    }

    access!(read8, write8, 1, u8);
    access!(read16, write16, 2, u16);
    access!(read32, write32, 4, u32);
}

/// One load or store instruction each. A hypervisor that emulates a register
/// access decodes the instruction; on AArch64 it gets help only for plain
/// loads and stores without write-back, which a volatile access does not
/// promise, so those are spelled out.
#[allow(unsafe_code)]
mod raw {
    macro_rules! volatile {
        ($read:ident, $write:ident, $value:ty) => {
            /// # Safety
            /// `from` is an aligned register of a window that the caller owns.
            #[cfg(not(target_arch = "aarch64"))]
            pub(super) unsafe fn $read(from: *const $value) -> $value {
                // SAFETY: the caller checked that `from` is one aligned register of its window.
                unsafe { from.read_volatile() }
            }

            /// # Safety
            /// `to` is an aligned register of a window that the caller owns.
            #[cfg(not(target_arch = "aarch64"))]
            pub(super) unsafe fn $write(to: *mut $value, value: $value) {
                // SAFETY: the caller owns the register at `to` and checked its alignment.
                unsafe { to.write_volatile(value) }
            }
        };
    }
    volatile!(read8, write8, u8);
    volatile!(read16, write16, u16);
    volatile!(read32, write32, u32);

    #[cfg(target_arch = "aarch64")]
    macro_rules! instruction {
        ($read:ident, $write:ident, $value:ty, $load:literal, $store:literal) => {
            /// # Safety
            /// As the volatile one.
            pub(super) unsafe fn $read(from: *const $value) -> $value {
                let value: u32;
                // SAFETY: one load from a register the caller owns; no stack, no flags.
                unsafe {
                    core::arch::asm!(
                        concat!($load, " {value:w}, [{from}]"),
                        value = out(reg) value,
                        from = in(reg) from,
                        options(nostack, preserves_flags)
                    );
                }
                value as $value
            }

            /// # Safety
            /// As the volatile one.
            pub(super) unsafe fn $write(to: *mut $value, value: $value) {
                // SAFETY: one store to a register the caller owns; no stack, no flags.
                unsafe {
                    core::arch::asm!(
                        concat!($store, " {value:w}, [{to}]"),
                        value = in(reg) u32::from(value),
                        to = in(reg) to,
                        options(nostack, preserves_flags)
                    );
                }
            }
        };
    }
    #[cfg(target_arch = "aarch64")]
    instruction!(read8, write8, u8, "ldrb", "strb");
    #[cfg(target_arch = "aarch64")]
    instruction!(read16, write16, u16, "ldrh", "strh");
    #[cfg(target_arch = "aarch64")]
    instruction!(read32, write32, u32, "ldr", "str");
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;

    fn window(block: &mut [u32; 4], len: usize) -> Mmio {
        let base = NonNull::new(block.as_mut_ptr().cast()).unwrap();
        // SAFETY: the array outlives the test's window, which alone uses it.
        unsafe { Mmio::new(base, len) }.unwrap()
    }

    #[test]
    fn words_are_little_endian_bytes() {
        let mut block = [0; 4];
        let mut window = window(&mut block, 16);
        window.write32(4, 0x0403_0201).unwrap();
        assert_eq!((window.read8(4), window.read8(7)), (Ok(1), Ok(4)));
        assert_eq!(window.read16(6), Ok(0x0403));
        window.write8(5, 0xff).unwrap();
        window.write16(6, 0xeeee).unwrap();
        assert_eq!(window.read32(4), Ok(0xeeee_ff01));
    }

    #[test]
    fn the_edges_are_refused() {
        let mut block = [0; 4];
        // A window shorter than the block shows a stray access by its success.
        let mut window = window(&mut block, 10);
        assert_eq!(window.read16(8), Ok(0));
        assert_eq!(window.read32(8), Err(BadAccess { offset: 8, len: 4 }));
        assert_eq!(window.read8(10), Err(BadAccess { offset: 10, len: 1 }));
        assert_eq!(window.write32(2, 0), Err(BadAccess { offset: 2, len: 4 }));
        assert_eq!(window.write16(1, 0), Err(BadAccess { offset: 1, len: 2 }));
        assert!(window.read8(usize::MAX).is_err());
        assert!(window.read32(usize::MAX - 3).is_err());
        assert!(window.write32(usize::MAX & !3, 0).is_err());
    }

    #[test]
    fn a_window_must_be_aligned_and_must_not_wrap() {
        for (base, len) in [(0x1002, 4), (usize::MAX & !3, 8), (0, 4)] {
            // SAFETY: refused windows are never used, so nothing need be mapped.
            assert!(unsafe { Mmio::at(base, len) }.is_none(), "{base:#x}");
        }
    }
}
