//! Any [`embassy_net_driver::Driver`] is a [`Nic`]: firmware on Embassy dumps through the driver it has.
//!
//! That is *warm* use: nothing is reset, the driver goes on where the dead firmware left it,
//! and works only if it was sound. A driver that can be reset and polled by itself is the
//! better choice ([Write a Nic](https://github.com/debugnet-rs/debugnet-rs/blob/main/docs/write-a-nic.md)).
//!
//! What the driver must be able to do: move frames while nothing but these calls runs. One that
//! owns its rings (`embassy-stm32`'s Ethernet) does; one behind
//! `embassy-net-driver-channel` does not, because there a task moves the frames, and after a crash
//! no task runs: its dump ends with
//! [`NoNextHop`](debugnet_core::dump::FailureKind::NoNextHop), after `no_progress`. Interrupts
//! are off, so that nobody calls the wakers it is given: they do nothing, and the driver is asked
//! again.
//!
//! The adapter itself cannot panic, wait, or allocate; what it calls is not its own, and the
//! link-time proof of `cargo xtask panic-free` does not cover it.
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::arithmetic_side_effects
)]

use core::task::{Context, Waker};

use debugnet_core::addr::MacAddr;
use debugnet_core::nic::{
    Capabilities, Checksum, ChecksumOffload, Link, Nic, NicError, Payload, PayloadKind, RxError,
    Start, TxError, TxFrame, TxTicket,
};
use debugnet_core::time::Clock;
use embassy_net_driver::{Driver, HardwareAddress, LinkState, RxToken as _, TxToken as _};

/// An Ethernet header, without tags.
const ETHERNET_HEADER_LEN: u16 = 14;
/// Shortest frame on the wire, less its FCS.
const FRAME_MIN: usize = 60;
/// Every host must take IP packets of this length (RFC 791, section 3.2).
const IP_MIN: u16 = 68;
/// What a driver that names no burst is taken to hold.
const TX_SLOTS_DEFAULT: u16 = 16;

/// A [`Nic`] made of an Embassy driver, which is running and stays so.
///
/// The driver copies payloads ([`PayloadKind::Bytes`]); a frame counts as having left it when
/// `transmit` returns. `kick` does nothing. `stop` refuses further use, but cannot make the
/// device quiet: it has nothing of the dump's, and goes on receiving into its own buffers, which
/// belong among the volatile extents of the image.
#[derive(Debug)]
pub struct EmbassyNic<D> {
    driver: D,
    mac: MacAddr,
    frame_max: u16,
    burst: u16,
    is_started: bool,
    last: TxTicket,
}

/// What a driver is called with: wakers that wake nobody.
fn alone<R>(call: impl FnOnce(&mut Context<'_>) -> R) -> R {
    call(&mut Context::from_waker(Waker::noop()))
}

impl<D: Driver> EmbassyNic<D> {
    /// The driver. Only its capabilities and address are asked for: this may run at boot.
    ///
    /// # Errors
    /// [`NicError::Unsupported`] if it carries no Ethernet frames, or none of 68 bytes of IP;
    /// [`NicError::Unsupported`] too if its address is none that a station may own.
    pub fn new(driver: D) -> Result<Self, NicError> {
        let capabilities = driver.capabilities();
        let HardwareAddress::Ethernet(mac) = driver.hardware_address() else {
            return Err(NicError::Unsupported("Embassy driver without Ethernet frames"));
        };
        let mac = MacAddr(mac);
        if !mac.is_station() {
            return Err(NicError::Unsupported("Embassy driver without an address of its own"));
        }
        let frame_max = u16::try_from(capabilities.max_transmission_unit).unwrap_or(u16::MAX);
        if frame_max < IP_MIN.saturating_add(ETHERNET_HEADER_LEN) {
            return Err(NicError::Unsupported("Embassy driver with too short frames"));
        }
        let burst = capabilities
            .max_burst_size
            .map_or(TX_SLOTS_DEFAULT, |burst| u16::try_from(burst).unwrap_or(u16::MAX).max(1));
        Ok(Self { driver, mac, frame_max, burst, is_started: false, last: TxTicket::NONE })
    }

    /// The driver.
    pub const fn driver(&self) -> &D {
        &self.driver
    }

    /// The driver again.
    pub fn into_driver(self) -> D {
        self.driver
    }
}

/// Copies `from` to the front of `to`, as far as there is room, and gives what is behind it.
fn put<'a>(to: &'a mut [u8], from: &[u8]) -> &'a mut [u8] {
    let (here, rest) = to.split_at_mut_checked(from.len()).unwrap_or_default();
    for (to, from) in here.iter_mut().zip(from) {
        *to = *from;
    }
    rest
}

impl<D: Driver> Nic for EmbassyNic<D> {
    /// The MTU is the driver's, less an Ethernet header: with a VLAN tag, configure 4 bytes less.
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            mac: self.mac,
            ip_mtu: self.frame_max.saturating_sub(ETHERNET_HEADER_LEN),
            tx_slots: self.burst,
            max_segments: 1,
            payload: PayloadKind::Bytes,
            checksum: ChecksumOffload::None,
        }
    }

    fn poll_start(&mut self, _: &mut dyn Clock) -> Result<Start, NicError> {
        self.is_started = true;
        Ok(Start::Ready)
    }

    fn link(&mut self) -> Link {
        match alone(|context| self.driver.link_state(context)) {
            LinkState::Up => Link::Up,
            LinkState::Down => Link::Down,
        }
    }

    /// A driver that has no buffer free has no token: [`TxError::Full`].
    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<TxTicket, TxError> {
        if !self.is_started {
            return Err(TxError::Device(NicError::NotStarted));
        }
        let payload = match frame.payload {
            Payload::None => &[],
            Payload::Bytes(bytes) => bytes,
            Payload::Dma(_) => {
                let what = "Embassy driver fetches nothing";
                return Err(TxError::Device(NicError::Unsupported(what)));
            }
        };
        if frame.checksum != Checksum::Complete {
            return Err(TxError::Device(NicError::Unsupported("Embassy driver sums nothing")));
        }
        let max = u32::from(self.frame_max);
        let len = frame.header.len().saturating_add(payload.len()).max(FRAME_MIN);
        if len > usize::from(self.frame_max) {
            return Err(TxError::TooLong { len: u32::try_from(len).unwrap_or(u32::MAX), max });
        }
        let token = alone(|context| self.driver.transmit(context)).ok_or(TxError::Full)?;
        let fits = token.consume(len, |buffer| {
            // It goes out whatever its length: then without what was in it before.
            if buffer.len() != len {
                buffer.fill(0);
                return false;
            }
            put(put(buffer, frame.header), payload).fill(0);
            true
        });
        if !fits {
            let what = "Embassy driver's buffer is not as long as was asked for";
            return Err(TxError::Device(NicError::Protocol(what)));
        }
        self.last = self.last.next();
        Ok(self.last)
    }

    fn kick(&mut self) {}

    fn poll_tx(&mut self) -> Result<TxTicket, NicError> {
        Ok(self.last)
    }

    fn receive(&mut self, buf: &mut [u8]) -> Result<Option<usize>, RxError> {
        if !self.is_started {
            return Err(RxError::Device(NicError::NotStarted));
        }
        let Some((received, _)) = alone(|context| self.driver.receive(context)) else {
            return Ok(None);
        };
        received.consume(|frame| {
            let len = frame.len();
            let too_long = RxError::TooLong { len: u32::try_from(len).unwrap_or(u32::MAX) };
            put(buf.get_mut(..len).ok_or(too_long)?, frame);
            Ok(Some(len))
        })
    }

    fn stop(&mut self) -> Result<(), NicError> {
        self.is_started = false;
        Ok(())
    }
}
