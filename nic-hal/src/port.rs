//! x86 I/O ports: the registers of legacy devices.

use core::arch::asm;

use crate::registers::{BadAccess, Registers, check_bounds};

/// A bounds-checked window of x86 I/O ports.
#[derive(Debug)]
pub struct PortIo {
    base: u16,
    len: u16,
}

impl PortIo {
    /// A window of `len` ports from `base`, or `None` if it would run past port `0xffff`.
    ///
    /// # Safety
    /// The caller runs at a privilege that may use these ports, and hands the
    /// device behind them over: no other code uses them while this window is in use.
    #[allow(unsafe_code)]
    pub const unsafe fn new(base: u16, len: u16) -> Option<Self> {
        match base.checked_add(len) {
            Some(_) => Some(Self { base, len }),
            None => None,
        }
    }

    fn port(&self, offset: usize, width: usize) -> Result<u16, BadAccess> {
        let bad = BadAccess { offset, len: width };
        check_bounds(offset, width, usize::from(self.len))?;
        let port = u16::try_from(offset)
            .ok()
            .and_then(|offset| self.base.checked_add(offset))
            .ok_or(bad)?;
        if usize::from(port).is_multiple_of(width) { Ok(port) } else { Err(bad) }
    }
}

macro_rules! access {
    ($read:ident, $write:ident, $width:literal, $value:ty, $register:tt) => {
        #[allow(unsafe_code)]
        fn $read(&mut self, offset: usize) -> Result<$value, BadAccess> {
            let port = self.port(offset, $width)?;
            let value: $value;
            // SAFETY: a port inside the window its owner handed over; `in` touches
            // no memory of ours.
            unsafe {
                asm!(concat!("in ", $register, ", dx"), out($register) value, in("dx") port,
                     options(nostack, preserves_flags));
            }
            Ok(value)
        }

        #[allow(unsafe_code)]
        fn $write(&mut self, offset: usize, value: $value) -> Result<(), BadAccess> {
            let port = self.port(offset, $width)?;
            // SAFETY: a port inside the window its owner handed over. The asm is a
            // compiler barrier (no `nomem`): a doorbell stays behind the ring it rings for.
            unsafe {
                asm!(concat!("out dx, ", $register), in("dx") port, in($register) value,
                     options(nostack, preserves_flags));
            }
            Ok(())
        }
    };
}

impl Registers for PortIo {
    fn window_len(&self) -> usize {
        usize::from(self.len)
    }

    access!(read8, write8, 1, u8, "al");
    access!(read16, write16, 2, u16, "ax");
    access!(read32, write32, 4, u32, "eax");
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_checked_before_any_port_is_touched() {
        // A stray `in` would end this unprivileged process.
        // SAFETY: no access inside the window is made.
        let mut window = unsafe { PortIo::new(0xc000, 32) }.unwrap();
        assert_eq!(window.read8(32), Err(BadAccess { offset: 32, len: 1 }));
        assert_eq!(window.read32(2), Err(BadAccess { offset: 2, len: 4 }));
        assert!(window.write16(31, 0).is_err() && window.write32(usize::MAX, 0).is_err());
        // SAFETY: refused, so never used.
        assert!(unsafe { PortIo::new(0xfff0, 0x20) }.is_none());
    }
}
