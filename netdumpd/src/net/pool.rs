//! Receive buffers that come back by themselves.
//!
//! A buffer takes one datagram of any size, or several of one sender that the
//! kernel joined. The core's payloads are slices of it; when the last of them
//! has been written, the buffer returns here.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Size of a buffer: the largest UDP datagram fits.
pub(super) const BUFFER_LEN: usize = 1 << 16;

/// Free buffers that are kept; 4 MiB.
const MAX_FREE: usize = 64;

type Buffer = Box<[u8]>;

#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    free: Arc<Mutex<Vec<Buffer>>>,
}

impl Pool {
    pub(super) fn take(&self) -> Buffer {
        let buffer = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        buffer.unwrap_or_else(|| vec![0; BUFFER_LEN].into_boxed_slice())
    }

    /// The first `len` bytes, shared; the buffer returns when all slices are dropped.
    pub(super) fn share(&self, buffer: Buffer, len: usize) -> Bytes {
        let len = len.min(buffer.len());
        Bytes::from_owner(Lent { buffer, len, pool: self.clone() })
    }

    fn give(&self, buffer: Buffer) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < MAX_FREE {
            free.push(buffer);
        }
    }
}

struct Lent {
    buffer: Buffer,
    len: usize,
    pool: Pool,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_returns_with_its_last_slice() {
        let pool = Pool::default();
        let mut buffer = pool.take();
        buffer[..4].copy_from_slice(b"abcd");
        let shared = pool.share(buffer, 4);
        let slice = shared.slice(1..3);
        drop(shared);
        assert_eq!((&slice[..], pool.free.lock().unwrap().len()), (&b"bc"[..], 0));
        drop(slice);
        assert_eq!(pool.free.lock().unwrap().len(), 1);
        assert_eq!(pool.take().len(), BUFFER_LEN);
    }
}
