use super::*;
use crate::wire::debugnet::{self, Ack};
use zerocopy::IntoBytes;

mod resending;

const PORT: u16 = 4000;

fn message(offset: u64) -> Message {
    Message {
        kind: debugnet::VMCORE,
        aux2: 0,
        offset,
        len: 1448,
        stored: Stored::None,
        sum: Some(0),
    }
}

fn at(us: u64) -> Instant {
    Instant::from_micros(us)
}

struct Bench {
    session: Session<'static>,
    tickets: u64,
}

impl Bench {
    fn new(slots: usize, first: u32) -> Self {
        let slots = vec![Slot::EMPTY; slots].leak();
        let index = vec![0; slots.len() * SPAN].leak();
        Self { session: Session::starting_at(slots, index, 1448, first), tickets: 0 }
    }

    /// Through the herald.
    fn established(slots: usize, first: u32) -> Self {
        let mut bench = Self::new(slots, first);
        bench.session.herald(Message { kind: debugnet::HERALD, len: 0, ..message(0) }).unwrap();
        assert_eq!(bench.transmit(at(1000)), [first]);
        assert!(matches!(bench.ack(at(1100), PORT, first), Heard::Acked { .. }));
        bench
    }

    fn queue(&mut self, count: u32) {
        for i in 0..count {
            self.session.send(message(u64::from(i) * 1448)).unwrap();
        }
    }

    /// Sends all that may be sent: the numbers, in order.
    fn transmit(&mut self, now: Instant) -> Vec<u32> {
        let mut sent = Vec::new();
        while let Some(id) = self.session.poll_transmit(now) {
            let (_, seqno, _) = self.session.message(id).unwrap();
            self.tickets += 1;
            self.session.on_sent(now, id, TxTicket(self.tickets));
            sent.push(seqno);
        }
        sent
    }

    fn ack(&mut self, now: Instant, port: u16, seqno: u32) -> Heard {
        let heard = self.session.handle_datagram(now, port, Ack::new(seqno).as_bytes());
        self.session.handle_timeout(now);
        heard
    }
}

#[test]
fn nothing_but_the_heralds_own_ack_opens_the_session() {
    let mut bench = Bench::new(16, 1);
    bench.session.herald(message(0)).unwrap();
    assert!(matches!(bench.ack(at(0), PORT, 1), Heard::Stale { .. }), "not sent yet");
    bench.transmit(at(0));
    assert!(matches!(bench.ack(at(1), 9, 2), Heard::Stale { seqno: 2 }));
    assert!(matches!(bench.ack(at(1), 9, 0), Heard::Stale { seqno: 0 }));
    assert_eq!(bench.session.server_port(), None);
    assert!(matches!(bench.ack(at(2), PORT, 1), Heard::Acked { seqno: 1, .. }));
    assert_eq!(bench.session.server_port(), Some(PORT));
    assert!(bench.session.is_idle());
}

#[test]
fn the_getters_tell_where_the_messages_are() {
    let mut bench = Bench::established(64, 1);
    bench.queue(64);
    assert!(!bench.session.is_idle());
    assert_eq!((bench.session.queued(), bench.session.unacked()), (64, 0));
    let first = bench.session.poll_transmit(at(2000)).unwrap();
    bench.session.replace(first, message(77));
    let (changed, seqno, tries) = bench.session.message(first).unwrap();
    assert_eq!((changed.offset, seqno, tries), (77, 2, 0));
    let sent = bench.transmit(at(2000)).len();
    assert_eq!((bench.session.queued(), bench.session.unacked()), (64 - sent, sent));
    assert_eq!(bench.session.window(), 64, "no path has told of itself yet");
}

#[test]
fn messages_leave_in_the_order_of_their_numbers() {
    let mut bench = Bench::established(16, 1);
    bench.queue(3);
    let third = bench.session.slots.find(4).unwrap();
    bench.session.on_sent(at(2000), third, TxTicket(9));
    assert_eq!((bench.session.queued(), bench.session.counters().transmissions), (3, 1));
    assert_eq!(bench.transmit(at(2000)), [2, 3, 4]);
}

#[test]
fn later_is_what_is_less_than_half_of_all_numbers_ahead() {
    let half = u32::MAX / 2;
    assert!(is_after(1, 0) && is_after(0, u32::MAX) && is_after(half - 1, 0));
    assert!(!is_after(0, 0) && !is_after(0, 1) && !is_after(half, 0) && !is_after(u32::MAX, 0));
}

#[test]
fn the_herald_is_repeated_each_second_and_not_sooner() {
    let mut bench = Bench::new(16, 1);
    bench.session.herald(message(0)).unwrap();
    let mut sent_at = Vec::new();
    for ms in 0..3500 {
        bench.session.handle_timeout(at(1000 + ms * 1000));
        if !bench.transmit(at(1000 + ms * 1000)).is_empty() {
            sent_at.push(ms);
        }
    }
    assert_eq!(sent_at, [0, 1000, 2000, 3000]);
}

#[test]
fn acks_count_only_from_the_adopted_port_and_for_live_numbers() {
    let mut bench = Bench::established(16, 1);
    bench.queue(3);
    assert_eq!(bench.transmit(at(2000)), [2, 3, 4]);
    assert!(matches!(bench.ack(at(2100), PORT + 1, 2), Heard::WrongPort { port: 4001 }));
    assert!(matches!(bench.ack(at(2100), PORT, 5), Heard::Stale { .. }), "never sent");
    assert!(matches!(bench.ack(at(2100), PORT, 2 + 128), Heard::Stale { .. }), "same table entry");
    assert!(matches!(bench.ack(at(2100), PORT, 3), Heard::Acked { seqno: 3, .. }));
    assert!(matches!(bench.ack(at(2100), PORT, 3), Heard::Stale { .. }), "twice");
    assert_eq!(bench.session.unacked(), 2);
    assert!(matches!(bench.session.handle_datagram(at(2200), PORT, &[0; 24]), Heard::Message));
}

/// Design: N unacknowledged messages, not N consecutive ones.
#[test]
fn one_lost_message_does_not_stop_the_window() {
    let mut bench = Bench::established(16, 1);
    let mut now = 10_000;
    bench.queue(16);
    bench.transmit(at(now));
    // Number 2 is never acked; the others go on until 8 N numbers are alive.
    let mut next = 3;
    for _ in 0..8 * 16 - 16 {
        now += 100;
        bench.ack(at(now), PORT, next);
        next += 1;
        bench.session.send(message(0)).unwrap();
        bench.transmit(at(now));
    }
    for _ in 0..20 {
        now += 100;
        bench.ack(at(now), PORT, next);
        next += 1;
    }
    assert!(!bench.session.has_room(), "2 and 130 are alive: no more");
    assert!(bench.session.send(message(0)).is_err());
    assert!(matches!(bench.ack(at(now), PORT, 2), Heard::Acked { .. }));
    assert!(bench.session.has_room());
}

#[test]
fn a_later_ack_tells_of_an_earlier_loss() {
    let mut bench = Bench::established(64, 1);
    bench.queue(4);
    for (i, seqno) in (2..6).enumerate() {
        let id = bench.session.poll_transmit(at(5000 + i as u64 * 100)).unwrap();
        assert_eq!(bench.session.message(id).unwrap().1, seqno);
        bench.session.on_sent(at(5000 + i as u64 * 100), id, TxTicket(i as u64 + 10));
    }
    // 2 is lost; 3, 4, 5 are answered 200 us after they were sent.
    bench.ack(at(5300), PORT, 3);
    bench.ack(at(5400), PORT, 4);
    assert_eq!(bench.transmit(at(5400)), [2], "lost before any time-out");
    assert_eq!(bench.session.counters().timeouts, 0);
    assert_eq!(bench.session.counters().retransmits, 1);
}

#[test]
fn a_lost_tail_is_probed_before_the_time_out() {
    let mut bench = Bench::established(64, 1);
    bench.queue(1);
    bench.transmit(at(5000));
    bench.ack(at(5200), PORT, 2);
    bench.queue(3);
    bench.transmit(at(6000));
    let probe = bench.session.poll_timeout(at(6000));
    assert!(probe < at(6000 + u64::from(Rtt::INITIAL_RTO_US) / 10), "{probe:?}");
    bench.session.handle_timeout(probe);
    assert_eq!(bench.transmit(probe), [3]);
    // Its ack tells of the other two.
    let heard = probe.after(200);
    bench.ack(heard, PORT, 3);
    let due = bench.session.poll_timeout(heard);
    bench.session.handle_timeout(due);
    let mut again = bench.transmit(due);
    again.sort_unstable();
    assert_eq!(again, [4, 5]);
    assert_eq!(bench.session.counters().timeouts, 0);
}

#[test]
fn silence_backs_off_and_an_ack_ends_it() {
    let mut bench = Bench::established(64, 1);
    bench.queue(1);
    bench.transmit(at(1500));
    bench.ack(at(1600), PORT, 2);
    bench.queue(30);
    bench.transmit(at(2000));
    let mut now = at(2000);
    let mut frames = 0;
    for _ in 0..1000 {
        now = bench.session.poll_timeout(now).max(now.after(1));
        bench.session.handle_timeout(now);
        frames += bench.transmit(now).len();
        if now > at(12_000_000) {
            break;
        }
    }
    assert!((40..=120).contains(&frames), "{frames} frames in 10 s of silence");
    // The server is back: one ack, and the window opens again.
    let unacked = bench.session.unacked();
    let (_, seqno, _) = bench.session.pending().find(|(_, _, tries)| *tries > 1).unwrap();
    bench.ack(now.after(100), PORT, seqno);
    let sent = bench.transmit(now.after(200)).len();
    assert!(sent > 1, "{sent} of {unacked}");
}

#[test]
fn numbers_wrap() {
    let first = u32::MAX - 40;
    let mut bench = Bench::established(16, first);
    let mut now = 10_000;
    for round in 0..20 {
        bench.queue(8);
        let sent = bench.transmit(at(now));
        assert_eq!(sent.len(), 8, "round {round}");
        for (i, seqno) in sent.iter().enumerate() {
            assert_eq!(*seqno, first.wrapping_add(1 + round * 8 + i as u32));
        }
        now += 200;
        for seqno in sent.iter().rev() {
            assert!(matches!(bench.ack(at(now), PORT, *seqno), Heard::Acked { .. }));
        }
        assert!(bench.session.is_idle());
        now += 1000;
    }
}

#[test]
fn a_burst_stays_within_what_a_stock_server_absorbs() {
    let mut bench = Bench::established(1024, 1);
    bench.queue(1000);
    let burst = bench.transmit(at(2000)).len();
    assert!((32..=64).contains(&burst), "{burst}");
    let mut jumbo = Session::new(vec![Slot::EMPTY; 1024].leak(), vec![0; 1024 * SPAN].leak(), 4096);
    jumbo.herald(message(0)).unwrap();
    let id = jumbo.poll_transmit(at(0)).unwrap();
    jumbo.on_sent(at(0), id, TxTicket(1));
    jumbo.handle_datagram(at(100), PORT, Ack::new(1).as_bytes());
    for _ in 0..100 {
        jumbo.send(message(0)).unwrap();
    }
    let mut burst = 0;
    while let Some(id) = jumbo.poll_transmit(at(200)) {
        jumbo.on_sent(at(200), id, TxTicket(2));
        burst += 1;
    }
    assert!((12..=24).contains(&burst), "{burst}");
}

#[test]
fn pending_lists_what_is_missing() {
    let mut bench = Bench::established(16, 1);
    bench.queue(5);
    bench.transmit(at(2000));
    bench.queue(2);
    bench.ack(at(2100), PORT, 3);
    let mut numbers: Vec<_> = bench.session.pending().map(|(_, seqno, _)| seqno).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 4, 5, 6, 7, 8]);
}

/// By it a cell is handed back: an earlier one would free what the device still reads.
#[test]
fn the_ticket_is_that_of_the_last_transmission() {
    let mut bench = Bench::established(16, 1);
    bench.queue(1);
    let id = bench.session.poll_transmit(at(2000)).unwrap();
    bench.session.on_sent(at(2000), id, TxTicket(70));
    assert_eq!(bench.session.slot(id).unwrap().ticket, TxTicket(70));
    bench.session.handle_timeout(at(5_000_000));
    assert_eq!(bench.session.poll_transmit(at(5_000_000)), Some(id));
    bench.session.on_sent(at(5_000_000), id, TxTicket(71));
    let Heard::Acked { id, .. } = bench.ack(at(5_000_100), PORT, 2) else { panic!() };
    assert_eq!(bench.session.slot(id).unwrap().ticket, TxTicket(71), "kept when it is free");
}
