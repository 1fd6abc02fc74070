//! How much memory the driver wants, and what for.

use debugnet_core::nic::{HEADER_MAX, NicError};
use nic_hal::DmaRegion;

/// Descriptors of the transmit ring.
pub(crate) const TX_DESCRIPTORS: u16 = 256;
/// Frames in flight: three descriptors each (header and two segments), less
/// one gap that tells a full ring from an empty one and one context descriptor.
pub(crate) const TX_SLOTS: u16 = (TX_DESCRIPTORS - 2) / 3;
/// Receive descriptors and buffers.
pub(crate) const RX_BUFFERS: u16 = 64;
/// Bytes of a receive buffer: holds every frame that is not jumbo, with its FCS.
pub(crate) const RX_BUFFER_LEN: usize = 2048;
/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR_LEN: usize = 16;

/// Bytes of a cell: the frame header, or a short header and its padding.
pub(crate) const CELL_LEN: usize = 128;
/// Where in a cell the padding starts that follows a payload. Only frames of
/// less than [`FRAME_MIN`] bytes have any, so that the header ends before it.
pub(crate) const PAD_AT: usize = 64;
/// Shortest frame on the wire in bytes, less its FCS.
pub(crate) const FRAME_MIN: usize = 60;
const _: () = assert!(HEADER_MAX <= CELL_LEN && FRAME_MIN <= PAD_AT);
const _: () = assert!(PAD_AT + FRAME_MIN <= CELL_LEN);
const _: () = assert!(TX_SLOTS >= 64);

/// Rings have to start at a multiple of 128; words written by the device and
/// words written by us never share a cache line.
const ALIGN: usize = 128;

const TX_RING_LEN: usize = TX_DESCRIPTORS as usize * DESCRIPTOR_LEN;
const RX_RING_LEN: usize = RX_BUFFERS as usize * DESCRIPTOR_LEN;
const TX_CELLS_LEN: usize = TX_SLOTS as usize * CELL_LEN;
const RX_BUFFERS_LEN: usize = RX_BUFFERS as usize * RX_BUFFER_LEN;

/// Bytes of DMA memory [`E1000::new`](crate::E1000::new) needs, at any alignment of 16.
pub const MEMORY_NEEDED: usize = ALIGN + TX_RING_LEN + RX_RING_LEN + TX_CELLS_LEN + RX_BUFFERS_LEN;

/// The driver's memory, by use.
#[derive(Debug)]
pub(crate) struct Pieces {
    pub(crate) tx_ring: DmaRegion,
    pub(crate) rx_ring: DmaRegion,
    pub(crate) tx_cells: DmaRegion,
    pub(crate) rx_buffers: DmaRegion,
}

/// Cuts `memory` up.
pub(crate) fn cut(mut memory: DmaRegion) -> Result<Pieces, NicError> {
    let short = NicError::Memory { need: MEMORY_NEEDED, have: memory.len() };
    let mut take = |len| memory.take(len, ALIGN).ok_or(short);
    Ok(Pieces {
        tx_ring: take(TX_RING_LEN)?,
        rx_ring: take(RX_RING_LEN)?,
        tx_cells: take(TX_CELLS_LEN)?,
        rx_buffers: take(RX_BUFFERS_LEN)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use debugnet_core::addr::DeviceAddr;
    use nic_hal::host::HostMemory;

    #[test]
    fn what_is_needed_is_enough_at_any_alignment() {
        for start in (0x1000..0x1080).step_by(16) {
            let memory = HostMemory::leak(MEMORY_NEEDED, DeviceAddr(start));
            let pieces = cut(memory.region()).unwrap();
            assert!(pieces.tx_ring.device_addr().0.is_multiple_of(128));
            assert!(pieces.rx_ring.device_addr().0.is_multiple_of(128));
        }
        let memory = HostMemory::leak(MEMORY_NEEDED - 256, DeviceAddr(0x1000));
        assert_eq!(
            cut(memory.region()).unwrap_err(),
            NicError::Memory { need: MEMORY_NEEDED, have: MEMORY_NEEDED - 256 }
        );
    }
}
