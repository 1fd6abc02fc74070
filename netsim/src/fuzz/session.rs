//! Operations on a [`Session`] in any order, held against sets of numbers.

use std::collections::BTreeMap;

use debugnet_core::nic::TxTicket;
use debugnet_core::session::{Heard, Message, Session, Slot, Stored};
use debugnet_core::time::Instant;
use debugnet_core::wire::debugnet::{HERALD, VMCORE};

use super::Input;

const PORT: u16 = 4000;
/// Table entries a slot.
const SPAN: usize = 8;
/// Looks at what the session wants after the story's end.
const STEPS_MAX: u32 = 100_000;

/// A message that is not acknowledged yet.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    offset: u64,
    tries: u16,
}

struct Story<'m> {
    session: Session<'m>,
    slots: usize,
    now: Instant,
    ticket: u64,
    /// By sequence number.
    pending: BTreeMap<u32, Pending>,
    next_seqno: u32,
    acked: u32,
    transmissions: u32,
    stale: u32,
    herald: Option<u32>,
    port: Option<u16>,
}

fn message(kind: u32, offset: u64) -> Message {
    Message { kind, aux2: 0, offset, len: 1448, stored: Stored::None, sum: Some(0) }
}

impl Story<'_> {
    fn send(&mut self) {
        let number = self.next_seqno;
        let offset = u64::from(number) * 1448;
        let oldest = self.pending.keys().next().copied().unwrap_or(number);
        let is_room =
            self.pending.len() < self.slots && ((number - oldest) as usize) < self.slots * SPAN;
        assert_eq!(self.session.has_room(), is_room, "{:?}", self.pending);
        let sent = if self.herald.is_none() {
            self.herald = Some(number);
            self.session.herald(message(HERALD, offset)).map(|()| number)
        } else {
            self.session.send(message(VMCORE, offset))
        };
        match sent {
            Ok(seqno) => {
                assert!(is_room && seqno == number, "numbers are contiguous");
                self.pending.insert(seqno, Pending { offset, tries: 0 });
                self.next_seqno += 1;
            }
            Err(_) => assert!(!is_room),
        }
    }

    /// Sends one message if the session wants to.
    fn transmit(&mut self, takes: bool) -> bool {
        let Some(id) = self.session.poll_transmit(self.now) else { return false };
        let (message, seqno, tries) = self.session.message(id).expect("what is to be sent exists");
        let known = self.pending.get_mut(&seqno).expect("nothing acknowledged is sent again");
        assert_eq!((message.offset, tries), (known.offset, known.tries));
        assert!(self.port.is_some() || self.herald == Some(seqno), "data before the herald's ack");
        if !takes {
            return false;
        }
        known.tries = known.tries.saturating_add(1);
        let is_first = known.tries == 1;
        self.ticket += 1;
        self.transmissions += 1;
        self.session.on_sent(self.now, id, TxTicket(self.ticket));
        let never = self.pending.iter().filter(|(_, pending)| pending.tries == 0);
        if is_first {
            assert!(never.clone().all(|(other, _)| *other > seqno), "first time in order");
        }
        assert_eq!(self.session.queued(), never.count());
        true
    }

    fn ack(&mut self, port: u16, seqno: u32) {
        let expected = match (self.port, self.herald) {
            (Some(adopted), _) if adopted != port => None,
            (None, herald) if herald != Some(seqno) => Some(false),
            _ => Some(self.pending.get(&seqno).is_some_and(|pending| pending.tries > 0)),
        };
        let heard = self.session.handle_datagram(self.now, port, &seqno.to_be_bytes());
        match (expected, heard) {
            (Some(true), Heard::Acked { id, seqno: acked }) => {
                assert_eq!(acked, seqno);
                let kept = self.session.message(id).expect("a free slot keeps what it held");
                let known = self.pending.remove(&seqno).expect("alive");
                assert_eq!((kept.0.offset, kept.1), (known.offset, seqno));
                self.acked += 1;
                self.port.get_or_insert(port);
            }
            (Some(false), Heard::Stale { seqno: stale }) if stale == seqno => self.stale += 1,
            (None, Heard::WrongPort { port: wrong }) if wrong == port => {}
            other => panic!("ack of {seqno} from {port}: {other:?}, {:?}", self.pending),
        }
    }

    /// The session says what the model knows, and has something to do unless nothing is left.
    fn check(&self) {
        let session = &self.session;
        let told: Vec<_> = session.pending().map(|(m, seqno, n)| (seqno, m.offset, n)).collect();
        let known: Vec<_> =
            self.pending.iter().map(|(seqno, p)| (*seqno, p.offset, p.tries)).collect();
        assert_eq!(told, known);
        let counters = session.counters();
        assert_eq!((counters.acked, counters.messages), (self.acked, self.next_seqno - 1));
        assert_eq!((counters.transmissions, counters.stale_acks), (self.transmissions, self.stale));
        assert_eq!(session.is_idle(), self.pending.is_empty());
        assert_eq!(session.server_port(), self.port);
        assert_eq!(session.queued() + session.unacked(), self.pending.len());
        if !self.pending.is_empty() {
            let due = session.poll_timeout(self.now);
            assert!(due < Instant::NEVER, "something is left, and nothing will happen: {known:?}");
        }
    }

    fn pass(&mut self, us: u64) {
        self.now = self.now.after(us);
        self.session.handle_timeout(self.now);
    }
}

/// Runs the story of these bytes.
///
/// # Panics
/// A promise of the session is broken.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let slots = 16 << (input.byte().unwrap_or(0) % 3);
    let (mut memory, mut index) = (vec![Slot::EMPTY; slots], vec![0; slots * SPAN]);
    let mut story = Story {
        session: Session::new(&mut memory, &mut index, 1448),
        slots,
        now: Instant::from_micros(1000),
        ticket: 0,
        pending: BTreeMap::new(),
        next_seqno: Session::FIRST_SEQNO,
        acked: 0,
        transmissions: 0,
        stale: 0,
        herald: None,
        port: None,
    };
    while let Some(what) = input.byte() {
        let number = input.byte().unwrap_or(0);
        match what % 8 {
            0 => (0..=number % 64).for_each(|_| story.send()),
            1 => while story.transmit(true) {},
            2 => {
                story.transmit(number & 1 > 0);
            }
            // One that is waited for.
            3 => {
                let nth = usize::from(number) % story.pending.len().max(1);
                let seqno = story.pending.keys().nth(nth).copied().unwrap_or(0);
                story.ack(story.port.unwrap_or(PORT), seqno);
            }
            // All of a run.
            4 => {
                let first = story.pending.keys().next().copied().unwrap_or(0);
                let port = story.port.unwrap_or(PORT);
                (first..=first.saturating_add(number.into())).for_each(|n| story.ack(port, n));
            }
            // Any number, from any port.
            5 => {
                let near = story.next_seqno.wrapping_add_signed(i32::from(number as i8));
                let port = if number & 1 > 0 { PORT } else { PORT + 1 };
                story.ack(port, near);
            }
            6 => {
                let bytes = input.bytes(usize::from(number));
                if bytes.len() != 4 {
                    let heard = story.session.handle_datagram(story.now, PORT, bytes);
                    assert!(matches!(heard, Heard::Message), "{heard:?}");
                }
            }
            _ => story.pass(1 << (number % 26)),
        }
        story.check();
    }
    finish(story);
}

/// A server that answers all: everything that was queued gets through.
fn finish(mut story: Story<'_>) {
    for _ in 0..STEPS_MAX {
        if story.pending.is_empty() {
            return;
        }
        let due = story.session.poll_timeout(story.now);
        story.pass(due.since_us(story.now));
        while story.transmit(true) {}
        story.pass(100);
        let sent: Vec<_> =
            story.pending.iter().filter(|(_, p)| p.tries > 0).map(|(seqno, _)| *seqno).collect();
        for seqno in sent {
            story.ack(story.port.unwrap_or(PORT), seqno);
        }
        story.check();
    }
    panic!("{} messages never get through", story.pending.len());
}
