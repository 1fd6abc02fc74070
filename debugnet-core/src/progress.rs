//! How far the dump has got, readable from another context.

use core::sync::atomic::{AtomicU32, Ordering};

/// What the dump is doing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Stage {
    /// Not begun.
    Idle = 0,
    /// Taking the NIC over.
    TakeOver = 1,
    /// Waiting for the link.
    Link = 2,
    /// Looking for the next hop.
    Resolve = 3,
    /// Waiting for the ack of the herald.
    Herald = 4,
    /// Sending key and image.
    Data = 5,
    /// Sending the kernel dump header.
    Header = 6,
    /// Waiting for the ack of FINISHED.
    Finish = 7,
    /// Over.
    Done = 8,
}

impl Stage {
    const fn from_u32(value: u32) -> Self {
        match value {
            1 => Self::TakeOver,
            2 => Self::Link,
            3 => Self::Resolve,
            4 => Self::Herald,
            5 => Self::Data,
            6 => Self::Header,
            7 => Self::Finish,
            8 => Self::Done,
            _ => Self::Idle,
        }
    }
}

/// A record of the dump in 32-bit atomics, so that a fault *inside* the dump
/// still finds out how far it got.
///
/// Only loads and stores are used, which even the smallest cores have. Bytes
/// are counted in units of 4 KiB (16 TiB at most). The writer is the dump;
/// any context may read.
#[derive(Debug)]
pub struct Progress {
    stage: AtomicU32,
    acked_4k: AtomicU32,
    target: AtomicU32,
    /// 1 after the first failure.
    failed: AtomicU32,
}

impl Progress {
    const UNIT_SHIFT: u32 = 12;

    /// Nothing has happened yet.
    pub const fn new() -> Self {
        Self {
            stage: AtomicU32::new(0),
            acked_4k: AtomicU32::new(0),
            target: AtomicU32::new(0),
            failed: AtomicU32::new(0),
        }
    }

    /// What the dump is, or was, doing.
    pub fn stage(&self) -> Stage {
        Stage::from_u32(self.stage.load(Ordering::Relaxed))
    }

    /// Bytes of the image acknowledged, rounded down to 4 KiB.
    pub fn acked_bytes(&self) -> u64 {
        u64::from(self.acked_4k.load(Ordering::Relaxed)) << Self::UNIT_SHIFT
    }

    /// Index of the target being tried.
    pub fn target(&self) -> usize {
        self.target.load(Ordering::Relaxed) as usize
    }

    /// Whether something has gone wrong on the way (the dump may still end well).
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u32, Ordering::Relaxed);
    }

    pub(crate) fn set_acked(&self, bytes: u64) {
        let units = u32::try_from(bytes >> Self::UNIT_SHIFT).unwrap_or(u32::MAX);
        self.acked_4k.store(units, Ordering::Relaxed);
    }

    pub(crate) fn set_target(&self, target: usize) {
        self.target.store(u32::try_from(target).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    pub(crate) fn set_failed(&self) {
        self.failed.store(1, Ordering::Relaxed);
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_in_pages_and_saturates() {
        let progress = Progress::new();
        progress.set_acked(4097);
        assert_eq!(progress.acked_bytes(), 4096);
        progress.set_acked(u64::MAX);
        assert_eq!(progress.acked_bytes(), u64::from(u32::MAX) << 12);
    }

    #[test]
    fn stage_survives_the_round_trip() {
        let progress = Progress::new();
        for stage in [Stage::Idle, Stage::TakeOver, Stage::Data, Stage::Finish, Stage::Done] {
            progress.set_stage(stage);
            assert_eq!(progress.stage(), stage);
        }
    }
}
