//! [`Dumper`]: which message comes next.
//!
//! HERALD, \[EKCD_KEY\], VMCORE, KDH, FINISHED. Data waits for the herald's ack;
//! KDH and FINISHED each wait until everything before them is acknowledged,
//! because a stock server may truncate at the one and forgets the client at
//! the other.

use super::stream::{FAULT_LEN, StreamState};
use super::{
    DumpInfo, DumpSource, Extent, Gap, Gaps, ImageStream, ReadFault, Reason, Stability, Transform,
    TransformError,
};
use crate::addr::{PhysAddr, PhysRange};
use crate::config::Config;
use crate::count::add_to;
use crate::nic::TxTicket;
use crate::peer::payload_sum;
use crate::pool::{CellId, PacketPool};
use crate::session::{Message, Session, Stored};
use crate::wire::debugnet::{self, herald_word};
use crate::wire::kdh::KernelDumpHeader;

/// What the dumper works with for one step.
pub(crate) struct Room<'r, 's, 'p> {
    pub(crate) session: &'r mut Session<'s>,
    pub(crate) pool: &'r mut PacketPool<'p>,
    pub(crate) source: &'r mut dyn DumpSource,
    pub(crate) transform: Option<&'r mut (dyn Transform + 'r)>,
    pub(crate) info: &'r DumpInfo<'r>,
    pub(crate) config: &'r Config,
    /// Low-water mark of the NIC.
    pub(crate) done: TxTicket,
    /// Payload sums are needed: the NIC fetches payloads and does not sum them.
    pub(crate) sums: bool,
    pub(crate) payload_len: u16,
    pub(crate) nonce: u16,
}

/// How far a step came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fill {
    /// Call again: there is more to do now.
    More,
    /// Waiting for acks or cells.
    Waiting,
    /// FINISHED is acknowledged.
    Done,
}

/// Where the dump stands in its order of messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Step {
    Survey,
    Herald,
    AwaitHerald,
    Key,
    Tail,
    Data,
    Header,
    AwaitHeader,
    Finish,
    AwaitFinish,
}

#[derive(Debug)]
pub(crate) struct Dumper {
    step: Step,
    /// What is left of the current extent.
    rest: Extent,
    /// Bytes of the key sent, or of the transformed stream.
    stream_at: u64,
    /// How far a transform has read the image.
    pub(crate) stream: StreamState,
    /// Extents the source has, as counted before anything else.
    extents: u32,
    last: Option<Extent>,
    /// The last byte of the image has been queued, ahead of all other RAM.
    tail_sent: bool,
    /// Bytes at the start of `rest` in front of one that cannot be read.
    readable: Option<u64>,
    pub(crate) image_len: u64,
    pub(crate) dump_bytes: u64,
    /// Bytes of the headers and notes.
    generated_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) acked_bytes: u64,
    pub(crate) zero_bytes: u64,
    unreadable_bytes: u64,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_copied: u64,
    pub(crate) not_sent: Gaps,
    pub(crate) fault: Option<ReadFault>,
}

// Steps that are taken once a dump are not inlined: their frames would weigh on
// the stack of each message.
impl Dumper {
    /// Zeros shorter than this are sent: leaving them out costs a message border.
    const ZERO_RUN_MIN: u64 = 512;
    /// Zeros looked for at a time.
    const ZERO_SCAN: u64 = 16 * 1024;

    pub(crate) const fn new() -> Self {
        Self {
            step: Step::Survey,
            rest: Extent::NONE,
            stream_at: 0,
            stream: StreamState::START,
            extents: 0,
            last: None,
            tail_sent: false,
            readable: None,
            image_len: 0,
            dump_bytes: 0,
            generated_bytes: 0,
            sent_bytes: 0,
            acked_bytes: 0,
            zero_bytes: 0,
            unreadable_bytes: 0,
            bytes_read: 0,
            bytes_copied: 0,
            not_sent: Gaps::new(),
            fault: None,
        }
    }

    pub(crate) fn step(&self) -> Step {
        self.step
    }

    /// Counts up to `looks` extents. `true` when all are known.
    pub(crate) fn survey(
        &mut self,
        source: &mut dyn DumpSource,
        is_transformed: bool,
        looks: usize,
    ) -> bool {
        if self.step != Step::Survey {
            return true;
        }
        if self.extents == 0 {
            source.rewind();
        }
        for _ in 0..looks {
            let Some(extent) = source.next() else {
                if is_transformed {
                    source.rewind_in_order();
                } else {
                    source.rewind();
                }
                self.step = Step::Herald;
                return true;
            };
            self.extents = self.extents.saturating_add(1);
            let Extent { offset, range, stability } = extent;
            let (len, end) = (range.len(), offset.saturating_add(range.len()));
            match stability {
                Stability::Redacted => {
                    self.not_sent.add(Gap { offset, len, reason: Reason::Redacted });
                    continue;
                }
                Stability::Generated => {
                    add_to(&mut self.generated_bytes, len);
                }
                Stability::Frozen | Stability::Volatile => {
                    add_to(&mut self.dump_bytes, len);
                }
            }
            if end > self.image_len && !range.is_empty() {
                self.image_len = end;
                self.last = Some(extent);
            }
        }
        false
    }

    /// Queues at most one message, or passes over one run of zeros.
    pub(crate) fn fill(&mut self, room: &mut Room<'_, '_, '_>) -> Result<Fill, TransformError> {
        match self.step {
            Step::Survey => Ok(Fill::Waiting),
            Step::Herald => Ok(self.herald(room)),
            Step::AwaitHerald if room.session.server_port().is_none() => Ok(Fill::Waiting),
            Step::AwaitHerald => Ok(self.go(Step::Key)),
            Step::Key => Ok(self.key(room)),
            Step::Tail => Ok(self.tail(room)),
            Step::Data => match room.transform {
                Some(_) => self.transformed(room),
                None => Ok(self.plain(room)),
            },
            Step::Header | Step::AwaitHeader | Step::Finish | Step::AwaitFinish
                if !room.session.is_idle() =>
            {
                Ok(Fill::Waiting)
            }
            Step::Header => Ok(self.header(room)),
            Step::AwaitHeader => Ok(self.go(Step::Finish)),
            Step::Finish => Ok(self.queue_last(room, blank(debugnet::FINISHED), Step::AwaitFinish)),
            Step::AwaitFinish => Ok(Fill::Done),
        }
    }

    /// Bytes of the image that are done with, and in all.
    pub(crate) fn done(&self, is_transformed: bool) -> (u64, u64) {
        if is_transformed {
            return (self.stream.at.min(self.image_len), self.image_len);
        }
        let done = self.acked_bytes.saturating_add(self.zero_bytes);
        let done = done.saturating_add(self.unreadable_bytes);
        let total = self.dump_bytes.saturating_add(self.generated_bytes);
        (done.min(total), total)
    }

    /// A message was acknowledged.
    pub(crate) fn on_acked(&mut self, message: &Message) {
        if message.kind == debugnet::VMCORE {
            add_to(&mut self.acked_bytes, u64::from(message.len));
        }
    }

    /// What of the image has not been queued yet, given up now. Of a
    /// transformed image nobody knows the length: what is left of the source's
    /// is taken, a byte at least.
    pub(crate) fn remaining(
        &mut self,
        source: &mut dyn DumpSource,
        is_transformed: bool,
        holes: &mut Gaps,
    ) {
        let mut add = |extent: Extent| {
            if extent.stability == Stability::Redacted {
                return;
            }
            holes.add(Gap {
                offset: extent.offset,
                len: extent.range.len(),
                reason: Reason::Unacknowledged,
            });
        };
        if self.step > Step::Data {
            return;
        }
        if is_transformed {
            let sent = if self.step == Step::Data { self.stream_at } else { 0 };
            let len = self.image_len.saturating_sub(sent).max(1);
            let reason = Reason::Unacknowledged;
            return holes.add(Gap { offset: sent, len, reason });
        }
        add(self.rest);
        // As many as were counted, whatever the source says now.
        for _ in 0..self.extents {
            let Some(extent) = source.next() else { return };
            add(self.without_tail(extent));
        }
    }

    fn go(&mut self, step: Step) -> Fill {
        self.step = step;
        Fill::More
    }

    #[inline(never)]
    fn herald(&mut self, room: &mut Room<'_, '_, '_>) -> Fill {
        let path = room.config.path.as_bytes();
        let mut message = blank(debugnet::HERALD);
        if !room.config.strict {
            message.aux2 = herald_word::new(room.nonce);
        }
        if !path.is_empty() {
            let Some(id) = take_cell(room) else { return Fill::Waiting };
            // The NUL that ends the path is part of the payload.
            let len = path.len().saturating_add(1);
            let cell = room.pool.bytes_mut(id);
            cell.fill(0);
            for (to, from) in cell.iter_mut().zip(path) {
                *to = *from;
            }
            self.in_cell(room, &mut message, id, len);
        }
        match room.session.herald(message) {
            Ok(()) => self.go(Step::AwaitHerald),
            Err(_) => self.give_back(room, message),
        }
    }

    #[inline(never)]
    fn key(&mut self, room: &mut Room<'_, '_, '_>) -> Fill {
        let at = usize::try_from(self.stream_at).unwrap_or(usize::MAX);
        let rest = room.info.key.get(at..).unwrap_or(&[]);
        if rest.is_empty() {
            self.stream_at = 0;
            return self.go(Step::Data);
        }
        if !room.session.has_room() {
            return Fill::Waiting;
        }
        let Some(id) = take_cell(room) else { return Fill::Waiting };
        let len = rest.len().min(usize::from(room.payload_len));
        for (to, from) in room.pool.bytes_mut(id).iter_mut().zip(rest) {
            *to = *from;
        }
        let mut message = blank(debugnet::EKCD_KEY);
        message.offset = self.stream_at;
        self.in_cell(room, &mut message, id, len);
        add_to(&mut self.stream_at, len as u64);
        self.queue(room, message)
    }

    /// The last byte of the image goes before all other RAM, so that the file has
    /// its length even if its end is zeros that are left out, or the dump is cut short.
    fn tail(&mut self, room: &mut Room<'_, '_, '_>) -> Fill {
        let Some(last) = self.last else { return self.go(Step::Data) };
        if !room.session.has_room() {
            return Fill::Waiting;
        }
        let (_, range) = last.range.split_at(last.range.len().saturating_sub(1));
        let piece = Extent { offset: self.image_len.saturating_sub(1), range, ..last };
        let (fill, fault) = match self.message(room, piece) {
            Ok(Some(message)) => (self.queue(room, message), None),
            Ok(None) => (Fill::Waiting, None),
            Err(fault) => (self.blank_byte(room, piece.offset), Some(fault)),
        };
        if fill == Fill::More {
            add_to(&mut self.sent_bytes, 1);
            if let Some(fault) = fault {
                self.cannot_read(fault, piece.offset, 1);
            }
            self.tail_sent = true;
            self.rest = self.without_tail(self.rest);
            self.step = Step::Data;
        }
        fill
    }

    /// A zero in place of a byte that cannot be read.
    fn blank_byte(&mut self, room: &mut Room<'_, '_, '_>, offset: u64) -> Fill {
        let Some(id) = take_cell(room) else { return Fill::Waiting };
        room.pool.bytes_mut(id).fill(0);
        let mut message = blank(debugnet::VMCORE);
        message.offset = offset;
        self.in_cell(room, &mut message, id, 1);
        self.queue(room, message)
    }

    fn plain(&mut self, room: &mut Room<'_, '_, '_>) -> Fill {
        if self.rest.range.is_empty() {
            return self.next_extent(room);
        }
        if !room.session.has_room() {
            return Fill::Waiting;
        }
        let is_ram = self.rest.stability != Stability::Generated;
        if room.config.elide_zeros && is_ram && self.pass_zeros(room) {
            return Fill::More;
        }
        let most = self.readable.take().unwrap_or(u64::MAX).min(u64::from(room.payload_len));
        let (head, tail) = self.rest.range.split_at(most);
        let piece = Extent { range: head, ..self.rest };
        let fill = match self.message(room, piece) {
            Ok(Some(message)) => self.queue(room, message),
            Ok(None) => return Fill::Waiting,
            Err(fault) => return self.fault_in(piece, fault),
        };
        if fill == Fill::More {
            add_to(&mut self.sent_bytes, head.len());
            self.rest.range = tail;
            add_to(&mut self.rest.offset, head.len());
        }
        fill
    }

    fn next_extent(&mut self, room: &mut Room<'_, '_, '_>) -> Fill {
        let Some(extent) = room.source.next() else { return self.go(Step::Header) };
        if extent.stability == Stability::Redacted {
            return Fill::More;
        }
        self.rest = self.without_tail(extent);
        if extent.stability != Stability::Generated && !self.tail_sent {
            return self.go(Step::Tail);
        }
        Fill::More
    }

    /// An extent less the byte that [`Dumper::tail`] has sent.
    fn without_tail(&self, extent: Extent) -> Extent {
        let ends_image = extent.offset.saturating_add(extent.range.len()) == self.image_len;
        if !self.tail_sent || !ends_image {
            return extent;
        }
        let (range, _) = extent.range.split_at(extent.range.len().saturating_sub(1));
        Extent { range, ..extent }
    }

    fn skip(&mut self, len: u64) {
        let (_, tail) = self.rest.range.split_at(len);
        self.rest.range = tail;
        add_to(&mut self.rest.offset, len);
    }

    /// Passes over zeros at the start of what is left. A fault is left to the
    /// piece that meets it.
    fn pass_zeros(&mut self, room: &mut Room<'_, '_, '_>) -> bool {
        let (scan, _) = self.rest.range.split_at(Self::ZERO_SCAN);
        let Ok(zeros) = room.source.zero_prefix(scan) else { return false };
        let zeros = zeros.min(scan.len());
        add_to(&mut self.bytes_read, zeros);
        // Whole runs keep what follows aligned for the device.
        let run = if zeros == scan.len() { zeros } else { zeros & !(Self::ZERO_RUN_MIN - 1) };
        if run == 0 {
            return false;
        }
        add_to(&mut self.zero_bytes, run);
        self.skip(run);
        true
    }

    /// The message of one piece of an extent, at most a payload long. `None`
    /// if it needs a cell and there is none.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    #[cfg_attr(not(target_pointer_width = "32"), inline(always))]
    fn message(
        &mut self,
        room: &mut Room<'_, '_, '_>,
        piece: Extent,
    ) -> Result<Option<Message>, ReadFault> {
        let len = piece.range.len();
        let mut message = blank(debugnet::VMCORE);
        message.offset = piece.offset;
        message.len = u16::try_from(len).unwrap_or(u16::MAX);
        match piece.stability {
            Stability::Frozen => {
                message.stored = Stored::Range(piece.range);
                message.sum = None;
                if room.sums {
                    add_to(&mut self.bytes_read, len);
                    message.sum = Some(room.source.sum(piece.range)?);
                }
            }
            Stability::Volatile | Stability::Generated | Stability::Redacted => {
                let Some(id) = take_cell(room) else { return Ok(None) };
                if let Err(fault) = self.stage(room, piece, id) {
                    room.pool.release(id, TxTicket::NONE, room.done);
                    return Err(fault);
                }
                self.in_cell(room, &mut message, id, len as usize);
            }
        }
        Ok(Some(message))
    }

    /// What lies before the fault goes by itself; what lies behind is left out to the end of its page.
    fn fault_in(&mut self, piece: Extent, fault: ReadFault) -> Fill {
        let start = piece.range.start().0;
        match fault.at.0.checked_sub(start) {
            Some(readable @ 1..) if readable < piece.range.len() => self.readable = Some(readable),
            _ => {
                let to_page = FAULT_LEN.saturating_sub(start & (FAULT_LEN - 1));
                let len = piece.range.len().min(to_page);
                self.cannot_read(fault, piece.offset, len);
                self.skip(len);
            }
        }
        Fill::More
    }

    fn cannot_read(&mut self, fault: ReadFault, offset: u64, len: u64) {
        add_to(&mut self.unreadable_bytes, len);
        self.fault.get_or_insert(fault);
        self.not_sent.add(Gap { offset, len, reason: Reason::Unreadable });
    }

    /// Copies RAM into a cell, or has it generated there.
    fn stage(
        &mut self,
        room: &mut Room<'_, '_, '_>,
        piece: Extent,
        id: CellId,
    ) -> Result<(), ReadFault> {
        let len = piece.range.len();
        match piece.stability {
            Stability::Generated => {
                let cell = room.pool.bytes_mut(id).get_mut(..len as usize);
                return room.source.generate(piece.offset, cell.unwrap_or(&mut []));
            }
            // Whoever got here with it, it stays out.
            Stability::Redacted => return Err(ReadFault { at: piece.range.start() }),
            Stability::Frozen | Stability::Volatile => {
                stage(room.source, room.pool, piece.range, id)?;
            }
        }
        add_to(&mut self.bytes_read, len);
        add_to(&mut self.bytes_copied, len);
        Ok(())
    }

    #[inline(never)]
    fn transformed(&mut self, room: &mut Room<'_, '_, '_>) -> Result<Fill, TransformError> {
        if !room.session.has_room() {
            return Ok(Fill::Waiting);
        }
        let Some(id) = take_cell(room) else { return Ok(Fill::Waiting) };
        let most = usize::from(room.payload_len);
        let cell = room.pool.bytes_mut(id).get_mut(..most).unwrap_or(&mut []);
        let mut image = ImageStream::new(room.source, &mut self.stream, self.image_len);
        let len = match &mut room.transform {
            Some(transform) => transform.next(&mut image, cell),
            None => Ok(0),
        };
        let len = match len {
            Ok(len) if len != 0 => len.min(cell.len()),
            other => {
                room.pool.release(id, TxTicket::NONE, room.done);
                return other.map(|_| self.go(Step::Header));
            }
        };
        let mut message = blank(debugnet::VMCORE);
        message.offset = self.stream_at;
        self.in_cell(room, &mut message, id, len);
        add_to(&mut self.stream_at, len as u64);
        add_to(&mut self.sent_bytes, len as u64);
        add_to(&mut self.bytes_copied, len as u64);
        Ok(self.queue(room, message))
    }

    #[inline(never)]
    fn header(&mut self, room: &mut Room<'_, '_, '_>) -> Fill {
        let Some(id) = take_cell(room) else { return Fill::Waiting };
        let (length, compression) = match &room.transform {
            Some(transform) => (self.stream_at, transform.compression()),
            None => (self.image_len, 0),
        };
        room.info.header(room.pool.bytes_mut(id), length, self.image_len, compression);
        let mut message = blank(debugnet::KDH);
        self.in_cell(room, &mut message, id, KernelDumpHeader::LEN);
        self.queue_last(room, message, Step::AwaitHeader)
    }

    /// Queues the one message of a step.
    fn queue_last(&mut self, room: &mut Room<'_, '_, '_>, message: Message, then: Step) -> Fill {
        let fill = self.queue(room, message);
        if fill == Fill::More {
            self.step = then;
        }
        fill
    }

    /// Makes a filled cell the only copy of a message's payload.
    fn in_cell(&self, room: &Room<'_, '_, '_>, message: &mut Message, id: CellId, len: usize) {
        message.stored = Stored::Cell(id);
        message.len = u16::try_from(len).unwrap_or(u16::MAX);
        message.sum = Some(payload_sum(room.pool.bytes(id, len)));
    }

    /// Room was checked before anything was built; if a session refuses all
    /// the same, the message counts as not queued.
    fn queue(&mut self, room: &mut Room<'_, '_, '_>, message: Message) -> Fill {
        match room.session.send(message) {
            Ok(_) => Fill::More,
            Err(_) => self.give_back(room, message),
        }
    }

    fn give_back(&self, room: &mut Room<'_, '_, '_>, message: Message) -> Fill {
        if let Stored::Cell(id) = message.stored {
            room.pool.release(id, TxTicket::NONE, room.done);
        }
        Fill::Waiting
    }
}

/// A cell for the only copy of a payload. The last free one is left for
/// bounces, or a message that needs one could wait for ever on a message behind
/// it that holds it; only with nothing in the window may it be taken.
fn take_cell(room: &mut Room<'_, '_, '_>) -> Option<CellId> {
    if room.pool.available() > 1 || room.session.is_idle() { room.pool.take() } else { None }
}

fn blank(kind: u32) -> Message {
    Message { kind, aux2: 0, offset: 0, len: 0, stored: Stored::None, sum: Some(0) }
}

/// Copies a range, at most a cell long, into a cell.
pub(crate) fn stage(
    source: &mut dyn DumpSource,
    pool: &mut PacketPool<'_>,
    range: PhysRange,
    id: CellId,
) -> Result<(), ReadFault> {
    let len = usize::try_from(range.len()).unwrap_or(usize::MAX);
    match pool.bytes_mut(id).get_mut(..len) {
        Some(cell) => source.read(range.start(), cell),
        None => Err(ReadFault { at: PhysAddr(range.start().0) }),
    }
}
