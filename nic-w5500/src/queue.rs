//! Frames that lie in the chip's transmit buffer.

use debugnet_core::nic::TxTicket;
use heapless::Deque;

use crate::chip::BUFFER_LEN;

/// Frames that can lie in the buffer at once: ten of the largest fit.
pub(crate) const FRAMES: usize = 10;

/// A frame written to the buffer.
#[derive(Clone, Copy, Debug)]
struct Queued {
    ticket: TxTicket,
    /// The write pointer behind it.
    end: u16,
    len: u16,
}

/// What lies in the transmit buffer, and which of it the chip is sending.
///
/// The chip sends everything between its read and its write pointer as *one*
/// frame, so it is shown one frame at a time. The next ones are written behind
/// it meanwhile.
#[derive(Debug)]
pub(crate) struct Queue {
    frames: Deque<Queued, FRAMES>,
    /// Where the next frame is written: free running, the chip wraps it.
    next: u16,
    /// Bytes of the frames in it.
    used: u16,
    /// The first frame has been shown to the chip.
    pub(crate) sending: bool,
    last: TxTicket,
    /// The driver was told to send up to this one.
    kicked: TxTicket,
    done: TxTicket,
}

impl Queue {
    pub(crate) const fn new() -> Self {
        Self {
            frames: Deque::new(),
            next: 0,
            used: 0,
            sending: false,
            last: TxTicket::NONE,
            kicked: TxTicket::NONE,
            done: TxTicket::NONE,
        }
    }

    /// Forgets what is queued: a reset completes all tickets. `next` is where
    /// the chip will write from now on.
    pub(crate) fn reset(&mut self, next: u16) {
        self.frames.clear();
        self.next = next;
        self.used = 0;
        self.sending = false;
        self.done = self.last;
    }

    /// Where a frame of `len` bytes goes, if there is room for it.
    pub(crate) fn room(&self, len: u16) -> Option<u16> {
        let fits = self.used.checked_add(len).is_some_and(|used| used <= BUFFER_LEN);
        (fits && !self.frames.is_full()).then_some(self.next)
    }

    /// The frame was written there.
    pub(crate) fn push(&mut self, len: u16) -> TxTicket {
        let ticket = self.last.next();
        let end = self.next.wrapping_add(len);
        if self.frames.push_back(Queued { ticket, end, len }).is_ok() {
            self.last = ticket;
            self.next = end;
            self.used = self.used.saturating_add(len);
        }
        ticket
    }

    /// What is queued now may leave.
    pub(crate) fn kick(&mut self) {
        self.kicked = self.last;
    }

    /// The write pointer that shows the next frame to the chip, if one may leave and none is under way.
    pub(crate) fn to_send(&self) -> Option<u16> {
        let first = self.frames.front()?;
        (!self.sending && first.ticket <= self.kicked).then_some(first.end)
    }

    /// The write pointer behind the first frame.
    pub(crate) fn end_of_first(&self) -> Option<u16> {
        self.frames.front().map(|frame| frame.end)
    }

    /// The frame under way has left.
    pub(crate) fn sent(&mut self) {
        self.sending = false;
        if let Some(frame) = self.frames.pop_front() {
            self.used = self.used.saturating_sub(frame.len);
            self.done = frame.ticket;
        }
    }

    /// Every frame up to this one has left.
    pub(crate) const fn done(&self) -> TxTicket {
        self.done
    }
}
