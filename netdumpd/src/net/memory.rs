//! How much received payload may wait to be written.
//!
//! All sessions share one limit. One that has a 32nd of it, or an eighth of
//! what is free, is not read from until some of its own is written: its
//! datagrams wait in its socket, and its client for their acks. One that has
//! nothing may take a datagram as long as there is room for one: even with
//! hundreds of sessions that wait for a slow disk the others go on.
//!
//! Buffers for many datagrams are used again: the one written last is still in
//! the processor's caches, and new memory costs a page fault every 4 KiB.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// What is received at a time at least: the largest UDP datagram.
pub(super) const BUFFER_LEN: usize = 1 << 16;

/// Buffers of this size and more are used again; they are powers of two.
const SPARE_LEN_MIN: usize = 16 << 10;

/// Bytes kept for that, all together.
const SPARE_LEN_MAX: usize = 2 << 20;

/// The payload of all sessions.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    used_len: Arc<AtomicUsize>,
    limit_len: usize,
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Memory {
    pub(super) fn new(limit_len: usize) -> Self {
        Self { used_len: Arc::default(), limit_len, spare: Arc::default() }
    }

    /// A session's share of it, with nothing in it.
    pub(super) fn share(&self) -> Share {
        Share { memory: self.clone(), used_len: Arc::default() }
    }

    fn with_spare<R>(&self, act: impl FnOnce(&mut Vec<Vec<u8>>) -> R) -> R {
        act(&mut self.spare.lock().unwrap_or_else(PoisonError::into_inner))
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
        let limit = self.memory.limit_len;
        let free = limit.saturating_sub(self.memory.used_len());
        match self.used_len.load(Ordering::Relaxed) {
            0 => (limit / 32).min(free / 8).max(free.min(BUFFER_LEN)),
            used => (limit / 32).min(free / 8).saturating_sub(used),
        }
    }

    /// An empty buffer for `len` bytes.
    pub(super) fn buffer(&self, len: usize) -> Vec<u8> {
        if len < SPARE_LEN_MIN {
            return Vec::with_capacity(len);
        }
        let len = len.next_power_of_two();
        let used_before = self.memory.with_spare(|spare| {
            let at = spare.iter().rposition(|buffer| buffer.capacity() == len)?;
            Some(spare.remove(at))
        });
        used_before.unwrap_or_else(|| Vec::with_capacity(len))
    }

    /// Has `bytes` count as this session's, with all the room they take, until
    /// the last slice of them is dropped.
    pub(super) fn charge(&self, bytes: Vec<u8>) -> Bytes {
        let len = bytes.capacity();
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
        let len = self.bytes.capacity();
        self.share.used_len.fetch_sub(len, Ordering::Relaxed);
        self.share.memory.used_len.fetch_sub(len, Ordering::Relaxed);
        if len < SPARE_LEN_MIN || !len.is_power_of_two() {
            return;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        self.share.memory.with_spare(|spare| {
            let kept_len: usize = spare.iter().map(Vec::capacity).sum();
            if kept_len + len <= SPARE_LEN_MAX {
                spare.push(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 64 << 20;

    #[test]
    fn bytes_count_until_the_last_slice_is_gone() {
        let memory = Memory::new(LIMIT);
        let share = memory.share();
        let bytes = share.charge(vec![7; 1000]);
        let slice = bytes.slice(10..20);
        drop(bytes);
        assert_eq!((memory.used_len(), share.allowance()), (1000, (2 << 20) - 1000));
        drop(slice);
        assert_eq!((memory.used_len(), share.allowance()), (0, 2 << 20));
    }

    #[test]
    fn large_buffers_are_used_again_and_few_are_kept() {
        let memory = Memory::new(LIMIT);
        let share = memory.share();
        let filled = |len: usize| {
            let mut buffer = share.buffer(len);
            assert!(buffer.is_empty() && buffer.capacity() >= len);
            buffer.resize(len, 7);
            let at = buffer.as_ptr();
            (share.charge(buffer), at)
        };
        let (first, at) = filled(50_000);
        assert_eq!(memory.used_len(), 64 << 10, "with all the room it takes");
        drop(first);
        let (again, again_at) = filled(40_000);
        assert_eq!(again_at, at);
        let many: Vec<_> = (0..100).map(|_| filled(64 << 10)).collect();
        drop((again, many));
        drop(filled(100));
        assert_eq!(memory.used_len(), 0);
        let kept = memory.with_spare(|spare| spare.iter().map(Vec::capacity).sum::<usize>());
        assert_eq!(kept, SPARE_LEN_MAX);
    }

    #[test]
    fn greedy_sessions_leave_some_to_the_next_and_never_exceed_the_limit() {
        let memory = Memory::new(LIMIT);
        let mut held = Vec::new();
        for n in 0..1000 {
            let share = memory.share();
            // As the loop does it: whole buffers are asked for, less may come.
            while share.allowance() >= BUFFER_LEN {
                held.push(share.charge(vec![0; 1472]));
            }
            assert!(memory.used_len() <= LIMIT);
            assert!(n >= 300 || memory.share().allowance() >= BUFFER_LEN, "{n}");
        }
        drop(held);
        assert_eq!(memory.used_len(), 0);
    }
}
