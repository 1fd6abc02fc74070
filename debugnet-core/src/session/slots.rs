//! The window's storage: slots of the caller's memory, each free, found by its
//! sequence number alone, or on one of the session's intrusive lists, and the
//! table that finds a slot by sequence number.
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
    /// A slot that holds nothing, for `static` arrays. All zero, so that these need no
    /// initial values; its links are set when it first gets onto a list.
    pub const EMPTY: Self = Self {
        message: Message { kind: 0, aux2: 0, offset: 0, len: 0, stored: Stored::None, sum: None },
        sent_at: Instant::ZERO,
        ticket: TxTicket::NONE,
        seqno: 0,
        order: 0,
        in_flight: false,
        tries: 0,
        next: 0,
        previous: 0,
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
    /// Top of the stack of free slots, linked through `next`.
    free: u16,
}

impl<'m> Slots<'m> {
    /// All slots empty and free. `index` is a power of two, [`SPAN`] times the
    /// slots: `arm` has checked it.
    pub(crate) fn new(slots: &'m mut [Slot], index: &'m mut [u16]) -> Self {
        slots.fill(Slot::EMPTY);
        index.fill(NIL);
        let mut this = Self { slots, index, free: NIL };
        for id in (0..this.slots.len().min(usize::from(NIL))).rev() {
            this.release(SlotId(id as u16));
        }
        this
    }

    pub(crate) fn has_free(&self) -> bool {
        self.free != NIL
    }

    /// Takes a free slot, makes `seqno` findable, and puts the message in it.
    pub(crate) fn occupy(&mut self, seqno: u32, message: Message) -> Option<()> {
        let id = self.free;
        let slot = self.slots.get_mut(usize::from(id))?;
        self.free = slot.next;
        slot.message = message;
        slot.seqno = seqno;
        slot.tries = 0;
        slot.in_flight = false;
        slot.ticket = TxTicket::NONE;
        *self.place(seqno)? = id;
        Some(())
    }

    /// Makes a slot free; it keeps what it held until it is occupied again.
    pub(crate) fn release(&mut self, id: SlotId) {
        let top = self.free;
        if let Some(slot) = self.get_mut(id) {
            slot.next = top;
            self.free = id.0;
        }
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

    pub(crate) fn unbind(&mut self, seqno: u32) {
        if let Some(place) = self.place(seqno) {
            *place = NIL;
        }
    }

    /// Whether a number less than the whole table behind the newest is alive.
    pub(crate) fn is_bound(&self, seqno: u32) -> bool {
        let mask = self.index.len().wrapping_sub(1);
        self.index.get(seqno as usize & mask).is_some_and(|id| *id != NIL)
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occupied(slots: &mut Slots<'_>, seqno: u32) -> SlotId {
        slots.occupy(seqno, Slot::EMPTY.message).unwrap();
        slots.find(seqno).unwrap()
    }

    #[test]
    fn slots_move_between_lists() {
        let (mut memory, mut index) = ([Slot::EMPTY; 16], [0u16; 128]);
        let mut slots = Slots::new(&mut memory, &mut index);
        let mut busy = List::EMPTY;
        let ids: Vec<_> = (0..4).map(|seqno| occupied(&mut slots, seqno)).collect();
        for id in &ids {
            slots.push_back(&mut busy, *id);
        }
        for i in [1, 3, 0] {
            slots.remove(&mut busy, ids[i]);
            slots.release(ids[i]);
        }
        assert_eq!((busy.len(), busy.first()), (1, Some(ids[2])));
        slots.remove(&mut busy, ids[2]);
        assert!(busy.is_empty() && busy.first().is_none());
        let mut again: Vec<_> = (4..19).map(|seqno| occupied(&mut slots, seqno)).collect();
        again.push(ids[2]);
        again.sort_by_key(|id| id.0);
        again.dedup();
        assert_eq!(again.len(), 16, "a slot is free once");
        assert!(!slots.has_free() && slots.occupy(19, Slot::EMPTY.message).is_none());
    }

    #[test]
    fn only_live_seqnos_are_found() {
        let (mut memory, mut index) = ([Slot::EMPTY; 16], [0u16; 128]);
        let mut slots = Slots::new(&mut memory, &mut index);
        let seqno = u32::MAX - 3;
        let id = occupied(&mut slots, seqno);
        assert_eq!(slots.find(seqno), Some(id));
        assert_eq!(slots.find(seqno.wrapping_add(128)), None, "same place, other number");
        slots.unbind(seqno);
        assert_eq!(slots.find(seqno), None);
    }
}
