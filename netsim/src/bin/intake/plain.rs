//! The plain server: for each event one receive, one copy, one send. A buffer of
//! 128 KiB a client is written when it is full or the next payload does not
//! follow. Acks come before the write.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::FileExt;
use std::path::Path;

use debugnet_core::wire::debugnet::{Ack, FINISHED, HERALD, MessageHeader, VMCORE};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use zerocopy::IntoBytes;

/// Written at once.
const BUFFER_LEN: usize = 128 << 10;
/// Events taken with one call.
const EVENTS: usize = 8;
/// What its sockets may hold, as netdumpd's: neither is to lose datagrams.
const RECEIVE_BUFFER_LEN: usize = 8 << 20;

struct Client {
    socket: UdpSocket,
    file: File,
    buffer: Vec<u8>,
    /// Where the buffer goes.
    offset: u64,
}

/// Serves until it is killed; the first line on standard output is the address.
pub(crate) fn serve(dir: &Path) -> io::Result<()> {
    let herald = UdpSocket::bind("127.0.0.1:0")?;
    println!("{}", herald.local_addr()?);
    io::stdout().flush()?;
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &herald, EventData::new_u64(0), EventFlags::IN)?;
    let mut clients: HashMap<u64, Client> = HashMap::new();
    let mut packet = vec![0; 65536];
    loop {
        let mut events =
            [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS];
        let count = match epoll::wait(&poll, &mut events[..], None) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..count] {
            let token = { event.data }.u64();
            if token == 0 {
                let (len, from) = herald.recv_from(&mut packet)?;
                if MessageHeader::parse(&packet[..len]).is_ok_and(|(h, _)| h.kind.get() == HERALD) {
                    let token = clients.len() as u64 + 1;
                    let client = Client::open(dir, from)?;
                    epoll::add(&poll, &client.socket, EventData::new_u64(token), EventFlags::IN)?;
                    clients.insert(token, client);
                }
            } else if let Some(client) = clients.get_mut(&token) {
                client.event(&mut packet)?;
            }
        }
    }
}

impl Client {
    fn open(dir: &Path, from: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_LEN)
            .is_err()
        {
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_LEN);
        }
        socket.connect(from)?;
        socket.send(Ack::new(1).as_bytes())?;
        let file = File::create_new(dir.join(format!("vmcore.{}.0", from.ip())))?;
        Ok(Self { socket, file, buffer: Vec::with_capacity(BUFFER_LEN), offset: 0 })
    }

    fn event(&mut self, packet: &mut [u8]) -> io::Result<()> {
        let len = self.socket.recv(packet)?;
        let Ok((header, payload)) = MessageHeader::parse(&packet[..len]) else { return Ok(()) };
        match header.kind.get() {
            VMCORE => {
                let follows = self.offset + self.buffer.len() as u64 == header.offset.get();
                if self.buffer.len() + payload.len() > BUFFER_LEN || !follows {
                    self.flush()?;
                }
                if self.buffer.is_empty() {
                    self.offset = header.offset.get();
                }
                self.buffer.extend_from_slice(payload);
            }
            FINISHED => {
                self.flush()?;
                self.file.sync_all()?;
            }
            _ => {}
        }
        self.socket.send(Ack::new(header.seqno.get()).as_bytes())?;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.offset)?;
        self.buffer.clear();
        Ok(())
    }
}
