//! What a dump looks like from outside: counted from the frames that pass,
//! not from what client or server say.

use debugnet_core::time::Instant;

/// Message types of the debugnet header, as the bytes on the wire have them.
const HERALD: u32 = 1;
const FINISHED: u32 = 2;
const VMCORE: u32 = 3;

/// Bytes of a debugnet message header; a payload of exactly 4 bytes is an ack.
const HEADER_LEN: usize = 24;
const ACK_LEN: usize = 4;

/// Highest sequence number that is tracked: 64 GiB at 1 KiB a message.
const SEQNO_MAX: usize = 1 << 26;

/// Counts of one dump as seen at the guest's end of the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// HERALD messages sent, repetitions included.
    pub heralds: u64,
    /// VMCORE messages sent for the first time.
    pub data_messages: u64,
    /// VMCORE payload in bytes, first transmissions only.
    pub data_bytes: u64,
    /// Messages of any type but HERALD sent again.
    pub retransmits: u64,
    /// VMCORE messages whose ack has reached the guest.
    pub acked_messages: u64,
    /// Their payload in bytes.
    pub acked_bytes: u64,
    /// Acks that have reached the guest, repetitions included.
    pub acks: u64,
    /// Whether FINISHED has been sent.
    pub finished_sent: bool,
    /// When the first VMCORE message left.
    pub first_data: Option<Instant>,
    /// When the last ack of a VMCORE message, not acked before, reached the guest.
    pub last_data_ack: Option<Instant>,
}

impl Traffic {
    /// First data sent to last data acked, in microseconds.
    pub fn data_us(&self) -> Option<u64> {
        Some(self.last_data_ack?.since_us(self.first_data?))
    }

    /// Payload over time in units of 10^6 bytes a second; `None` before the first ack.
    pub fn goodput_mb_s(&self) -> Option<f64> {
        let us = self.data_us().filter(|&us| us > 0)?;
        Some(self.data_bytes as f64 / us as f64)
    }
}

/// Follows one dump. A second dump over the same tracker would need a new one.
#[derive(Debug, Default)]
pub struct Tracker {
    traffic: Traffic,
    /// By sequence number.
    seen: Vec<Seen>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seen {
    #[default]
    Never,
    Sent,
    /// With so much payload.
    DataSent(u16),
    DataAcked,
}

impl Tracker {
    /// The counts so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// The guest sent `payload` over UDP to the herald port or a session port.
    pub fn guest_sent(&mut self, now: Instant, payload: &[u8]) {
        if payload.len() < HEADER_LEN {
            return;
        }
        let kind = be32(&payload[0..4]);
        if kind == HERALD {
            self.traffic.heralds += 1;
            return;
        }
        self.traffic.finished_sent |= kind == FINISHED;
        let Some(seen) = self.seen_mut(be32(&payload[4..8])) else { return };
        match (*seen, kind) {
            (Seen::Never, VMCORE) => {
                // A datagram's payload: it fits.
                let len = (payload.len() - HEADER_LEN) as u16;
                *seen = Seen::DataSent(len);
                self.traffic.data_messages += 1;
                self.traffic.data_bytes += u64::from(len);
                self.traffic.first_data.get_or_insert(now);
            }
            (Seen::Never, _) => *seen = Seen::Sent,
            _ => self.traffic.retransmits += 1,
        }
    }

    /// `payload` of a server's datagram reached the guest.
    pub fn guest_received(&mut self, now: Instant, payload: &[u8]) {
        if payload.len() != ACK_LEN {
            return;
        }
        self.traffic.acks += 1;
        let Some(seen) = self.seen_mut(be32(payload)) else { return };
        if let Seen::DataSent(len) = *seen {
            *seen = Seen::DataAcked;
            self.traffic.acked_messages += 1;
            self.traffic.acked_bytes += u64::from(len);
            self.traffic.last_data_ack = Some(now);
        }
    }

    fn seen_mut(&mut self, seqno: u32) -> Option<&mut Seen> {
        let index = usize::try_from(seqno).ok().filter(|&index| index < SEQNO_MAX)?;
        if index >= self.seen.len() {
            self.seen.resize((index + 1).next_power_of_two(), Seen::Never);
        }
        self.seen.get_mut(index)
    }
}

/// The sequence number of a VMCORE message; `None` for anything else.
pub fn data_seqno(payload: &[u8]) -> Option<u32> {
    (payload.len() >= HEADER_LEN && be32(&payload[..4]) == VMCORE).then(|| be32(&payload[4..8]))
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |value, &byte| value << 8 | u32::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u32, seqno: u32, payload_len: usize) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN + payload_len];
        bytes[..4].copy_from_slice(&kind.to_be_bytes());
        bytes[4..8].copy_from_slice(&seqno.to_be_bytes());
        bytes
    }

    #[test]
    fn first_transmissions_and_repetitions_are_kept_apart() {
        let at = Instant::from_micros;
        let mut tracker = Tracker::default();
        tracker.guest_sent(at(1), &message(HERALD, 1, 0));
        tracker.guest_sent(at(2), &message(HERALD, 1, 0));
        tracker.guest_received(at(3), &1_u32.to_be_bytes());
        for seqno in 2..5 {
            tracker.guest_sent(at(10), &message(VMCORE, seqno, 1000));
        }
        // Never acknowledged.
        tracker.guest_sent(at(10), &message(VMCORE, 7, 10));
        tracker.guest_sent(at(20), &message(VMCORE, 3, 1000));
        for seqno in 2..5_u32 {
            tracker.guest_received(at(30 + u64::from(seqno)), &seqno.to_be_bytes());
        }
        // A second ack of the same message is late, not progress.
        tracker.guest_received(at(99), &4_u32.to_be_bytes());
        tracker.guest_sent(at(40), &message(4, 5, 512));
        tracker.guest_sent(at(50), &message(FINISHED, 6, 0));

        let traffic = tracker.traffic();
        assert_eq!(
            traffic,
            Traffic {
                heralds: 2,
                data_messages: 4,
                data_bytes: 3010,
                retransmits: 1,
                acked_messages: 3,
                acked_bytes: 3000,
                acks: 5,
                finished_sent: true,
                first_data: Some(at(10)),
                last_data_ack: Some(at(34)),
            }
        );
        assert_eq!(traffic.data_us(), Some(24));
        assert_eq!(traffic.goodput_mb_s(), Some(3010.0 / 24.0));
    }

    #[test]
    fn garbage_is_not_counted() {
        let mut tracker = Tracker::default();
        tracker.guest_sent(Instant::ZERO, b"short");
        tracker.guest_sent(Instant::ZERO, &message(VMCORE, u32::MAX, 8));
        tracker.guest_received(Instant::ZERO, b"12345");
        tracker.guest_received(Instant::ZERO, &u32::MAX.to_be_bytes());
        assert_eq!(tracker.traffic(), Traffic { acks: 1, ..Traffic::default() });
    }
}
