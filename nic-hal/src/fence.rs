//! Order between our memory accesses and those of a device.
//!
//! A word shared with a device has one owner at a time. These three hand it
//! over and take it back. They order *normal coherent memory*, also against
//! device registers, in the outer shareable domain, where bus masters live; a
//! Rust atomic fence promises only other CPUs (`dmb ish`). They do nothing
//! for memory that the device does not snoop: such memory has to be mapped
//! uncached.

/// Before an index, tail or doorbell store.
///
/// *Before*: descriptors, buffers and ring entries are ours; every load and
/// store we made to them is finished when the fence is. *After*: one store
/// (the avail index, a tail register) makes them the device's, and we touch
/// them again only when the device has said that it is done.
#[inline]
pub fn publish() {
    imp::publish();
}

/// After a load that showed the device is done (a used index, a DD bit).
///
/// *Before*: that one word was the device's to write. *After*: what it handed
/// back (the used entry, the received bytes) is ours to read, and no load of
/// it can have been made earlier.
#[inline]
pub fn acquire() {
    imp::acquire();
}

/// Between our index store and the load of the device's "no doorbell, please" flag.
///
/// The one place where a store must be visible before a later *load*: without
/// it we could read the flag of a device that is about to sleep, while it
/// reads our old index (virtio 1.2 section 2.7.13.4.1). Ownership does not change.
#[inline]
pub fn full() {
    imp::full();
}

// x86: bus masters snoop; only store-then-load is reordered, which `SeqCst` stops.
// 32-bit ARM: LLVM's fence is `dmb ish` on the A profile, too weak for a bus
// master; the instruction exists on every bare-metal core that has atomics.
#[cfg(any(
    target_arch = "aarch64",
    target_arch = "riscv32",
    target_arch = "riscv64",
    all(target_arch = "arm", target_os = "none", target_has_atomic = "32")
))]
#[allow(unsafe_code)]
mod imp {
    macro_rules! barrier {
        ($name:ident, $aarch64:literal, $riscv:literal, $arm:literal) => {
            #[inline]
            pub(super) fn $name() {
                // SAFETY: a barrier instruction changes no register, no memory and no
                // flag; leaving out `nomem` makes it a compiler barrier too.
                unsafe {
                    #[cfg(target_arch = "aarch64")]
                    core::arch::asm!($aarch64, options(nostack, preserves_flags));
                    #[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
                    core::arch::asm!($riscv, options(nostack, preserves_flags));
                    #[cfg(target_arch = "arm")]
                    core::arch::asm!($arm, options(nostack, preserves_flags));
                }
            }
        };
    }
    // `oshst` would order stores only; giving a receive buffer back also needs
    // our loads from it to be over.
    barrier!(publish, "dmb osh", "fence iorw, ow", "dmb sy");
    barrier!(acquire, "dmb oshld", "fence ir, iorw", "dmb sy");
    barrier!(full, "dmb osh", "fence iorw, iorw", "dmb sy");
}

#[cfg(not(any(
    target_arch = "aarch64",
    target_arch = "riscv32",
    target_arch = "riscv64",
    all(target_arch = "arm", target_os = "none", target_has_atomic = "32")
)))]
mod imp {
    use core::sync::atomic::{Ordering, fence};

    #[inline]
    pub(super) fn publish() {
        fence(Ordering::Release);
    }

    #[inline]
    pub(super) fn acquire() {
        fence(Ordering::Acquire);
    }

    #[inline]
    pub(super) fn full() {
        fence(Ordering::SeqCst);
    }
}
