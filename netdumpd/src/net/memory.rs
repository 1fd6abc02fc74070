//! How much received payload may wait to be written.
//!
//! All sessions share one limit. One that takes more than half of what is
//! free is not read from until some of its own is written: its datagrams wait
//! in its socket, and its client for their acks. However many sessions wait for
//! a slow disk, a part of the memory stays free for the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// The payload of all sessions.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    used_len: Arc<AtomicUsize>,
    limit_len: usize,
}

impl Memory {
    pub(super) fn new(limit_len: usize) -> Self {
        Self { used_len: Arc::default(), limit_len }
    }

    /// A session's share of it, with nothing in it.
    pub(super) fn share(&self) -> Share {
        Share { memory: self.clone(), used_len: Arc::default() }
    }

    /// Bytes held now.
    pub(super) fn used_len(&self) -> usize {
        self.used_len.load(Ordering::Relaxed)
    }
}

/// The payload of one session.
#[derive(Clone, Debug)]
pub(super) struct Share {
    memory: Memory,
    used_len: Arc<AtomicUsize>,
}

impl Share {
    /// Bytes that may be taken now.
    pub(super) fn allowance(&self) -> usize {
        let free = self.memory.limit_len.saturating_sub(self.memory.used_len());
        (free / 2).saturating_sub(self.used_len.load(Ordering::Relaxed))
    }

    /// Has `bytes` count as this session's until the last slice of them is dropped.
    pub(super) fn charge(&self, bytes: Vec<u8>) -> Bytes {
        let len = bytes.len();
        self.used_len.fetch_add(len, Ordering::Relaxed);
        self.memory.used_len.fetch_add(len, Ordering::Relaxed);
        Bytes::from_owner(Charged { bytes, share: self.clone() })
    }
}

struct Charged {
    bytes: Vec<u8>,
    share: Share,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        let len = self.bytes.len();
        self.share.used_len.fetch_sub(len, Ordering::Relaxed);
        self.share.memory.used_len.fetch_sub(len, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_until_the_last_slice_is_gone() {
        let memory = Memory::new(1000);
        let share = memory.share();
        let bytes = share.charge(vec![7; 100]);
        let slice = bytes.slice(10..20);
        drop(bytes);
        assert_eq!((memory.used_len(), share.allowance()), (100, 350));
        drop(slice);
        assert_eq!((memory.used_len(), share.allowance()), (0, 500));
    }

    #[test]
    fn greedy_sessions_leave_some_to_the_next_and_never_exceed_the_limit() {
        let memory = Memory::new(1 << 20);
        let mut held = Vec::new();
        for _ in 0..64 {
            let share = memory.share();
            assert!(share.allowance() > 4096, "the next session has room");
            while share.allowance() >= 1024 {
                held.push(share.charge(vec![0; 1024]));
            }
        }
        assert!(memory.used_len() < 1 << 20);
        drop(held);
        assert_eq!(memory.used_len(), 0);
    }
}
