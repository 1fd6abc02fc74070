//! SHA-256 of finished images, by a thread of its own: no ack and no writer waits for it.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::finished::FinishedDump;

/// Bytes read at a time.
const BLOCK_LEN: usize = 1 << 18;

/// Images that wait; others go without. Each holds a descriptor.
const MAX_WAITING: usize = 1024;

/// The thread and what waits for it. It ends with this, in the middle of a digest if need be.
#[derive(Default)]
pub(super) struct Digester {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<FinishedDump>,
    is_running: bool,
    is_over: bool,
}

impl Digester {
    pub(super) fn queue(&self, dump: FinishedDump) {
        let mut state = self.shared.lock();
        if state.waiting.len() >= MAX_WAITING {
            tracing::warn!("{}: too many images wait for their digest", dump.vmcore_name());
            return;
        }
        state.waiting.push_back(dump);
        if state.is_running {
            return;
        }
        let shared = Arc::clone(&self.shared);
        // It ends when there is nothing left to do: most of the time there is no such thread.
        match std::thread::Builder::new().name("digest".into()).spawn(move || shared.work()) {
            Ok(_) => state.is_running = true,
            Err(error) => tracing::warn!("no thread for digests: {error}"),
        }
    }

    /// Waits until all digests are there, not longer than `limit`. Returns whether they are.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut state = self.shared.lock();
        while state.is_running {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Digester {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        state.waiting.clear();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut state = self.lock();
            let Some(dump) = state.waiting.pop_front() else {
                state.is_running = false;
                self.changed.notify_all();
                return;
            };
            drop(state);
            let done = digest(&dump.vmcore, || self.lock().is_over).and_then(|digest| {
                let Some(digest) = digest else { return Ok(()) };
                tracing::info!("{}: SHA-256 {digest}", dump.vmcore_name());
                dump.add_digest(&digest)
            });
            if let Err(error) = done {
                tracing::warn!("digest of {}: {error}", dump.vmcore_name());
            }
        }
    }
}

/// In hexadecimal; `None` if it was given up.
fn digest(file: &std::fs::File, is_over: impl Fn() -> bool) -> io::Result<Option<String>> {
    let mut sum = Sha256::new();
    let mut block = vec![0; BLOCK_LEN];
    let mut at = 0;
    loop {
        if is_over() {
            return Ok(None);
        }
        match file.read_at(&mut block, at) {
            Ok(0) => break,
            Ok(len) => {
                sum.update(&block[..len]);
                at += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn known_digests() {
        let mut file = tempfile::tempfile().unwrap();
        let of = |file: &std::fs::File| digest(file, || false).unwrap().unwrap();
        assert_eq!(of(&file), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        file.write_all(b"abc").unwrap();
        assert_eq!(of(&file), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        file.set_len(3 * BLOCK_LEN as u64).unwrap();
        assert_eq!(digest(&file, || true).unwrap(), None, "given up");
    }
}
