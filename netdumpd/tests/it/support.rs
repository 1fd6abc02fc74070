//! What the integration tests share.

use std::path::Path;

use bytes::Bytes;
use debugnet_core::time::Instant;
use debugnet_core::wire::debugnet::MessageHeader;
use debugnet_core::wire::kdh::{KernelDumpHeader, copy_str};
use netdumpd::core::{Action, Core, SessionId, Socket};
use netdumpd::store::{Executor, Store};
use zerocopy::IntoBytes;

/// Says that a test does not run here, and why; `cargo xtask test` counts it.
/// Not through `println!`, whose output a passing test keeps to itself.
pub(crate) fn skip(name: &str, reason: &str) {
    use std::io::Write;
    let line = format!("\nskipped: {name}: {reason}\n");
    std::io::stdout().write_all(line.as_bytes()).expect("standard output");
}

/// One UDP datagram of a capture.
pub(crate) struct Recorded {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) payload: Bytes,
}

/// The UDP datagrams of a capture of Ethernet frames with plain IPv4 headers.
pub(crate) fn datagrams(name: &str) -> Vec<Recorded> {
    const UDP_AT: usize = 14 + 20;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata").join(name);
    let file = std::fs::File::open(path).expect("a capture");
    let mut reader = pcap_file::pcap::PcapReader::new(file).expect("a pcap header");
    let mut found = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let frame = packet.expect("a packet").data;
        if frame[12..14] != [0x08, 0x00] {
            continue;
        }
        assert_eq!((frame[14], frame[14 + 9]), (0x45, 17), "IPv4 without options, UDP");
        let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let udp_len = usize::from(word(UDP_AT + 4));
        found.push(Recorded {
            source_port: word(UDP_AT),
            destination_port: word(UDP_AT + 2),
            payload: Bytes::copy_from_slice(&frame[UDP_AT + 8..UDP_AT + udp_len]),
        });
    }
    found
}

/// A message as it is on the wire.
pub(crate) fn message(kind: u32, seqno: u32, offset: u64, payload: &[u8]) -> Bytes {
    message_with(kind, seqno, offset, 0, payload)
}

/// A message with a consumer's word.
pub(crate) fn message_with(kind: u32, seqno: u32, offset: u64, aux2: u32, payload: &[u8]) -> Bytes {
    let header = MessageHeader {
        kind: kind.into(),
        seqno: seqno.into(),
        offset: offset.into(),
        len: u32::try_from(payload.len()).unwrap().into(),
        aux2: aux2.into(),
    };
    [header.as_bytes(), payload].concat().into()
}

/// A sound kernel dump header.
pub(crate) fn dump_header(dump_length: u64) -> KernelDumpHeader {
    let mut header = KernelDumpHeader::new();
    copy_str(&mut header.architecture, b"amd64");
    copy_str(&mut header.hostname, b"peer");
    copy_str(&mut header.panic_string, b"test panic");
    header.dump_length = dump_length.into();
    header.seal();
    header
}

/// Bytes that tell their position.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

/// Core, executor and store, driven to rest after each datagram.
pub(crate) struct Rig<S: Store> {
    pub(crate) core: Core,
    pub(crate) executor: Executor,
    pub(crate) store: S,
    pub(crate) now: Instant,
    /// Everything but replies, in order.
    pub(crate) actions: Vec<Action>,
    /// Acks sent: session and number.
    pub(crate) acks: Vec<(SessionId, u32)>,
}

impl<S: Store> Rig<S> {
    pub(crate) fn new(core: Core, store: S) -> Self {
        Self {
            core,
            executor: Executor::default(),
            store,
            now: Instant::from_micros(1),
            actions: Vec::new(),
            acks: Vec::new(),
        }
    }

    /// Gives the core a datagram and carries out all that follows. Returns the acks.
    pub(crate) fn datagram(&mut self, socket: Socket, from: &str, datagram: &Bytes) -> Vec<u32> {
        let local = "10.99.0.2".parse().unwrap();
        self.core.handle_datagram(self.now, socket, from.parse().unwrap(), local, datagram);
        self.settle()
    }

    pub(crate) fn settle(&mut self) -> Vec<u32> {
        let first = self.acks.len();
        while let Some(action) = self.executor.next(&mut self.core, &mut self.store, self.now) {
            match &action {
                Action::Bind { session, .. } => self.core.bound(self.now, *session, Ok(())),
                Action::Reply { session, ack, .. } => {
                    assert_eq!(ack.as_bytes(), ack.seqno.get().to_be_bytes());
                    self.acks.push((*session, ack.seqno.get()));
                    continue;
                }
                _ => {}
            }
            self.actions.push(action);
        }
        self.acks[first..].iter().map(|(_, seqno)| *seqno).collect()
    }

    /// Lets time pass and ends what is over.
    pub(crate) fn pass(&mut self, micros: u64) {
        self.now = self.now.after(micros);
        self.core.handle_timeout(self.now);
        self.settle();
    }

    /// The session the last ack came from.
    pub(crate) fn last_session(&self) -> SessionId {
        self.acks.last().expect("an ack").0
    }
}
