//! The memory a dump works in: the caller's, sized by a documented function,
//! checked once.

use crate::config::{Config, ConfigError};
use crate::pool::{CELLS_MAX, Cells, PacketPool};
use crate::runner::Armed;
use crate::session::{SPAN, Slot};

/// What the caller lends for the dump, from boot on.
#[derive(Debug)]
pub struct Memory<'m> {
    /// Room for one unacknowledged message each: a power of two, 16..=4096.
    /// The window cannot be larger than this.
    pub slots: &'m mut [Slot],
    /// Table from sequence number to slot: eight entries a slot.
    pub index: &'m mut [u16],
    /// Cells for payloads that cannot be fetched from where they are, one at
    /// least, of [`Config::payload_len`] bytes each; more than 64 are not used.
    pub cells: Cells<'m>,
    /// A received frame is copied here. Longer frames are dropped, so 1536
    /// bytes take everything on plain Ethernet, and 128 all that matters.
    pub rx: &'m mut [u8],
}

/// Sizes to choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Unacknowledged messages: a power of two, 16..=4096.
    pub slots: usize,
    /// Cells, 1..=64.
    pub cells: usize,
    /// Bytes of a message's payload: 1448 at an MTU of 1500 and IPv4.
    pub payload_len: usize,
}

impl Limits {
    /// 1024 slots, 64 cells, MTU 1500.
    pub const DEFAULT: Self = Self { slots: 1024, cells: 64, payload_len: 1448 };
    /// 16 slots, one cell, MTU 1500.
    pub const SMALLEST: Self = Self { slots: 16, cells: 1, payload_len: 1448 };
}

/// Lengths of the parts of [`Memory`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Needs {
    /// Length of [`Memory::slots`].
    pub slots: usize,
    /// Length of [`Memory::index`].
    pub index: usize,
    /// Length of [`Cells::bytes`] in bytes.
    pub cell_bytes: usize,
    /// Length of [`Memory::rx`] in bytes.
    pub rx: usize,
    /// Bytes of all four.
    pub total_bytes: usize,
}

/// How long each part of [`Memory`] must be for these limits: slots as given,
/// 8 index entries of 2 bytes a slot, the cells, and one frame to receive.
///
/// It is `const`, so that it can size statics:
///
/// ```
/// use debugnet_core::{Limits, Needs, Slot, memory_needed};
///
/// const NEEDS: Needs = memory_needed(&Limits::DEFAULT);
/// static SLOTS: [Slot; NEEDS.slots] = [Slot::EMPTY; NEEDS.slots];
/// assert!(NEEDS.total_bytes - NEEDS.cell_bytes <= 256 * 1024);
/// assert!(memory_needed(&Limits::SMALLEST).total_bytes <= 16 * 1024);
/// # let _ = &SLOTS;
/// ```
pub const fn memory_needed(limits: &Limits) -> Needs {
    let index = limits.slots.saturating_mul(SPAN);
    let cell_bytes = limits.cells.saturating_mul(limits.payload_len);
    let rx = RX_PLENTY;
    let total_bytes = limits
        .slots
        .saturating_mul(size_of::<Slot>())
        .saturating_add(index.saturating_mul(size_of::<u16>()))
        .saturating_add(cell_bytes)
        .saturating_add(rx);
    Needs { slots: limits.slots, index, cell_bytes, rx, total_bytes }
}

/// Holds any frame of plain Ethernet.
const RX_PLENTY: usize = 1536;
/// Holds an ack or an ARP packet with a VLAN tag and padding.
const RX_MIN: usize = 128;

/// Checks configuration and memory, at boot. After this nothing of either can fail.
///
/// Nothing is sent and no device is touched. At the crash, call
/// [`Armed::dump`].
///
/// # Errors
/// [`ConfigError`], with what was found and what was expected.
pub fn arm<'m>(config: Config, memory: Memory<'m>) -> Result<Armed<'m>, ConfigError> {
    config.check()?;
    let Memory { slots, index, cells, rx } = memory;
    if !slots.len().is_power_of_two() || !(16..=4096).contains(&slots.len()) {
        return Err(ConfigError::Slots { found: slots.len() });
    }
    let need = slots.len().saturating_mul(SPAN);
    if index.len() != need {
        return Err(ConfigError::Index { found: index.len(), need });
    }
    let cell_len = usize::from(config.payload_len(u16::MAX));
    if cells.bytes.len() < cell_len {
        return Err(ConfigError::Cells { found: cells.bytes.len(), need: cell_len });
    }
    if rx.len() < RX_MIN {
        return Err(ConfigError::Rx { found: rx.len(), need: RX_MIN });
    }
    let pool = PacketPool::new(cells, cell_len);
    debug_assert!((1..=CELLS_MAX).contains(&pool.count()));
    Ok(Armed::new(config, slots, index, rx, pool))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_arm(slots: usize, index: usize, cells: usize, rx: usize) -> Result<(), ConfigError> {
        let mut slots = vec![Slot::EMPTY; slots];
        let mut index = vec![0; index];
        let mut bytes = vec![0; cells];
        let mut rx = vec![0; rx];
        let memory = Memory {
            slots: &mut slots,
            index: &mut index,
            cells: Cells { bytes: &mut bytes, phys: None },
            rx: &mut rx,
        };
        arm(Config::parse("server=10.0.0.1").unwrap(), memory).map(|_| ())
    }

    /// With what the dump itself takes on its caller's stack or in its statics.
    #[test]
    fn memory_stays_within_what_was_promised() {
        let own = size_of::<Armed<'_>>() + size_of::<crate::Dump<'_, '_>>();
        let default = memory_needed(&Limits::DEFAULT);
        let without_cells = default.total_bytes - default.cell_bytes + own;
        assert!(without_cells <= 256 << 10, "{without_cells} bytes without cells");
        let smallest = memory_needed(&Limits::SMALLEST).total_bytes + own;
        assert!(smallest <= 16 << 10, "{smallest} bytes");
        // The smallest is one that `arm` takes.
        let Needs { slots, index, cell_bytes, rx, .. } = memory_needed(&Limits::SMALLEST);
        assert_eq!(try_arm(slots, index, cell_bytes, rx), Ok(()));
    }

    #[test]
    fn memory_is_checked() {
        assert_eq!(try_arm(16, 128, 1448, 128), Ok(()));
        assert_eq!(try_arm(17, 136, 1448, 128), Err(ConfigError::Slots { found: 17 }));
        assert_eq!(try_arm(8, 64, 1448, 128), Err(ConfigError::Slots { found: 8 }));
        assert_eq!(try_arm(8192, 65536, 1448, 128), Err(ConfigError::Slots { found: 8192 }));
        assert_eq!(try_arm(16, 127, 1448, 128), Err(ConfigError::Index { found: 127, need: 128 }));
        assert_eq!(
            try_arm(16, 128, 1447, 128),
            Err(ConfigError::Cells { found: 1447, need: 1448 })
        );
        assert_eq!(try_arm(16, 128, 1448, 127), Err(ConfigError::Rx { found: 127, need: 128 }));
    }
}
