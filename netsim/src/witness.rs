//! What happened on the wire, for comparison with what the client says: no simulator run may end in a lie.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use debugnet_core::Progress;
use debugnet_core::dump::{Failure, Outcome, Verdict};
use debugnet_core::observer::{Event, Observer};
use debugnet_core::time::Instant;
use debugnet_core::wire::debugnet::{FINISHED, HERALD, MessageHeader, VMCORE};
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, UdpPacket};

/// A message that was on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Its type.
    pub kind: u32,
    /// Bytes of payload.
    pub len: u32,
    /// A frame that may count as its ack came to the client.
    pub is_acked: bool,
}

/// The messages of the last conversation that left the client, and what came back.
#[derive(Debug, Default)]
pub struct Witness {
    /// By sequence number.
    pub sent: BTreeMap<u32, Sent>,
    frames: u32,
    conversations: u32,
}

/// Bytes of an 802.1Q tag.
const TAG_LEN: usize = 4;

/// A frame as it is without a VLAN tag.
fn untagged(frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    if bytes.get(12..14) == Some(&[0x81, 0]) && bytes.len() >= 14 + TAG_LEN {
        bytes.drain(12..12 + TAG_LEN);
    }
    bytes
}

/// The addresses, the ports and the payload of a sound UDP datagram.
fn datagram(frame: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr, u16, Vec<u8>)> {
    let bytes = untagged(frame);
    let ethernet = EthernetFrame::new_checked(&bytes).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    let is_whole = !ip.more_frags() && ip.frag_offset() == 0;
    if !is_whole || !ip.verify_checksum() || ip.next_header() != IpProtocol::Udp {
        return None;
    }
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    let udp = UdpPacket::new_checked(ip.payload()).ok()?;
    let is_sound = udp.verify_checksum(&from.into(), &to.into());
    is_sound.then(|| (from, to, udp.dst_port(), udp.payload().to_vec()))
}

impl Witness {
    /// A frame left the client.
    pub fn sent(&mut self, frame: &[u8]) {
        let bytes = untagged(frame);
        let Some(message) = bytes.get(14 + 20 + 8..) else { return };
        if bytes[12..14] != [8, 0] {
            return;
        }
        let Ok((header, _)) = MessageHeader::parse(message) else { return };
        let (kind, len) = (header.kind.get(), header.len.get());
        if kind == HERALD && self.sent.values().any(|sent| sent.kind != HERALD)
            || self.sent.is_empty()
        {
            (self.sent, self.frames) = (BTreeMap::new(), 0);
            self.conversations += 1;
        }
        self.frames += 1;
        // A message whose memory turned out unreadable goes on with less.
        let sent =
            self.sent.entry(header.seqno.get()).or_insert(Sent { kind, len, is_acked: false });
        sent.len = sent.len.max(len);
    }

    /// A frame is about to come to the client, at this address and port.
    pub fn delivered(&mut self, frame: &[u8], client: (Ipv4Addr, u16), server: Ipv4Addr) {
        let Some((from, to, port, payload)) = datagram(frame) else { return };
        let Ok(seqno) = <[u8; 4]>::try_from(&payload[..]).map(u32::from_be_bytes) else { return };
        if from == server
            && (to, port) == client
            && let Some(sent) = self.sent.get_mut(&seqno)
        {
            sent.is_acked = true;
        }
    }

    fn data(&self) -> impl Iterator<Item = &Sent> {
        self.sent.values().filter(|sent| sent.kind == VMCORE)
    }

    /// What the client says of its one conversation is what was on the wire.
    ///
    /// # Panics
    /// It lies.
    pub fn judge(&self, outcome: &Outcome) {
        if outcome.targets_tried > 1 || self.conversations > 1 {
            return;
        }
        let bytes = |sent: &Sent| u64::from(sent.len);
        let acked: u64 = self.data().filter(|sent| sent.is_acked).map(bytes).sum();
        let passed: u64 = self.data().map(bytes).sum();
        assert!(outcome.acked_bytes <= acked, "{acked} bytes were acked: {outcome:?}");
        assert!(outcome.transmissions >= self.frames, "{} frames passed: {outcome:?}", self.frames);
        assert!(outcome.messages as usize >= self.sent.len(), "{outcome:?}");
        let others = self.sent.values().filter(|sent| sent.kind != FINISHED);
        match outcome.verdict {
            Verdict::Confirmed => {
                assert!(self.sent.values().all(|sent| sent.is_acked), "{outcome:?}");
                assert!(self.sent.values().any(|sent| sent.kind == FINISHED), "{outcome:?}");
                assert_eq!(self.sent.len(), outcome.messages as usize, "{outcome:?}");
                assert!(outcome.sent_bytes <= passed && outcome.holes.is_empty(), "{outcome:?}");
            }
            Verdict::Unconfirmed => {
                assert!({ others }.all(|sent| sent.is_acked) && outcome.holes.is_empty());
            }
            _ => assert!(outcome.failure.is_some() && !outcome.is_complete(), "{outcome:?}"),
        }
    }
}

/// An observer that hears all that another one hears, and remembers what was claimed.
pub struct Listener<'a> {
    inner: &'a mut dyn Observer,
    progress: &'a Progress,
    finished: Option<Verdict>,
    failure: Option<Failure>,
    done: u64,
}

impl<'a> Listener<'a> {
    /// In front of `inner`.
    pub fn new(inner: &'a mut dyn Observer, progress: &'a Progress) -> Self {
        Self { inner, progress, finished: None, failure: None, done: 0 }
    }

    /// The end that was told is the end that came.
    ///
    /// # Panics
    /// Observer, progress and outcome differ.
    pub fn judge(&self, outcome: &Outcome) {
        if outcome.targets_tried > 1 {
            return;
        }
        if self.finished.is_some() || outcome.verdict != Verdict::Failed {
            assert_eq!(self.finished, Some(outcome.verdict), "{outcome:?}");
        }
        if outcome.failure.is_some() {
            assert!(self.failure.is_some(), "a failure nobody was told of: {outcome:?}");
        }
        let told = self.progress.acked_bytes();
        assert_eq!(told >> 12, outcome.acked_bytes >> 12, "progress says {told}: {outcome:?}");
    }
}

impl Observer for Listener<'_> {
    fn event(&mut self, now: Instant, event: &Event) {
        match *event {
            Event::Target { .. } => (self.finished, self.done) = (None, 0),
            Event::Progress { done, total, .. } => {
                assert!(self.done <= done && done <= total, "{event:?} after {}", self.done);
                self.done = done;
            }
            Event::Failure(failure) => self.failure = Some(failure),
            Event::Finished(verdict) => self.finished = Some(verdict),
            _ => {}
        }
        self.inner.event(now, event);
    }

    fn alive(&mut self, now: Instant) {
        self.inner.alive(now);
    }
}
