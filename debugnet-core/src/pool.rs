//! [`PacketPool`]: the preallocated cells that hold payload bytes the device
//! cannot, or must not, fetch from where they are.
//!
//! A cell has one owner at a time: free, a message (it holds the *only* copy of
//! its payload), a bounce (a copy whose source can be read again), or the
//! device. Handing a cell back names the ticket of the last frame that used it;
//! it becomes free when [`Nic::poll_tx`](crate::nic::Nic::poll_tx) has passed
//! that ticket. Reusing it earlier would let a late retransmission fetch new
//! bytes under an old offset, validly summed by the hardware.

use heapless::Vec;

use crate::addr::{PhysAddr, PhysRange};
use crate::nic::TxTicket;

/// Most cells a pool manages, whatever memory it is given.
pub const CELLS_MAX: usize = 64;

/// Memory for the pool: the caller's, for as long as the dump may run.
#[derive(Debug)]
pub struct Cells<'m> {
    /// The bytes; divided into cells of equal length. What is left over is not used.
    pub bytes: &'m mut [u8],
    /// Physical address of `bytes`, which must then be contiguous. `None` if no
    /// device can reach them: enough for NICs that take bytes, and for those alone.
    pub phys: Option<PhysAddr>,
}

/// Names one cell of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CellId(u8);

/// The cells and who owns them.
#[derive(Debug)]
pub struct PacketPool<'m> {
    cells: Cells<'m>,
    cell_len: usize,
    free: Vec<CellId, CELLS_MAX>,
    /// Handed back, but perhaps still read by the device.
    draining: Vec<(CellId, TxTicket), CELLS_MAX>,
    /// One bit a cell that a NIC may read for ever.
    lost: u64,
    count: usize,
    high_water: usize,
}

impl<'m> PacketPool<'m> {
    /// A pool of `cell_len`-byte cells, all free.
    pub fn new(cells: Cells<'m>, cell_len: usize) -> Self {
        let mut pool = Self {
            cells,
            cell_len,
            free: Vec::new(),
            draining: Vec::new(),
            lost: 0,
            count: 0,
            high_water: 0,
        };
        pool.reset();
        pool
    }

    /// Frees every cell that is not lost: the device is quiet and all messages are void.
    pub fn reset(&mut self) {
        let fitting = self.cells.bytes.len().checked_div(self.cell_len).unwrap_or(0);
        self.draining.clear();
        self.free.clear();
        for id in (0..CELLS_MAX as u8).rev() {
            if usize::from(id) < fitting && self.lost & bit(id) == 0 {
                // Cannot fail: there is room for every id of the loop.
                let _ = self.free.push(CellId(id));
            }
        }
        self.count = self.free.len();
    }

    /// The device did not confirm that it stopped: every cell it was given and
    /// may still read is lost for good. Only the free ones stay.
    pub fn abandon(&mut self) {
        let free = self.free.iter().fold(0, |set, id| set | bit(id.0));
        self.lost = !free;
        self.reset();
    }

    /// Takes a free cell.
    pub fn take(&mut self) -> Option<CellId> {
        let id = self.free.pop()?;
        self.high_water = self.high_water.max(self.count.saturating_sub(self.free.len()));
        Some(id)
    }

    /// Hands a cell back; it is free once the device has passed `last`.
    pub fn release(&mut self, id: CellId, last: TxTicket, done: TxTicket) {
        let full = if last <= done {
            self.free.push(id).is_err()
        } else {
            self.draining.push((id, last)).is_err()
        };
        debug_assert!(!full, "a cell was handed back twice");
    }

    /// Frees the cells the device has passed.
    pub fn reap(&mut self, done: TxTicket) {
        let free = &mut self.free;
        self.draining.retain(|&(id, last)| last > done || free.push(id).is_err());
    }

    /// The bytes of a cell, its first `len`.
    pub fn bytes(&self, id: CellId, len: usize) -> &[u8] {
        let start = usize::from(id.0).saturating_mul(self.cell_len);
        let end = start.saturating_add(len.min(self.cell_len));
        self.cells.bytes.get(start..end).unwrap_or(&[])
    }

    /// The whole cell, to be filled.
    pub fn bytes_mut(&mut self, id: CellId) -> &mut [u8] {
        let start = usize::from(id.0).saturating_mul(self.cell_len);
        let end = start.saturating_add(self.cell_len);
        self.cells.bytes.get_mut(start..end).unwrap_or(&mut [])
    }

    /// Where a device finds the first `len` bytes of a cell.
    pub fn phys(&self, id: CellId, len: usize) -> Option<PhysRange> {
        let start = u64::from(id.0).saturating_mul(self.cell_len as u64);
        PhysRange::new(self.cells.phys?.checked_add(start)?, len.min(self.cell_len) as u64)
    }

    /// Bytes of a cell.
    pub fn cell_len(&self) -> usize {
        self.cell_len
    }

    /// Whether a device can reach the cells at all.
    pub fn has_phys(&self) -> bool {
        self.cells.phys.is_some()
    }

    /// Cells that exist.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Cells free now.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Most cells that were ever in use at once.
    pub fn high_water(&self) -> usize {
        self.high_water
    }
}

const fn bit(id: u8) -> u64 {
    1u64.rotate_left(id as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(bytes: &mut [u8]) -> PacketPool<'_> {
        PacketPool::new(Cells { bytes, phys: Some(PhysAddr(0x1000)) }, 100)
    }

    #[test]
    fn a_cell_is_not_reused_before_the_device_has_passed_it() {
        let mut bytes = [0u8; 250];
        let mut pool = pool(&mut bytes);
        assert_eq!((pool.count(), pool.cell_len()), (2, 100));
        let first = pool.take().unwrap();
        let second = pool.take().unwrap();
        assert_ne!(first, second);
        assert!(pool.take().is_none());
        pool.release(first, TxTicket(7), TxTicket(6));
        assert!(pool.take().is_none(), "ticket 7 is still in the device");
        pool.reap(TxTicket(6));
        assert!(pool.take().is_none());
        pool.reap(TxTicket(7));
        assert_eq!(pool.take(), Some(first));
        assert_eq!(pool.high_water(), 2);
    }

    #[test]
    fn cells_do_not_overlap() {
        let mut bytes = [0u8; 300];
        let mut pool = pool(&mut bytes);
        let ids = [pool.take().unwrap(), pool.take().unwrap(), pool.take().unwrap()];
        for (i, id) in ids.iter().enumerate() {
            pool.bytes_mut(*id).fill(i as u8 + 1);
        }
        for (i, id) in ids.iter().enumerate() {
            assert_eq!(pool.bytes(*id, 100), [i as u8 + 1; 100]);
            assert_eq!(pool.phys(*id, 10).unwrap().start().0, 0x1000 + 100 * u64::from(id.0));
        }
    }

    #[test]
    fn abandoned_cells_never_come_back() {
        let mut bytes = [0u8; 300];
        let mut pool = pool(&mut bytes);
        let _held = pool.take().unwrap();
        let sent = pool.take().unwrap();
        pool.release(sent, TxTicket(3), TxTicket(0));
        pool.abandon();
        pool.reap(TxTicket(99));
        assert_eq!((pool.count(), pool.available()), (1, 1));
        pool.reset();
        assert_eq!(pool.count(), 1);
    }

    #[test]
    fn never_more_than_the_maximum() {
        let mut bytes = vec![0u8; 100 * 100];
        assert_eq!(pool(&mut bytes).count(), CELLS_MAX);
    }
}
