//! The command line: words `key=value`, as the big guest has them.

use core::net::{IpAddr, Ipv4Addr};

use debugnet_core::{Config, Target};

/// A way of dying.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// A store through a null pointer.
    Null,
    /// A Rust panic.
    Panic,
    /// Recursion without end.
    Stack,
    /// A fault in the driver, with half a frame in the FIFO.
    DriverLock,
}

impl Death {
    const NAMES: [(&str, Self); 4] = [
        ("null", Self::Null),
        ("panic", Self::Panic),
        ("stack", Self::Stack),
        ("driver-lock", Self::DriverLock),
    ];

    /// The name of the death with this number on the command line.
    pub(crate) fn name(number: u8) -> &'static str {
        Self::NAMES.get(usize::from(number)).map_or("?", |(name, _)| name)
    }
}

/// What is asked for.
pub(crate) struct Options {
    pub(crate) crash: Death,
    pub(crate) seed: u32,
    /// Fault once more at this event of the dump; 0 is never.
    pub(crate) nested: u32,
    /// Leave QEMU after the outcome.
    pub(crate) exit: bool,
    /// No ELF core.
    pub(crate) flat: bool,
    pub(crate) config: Config,
}

impl Options {
    /// Reads a command line; the error is the word that is not understood.
    ///
    /// `Config::parse` would do for the dump's words, and is 4 KiB of flash.
    pub(crate) fn parse(line: &str) -> Result<Self, &str> {
        let mut config = Config::new();
        let mut target = Target::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let (mut crash, mut seed, mut nested) = (Death::Null, 1, 0);
        let (mut exit, mut flat) = (false, false);
        for word in line.split_ascii_whitespace() {
            let (key, value) = word.split_once('=').ok_or(word)?;
            let number = number(value);
            let address = address(value);
            match (key, number, address) {
                ("nic", ..) if value == "lan9118" => {}
                ("image", ..) if matches!(value, "elf" | "flat") => flat = value == "flat",
                ("crash", ..) => {
                    let death = Death::NAMES.iter().find(|(name, _)| *name == value);
                    crash = death.ok_or(word)?.1;
                }
                ("seed", Some(number), _) => seed = number,
                ("nested", Some(number), _) => nested = number,
                ("exit", Some(number @ 0..=1), _) => exit = number == 1,
                // What there is memory for.
                ("slots", Some(number), _) if number as usize == crate::volatile::SLOTS => {}
                ("mtu", Some(number @ 576..=1500), _) => config.mtu = number as u16,
                ("no-progress", Some(seconds), _) => {
                    config.no_progress_us = u64::from(seconds) * 1_000_000;
                }
                ("server", _, Some(address)) => target.server = address,
                ("client", _, address @ Some(_)) => target.client = address,
                ("gateway", _, address @ Some(_)) => target.gateway = address,
                _ => return Err(word),
            }
        }
        // One of four: there is room.
        let _ = config.targets.push(target);
        Ok(Self { crash, seed, nested, exit, flat, config })
    }
}

/// A decimal number.
fn number(text: &str) -> Option<u32> {
    let mut number = None::<u32>;
    for byte in text.bytes() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit.into())?);
    }
    number
}

/// `a.b.c.d`.
fn address(text: &str) -> Option<IpAddr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = u8::try_from(number(parts.next()?)?).ok()?;
    }
    parts.next().is_none().then_some(IpAddr::V4(Ipv4Addr::from(octets)))
}
