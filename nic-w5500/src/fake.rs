//! A W5500 behind a bus, honest or lying, for tests and fuzz targets.
//!
//! The model keeps the registers that the driver uses, the two buffers, and a
//! list of what a driver must not do. Its lies are changed at any time.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    reason = "a model for tests, in memory of its own"
)]

pub mod fuzz;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use debugnet_core::addr::MacAddr;
use debugnet_core::time::{Clock, Instant};
use embedded_hal::delay::DelayNs;
use embedded_hal::spi::{ErrorKind, ErrorType, Operation, SpiDevice};

use crate::W5500;
use crate::chip::{BUFFER_LEN, common, socket};

const BUFFER: usize = BUFFER_LEN as usize;

/// What is wrong with the chip or the bus. The default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lies {
    /// Of so many transfers one fails, by chance: before the chip hears of it, or after.
    pub bus_fails_every: Option<u32>,
    /// No chip: everything reads as ones.
    pub gone: bool,
    /// Other than 4.
    pub version: Option<u8>,
    /// The reset bit stays.
    pub reset_never_ends: bool,
    /// The command register never clears.
    pub commands_never_taken: bool,
    /// Socket 0 stays closed.
    pub never_opens: bool,
    /// No frame ever leaves.
    pub never_sends: bool,
    /// Frames are given up on instead of sent.
    pub send_times_out: bool,
    /// Counters differ at each read.
    pub counters_unsteady: bool,
    /// The length in front of each received frame.
    pub rx_prefix: Option<u16>,
    /// What the chip says is waiting.
    pub rx_waiting: Option<u16>,
    /// Every byte read is garbage made from this, unless it is 0.
    pub noise: u64,
    /// The cable is out.
    pub no_link: bool,
}

/// The fake: a handle on a model that driver, bus and test share.
#[derive(Clone, Debug)]
pub struct FakeW5500(Rc<RefCell<Model>>);

/// Its place on the bus.
#[derive(Debug)]
pub struct FakeSpi(Rc<RefCell<Model>>);

/// The delay of the machine it is on; time passes in it and in transfers.
#[derive(Debug)]
pub struct FakeDelay(Rc<RefCell<Model>>);

/// The machine's clock.
#[derive(Debug)]
pub struct FakeClock(Rc<RefCell<Model>>);

/// The driver over the fake.
pub type FakeDriver = W5500<FakeSpi, FakeDelay>;

#[derive(Debug)]
struct Model {
    lies: Lies,
    common: [u8; 0x40],
    sockets: [[u8; 0x30]; 8],
    tx: Vec<u8>,
    rx: Vec<u8>,
    /// Where the next received frame is written.
    rx_write: u16,
    /// Where the host said it has read to; `RX_RD` counts from RECV on.
    rx_read: u16,
    /// Transfers until the frame under way has left.
    sending: Option<u32>,
    reset_for: u32,
    sent: VecDeque<Vec<u8>>,
    violations: Vec<String>,
    transfers: u64,
    /// The next random number.
    chance: u64,
    now_ns: u64,
}

/// Transfers that a frame takes to leave.
const SENDING: u32 = 3;
/// A transfer takes a microsecond at least.
const TRANSFER_NS: u64 = 1_000;

impl FakeW5500 {
    /// A chip as dead firmware leaves it: socket 3 open, half the memory its own, interrupts on.
    pub fn new(lies: Lies) -> Self {
        let mut model = Model {
            lies,
            common: [0; 0x40],
            sockets: [[0; 0x30]; 8],
            tx: vec![0xee; BUFFER],
            rx: vec![0xdd; BUFFER],
            rx_write: 0x1234,
            rx_read: 0x1200,
            sending: None,
            reset_for: 0,
            sent: VecDeque::new(),
            violations: Vec::new(),
            transfers: 0,
            chance: 0x9e37_79b9_7f4a_7c15,
            now_ns: 0,
        };
        model.common[usize::from(common::SIMR)] = 0xff;
        // Held at 10 Mbit/s.
        model.common[usize::from(common::PHYCFGR)] = 0xc1;
        for number in [0, 3] {
            model.sockets[number][usize::from(socket::SR)] = 0x22;
            model.sockets[number][usize::from(socket::RXBUF_SIZE)] = 8;
            model.sockets[number][usize::from(socket::TXBUF_SIZE)] = 8;
        }
        Self(Rc::new(RefCell::new(model)))
    }

    /// The driver, with this address.
    pub fn driver(&self, mac: MacAddr) -> FakeDriver {
        W5500::new(FakeSpi(self.0.clone()), FakeDelay(self.0.clone()), mac)
    }

    /// The machine's clock.
    pub fn clock(&self) -> FakeClock {
        FakeClock(self.0.clone())
    }

    /// Changes what is wrong.
    pub fn change(&self, change: impl FnOnce(&mut Lies)) {
        change(&mut self.0.borrow_mut().lies);
    }

    /// A frame from the wire; `false` if the chip has no room, is not open, or filters it.
    pub fn deliver(&self, frame: &[u8]) -> bool {
        self.0.borrow_mut().deliver(frame)
    }

    /// The frames that left, the first one first.
    pub fn take_frames(&self) -> Vec<Vec<u8>> {
        self.0.borrow_mut().sent.drain(..).collect()
    }

    /// What the driver did that it must not.
    pub fn violations(&self) -> Vec<String> {
        self.0.borrow().violations.clone()
    }

    /// Forgets what the driver did that it must not.
    pub fn forgive(&self) {
        self.0.borrow_mut().violations.clear();
    }

    /// Bytes of the receive buffer become others.
    pub fn scribble_rx(&self, at: u16, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            self.0.borrow_mut().rx[(usize::from(at) + index) % BUFFER] = *byte;
        }
    }

    /// Two registers of socket 0 become others.
    pub fn set_socket(&self, at: u8, value: u16) {
        self.0.borrow_mut().set16(u16::from(at) % 0x2f, value);
    }

    /// A common register becomes another.
    pub fn set_common(&self, at: u8, value: u8) {
        self.0.borrow_mut().common[usize::from(at) % 0x40] = value;
    }

    /// The chip loses its power for a moment.
    pub fn reset_itself(&self) {
        self.0.borrow_mut().reset();
    }

    /// Transfers so far.
    pub fn transfers(&self) -> u64 {
        self.0.borrow().transfers
    }

    /// A common register.
    pub fn common(&self, at: u16) -> u8 {
        self.0.borrow().common[usize::from(at)]
    }

    /// A register of a socket.
    pub fn socket(&self, number: usize, at: u16) -> u8 {
        self.0.borrow().sockets[number][usize::from(at)]
    }

    /// Time since the start.
    pub fn now_us(&self) -> u64 {
        self.0.borrow().now_ns / 1000
    }
}

impl Model {
    fn reset(&mut self) {
        let phy = self.common[usize::from(common::PHYCFGR)];
        self.common = [0; 0x40];
        // The PHY is reset by its own bit only.
        self.common[usize::from(common::PHYCFGR)] = phy;
        self.sockets = [[0; 0x30]; 8];
        for socket in &mut self.sockets {
            socket[usize::from(socket::RXBUF_SIZE)] = 2;
            socket[usize::from(socket::TXBUF_SIZE)] = 2;
        }
        self.sending = None;
        self.rx_write = 0;
        self.rx_read = 0;
    }

    fn get16(&self, at: u16) -> u16 {
        let at = usize::from(at);
        u16::from_be_bytes([self.sockets[0][at], self.sockets[0][at + 1]])
    }

    fn set16(&mut self, at: u16, value: u16) {
        let at = usize::from(at);
        self.sockets[0][at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    fn is_open(&self) -> bool {
        self.sockets[0][usize::from(socket::SR)] == socket::SR_MACRAW
    }

    fn violation(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    fn deliver(&mut self, frame: &[u8]) -> bool {
        let mac = &self.common[usize::from(common::SHAR)..][..6];
        let for_us = frame.starts_with(mac) || frame.starts_with(&[0xff; 6]);
        let whole = frame.len() + 2;
        let waiting = usize::from(self.rx_write.wrapping_sub(self.rx_read));
        let free = BUFFER.saturating_sub(waiting);
        if !self.is_open() || !for_us || whole > free {
            return false;
        }
        let prefix = self.lies.rx_prefix.unwrap_or(whole as u16).to_be_bytes();
        for byte in prefix.iter().chain(frame) {
            self.rx[usize::from(self.rx_write) % BUFFER] = *byte;
            self.rx_write = self.rx_write.wrapping_add(1);
        }
        true
    }

    fn command(&mut self, command: u8) {
        match command {
            socket::OPEN => {
                let mode = self.sockets[0][usize::from(socket::MR)];
                if mode & 0xf != socket::MR_MACRAW {
                    return self.violation(format!("opened in mode {mode:#x}"));
                }
                let kib: u32 = self
                    .sockets
                    .iter()
                    .map(|s| u32::from(s[usize::from(socket::TXBUF_SIZE)]))
                    .sum();
                if kib > 16 {
                    self.violation(format!("{kib} KiB of transmit memory"));
                }
                if !self.lies.never_opens {
                    self.sockets[0][usize::from(socket::SR)] = socket::SR_MACRAW;
                }
                self.sending = None;
                // Not where the last ones stood, and near the wrap.
                for at in [socket::TX_RD, socket::TX_WR, socket::RX_RD] {
                    self.set16(at, 0xff00);
                }
                (self.rx_read, self.rx_write) = (0xff00, 0xff00);
            }
            socket::CLOSE => {
                self.sockets[0][usize::from(socket::SR)] = 0;
                self.sending = None;
            }
            socket::SEND => {
                let len = self.get16(socket::TX_WR).wrapping_sub(self.get16(socket::TX_RD));
                if !self.is_open() {
                    return;
                }
                if self.sending.is_some() {
                    self.violation("SEND while a frame is under way");
                } else if !(60..=1514).contains(&len) {
                    self.violation(format!("SEND of {len} bytes"));
                } else {
                    self.sending = Some(SENDING);
                }
            }
            socket::RECV => self.rx_read = self.get16(socket::RX_RD),
            other => self.violation(format!("command {other:#x}")),
        }
    }

    /// Brings the frame under way a transfer closer to the wire.
    fn advance(&mut self) {
        self.reset_for = self.reset_for.saturating_sub(1);
        let Some(left) = self.sending else { return };
        if self.lies.never_sends {
            return;
        }
        self.sending = left.checked_sub(1);
        if self.sending.is_some() {
            return;
        }
        let (from, to) = (self.get16(socket::TX_RD), self.get16(socket::TX_WR));
        let len = to.wrapping_sub(from);
        let frame =
            (0..len).map(|at| self.tx[usize::from(from.wrapping_add(at)) % BUFFER]).collect();
        self.set16(socket::TX_RD, to);
        let flag = if self.lies.send_times_out { socket::IR_TIMEOUT } else { socket::IR_SEND_OK };
        if !self.lies.send_times_out {
            self.sent.push_back(frame);
        }
        self.sockets[0][usize::from(socket::IR)] |= flag;
    }

    fn read(&mut self, block: u8, at: u16, into: &mut [u8]) {
        for (index, byte) in into.iter_mut().enumerate() {
            let at = at.wrapping_add(index as u16);
            *byte = self.byte(block, at);
        }
        if self.lies.noise != 0 {
            for byte in into {
                let mut x = self.lies.noise ^ self.transfers;
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                self.lies.noise = x | 1;
                *byte = x as u8;
            }
        }
    }

    fn byte(&self, block: u8, at: u16) -> u8 {
        if self.lies.gone {
            return 0xff;
        }
        let index = usize::from(at);
        match block {
            0 if at == common::MR && (self.lies.reset_never_ends || self.reset_for > 0) => {
                common::MR_RST
            }
            0 if at == common::VERSIONR => self.lies.version.unwrap_or(common::VERSION),
            0 if at == common::PHYCFGR => {
                let link = u8::from(!self.lies.no_link);
                self.common[index] & !common::PHY_LINK | link
            }
            0 => self.common.get(index).copied().unwrap_or(0),
            2 => self.tx[index % BUFFER],
            3 => self.rx[index % BUFFER],
            _ => {
                let number = usize::from(block >> 2) % 8;
                if number == 0 && (socket::RX_RSR..socket::RX_RSR + 2).contains(&at) {
                    let waiting = self
                        .lies
                        .rx_waiting
                        .unwrap_or_else(|| self.rx_write.wrapping_sub(self.rx_read));
                    let unsteady = self.lies.counters_unsteady as u16 * self.transfers as u16;
                    return waiting.wrapping_add(unsteady).to_be_bytes()
                        [usize::from(at - socket::RX_RSR)];
                }
                self.sockets[number].get(index).copied().unwrap_or(0)
            }
        }
    }

    fn write(&mut self, block: u8, at: u16, bytes: &[u8]) {
        if self.lies.gone {
            return;
        }
        for (index, &byte) in bytes.iter().enumerate() {
            let at = at.wrapping_add(index as u16);
            self.write_byte(block, at, byte);
        }
    }

    fn write_byte(&mut self, block: u8, at: u16, byte: u8) {
        let index = usize::from(at);
        match block {
            0 if at == common::MR && byte & common::MR_RST != 0 => {
                self.reset();
                self.reset_for = 4;
            }
            0 => match self.common.get_mut(index) {
                Some(register) => *register = byte,
                None => self.violation(format!("write to {at:#x}")),
            },
            2 => {
                let from = self.get16(socket::TX_RD);
                // Between the read pointer and the shown write pointer lies the frame under way.
                let under_way = self.get16(socket::TX_WR).wrapping_sub(from);
                if self.sending.is_some()
                    && usize::from(at.wrapping_sub(from)) % BUFFER < usize::from(under_way)
                {
                    self.violation("wrote over the frame under way");
                }
                self.tx[index % BUFFER] = byte;
            }
            3 => self.violation("wrote to the receive buffer"),
            _ => {
                let number = usize::from(block >> 2) % 8;
                match at {
                    socket::CR if number == 0 => {
                        self.sockets[0][index] =
                            if self.lies.commands_never_taken { byte } else { 0 };
                        if !self.lies.commands_never_taken {
                            self.command(byte);
                        }
                    }
                    socket::IR => self.sockets[number][index] &= !byte,
                    socket::SR => self.violation("wrote to a status"),
                    _ => match self.sockets[number].get_mut(index) {
                        Some(register) => *register = byte,
                        None => self.violation(format!("write to socket register {at:#x}")),
                    },
                }
            }
        }
    }

    fn transfer(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), ErrorKind> {
        self.transfers += 1;
        self.now_ns += TRANSFER_NS;
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        let fails = self.lies.bus_fails_every.is_some_and(|n| self.chance.is_multiple_of(n.into()));
        if fails && self.chance >> 63 == 0 {
            return Err(ErrorKind::Other);
        }
        self.advance();
        let mut operations = operations.iter_mut();
        let Some(&mut Operation::Write(&[high, low, control])) = operations.next() else {
            self.violation("a transfer without an address");
            return Ok(());
        };
        let (block, write) = (control >> 3, control & 4 != 0);
        if control & 3 != 0 {
            self.violation("not in the mode of variable length");
        }
        let mut at = u16::from_be_bytes([high, low]);
        for operation in operations {
            match operation {
                Operation::Write(bytes) if write => {
                    self.write(block, at, bytes);
                    at = at.wrapping_add(bytes.len() as u16);
                }
                Operation::Read(into) if !write => {
                    self.read(block, at, into);
                    at = at.wrapping_add(into.len() as u16);
                }
                _ => self.violation("wrong direction of a transfer"),
            }
        }
        if fails { Err(ErrorKind::Other) } else { Ok(()) }
    }
}

/// The bus failed.
#[derive(Clone, Copy, Debug)]
pub struct FakeBusError;

impl embedded_hal::spi::Error for FakeBusError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

impl ErrorType for FakeSpi {
    type Error = FakeBusError;
}

impl SpiDevice for FakeSpi {
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), FakeBusError> {
        self.0.borrow_mut().transfer(operations).map_err(|_| FakeBusError)
    }
}

impl DelayNs for FakeDelay {
    fn delay_ns(&mut self, ns: u32) {
        self.0.borrow_mut().now_ns += u64::from(ns);
    }
}

impl Clock for FakeClock {
    fn now(&mut self) -> Instant {
        Instant::from_micros(self.0.borrow().now_ns / 1000)
    }

    fn relax(&mut self) {
        self.0.borrow_mut().now_ns += 1_000;
    }
}
