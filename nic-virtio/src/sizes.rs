//! How much memory the driver wants, and what for.

use debugnet_core::nic::{HEADER_MAX, NicError};
use nic_hal::DmaRegion;

use crate::bits::Bits;
use crate::header;
use crate::queue::SplitQueue;
use crate::tx::DESCRIPTORS_PER_SLOT;

/// Length of one cell for the virtio header and the frame header, in bytes.
pub(crate) const CELL_LEN: usize = 128;
const _: () = assert!(header::LEN + HEADER_MAX <= CELL_LEN);

/// Smallest receive buffer in bytes; virtio 1.2 section 5.1.6.3.1 asks for 1526.
pub(crate) const RX_BUFFER_LEN: usize = 2048;

/// Every piece starts on a cache line of its own, so that words written by the
/// device and words written by us never share one.
const ALIGN: usize = 64;

/// How large the driver's rings are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    tx_descriptors: u16,
    rx_buffers: u16,
}

/// Bytes of DMA memory [`VirtioNet::new`](crate::VirtioNet::new) needs, at any alignment.
pub const MEMORY_NEEDED: usize = Sizes::DEFAULT.memory_needed();

impl Sizes {
    /// 256 descriptors to send with (85 frames in flight) and 64 receive
    /// buffers of 2048 bytes: about 147 KiB.
    pub const DEFAULT: Self = Self { tx_descriptors: 256, rx_buffers: 64 };

    /// Rings of other lengths. Both must be powers of two; 4 to 256
    /// descriptors to send with, three for each frame in flight, and 1 to 256
    /// receive buffers. `None` otherwise.
    pub const fn new(tx_descriptors: u16, rx_buffers: u16) -> Option<Self> {
        let tx_fits = tx_descriptors.is_power_of_two()
            && tx_descriptors > DESCRIPTORS_PER_SLOT
            && tx_descriptors <= Bits::LEN;
        let rx_fits = rx_buffers.is_power_of_two() && rx_buffers <= Bits::LEN;
        if tx_fits && rx_fits { Some(Self { tx_descriptors, rx_buffers }) } else { None }
    }

    /// Longest transmit queue.
    pub(crate) const fn tx_descriptors(self) -> u16 {
        self.tx_descriptors
    }

    /// Longest receive queue.
    pub(crate) const fn rx_buffers(self) -> u16 {
        self.rx_buffers
    }

    /// Bytes of DMA memory rings of these sizes need, wherever the memory starts.
    pub const fn memory_needed(self) -> usize {
        let mut total = ALIGN;
        let pieces = self.pieces();
        let mut index = 0;
        // `for` is not const yet.
        while index < pieces.len() {
            #[allow(clippy::indexing_slicing)] // below the length, as the line above says
            let piece = pieces[index].next_multiple_of(ALIGN);
            total = total.saturating_add(piece);
            index = index.saturating_add(1);
        }
        total
    }

    /// Lengths of the pieces, in the order of [`Pieces`].
    const fn pieces(self) -> [usize; 4] {
        let slots = (self.tx_descriptors / DESCRIPTORS_PER_SLOT) as usize;
        [
            SplitQueue::memory_needed(self.tx_descriptors),
            SplitQueue::memory_needed(self.rx_buffers),
            slots.saturating_mul(CELL_LEN),
            (self.rx_buffers as usize).saturating_mul(RX_BUFFER_LEN),
        ]
    }

    /// Cuts `memory` up.
    pub(crate) fn cut(self, mut memory: DmaRegion) -> Result<Pieces, NicError> {
        let short = NicError::Memory { need: self.memory_needed(), have: memory.len() };
        let [tx_rings, rx_rings, tx_cells, rx_buffers] = self.pieces();
        let mut take = |len| memory.take(len, ALIGN).ok_or(short);
        Ok(Pieces {
            tx_rings: take(tx_rings)?,
            rx_rings: take(rx_rings)?,
            tx_cells: take(tx_cells)?,
            rx_buffers: take(rx_buffers)?,
        })
    }
}

/// The driver's memory, by use.
pub(crate) struct Pieces {
    pub(crate) tx_rings: DmaRegion,
    pub(crate) rx_rings: DmaRegion,
    pub(crate) tx_cells: DmaRegion,
    pub(crate) rx_buffers: DmaRegion,
}

#[cfg(test)]
mod tests {
    use super::*;
    use debugnet_core::addr::DeviceAddr;
    use nic_hal::host::HostMemory;

    #[test]
    fn what_is_needed_is_enough_at_any_alignment() {
        for (tx, rx) in [(4, 1), (256, 64), (64, 256), (8, 2)] {
            let sizes = Sizes::new(tx, rx).unwrap();
            for start in (0x1000..0x1040).step_by(16) {
                let memory = HostMemory::leak(sizes.memory_needed(), DeviceAddr(start));
                assert!(sizes.cut(memory.region()).is_ok(), "{sizes:?} at {start:#x}");
            }
            let memory = HostMemory::leak(sizes.memory_needed() - 128, DeviceAddr(0x1000));
            assert!(matches!(
                sizes.cut(memory.region()),
                Err(NicError::Memory { need, have }) if need == have + 128
            ));
        }
    }

    #[test]
    fn sizes_that_no_queue_can_have_are_refused() {
        for (tx, rx) in [(0, 64), (2, 64), (96, 64), (512, 64), (256, 0), (256, 48), (256, 512)] {
            assert_eq!(Sizes::new(tx, rx), None, "{tx} {rx}");
        }
        assert_eq!(Sizes::new(256, 64), Some(Sizes::DEFAULT));
    }
}
