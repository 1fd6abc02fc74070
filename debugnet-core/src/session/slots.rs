//! The window's storage: slots of the caller's memory, each on exactly one of
//! a few intrusive lists, and the table that finds a slot by sequence number.
//!
//! Every operation is O(1). Indices are checked on every access, so damaged
//! links end in a lost slot, never in a panic.

use crate::addr::PhysRange;
use crate::nic::TxTicket;
use crate::pool::CellId;
use crate::time::Instant;

/// Index of no slot.
const NIL: u16 = u16::MAX;

/// Sequence numbers alive at once may span this many times the slots.
pub(crate) const SPAN: usize = 8;

/// Where the payload of a message is until it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Stored {
    /// It has none.
    None,
    /// In frozen RAM, which can be read again for a retransmission.
    Range(PhysRange),
    /// In a cell, its only copy.
    Cell(CellId),
}

/// One message the session must see acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Type code on the wire.
    pub kind: u32,
    /// Consumer's word on the wire.
    pub aux2: u32,
    /// Offset on the wire.
    pub offset: u64,
    /// Payload bytes.
    pub len: u16,
    /// Where the payload is.
    pub stored: Stored,
    /// Folded ones' complement sum of the payload, where the NIC does not compute it.
    pub sum: Option<u16>,
}

/// Room for one message in flight, in the caller's memory. Start from [`Slot::EMPTY`].
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub(crate) message: Message,
    pub(crate) sent_at: Instant,
    /// Ticket of the last transmission.
    pub(crate) ticket: TxTicket,
    pub(crate) seqno: u32,
    /// Number of the last transmission among all transmissions.
    pub(crate) order: u32,
    /// Transmissions so far.
    pub(crate) tries: u16,
    /// Sent and neither acknowledged nor given up for lost.
    pub(crate) in_flight: bool,
    next: u16,
    previous: u16,
}

impl Slot {
    /// A slot that holds nothing, for `static` arrays.
    pub const EMPTY: Self = Self {
        message: Message { kind: 0, aux2: 0, offset: 0, len: 0, stored: Stored::None, sum: None },
        sent_at: Instant::ZERO,
        ticket: TxTicket::NONE,
        seqno: 0,
        order: 0,
        in_flight: false,
        tries: 0,
        next: NIL,
        previous: NIL,
    };
}

/// Names a slot of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SlotId(u16);

/// A list of slots; which one a slot is on is its state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    head: u16,
    tail: u16,
    len: usize,
}

impl List {
    pub(crate) const EMPTY: Self = Self { head: NIL, tail: NIL, len: 0 };

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn first(&self) -> Option<SlotId> {
        (self.head != NIL).then_some(SlotId(self.head))
    }
}

/// The slots and the table from sequence number to slot.
#[derive(Debug)]
pub(crate) struct Slots<'m> {
    slots: &'m mut [Slot],
    index: &'m mut [u16],
}

impl<'m> Slots<'m> {
    /// All slots empty, and the list that holds them. `index` is a power of
    /// two, [`SPAN`] times the slots: `arm` has checked it.
    pub(crate) fn new(slots: &'m mut [Slot], index: &'m mut [u16]) -> (Self, List) {
        slots.fill(Slot::EMPTY);
        index.fill(NIL);
        let mut this = Self { slots, index };
        let mut free = List::EMPTY;
        for id in 0..this.slots.len().min(usize::from(NIL)) {
            this.push_back(&mut free, SlotId(id as u16));
        }
        (this, free)
    }

    pub(crate) fn get(&self, id: SlotId) -> Option<&Slot> {
        self.slots.get(usize::from(id.0))
    }

    pub(crate) fn get_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(id.0))
    }

    /// Largest distance between the oldest live sequence number and the next new one.
    pub(crate) fn span(&self) -> u32 {
        self.index.len() as u32
    }

    fn place(&mut self, seqno: u32) -> Option<&mut u16> {
        let mask = self.index.len().wrapping_sub(1);
        self.index.get_mut(seqno as usize & mask)
    }

    /// Makes `seqno` findable.
    pub(crate) fn bind(&mut self, seqno: u32, id: SlotId) {
        if let Some(place) = self.place(seqno) {
            *place = id.0;
        }
        if let Some(slot) = self.get_mut(id) {
            slot.seqno = seqno;
        }
    }

    pub(crate) fn unbind(&mut self, seqno: u32) {
        if let Some(place) = self.place(seqno) {
            *place = NIL;
        }
    }

    /// The slot of a live sequence number.
    pub(crate) fn find(&self, seqno: u32) -> Option<SlotId> {
        let mask = self.index.len().wrapping_sub(1);
        let id = SlotId(*self.index.get(seqno as usize & mask)?);
        (self.get(id)?.seqno == seqno).then_some(id)
    }

    pub(crate) fn push_back(&mut self, list: &mut List, id: SlotId) {
        let tail = list.tail;
        let Some(slot) = self.get_mut(id) else { return };
        slot.next = NIL;
        slot.previous = tail;
        match self.get_mut(SlotId(tail)) {
            Some(last) => last.next = id.0,
            None => list.head = id.0,
        }
        list.tail = id.0;
        list.len = list.len.saturating_add(1);
    }

    pub(crate) fn remove(&mut self, list: &mut List, id: SlotId) {
        let Some(slot) = self.get_mut(id) else { return };
        let (previous, next) = (slot.previous, slot.next);
        match self.get_mut(SlotId(previous)) {
            Some(before) => before.next = next,
            None => list.head = next,
        }
        match self.get_mut(SlotId(next)) {
            Some(after) => after.previous = previous,
            None => list.tail = previous,
        }
        list.len = list.len.saturating_sub(1);
    }

    pub(crate) fn pop_front(&mut self, list: &mut List) -> Option<SlotId> {
        let id = list.first()?;
        self.remove(list, id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_move_between_lists() {
        let (mut memory, mut index) = ([Slot::EMPTY; 16], [0u16; 128]);
        let (mut slots, mut free) = Slots::new(&mut memory, &mut index);
        let mut busy = List::EMPTY;
        let ids: Vec<_> = (0..4).map(|_| slots.pop_front(&mut free).unwrap()).collect();
        for id in &ids {
            slots.push_back(&mut busy, *id);
        }
        slots.remove(&mut busy, ids[1]);
        slots.remove(&mut busy, ids[3]);
        slots.remove(&mut busy, ids[0]);
        assert_eq!((busy.len(), busy.first()), (1, Some(ids[2])));
        assert_eq!(free.len(), 12);
        assert_eq!(slots.pop_front(&mut busy), Some(ids[2]));
        assert!(busy.is_empty() && busy.first().is_none());
    }

    #[test]
    fn only_live_seqnos_are_found() {
        let (mut memory, mut index) = ([Slot::EMPTY; 16], [0u16; 128]);
        let (mut slots, mut free) = Slots::new(&mut memory, &mut index);
        let id = slots.pop_front(&mut free).unwrap();
        let seqno = u32::MAX - 3;
        slots.bind(seqno, id);
        assert_eq!(slots.find(seqno), Some(id));
        assert_eq!(slots.find(seqno.wrapping_add(128)), None, "same place, other number");
        slots.unbind(seqno);
        assert_eq!(slots.find(seqno), None);
    }
}
