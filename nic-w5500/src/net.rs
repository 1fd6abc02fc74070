//! The network interface: [`W5500`].

use debugnet_core::addr::MacAddr;
use debugnet_core::nic::{
    Capabilities, ChecksumOffload, Link, Nic, NicError, Payload, PayloadKind, RxError, Start,
    TxError, TxFrame, TxTicket,
};
use debugnet_core::time::Clock;
use embedded_hal::delay::DelayNs;
use embedded_hal::spi::SpiDevice;

use crate::chip::{BUFFER_LEN, Block, Chip, Lost, common, socket};
use crate::queue::{FRAMES, Queue};
use crate::start::{self, Open, Phase, Step};

/// The longest frame that the chip takes, without FCS, and the shortest.
const FRAME_MAX: u16 = 1514;
const FRAME_MIN: u16 = 60;
/// Ethernet header, and a VLAN tag: room for one is kept.
const HEADER_LEN: u16 = 14;
const TAG_LEN: u16 = 4;
const IP_MTU: u16 = FRAME_MAX - HEADER_LEN - TAG_LEN;
/// The length in front of a received frame; it counts itself.
const PREFIX_LEN: u16 = 2;
/// Failed transfers in a row before the bus is given up.
const BUS_ERRORS_MAX: u8 = 16;
/// Socket 0 opened anew, after the take-over, before the chip is given up.
const REOPENS: u8 = 8;
/// Looks at a frame under way before the socket is looked at, and such checks
/// in a row before a sound-looking chip counts as stuck.
const TX_LOOKS: u32 = 1024;
const TX_CHECKS_MAX: u32 = 256;
/// Fruitless looks for a received frame before the socket is looked at.
const RX_LOOKS: u32 = 4096;

/// A WIZnet W5500 behind an SPI bus.
///
/// `S` is the chip's place on the bus, `D` waits between two looks at it. Both
/// must belong to the crash path alone and poll: one that takes a lock, or
/// waits for an interrupt or a DMA channel, may never come back.
///
/// Frames are written to the chip's 16 KiB of transmit memory and sent one by
/// one; ten can lie there. A transfer that fails costs nothing but its frame:
/// [`Nic::transmit`] says [`TxError::Full`], and the core offers it again.
/// Sixteen in a row are [`NicError::Bus`]. A socket that closed by itself, or
/// counts what cannot be, is opened anew up to eight times, which completes
/// all tickets and loses what had been received.
#[derive(Debug)]
pub struct W5500<S, D> {
    chip: Chip<S, D>,
    mac: MacAddr,
    queue: Queue,
    /// A transfer failed as the frame under way was shown to the chip: perhaps it is not.
    unsure: bool,
    /// Where the next received frame begins.
    rx_read: u16,
    /// The chip may not know that yet.
    rx_unsaid: bool,
    state: State,
    bus_errors_in_row: u8,
    reopens_left: u8,
    tx_looks: u32,
    tx_checks: u32,
    rx_looks: u32,
    counters: Counters,
}

/// What has gone wrong and was put right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Transfers that failed.
    pub bus_errors: u32,
    /// Times that socket 0 was opened again after the take-over.
    pub reopened: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The chip is not ours yet.
    Idle,
    Starting(Phase),
    Running,
    Stopped,
    Failed(NicError),
}

impl<S: SpiDevice, D: DelayNs> W5500<S, D> {
    /// The driver. Touches nothing on the bus.
    ///
    /// The chip holds no station address of its own: `mac` is what the
    /// firmware used, or one that is set aside for dumps.
    pub const fn new(spi: S, delay: D, mac: MacAddr) -> Self {
        Self {
            chip: Chip::new(spi, delay),
            mac,
            queue: Queue::new(),
            unsure: false,
            rx_read: 0,
            rx_unsaid: false,
            state: State::Idle,
            bus_errors_in_row: 0,
            reopens_left: 0,
            tx_looks: 0,
            tx_checks: 0,
            rx_looks: 0,
            counters: Counters { bus_errors: 0, reopened: 0 },
        }
    }

    /// What has gone wrong and was put right so far.
    pub const fn counters(&self) -> Counters {
        Counters { bus_errors: self.chip.bus_errors, ..self.counters }
    }

    fn usable(&self) -> Result<(), NicError> {
        match self.state {
            State::Running => Ok(()),
            State::Failed(error) => Err(error),
            State::Idle | State::Starting(_) | State::Stopped => Err(NicError::NotStarted),
        }
    }

    /// Takes the result of some transfers: `None` if they failed and may be tried again.
    fn survive<T>(&mut self, result: Result<T, Lost>) -> Result<Option<T>, NicError> {
        match result {
            Ok(value) => {
                self.bus_errors_in_row = 0;
                Ok(Some(value))
            }
            Err(Lost::Bus) => {
                self.bus_errors_in_row = self.bus_errors_in_row.saturating_add(1);
                if self.bus_errors_in_row < BUS_ERRORS_MAX {
                    return Ok(None);
                }
                Err(self.fail(NicError::Bus))
            }
            Err(Lost::Chip(what)) => {
                self.reopen(NicError::Protocol(what))?;
                Ok(None)
            }
        }
    }

    fn fail(&mut self, error: NicError) -> NicError {
        self.state = State::Failed(error);
        error
    }

    /// Opens socket 0 anew because of `why`, or fails for good.
    fn reopen(&mut self, mut why: NicError) -> Result<(), NicError> {
        while let Some(left) = self.reopens_left.checked_sub(1) {
            self.reopens_left = left;
            self.counters.reopened = self.counters.reopened.saturating_add(1);
            // A chip that was reset has lost its address and its buffers too.
            match start::configure(&mut self.chip, self.mac) {
                Ok(Open { tx, rx }) => {
                    self.go_live(tx, rx);
                    return Ok(());
                }
                Err(error) => why = error,
            }
        }
        Err(self.fail(why))
    }

    fn go_live(&mut self, tx: u16, rx: u16) {
        self.queue.reset(tx);
        self.unsure = false;
        self.rx_read = rx;
        self.rx_unsaid = false;
        self.state = State::Running;
        self.tx_looks = 0;
        self.tx_checks = 0;
        self.rx_looks = 0;
    }

    /// Whether socket 0 still is as we opened it; opens it again if not.
    fn check(&mut self) -> Result<(), NicError> {
        let open = start::is_open(&mut self.chip);
        if self.survive(open)? == Some(false) {
            self.reopen(NicError::Failed)?;
        }
        Ok(())
    }

    /// Shows the chip the next frame, if it is not busy with one.
    fn send_next(&mut self) -> Result<(), Lost> {
        let Some(end) = self.queue.to_send() else { return Ok(()) };
        // Shown twice, a frame that has left would be an empty one: if a
        // transfer fails here, it counts as under way until time tells.
        self.queue.sending = true;
        self.unsure = true;
        self.chip.write16(Block::Socket(0), socket::TX_WR, end)?;
        self.chip.command(socket::SEND)?;
        self.unsure = false;
        Ok(())
    }

    /// After a long wait for a frame: whether the socket still is open, and
    /// what became of the frame if a transfer failed as it was shown to the
    /// chip or as its flag was cleared.
    fn look_closer(&mut self) -> Result<(), NicError> {
        self.tx_checks = self.tx_checks.saturating_add(1);
        self.check()?;
        if self.tx_checks >= TX_CHECKS_MAX {
            self.tx_checks = 0;
            return self.reopen(NicError::Timeout("W5500 transmit"));
        }
        if self.queue.sending {
            let read = self.chip.counter(socket::TX_RD);
            if let Some(read) = self.survive(read)? {
                if self.queue.end_of_first() == Some(read) {
                    self.queue.sent();
                } else if self.unsure {
                    self.queue.sending = false;
                }
                self.unsure = false;
            }
        }
        Ok(())
    }

    /// Looks whether the frame under way has left. A chip that gave up on it
    /// (half duplex, too many collisions) is done with it too.
    fn reap(&mut self) -> Result<bool, Lost> {
        let flags = self.chip.read8(Block::Socket(0), socket::IR)?;
        if flags & (socket::IR_SEND_OK | socket::IR_TIMEOUT) == 0 {
            return Ok(false);
        }
        self.chip.write8(Block::Socket(0), socket::IR, socket::IR_SEND_OK | socket::IR_TIMEOUT)?;
        self.unsure = false;
        self.queue.sent();
        Ok(true)
    }

    /// The next frame's bytes in `buf`: its length, or why there is none.
    fn fetch(&mut self, buf: &mut [u8]) -> Result<Fetched, Lost> {
        if self.rx_unsaid {
            self.say_read()?;
        }
        let waiting = self.chip.counter(socket::RX_RSR)?;
        if waiting == 0 {
            return Ok(Fetched::Nothing);
        }
        let mut prefix = [0; PREFIX_LEN as usize];
        self.chip.read(Block::Rx, self.rx_read, &mut prefix)?;
        let whole = u16::from_be_bytes(prefix);
        let len = whole.saturating_sub(PREFIX_LEN);
        // Once a length is wrong, all that follow are read from the wrong place.
        if whole > waiting || waiting > BUFFER_LEN || !(HEADER_LEN..=FRAME_MAX).contains(&len) {
            return Err(Lost::Chip("W5500: a received length that cannot be"));
        }
        let fetched = match buf.get_mut(..usize::from(len)) {
            Some(into) => {
                self.chip.read(Block::Rx, self.rx_read.wrapping_add(PREFIX_LEN), into)?;
                Fetched::Frame(usize::from(len))
            }
            None => Fetched::TooLong(len),
        };
        self.rx_read = self.rx_read.wrapping_add(whole);
        self.rx_unsaid = true;
        match self.say_read() {
            // The frame is here; the chip is told before the next one.
            Ok(()) | Err(Lost::Bus) => Ok(fetched),
            Err(error) => Err(error),
        }
    }

    /// Gives the memory of what was read back to the chip.
    fn say_read(&mut self) -> Result<(), Lost> {
        self.chip.write16(Block::Socket(0), socket::RX_RD, self.rx_read)?;
        self.chip.command(socket::RECV)?;
        self.rx_unsaid = false;
        Ok(())
    }
}

enum Fetched {
    Nothing,
    Frame(usize),
    TooLong(u16),
}

impl<S: SpiDevice, D: DelayNs> Nic for W5500<S, D> {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            mac: self.mac,
            ip_mtu: IP_MTU,
            tx_slots: FRAMES as u16,
            max_segments: 1,
            payload: PayloadKind::Bytes,
            checksum: ChecksumOffload::None,
        }
    }

    fn poll_start(&mut self, clock: &mut dyn Clock) -> Result<Start, NicError> {
        let now = clock.now();
        let phase = match self.state {
            State::Starting(phase) => phase,
            State::Running => return Ok(Start::Ready),
            State::Idle | State::Stopped | State::Failed(_) => {
                self.reopens_left = REOPENS;
                self.bus_errors_in_row = 0;
                Phase::Reset
            }
        };
        match start::step(&mut self.chip, phase, self.mac, now) {
            Ok(Step::Next { phase, at }) => {
                self.bus_errors_in_row = 0;
                self.state = State::Starting(phase);
                Ok(Start::Again { until: at })
            }
            Ok(Step::Running(Open { tx, rx })) => {
                self.go_live(tx, rx);
                Ok(Start::Ready)
            }
            Err(NicError::Bus) => {
                // The same phase again: a transfer may fail by chance.
                self.survive::<()>(Err(Lost::Bus))?;
                self.state = State::Starting(phase);
                Ok(Start::Again { until: now.after(1_000) })
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    fn link(&mut self) -> Link {
        if self.usable().is_err() {
            return Link::Unknown;
        }
        match self.chip.read8(Block::Common, common::PHYCFGR) {
            Ok(0xff) | Err(_) => Link::Unknown,
            Ok(phy) if phy & common::PHY_LINK != 0 => Link::Up,
            Ok(_) => Link::Down,
        }
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<TxTicket, TxError> {
        self.usable().map_err(TxError::Device)?;
        let payload = match frame.payload {
            Payload::None => &[][..],
            Payload::Bytes(bytes) => bytes,
            Payload::Dma(_) => return Err(TxError::NotReachable),
        };
        let len = frame.header.len().saturating_add(payload.len());
        let Some(len) = u16::try_from(len).ok().filter(|len| *len <= FRAME_MAX) else {
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            return Err(TxError::TooLong { len, max: u32::from(FRAME_MAX) });
        };
        let padding = FRAME_MIN.saturating_sub(len);
        let whole = len.saturating_add(padding);
        let at = self.queue.room(whole).ok_or(TxError::Full)?;
        let zeros = [0; FRAME_MIN as usize];
        let zeros = zeros.get(..usize::from(padding)).unwrap_or(&[]);
        let written = self.chip.write(Block::Tx, at, [frame.header, payload, zeros]);
        match self.survive(written.map_err(Lost::from)) {
            Ok(Some(())) => Ok(self.queue.push(whole)),
            Ok(None) => Err(TxError::Full),
            Err(error) => Err(TxError::Device(error)),
        }
    }

    fn kick(&mut self) {
        self.queue.kick();
        if self.usable().is_ok() && self.queue.to_send().is_some() {
            let sent = self.send_next();
            // What did not go out now is tried again by `poll_tx`; what failed for good stays so.
            let _ = self.survive(sent);
        }
    }

    fn poll_tx(&mut self) -> Result<TxTicket, NicError> {
        self.usable()?;
        if self.queue.sending {
            let reaped = self.reap();
            if self.survive(reaped)? == Some(true) {
                self.tx_looks = 0;
                self.tx_checks = 0;
            } else {
                self.tx_looks = self.tx_looks.saturating_add(1);
                if self.tx_looks >= TX_LOOKS {
                    self.tx_looks = 0;
                    self.look_closer()?;
                }
            }
        }
        // What was kicked follows when its forerunner has left.
        if self.queue.to_send().is_some() {
            let sent = self.send_next();
            self.survive(sent)?;
        }
        Ok(self.queue.done())
    }

    fn receive(&mut self, buf: &mut [u8]) -> Result<Option<usize>, RxError> {
        self.usable().map_err(RxError::Device)?;
        let fetched = self.fetch(buf);
        match self.survive(fetched).map_err(RxError::Device)? {
            Some(Fetched::Frame(len)) => {
                self.rx_looks = 0;
                Ok(Some(len))
            }
            Some(Fetched::TooLong(len)) => Err(RxError::TooLong { len: u32::from(len) }),
            Some(Fetched::Nothing) => {
                self.rx_looks = self.rx_looks.saturating_add(1);
                if self.rx_looks >= RX_LOOKS {
                    self.rx_looks = 0;
                    self.check().map_err(RxError::Device)?;
                }
                Ok(None)
            }
            None => Err(RxError::Malformed),
        }
    }

    fn stop(&mut self) -> Result<(), NicError> {
        // The chip reaches no memory but its own: what it does on the wire from
        // here on hurts nobody, so a bus that fails now is no reason to say so.
        if self.usable().is_ok() {
            let _ = self.chip.command(socket::CLOSE);
        }
        self.queue.reset(0);
        self.state = State::Stopped;
        Ok(())
    }
}
