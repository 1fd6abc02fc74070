//! Datagrams of any kind into the server's core, over files in memory that fail
//! on demand.
//!
//! An input is a row of records: where to (1 byte), a number (1 byte), a length
//! (2 bytes, little-endian), and as many bytes. Those are a datagram, unless the
//! first byte asks for time to pass or for a fault, or a row of datagrams of
//! equal size, taken as one.
#![no_main]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use debugnet_core::time::Instant;
use debugnet_core::wire::debugnet::{FINISHED, MessageHeader, VMCORE};
use netdumpd::core::{Action, Core, Limits, Series, SessionId, Socket};
use netdumpd::store::{Executor, Faults, MemStore};

const HERALD: u8 = 0;
const SESSION: u8 = 1;
const WAIT: u8 = 2;
const FAULT: u8 = 3;
const ROW: u8 = 4;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

struct Server {
    core: Core,
    executor: Executor,
    store: MemStore,
    now: Instant,
    sessions: Vec<(SessionId, SocketAddr)>,
}

impl Server {
    /// Carries out all there is to do; returns the acks.
    fn settle(&mut self) -> Vec<(SessionId, u32)> {
        let mut acks = Vec::new();
        while let Some(action) = self.executor.next(&mut self.core, &mut self.store, self.now) {
            match action {
                Action::Bind { session, peer, .. } => {
                    self.sessions.push((session, peer));
                    self.core.bound(self.now, session, Ok(()));
                }
                Action::Reply { session, ack, .. } => acks.push((session, ack.seqno.get())),
                _ => {}
            }
        }
        acks
    }

    fn datagram(&mut self, to: Socket, from: SocketAddr, bytes: &[u8]) {
        self.now = self.now.after(10);
        let datagram = Bytes::copy_from_slice(bytes);
        self.core.handle_datagram(self.now, to, from, LOCAL, &datagram);
        let acks = self.settle();
        let Socket::Session(session) = to else { return };
        let Ok((header, payload)) = MessageHeader::parse(bytes) else {
            assert!(acks.is_empty(), "a malformed datagram was acked");
            return;
        };
        let is_acked = acks.contains(&(session, header.seqno.get()));
        match header.kind.get() {
            // One without a byte covers nothing, wherever it says that it lies.
            VMCORE if is_acked && !payload.is_empty() => {
                let dump = self.store.dump(session).expect("files before acks");
                let end = header.offset.get() + payload.len() as u64;
                assert!(end <= dump.vmcore.len() as u64, "what was acked is there");
            }
            FINISHED if is_acked => {
                let dump = self.store.dump(session).expect("files before acks");
                assert!(dump.is_finished, "FINISHED is acked when all is durable");
            }
            _ => {}
        }
    }

    /// The bytes are cut into equal datagrams; those in sequence are taken as one.
    fn row(&mut self, session: SessionId, from: SocketAddr, bytes: &[u8], count: usize) {
        self.now = self.now.after(10);
        let to = Socket::Session(session);
        let mut rows: Vec<(Series, Vec<u8>)> = Vec::new();
        for datagram in bytes.chunks(bytes.len().div_ceil(count).max(1)) {
            let Ok((header, payload)) = MessageHeader::parse(datagram) else {
                self.core.handle_malformed(to, from);
                continue;
            };
            if let Some((series, bytes)) = rows.last_mut()
                && series.take(&header)
            {
                bytes.extend(payload);
            } else {
                rows.push((Series::new(header), payload.to_vec()));
            }
        }
        for (series, payload) in rows {
            self.core.handle_series(self.now, to, from, LOCAL, &series, payload.into());
        }
        self.settle();
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut limits = Limits::default();
    limits.max_dump_len = 1 << 20;
    limits.max_seqno_runs = 64;
    limits.max_byte_runs = 64;
    limits.max_sessions = 16;
    let mut server = Server {
        core: Core::new(limits),
        executor: Executor::default(),
        store: MemStore::default(),
        now: Instant::from_micros(1),
        sessions: Vec::new(),
    };
    let mut rest = data;
    while let [what, number, low, high, tail @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(tail.len());
        let (bytes, after) = tail.split_at(len);
        rest = after;
        let from = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), 20_024 + u16::from(number % 4));
        match *what {
            HERALD => server.datagram(Socket::Herald, from, bytes),
            SESSION => {
                let at = usize::from(*number) % server.sessions.len().max(1);
                let Some(&(session, peer)) = server.sessions.get(at) else { continue };
                server.datagram(Socket::Session(session), peer, bytes);
            }
            ROW => {
                let at = usize::from(*number >> 4) % server.sessions.len().max(1);
                let Some(&(session, peer)) = server.sessions.get(at) else { continue };
                server.row(session, peer, bytes, usize::from(*number & 15) + 1);
            }
            WAIT => {
                server.now = server.now.after(u64::from(*number) * 4_000_000);
                server.core.handle_timeout(server.now);
                server.settle();
            }
            FAULT => {
                server.store.faults = Faults {
                    open: number & 1 > 0,
                    header: number & 2 > 0,
                    finish: number & 4 > 0,
                    write_at: (number & 8 > 0).then_some(u64::from(number >> 4) * 512),
                };
            }
            // A datagram from somebody else to a session's socket.
            _ => {
                let session = server.sessions.first().map_or(SessionId(1), |(session, _)| *session);
                server.core.handle_datagram(server.now, Socket::Session(session), from, LOCAL, &Bytes::copy_from_slice(bytes));
                server.settle();
            }
        }
    }
    server.core.stop(server.now);
    server.settle();
    assert_eq!(server.core.sessions().count(), 0, "every session ends");
    let ends: HashMap<_, _> =
        server.store.dumps().map(|(id, dump)| (id, dump.record.is_some())).collect();
    assert!(ends.values().all(|has_record| *has_record), "every dump has its record: {ends:?}");
});
