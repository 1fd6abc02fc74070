//! A death inside the driver: half a frame is in the FIFO.

use super::Lan9118;
use super::registers::{FIRST, TX_DATA_FIFO};
use crate::death::store_nowhere;

impl Lan9118 {
    /// Announces a frame of a thousand bytes, writes a few, and faults.
    #[inline(never)]
    pub(crate) fn die_inside(&mut self) {
        self.port.set(TX_DATA_FIFO, FIRST | 1000);
        self.port.set(TX_DATA_FIFO, 1000);
        for word in 0..7 {
            self.port.set(TX_DATA_FIFO, word);
        }
        store_nowhere(1000);
    }
}
