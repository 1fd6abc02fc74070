//! The host that answers the living kernel's questions: a program of its own
//! behind the relay, as the server is, so that an answer and an ack come the same way.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::wire::EthernetAddress;

use super::relay::Relay;
use crate::live::{self, Kind};

/// Longest sleep: how late it notices that it is to end.
const SLEEP_MAX: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// A running answerer. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Answerer {
    address: SocketAddrV4,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Answerer {
    /// Answers whole frames sent to a port of `ip`, in the name of `mac`.
    pub(super) fn start(ip: Ipv4Addr, mac: EthernetAddress) -> io::Result<Self> {
        let mut socket = Relay::bind(SocketAddrV4::new(ip, 0))?;
        let address = socket.address()?;
        let stop = Arc::new(AtomicBool::new(false));
        let its_stop = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("answerer".into()).spawn(move || {
            // What ends it early is seen by the guest, whose questions stay without an answer.
            while !its_stop.load(Ordering::Relaxed) && answer_all(&mut socket, mac).is_ok() {}
        })?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where frames are sent to, and answers come from.
    pub(super) fn address(&self) -> SocketAddrV4 {
        self.address
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It has nothing to say.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Waits for questions and answers those that are there.
fn answer_all(socket: &mut Relay, mac: EthernetAddress) -> io::Result<()> {
    match poll(&mut [PollFd::new(&*socket, PollFlags::IN)], Some(&SLEEP_MAX)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut asked = Vec::new();
    // Once: what is left is taken in the next turn, and a flood keeps nobody from ending this.
    socket.receive(|from, frame| match live::parse(frame) {
        Some(live) if live.kind == Kind::Ask => asked.push((from, live)),
        _ => {}
    })?;
    let mut answer = Vec::new();
    for (from, live) in asked {
        live::build_answer(&mut answer, mac, live.from, live.number);
        socket.queue(from, &answer);
    }
    socket.flush();
    Ok(())
}
