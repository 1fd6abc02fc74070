//! The kernel's command line: `key=value` words, separated by blanks.
//!
//! `README.md` lists the keys for users. A word that is not understood stops
//! the boot: a test that thinks it asked for something must not run without it.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr};
use core::str::FromStr;

use heapless::String;

/// Longest herald path in bytes.
pub const PATH_MAX: usize = 255;
/// Fewest window slots.
pub const SLOTS_MIN: usize = 16;
/// Most window slots: what the volatile section has room for.
pub const SLOTS_MAX: usize = 1024;

/// What the command line asks for, with defaults for what it leaves out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// `nic=`: which NIC to take over. Default `auto`.
    pub nic: NicChoice,
    /// `crash=`: how to die. Default `null`.
    pub crash: Death,
    /// `mtu=`: IP MTU in bytes; default what the NIC says.
    pub mtu: Option<u16>,
    /// `server=`: where the dump goes. Default `10.0.2.2`.
    pub server: IpAddr,
    /// `client=`: our own address. Default `10.0.2.15`.
    pub client: IpAddr,
    /// `gateway=`: next hop if the server does not answer ARP. Default none.
    pub gateway: Option<IpAddr>,
    /// `path=`: directory asked for in the herald. Default empty.
    pub path: String<PATH_MAX>,
    /// `slots=`: window slots, a power of two. Default 64.
    pub slots: usize,
    /// `nested=`: fault again at this observer event of the dump, from 1. Default never.
    pub nested: Option<u32>,
    /// `seed=`: seed of the pattern in RAM. Default 1.
    pub seed: u64,
    /// `fill=`: fill only so many MiB of free RAM. Default all.
    pub fill_mib: Option<u64>,
    /// `exit=1`: leave QEMU after the outcome instead of stopping with the machine intact.
    pub exit: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nic: NicChoice::Auto,
            crash: Death::Null,
            mtu: None,
            server: IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2)),
            client: IpAddr::V4(Ipv4Addr::new(10, 0, 2, 15)),
            gateway: None,
            path: String::new(),
            slots: 64,
            nested: None,
            seed: 1,
            fill_mib: None,
            exit: false,
        }
    }
}

/// Which NIC to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NicChoice {
    /// The first one that any driver knows.
    Auto,
    /// The first virtio network function on the PCI bus.
    VirtioNetPci,
}

impl NicChoice {
    const NAMES: &[(&str, Self)] = &[("auto", Self::Auto), ("virtio-net-pci", Self::VirtioNetPci)];
}

/// A way of dying.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// Writes through a null pointer.
    Null,
    /// Panics.
    Panic,
    /// Recurses until the stack meets its guard page.
    Stack,
    /// Faults inside the network driver: lock held, ring entry half written.
    DriverLock,
}

impl Death {
    const NAMES: &[(&str, Self)] = &[
        ("null", Self::Null),
        ("panic", Self::Panic),
        ("stack", Self::Stack),
        ("driver-lock", Self::DriverLock),
    ];

    /// Its name on the command line and in the report.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, death)| *death == self).map_or("?", |(name, _)| name)
    }
}

/// Why the command line was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParseError<'a> {
    /// A word without `=`.
    NoValue(&'a str),
    /// A key that does not exist.
    UnknownKey(&'a str),
    /// A key that was given before.
    Twice(&'a str),
    /// A value that does not fit its key.
    BadValue {
        /// The key.
        key: &'a str,
        /// Its value.
        value: &'a str,
        /// What would have been right.
        expected: &'static str,
    },
}

impl fmt::Display for ParseError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoValue(word) => write!(f, "`{word}` is not of the form key=value"),
            Self::UnknownKey(key) => write!(f, "unknown key `{key}`"),
            Self::Twice(key) => write!(f, "`{key}` was given twice"),
            Self::BadValue { key, value, expected } => {
                write!(f, "`{key}={value}`: expected {expected}")
            }
        }
    }
}

impl Options {
    /// Reads a command line. An empty one gives the defaults.
    ///
    /// # Errors
    /// [`ParseError`] names the first word that is not understood.
    pub fn parse(line: &str) -> Result<Self, ParseError<'_>> {
        let mut options = Self::default();
        for (at, word) in line.split_ascii_whitespace().enumerate() {
            let (key, value) = word.split_once('=').ok_or(ParseError::NoValue(word))?;
            let earlier = line.split_ascii_whitespace().take(at);
            if earlier.filter_map(|word| word.split_once('=')).any(|(other, _)| other == key) {
                return Err(ParseError::Twice(key));
            }
            options.set(key, value)?;
        }
        Ok(options)
    }

    fn set<'a>(&mut self, key: &'a str, value: &'a str) -> Result<(), ParseError<'a>> {
        let bad = |expected| ParseError::BadValue { key, value, expected };
        match key {
            "nic" => {
                self.nic = named(NicChoice::NAMES, value).ok_or(bad("auto or virtio-net-pci"))?;
            }
            "crash" => {
                self.crash = named(Death::NAMES, value)
                    .ok_or(bad("null, panic, stack or driver-lock"))?;
            }
            "mtu" => {
                let mtu = number(value, 576, u64::from(u16::MAX));
                self.mtu = Some(mtu.ok_or(bad("576 to 65535"))? as u16);
            }
            "server" => self.server = address(value).ok_or(bad("an IP address"))?,
            "client" => self.client = address(value).ok_or(bad("an IP address"))?,
            "gateway" => self.gateway = Some(address(value).ok_or(bad("an IP address"))?),
            "path" => self.path = String::from_str(value).map_err(|_| bad("at most 255 bytes"))?,
            "slots" => {
                self.slots = number(value, SLOTS_MIN as u64, SLOTS_MAX as u64)
                    .filter(|slots| slots.is_power_of_two())
                    .ok_or(bad("a power of two from 16 to 1024"))? as usize;
            }
            "nested" => {
                let event = number(value, 1, u64::from(u32::MAX));
                self.nested = Some(event.ok_or(bad("an event number from 1"))? as u32);
            }
            "seed" => self.seed = number(value, 0, u64::MAX).ok_or(bad("a number"))?,
            "fill" => {
                self.fill_mib = Some(number(value, 0, 1 << 20).ok_or(bad("a number of MiB"))?);
            }
            "exit" => {
                self.exit = match value {
                    "0" => false,
                    "1" => true,
                    _ => return Err(bad("0 or 1")),
                }
            }
            _ => return Err(ParseError::UnknownKey(key)),
        }
        Ok(())
    }
}

fn named<T: Copy>(names: &[(&str, T)], value: &str) -> Option<T> {
    names.iter().find(|(name, _)| *name == value).map(|(_, named)| *named)
}

fn address(value: &str) -> Option<IpAddr> {
    value.parse().ok()
}

/// A decimal or `0x` hexadecimal number in a range.
fn number(value: &str, least: u64, most: u64) -> Option<u64> {
    let number = match value.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => value.parse(),
    };
    number.ok().filter(|number| (least..=most).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gives_the_defaults() {
        assert_eq!(Options::parse(""), Ok(Options::default()));
        assert_eq!(Options::parse("  \t "), Ok(Options::default()));
    }

    #[test]
    fn every_key_is_understood() {
        let options = Options::parse(
            "nic=virtio-net-pci crash=driver-lock mtu=4148 server=192.0.2.1 client=192.0.2.7 \
             gateway=192.0.2.254 path=var/crash slots=256 nested=7 seed=0x10 fill=48 exit=1",
        )
        .unwrap();
        let expected = Options {
            nic: NicChoice::VirtioNetPci,
            crash: Death::DriverLock,
            mtu: Some(4148),
            server: "192.0.2.1".parse().unwrap(),
            client: "192.0.2.7".parse().unwrap(),
            gateway: Some("192.0.2.254".parse().unwrap()),
            path: "var/crash".parse().unwrap(),
            slots: 256,
            nested: Some(7),
            seed: 16,
            fill_mib: Some(48),
            exit: true,
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn each_death_has_a_name_that_parses_to_it() {
        for (name, death) in Death::NAMES {
            let line = format!("crash={name}");
            assert_eq!(Options::parse(&line).unwrap().crash, *death);
            assert_eq!(death.name(), *name);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        assert_eq!(Options::parse("quiet"), Err(ParseError::NoValue("quiet")));
        assert_eq!(Options::parse("crush=null"), Err(ParseError::UnknownKey("crush")));
        assert_eq!(Options::parse("seed=1 mtu=1500 seed=2"), Err(ParseError::Twice("seed")));
        for (key, line) in [
            ("nic", "nic=ne2k"),
            ("crash", "crash="),
            ("mtu", "mtu=575"),
            ("mtu", "mtu=65536"),
            ("server", "server=10.0.2"),
            ("slots", "slots=48"),
            ("slots", "slots=2048"),
            ("nested", "nested=0"),
            ("seed", "seed=-1"),
            ("exit", "exit=yes"),
        ] {
            let refused = Options::parse(line).unwrap_err();
            assert!(
                matches!(refused, ParseError::BadValue { key: named, .. } if named == key),
                "{line}: {refused}"
            );
        }
        let long = format!("path={}", "x".repeat(256));
        assert!(matches!(Options::parse(&long), Err(ParseError::BadValue { key: "path", .. })));
    }
}
