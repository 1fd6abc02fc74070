//! Has the kernel begin to write what is dirty, so that the fsync at FINISHED
//! is short: a stock client waits 12 s for its ack.

use std::ops::Range;

/// Bytes written before their write-back is started.
const WRITE_BACK_LEN: u64 = 8 << 20;

/// What was written since.
#[derive(Debug, Default)]
pub(super) struct WriteBack {
    dirty: Option<Range<u64>>,
    len: u64,
}

impl WriteBack {
    pub(super) fn written(&mut self, file: &std::fs::File, range: Range<u64>) {
        self.len += range.end - range.start;
        let dirty = match self.dirty.take() {
            Some(dirty) => dirty.start.min(range.start)..dirty.end.max(range.end),
            None => range,
        };
        if self.len < WRITE_BACK_LEN {
            self.dirty = Some(dirty);
            return;
        }
        self.len = 0;
        // On Linux this starts the write-back of dirty pages without waiting,
        // and lets go of clean ones, which nobody is going to read soon.
        #[cfg(target_os = "linux")]
        if let Some(len) = std::num::NonZeroU64::new(dirty.end - dirty.start) {
            // Advice may be ignored; the fsync does not depend on it.
            let advice = rustix::fs::Advice::DontNeed;
            let _ = rustix::fs::fadvise(file, dirty.start, Some(len), advice);
        }
    }
}
