//! The kernel's command line: `key=value` words, separated by blanks.
//!
//! Some keys are the kernel's own, the others are the dump's and go to
//! [`Config`] as they are. `README.md` lists the keys for users. A word that is not understood stops
//! the boot: a test that thinks it asked for something must not run without it.

use core::fmt::{self, Write};
use core::net::Ipv4Addr;

use debugnet_core::progress::Stage;
use debugnet_core::{Config, ConfigError};
use heapless::String;

use crate::overrun::Overrun;

/// Longest text of the dump's own words in bytes.
const DUMP_TEXT_MAX: usize = 1024;
/// Fewest window slots.
pub const SLOTS_MIN: usize = 16;
/// Most window slots: what the volatile section has room for.
pub const SLOTS_MAX: usize = 1024;

/// Longest virtio queues that there is memory for.
const TX_QUEUE_MAX: u16 = 256;
const RX_QUEUE_MAX: u16 = 64;

/// What the command line asks for, with defaults for what it leaves out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// `nic=`: which NIC to take over. Default `auto`.
    pub nic: NicChoice,
    /// `crash=`: how to die. Default `null`.
    pub crash: Death,
    /// `server=`: where the dump goes, and whom the live kernel asks for. Default `10.0.2.2`.
    pub server: Ipv4Addr,
    /// `client=`: our own address. Default `10.0.2.15`.
    pub client: Ipv4Addr,
    /// `slots=`: window slots, a power of two. Default 1024.
    pub slots: usize,
    /// `nested=`: fault again at this observer event of the dump, from 1. Default never.
    pub nested: Option<u32>,
    /// `nested-in=`: the same, as a stage of the dump begins. Default never.
    pub nested_in: NestedIn,
    /// `nested-by=`: how it dies then. Default `fault`.
    pub nested_by: NestedBy,
    /// `overrun=`: one byte written beyond a piece of the dump's memory, in the middle of it.
    /// Default never.
    pub overrun: Option<Overrun>,
    /// `seed=`: seed of the pattern in RAM. Default 1.
    pub seed: u64,
    /// `fill=`: fill only so many MiB of free RAM. Default all.
    pub fill_mib: Option<u64>,
    /// `image=`: what the dump looks like. Default `elf`.
    pub image: ImageKind,
    /// `compress=`: how the image is compressed on its way. Default `none`.
    pub compress: Compression,
    /// `redact=1`: keep the kernel's keys out of the image.
    pub redact: bool,
    /// `cpus=`: how many CPUs to use, 1 or 2. Default 1.
    pub cpus: u32,
    /// `second=`: what the second CPU does, and whether it is stopped at the death. Default `idle`.
    pub second: Second,
    /// `clock=`: what the clock does in the middle of the dump. Default `steady`.
    pub clock: ClockFate,
    /// `busy=`: frames that the live kernel sends before it dies. Default 200.
    pub busy: u64,
    /// `left=`: what state the device is left in.
    pub left: Left,
    /// `link=`: what happens to the link before the death. Default nothing.
    pub link: LinkFate,
    /// `offload=1`: let an Intel controller insert checksums.
    pub offload: bool,
    /// `tx-queue=`: descriptors of a virtio transmit queue, where the driver may choose. Default 256.
    pub tx_queue: u16,
    /// `rx-queue=`: buffers of a virtio receive queue. Default 64.
    pub rx_queue: u16,
    /// `bench=`: MiB to send and to have answered before the death, measured. Default none.
    pub bench_mib: Option<u64>,
    /// `exit=1`: leave QEMU after the outcome instead of stopping with the machine intact.
    pub exit: bool,
    /// The words of [`DUMP_KEYS`], as given.
    dump: String<DUMP_TEXT_MAX>,
}

/// Keys that mean to the dump what they mean in [`Config::parse`].
const DUMP_KEYS: &[&str] = &[
    "gateway",
    "path",
    "mtu",
    "payload",
    "deadline",
    "no-progress",
    "link-wait",
    "max-transmissions",
    "strict",
    "zeros",
];

impl Default for Options {
    fn default() -> Self {
        Self {
            nic: NicChoice::Auto,
            crash: Death::Null,
            server: Ipv4Addr::new(10, 0, 2, 2),
            client: Ipv4Addr::new(10, 0, 2, 15),
            slots: SLOTS_MAX,
            nested: None,
            nested_in: NestedIn::Never,
            nested_by: NestedBy::Fault,
            overrun: None,
            seed: 1,
            fill_mib: None,
            image: ImageKind::Elf,
            compress: Compression::None,
            redact: false,
            cpus: 1,
            second: Second::Idle,
            clock: ClockFate::Steady,
            busy: 200,
            left: Left::default(),
            link: LinkFate::Up,
            offload: false,
            tx_queue: TX_QUEUE_MAX,
            rx_queue: RX_QUEUE_MAX,
            bench_mib: None,
            exit: false,
            dump: String::new(),
        }
    }
}

/// What is wrong with the device when the kernel dies, beyond the buffers that
/// are posted and the frames that nobody announced or reaped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Left {
    /// The network takes nothing, so that the ring is full of frames under way.
    pub stuck: bool,
    /// Intel: frames announced to a transmitter that is off.
    pub pending: bool,
    /// MSI-X is on.
    pub msi_x: bool,
    /// Bus mastering is off, and frames were announced since.
    pub bus_off: bool,
    /// Registers are not decoded, and a doorbell was lost for it.
    pub undecoded: bool,
    /// The function sleeps (D3hot).
    pub asleep: bool,
    /// Rings and registers are overwritten, and the device has noticed.
    pub garbage: bool,
    /// The live driver had stopped the device.
    pub stopped: bool,
    /// The live driver was in the middle of bringing the device up again.
    pub half: bool,
}

impl Left {
    fn parse(words: &str) -> Option<Self> {
        let mut left = Self::default();
        for word in words.split(',') {
            let flag = match word {
                "stuck" => &mut left.stuck,
                "pending" => &mut left.pending,
                "msi-x" => &mut left.msi_x,
                "bus-off" => &mut left.bus_off,
                "undecoded" => &mut left.undecoded,
                "asleep" => &mut left.asleep,
                "garbage" => &mut left.garbage,
                "stopped" => &mut left.stopped,
                "half" => &mut left.half,
                _ => return None,
            };
            *flag = true;
        }
        Some(left)
    }
}

/// What happens to the link before the kernel dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkFate {
    /// Nothing.
    Up,
    /// It goes down and comes up again.
    Bounce,
    /// It goes down and is still down at the death.
    Down,
}

impl LinkFate {
    const NAMES: &[(&str, Self)] =
        &[("up", Self::Up), ("bounce", Self::Bounce), ("down", Self::Down)];
}

/// When the kernel dies once more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NestedIn {
    /// It does not.
    Never,
    /// As this stage of the dump begins.
    Stage(Stage),
    /// When half of the image is acknowledged.
    Half,
}

impl NestedIn {
    const NAMES: &[(&str, Self)] = &[
        ("take-over", Self::Stage(Stage::TakeOver)),
        ("link", Self::Stage(Stage::Link)),
        ("resolve", Self::Stage(Stage::Resolve)),
        ("herald", Self::Stage(Stage::Herald)),
        ("data", Self::Stage(Stage::Data)),
        ("half", Self::Half),
        ("header", Self::Stage(Stage::Header)),
        ("finish", Self::Stage(Stage::Finish)),
    ];
}

/// How the kernel dies once more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NestedBy {
    /// Writes through a null pointer.
    Fault,
    /// Panics with [`NESTED_PANIC`].
    Panic,
}

/// What the panic in the dump says.
pub const NESTED_PANIC: &str = "the observer of the dump gave up";

impl NestedBy {
    const NAMES: &[(&str, Self)] = &[("fault", Self::Fault), ("panic", Self::Panic)];
}

/// What the second CPU does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Second {
    /// It waits for work, and stops when the first one dies.
    Idle,
    /// It writes to memory without end, and nobody stops it.
    Writes,
}

impl Second {
    const NAMES: &[(&str, Self)] = &[("idle", Self::Idle), ("writes", Self::Writes)];
}

/// What the clock does once half of the image is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockFate {
    /// It goes on.
    Steady,
    /// It stands still from then on.
    Stop,
    /// It goes ahead by ten seconds at once.
    Jump,
    /// It goes back by ten seconds at once.
    Back,
    /// It goes ahead by two hours at once.
    Late,
}

impl ClockFate {
    const NAMES: &[(&str, Self)] = &[
        ("steady", Self::Steady),
        ("stop", Self::Stop),
        ("jump", Self::Jump),
        ("back", Self::Back),
        ("late", Self::Late),
    ];
}

/// Which NIC to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NicChoice {
    /// The first one that any driver knows.
    Auto,
    /// The first virtio network function on the PCI bus that has the modern interface.
    VirtioNetPci,
    /// The same, and one that never had the legacy interface.
    VirtioNetPciNonTransitional,
    /// The first virtio network function on the PCI bus with the legacy
    /// interface, driven through that.
    VirtioNetPciLegacy,
    /// The first virtio network device in an MMIO slot of version 2.
    VirtioNetDevice,
    /// The same, of version 1.
    VirtioNetDeviceLegacy,
    /// The first of Intel's controllers with this PCI device id.
    Intel(u16),
    /// None: for a look at a machine without a network. The dump fails.
    None,
}

impl NicChoice {
    const NAMES: &[(&str, Self)] = &[
        ("auto", Self::Auto),
        ("virtio-net-pci", Self::VirtioNetPci),
        ("virtio-net-pci-non-transitional", Self::VirtioNetPciNonTransitional),
        ("virtio-net-pci-legacy", Self::VirtioNetPciLegacy),
        ("virtio-net-device", Self::VirtioNetDevice),
        ("virtio-net-device-legacy", Self::VirtioNetDeviceLegacy),
        ("e1000", Self::Intel(0x100e)),
        ("e1000-82544gc", Self::Intel(0x100c)),
        ("e1000-82545em", Self::Intel(0x100f)),
        ("e1000e", Self::Intel(0x10d3)),
        ("igb", Self::Intel(0x10c9)),
        ("none", Self::None),
    ];
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

/// What the dump looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageKind {
    /// An ELF core that a debugger opens.
    Elf,
    /// RAM at the offset of its physical address.
    Flat,
    /// FreeBSD's full dump.
    FreeBsd,
}

impl ImageKind {
    const NAMES: &[(&str, Self)] =
        &[("elf", Self::Elf), ("flat", Self::Flat), ("freebsd", Self::FreeBsd)];

    /// Its name on the command line and in the report.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("?", |(name, _)| name)
    }
}

/// How the image is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip at its fastest, in 168 KiB.
    Gzip,
}

impl Compression {
    const NAMES: &[(&str, Self)] = &[("none", Self::None), ("gzip", Self::Gzip)];
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
                self.nic =
                    named(NicChoice::NAMES, value).ok_or(bad("auto, none, or a NIC of QEMU"))?;
            }
            "crash" => {
                self.crash =
                    named(Death::NAMES, value).ok_or(bad("null, panic, stack or driver-lock"))?;
            }
            "server" => self.server = value.parse().map_err(|_| bad("an IPv4 address"))?,
            "client" => self.client = value.parse().map_err(|_| bad("an IPv4 address"))?,
            "slots" => {
                self.slots = number(value, SLOTS_MIN as u64, SLOTS_MAX as u64)
                    .filter(|slots| slots.is_power_of_two())
                    .ok_or(bad("a power of two from 16 to 1024"))?
                    as usize;
            }
            "nested" => {
                let event = number(value, 1, u64::from(u32::MAX));
                self.nested = Some(event.ok_or(bad("an event number from 1"))? as u32);
            }
            "nested-in" => {
                self.nested_in = named(NestedIn::NAMES, value)
                    .ok_or(bad("take-over, link, resolve, herald, data, half, header or finish"))?;
            }
            "nested-by" => {
                self.nested_by = named(NestedBy::NAMES, value).ok_or(bad("fault or panic"))?;
            }
            "overrun" => {
                let expected = bad("before-, after- or device- and a piece of the dump's memory");
                self.overrun = Some(Overrun::parse(value).ok_or(expected)?);
            }
            "seed" => self.seed = number(value, 0, u64::MAX).ok_or(bad("a number"))?,
            "fill" => {
                self.fill_mib = Some(number(value, 0, 1 << 20).ok_or(bad("a number of MiB"))?);
            }
            "cpus" => self.cpus = number(value, 1, 2).ok_or(bad("1 or 2"))? as u32,
            "second" => {
                self.second = named(Second::NAMES, value).ok_or(bad("idle or writes"))?;
            }
            "clock" => {
                self.clock = named(ClockFate::NAMES, value)
                    .ok_or(bad("steady, stop, jump, back or late"))?;
            }
            "image" => {
                self.image = named(ImageKind::NAMES, value).ok_or(bad("elf, flat or freebsd"))?;
            }
            "compress" => {
                self.compress = named(Compression::NAMES, value).ok_or(bad("none or gzip"))?;
            }
            "redact" => self.redact = yes_or_no(value).ok_or(bad("0 or 1"))?,
            "busy" => {
                self.busy = number(value, 0, 1 << 20).ok_or(bad("a number of frames"))?;
            }
            "left" => {
                self.left = Left::parse(value).ok_or(bad(
                    "stuck, pending, msi-x, bus-off, undecoded, asleep, garbage, stopped or half, \
                     with commas between",
                ))?;
            }
            "link" => {
                self.link = named(LinkFate::NAMES, value).ok_or(bad("up, bounce or down"))?;
            }
            "offload" => self.offload = yes_or_no(value).ok_or(bad("0 or 1"))?,
            "tx-queue" => {
                let len = number(value, 4, TX_QUEUE_MAX.into()).filter(|len| len.is_power_of_two());
                self.tx_queue = len.ok_or(bad("a power of two from 4 to 256"))? as u16;
            }
            "rx-queue" => {
                let len = number(value, 1, RX_QUEUE_MAX.into()).filter(|len| len.is_power_of_two());
                self.rx_queue = len.ok_or(bad("a power of two from 1 to 64"))? as u16;
            }
            "bench" => {
                self.bench_mib = Some(number(value, 1, 1 << 12).ok_or(bad("a number of MiB"))?);
            }
            "exit" => self.exit = yes_or_no(value).ok_or(bad("0 or 1"))?,
            _ if DUMP_KEYS.contains(&key) => {
                write!(self.dump, " {key}={value}").map_err(|_| bad("a shorter command line"))?;
            }
            _ => return Err(ParseError::UnknownKey(key)),
        }
        Ok(())
    }
}

impl Options {
    /// The configuration of the dump: one target, and the words that are the dump's own.
    ///
    /// # Errors
    /// [`ConfigError`] if one of these does not mean anything to the dump.
    pub fn config(&self) -> Result<Config, ConfigError> {
        Config::parse(&self.config_text())
    }

    /// The same as text, for a crash path that reads it itself.
    pub fn config_text(&self) -> String<{ DUMP_TEXT_MAX + 64 }> {
        let mut text = String::new();
        // Two addresses take less than the 64 bytes set aside for them.
        let _ = write!(text, "server={} client={}{}", self.server, self.client, self.dump);
        text
    }

    /// The MTU that the dump is to use, in bytes.
    pub fn mtu(&self) -> u16 {
        self.config().map_or(1500, |config| config.mtu)
    }
}

fn named<T: Copy>(names: &[(&str, T)], value: &str) -> Option<T> {
    names.iter().find(|(name, _)| *name == value).map(|(_, named)| *named)
}

fn yes_or_no(value: &str) -> Option<bool> {
    match value {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
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
             gateway=192.0.2.254 path=var/crash slots=256 nested=7 nested-in=half nested-by=panic overrun=after-rx seed=0x10 fill=48 cpus=2 image=flat compress=gzip redact=1 exit=1 \
             second=writes clock=jump busy=7 left=msi-x,bus-off link=bounce offload=1 tx-queue=64 rx-queue=16 bench=8 \
             payload=4000 deadline=60 no-progress=2 link-wait=3 max-transmissions=9 strict=yes \
             zeros=send",
        )
        .unwrap();
        let expected = Options {
            nic: NicChoice::VirtioNetPci,
            crash: Death::DriverLock,
            server: "192.0.2.1".parse().unwrap(),
            client: "192.0.2.7".parse().unwrap(),
            slots: 256,
            nested: Some(7),
            nested_in: NestedIn::Half,
            nested_by: NestedBy::Panic,
            overrun: Overrun::parse("after-rx"),
            seed: 16,
            fill_mib: Some(48),
            cpus: 2,
            second: Second::Writes,
            clock: ClockFate::Jump,
            image: ImageKind::Flat,
            compress: Compression::Gzip,
            redact: true,
            busy: 7,
            left: Left { msi_x: true, bus_off: true, ..Left::default() },
            link: LinkFate::Bounce,
            offload: true,
            tx_queue: 64,
            rx_queue: 16,
            bench_mib: Some(8),
            exit: true,
            dump: options.dump.clone(),
        };
        assert_eq!(options, expected);

        let config = options.config().unwrap();
        assert_eq!(config.targets.len(), 1);
        let target = &config.targets[0];
        assert_eq!(target.server, options.server);
        assert_eq!(target.client, Some(options.client.into()));
        assert_eq!(target.gateway, Some("192.0.2.254".parse().unwrap()));
        assert_eq!(
            (config.path.as_str(), config.mtu, config.max_payload),
            ("var/crash", 4148, 4000)
        );
        assert_eq!((config.deadline_us, config.no_progress_us), (60_000_000, 2_000_000));
        assert_eq!((config.link_wait_us, config.max_transmissions), (3_000_000, Some(9)));
        assert!(config.strict && !config.elide_zeros);
    }

    #[test]
    fn the_defaults_make_a_configuration() {
        let config = Options::default().config().unwrap();
        assert_eq!(config.targets[0].server.to_string(), "10.0.2.2");
        assert_eq!(config.mtu, 1500);
    }

    #[test]
    fn what_the_dump_does_not_understand_is_its_error() {
        for line in ["mtu=lots", "gateway=10.0", "strict=perhaps", "mtu=300"] {
            assert!(Options::parse(line).unwrap().config().is_err(), "{line}");
        }
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
    fn each_nic_has_a_name_that_parses_to_it() {
        for (name, nic) in NicChoice::NAMES {
            assert_eq!(Options::parse(&format!("nic={name}")).unwrap().nic, *nic);
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
            ("server", "server=10.0.2"),
            ("slots", "slots=48"),
            ("slots", "slots=2048"),
            ("nested", "nested=0"),
            ("nested-in", "nested-in=done"),
            ("nested-by", "nested-by=nmi"),
            ("overrun", "overrun=after-all"),
            ("seed", "seed=-1"),
            ("cpus", "cpus=3"),
            ("image", "image=coff"),
            ("compress", "compress=zstd"),
            ("second", "second=sleeps"),
            ("clock", "clock=late-again"),
            ("redact", "redact=2"),
            ("exit", "exit=yes"),
            ("left", "left=msi-x,broken"),
            ("left", "left="),
            ("link", "link=off"),
            ("tx-queue", "tx-queue=512"),
            ("rx-queue", "rx-queue=48"),
        ] {
            let refused = Options::parse(line).unwrap_err();
            assert!(
                matches!(refused, ParseError::BadValue { key: named, .. } if named == key),
                "{line}: {refused}"
            );
        }
        let long = format!("path={}", "x".repeat(DUMP_TEXT_MAX));
        assert!(matches!(Options::parse(&long), Err(ParseError::BadValue { key: "path", .. })));
    }
}
