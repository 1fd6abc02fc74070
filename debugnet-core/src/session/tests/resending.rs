//! When a message is sent again: on a path of one known round trip the instants
//! are exact. Sent too soon, it is a frame in vain; too late, a stall.

use super::*;

/// Round trip of the path, in microseconds.
const RTT: u64 = 1000;
/// How long after its sending a message that others overtook is given: the
/// round trip, a quarter of it for reordering, and a step of the clock.
const GIVEN: u64 = RTT + RTT / 4 + 1;
/// The first probe of a silent tail, and the time-out without back-off.
const PROBE: u64 = 5000;
const TIMEOUT: u64 = 40_000;

/// A path whose round trip is known, and the next instant to use.
fn known_path() -> (Bench, u64) {
    let mut bench = Bench::established(64, 1);
    let mut now = 10_000;
    // The clock shows single microseconds.
    bench.session.handle_timeout(at(now - 2));
    bench.session.handle_timeout(at(now - 1));
    for seqno in 2..42 {
        bench.queue(1);
        assert_eq!(bench.transmit(at(now)), [seqno]);
        now += RTT;
        bench.ack(at(now), PORT, seqno);
    }
    assert_eq!(bench.session.srtt_us(), Some(RTT));
    (bench, now + 1000)
}

/// Queues as many as `after`, and sends each at its time after `now`. Returns the first number.
fn send(bench: &mut Bench, now: u64, after: &[u64]) -> u32 {
    let first = bench.session.next_seqno;
    for (seqno, after) in (first..).zip(after) {
        bench.queue(1);
        assert_eq!(bench.transmit(at(now + after)), [seqno]);
    }
    first
}

/// What is sent again from `now` on, if nothing is heard before `until`: instant and number.
fn sent_again(bench: &mut Bench, mut now: u64, until: u64) -> Vec<(u64, u32)> {
    let mut sent = Vec::new();
    for _ in 0..1000 {
        let due = bench.session.poll_timeout(at(now));
        if due >= at(until) {
            return sent;
        }
        now = now.max(due.as_micros());
        bench.session.handle_timeout(at(now));
        sent.extend(bench.transmit(at(now)).into_iter().map(|seqno| (now, seqno)));
    }
    panic!("a thousand looks, and never nothing to do: {sent:?}");
}

#[test]
fn an_ack_ends_the_back_off() {
    let (mut bench, mut now) = known_path();
    for round in 0..3 {
        let seqno = send(&mut bench, now, &[0]);
        // A probe, then time-outs of 40, 80, 160, and 200 ms from then on.
        let mut due = now + PROBE;
        let mut expected = vec![(due, seqno)];
        for wait in [TIMEOUT, 2 * TIMEOUT, 4 * TIMEOUT, 200_000, 200_000] {
            due += wait;
            expected.push((due, seqno));
        }
        assert_eq!(sent_again(&mut bench, now, due + 1), expected, "silence {round}");
        now = due + RTT;
        assert!(matches!(bench.ack(at(now), PORT, seqno), Heard::Acked { .. }));
        now += 1000;
    }
    assert_eq!(bench.session.counters().retransmits, 3 * 6);
    assert_eq!(bench.session.counters().timeouts, 3 * 5);
}

#[test]
fn each_silence_has_its_probe() {
    let (mut bench, mut now) = known_path();
    for round in 0..5 {
        let seqno = send(&mut bench, now, &[0]);
        assert_eq!(
            sent_again(&mut bench, now, now + PROBE + TIMEOUT),
            [(now + PROBE, seqno)],
            "one probe, silence {round}"
        );
        now += PROBE + RTT;
        bench.ack(at(now), PORT, seqno);
        now += 1000;
    }
    assert_eq!(bench.session.counters().timeouts, 0);
}

/// An ack that comes too soon answers an earlier transmission, and says nothing of those in between.
#[test]
fn an_ack_that_comes_too_soon_loses_nothing() {
    let (mut bench, now) = known_path();
    let late = send(&mut bench, now, &[0]);
    let between = now + PROBE - 100;
    let first = send(&mut bench, between, &[0, 0, 0]);
    bench.session.handle_timeout(at(now + PROBE));
    assert_eq!(bench.transmit(at(now + PROBE)), [late], "probed");
    // The answer to its first transmission, half a round trip after the second.
    bench.ack(at(now + PROBE + RTT / 2 - 1), PORT, late);
    assert_eq!(sent_again(&mut bench, now + PROBE + RTT / 2 - 1, between + 2 * RTT), []);
    for seqno in first..first + 3 {
        bench.ack(at(between + 2 * RTT), PORT, seqno);
    }
    assert_eq!(bench.session.counters().retransmits, 1);
    assert!(bench.session.is_idle());
}

/// One that takes a round trip answers the last transmission.
#[test]
fn an_ack_in_its_time_tells_of_those_before() {
    let (mut bench, now) = known_path();
    let late = send(&mut bench, now, &[0]);
    let between = now + PROBE - 100;
    let first = send(&mut bench, between, &[0, 0]);
    bench.session.handle_timeout(at(now + PROBE));
    assert_eq!(bench.transmit(at(now + PROBE)), [late], "probed");
    bench.ack(at(now + PROBE + RTT), PORT, late);
    let due = between + GIVEN;
    let again = sent_again(&mut bench, now + PROBE + RTT, due + 1000);
    assert_eq!(again, [(due, first), (due, first + 1)]);
}

#[test]
fn an_overtaken_message_is_given_its_time_and_no_more() {
    let (mut bench, now) = known_path();
    let first = send(&mut bench, now, &[0, 10, 20, 30]);
    // The third never comes; what is acked last was sent first.
    let heard = now + 30 + RTT;
    for seqno in [first + 3, first + 1, first] {
        bench.ack(at(heard), PORT, seqno);
    }
    let due = now + 20 + GIVEN;
    assert_eq!(bench.session.poll_timeout(at(heard)), at(due));
    assert_eq!(sent_again(&mut bench, heard, due + 1000), [(due, first + 2)]);
    assert_eq!(bench.session.counters().timeouts, 0);
}

/// Frames that leave in one batch leave in one instant.
#[test]
fn a_loss_in_a_batch_is_found_by_its_order() {
    let (mut bench, now) = known_path();
    let first = send(&mut bench, now, &[0, 0, 0]);
    bench.ack(at(now + RTT), PORT, first + 1);
    let due = now + GIVEN;
    // The first was overtaken. The last was not: it has until it is probed.
    assert_eq!(sent_again(&mut bench, now + RTT, due + 1000), [(due, first)]);
}

/// One overtakes another by `late` microseconds more than is allowed for: is it sent again?
fn reordered(bench: &mut Bench, now: u64, late: u64) -> usize {
    let first = send(bench, now, &[0, 10]);
    bench.ack(at(now + 10 + RTT), PORT, first + 1);
    let again = sent_again(bench, now + 10 + RTT, now + RTT + late).len();
    bench.ack(at(now + RTT + late), PORT, first);
    assert!(bench.session.is_idle());
    again
}

/// When a loss is found: microseconds after the sending. It is sent again, and arrives then.
fn loss_found(bench: &mut Bench, now: u64) -> u64 {
    let first = send(bench, now, &[0, 10]);
    bench.ack(at(now + 10 + RTT), PORT, first + 1);
    let [(due, _)] = sent_again(bench, now + 10 + RTT, now + 3 * RTT)[..] else { panic!() };
    bench.ack(at(due + RTT), PORT, first);
    assert!(bench.session.is_idle());
    due - now
}

#[test]
fn a_path_that_reorders_is_given_more_and_forgets_in_time() {
    let (mut bench, mut now) = known_path();
    let mut step = || {
        now += 10_000;
        now
    };
    assert_eq!(loss_found(&mut bench, step()), GIVEN);
    assert_eq!(reordered(&mut bench, step(), 400), 1, "more than it knows");
    assert_eq!(reordered(&mut bench, step(), 400), 0, "learned");
    assert_eq!(reordered(&mut bench, step(), 900), 1);
    assert_eq!(reordered(&mut bench, step(), 900), 0);
    // A round trip is given now. Each sixteen losses that were some take an eighth of it back.
    for eighths in (2..=8).rev() {
        for _ in 0..16 {
            assert_eq!(loss_found(&mut bench, step()), RTT + RTT / 8 * eighths + 1);
        }
    }
    assert_eq!(loss_found(&mut bench, step()), GIVEN, "a quarter stays");
}

/// Declared lost and not yet sent again when its ack comes: that was no loss either.
#[test]
fn an_ack_of_what_waits_to_be_sent_again_counts() {
    let (mut bench, now) = known_path();
    let first = send(&mut bench, now, &[0, 10]);
    bench.ack(at(now + 10 + RTT), PORT, first + 1);
    bench.session.handle_timeout(at(now + GIVEN));
    assert!(matches!(bench.ack(at(now + RTT + 400), PORT, first), Heard::Acked { .. }));
    assert!(bench.transmit(at(now + RTT + 400)).is_empty(), "nothing is left to send");
    assert!(bench.session.is_idle());
    assert_eq!(reordered(&mut bench, now + 10_000, 400), 0, "learned from it");
}

/// Silence counts from what was sent last, if nothing was heard since.
#[test]
fn what_was_sent_just_now_is_given_a_whole_time_out() {
    let (mut bench, now) = known_path();
    let first = send(&mut bench, now, &[0, 4000]);
    // The probe sends the first again; the second is then the oldest of the flight.
    let probed = (now + PROBE, first);
    let due = now + 4000 + TIMEOUT;
    let again = sent_again(&mut bench, now, due + 1);
    assert_eq!(again, [probed, (due, first + 1)]);
}
