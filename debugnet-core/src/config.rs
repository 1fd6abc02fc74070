//! What to dump to, and within which limits. Parsed and checked at boot, so
//! that at the crash nothing of it can fail.

use core::fmt;
use core::net::{AddrParseError, IpAddr, Ipv4Addr};

use crate::addr::MacAddr;
use crate::wire::debugnet::{NETDUMP_CLIENT_PORT, NETDUMP_HERALD_PORT, STOCK_PAYLOAD_MAX};
use crate::wire::{
    debugnet::MessageHeader, ipv4::Ipv4Header, kdh::KernelDumpHeader, udp::UdpHeader,
};

/// Most targets a configuration holds.
pub const TARGETS_MAX: usize = 4;
/// Longest herald path in bytes, without its NUL.
pub const PATH_MAX: usize = 255;

/// A server to try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Target {
    /// The server.
    pub server: IpAddr,
    /// Our own address; `None` takes the IPv4 link-local one made from the MAC
    /// ([`Target::client_address`]), good for a server on the same wire.
    pub client: Option<IpAddr>,
    /// Where packets go if the server itself does not answer ARP.
    pub gateway: Option<IpAddr>,
    /// Index of the NIC in the list given to [`dump`](crate::Armed::dump).
    pub nic: usize,
    /// 802.1Q VLAN id, 1..=4094, to tag frames with.
    pub vlan: Option<u16>,
    /// UDP port the server takes heralds at.
    pub herald_port: u16,
    /// UDP port we send from. Stock servers answer to 20024 only.
    pub client_port: u16,
}

impl Target {
    /// The server at `server`, everything else at its default.
    pub const fn new(server: IpAddr) -> Self {
        Self {
            server,
            client: None,
            gateway: None,
            nic: 0,
            vlan: None,
            herald_port: NETDUMP_HERALD_PORT,
            client_port: NETDUMP_CLIENT_PORT,
        }
    }

    /// Our IPv4 address on an interface with this MAC: the configured one, or
    /// 169.254.x.y (RFC 3927) with x in 1..=254 from the MAC's last two bytes.
    pub fn client_address(&self, mac: MacAddr) -> Option<Ipv4Addr> {
        match self.client {
            Some(IpAddr::V4(client)) => Some(client),
            Some(IpAddr::V6(_)) => None,
            None => {
                let [.., high, low] = mac.0;
                let high = high.checked_rem(254).unwrap_or(0).saturating_add(1);
                Some(Ipv4Addr::new(169, 254, high, low))
            }
        }
    }
}

/// Everything [`arm`](crate::arm) needs to know besides memory.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Servers, tried in order until one has the dump.
    pub targets: heapless::Vec<Target, TARGETS_MAX>,
    /// Directory on the server, relative to its dump directory; empty for its default.
    pub path: heapless::String<PATH_MAX>,
    /// Largest IP packet to send, in bytes, if the NIC can: 1500 by default.
    pub mtu: u16,
    /// Largest payload of one message in bytes. Stock servers take up to 4096, ours 65,000.
    pub max_payload: u16,
    /// Microseconds after which the dump ends, whatever its state: an hour by default.
    pub deadline_us: u64,
    /// Microseconds without any answer after which a target is given up: 12 s by default.
    pub no_progress_us: u64,
    /// Microseconds to wait for the link to come up: 10 s by default.
    pub link_wait_us: u64,
    /// Frames to send at most; `None` for 64 a message and 10,000.
    pub max_transmissions: Option<u32>,
    /// Send nothing a stock client would not (no word in the herald's `aux2`).
    pub strict: bool,
    /// Leave runs of zero bytes out; the file has holes that read as zeros.
    pub elide_zeros: bool,
}

impl Config {
    /// Defaults and no target.
    pub const fn new() -> Self {
        Self {
            targets: heapless::Vec::new(),
            path: heapless::String::new(),
            mtu: 1500,
            max_payload: STOCK_PAYLOAD_MAX,
            deadline_us: 3_600_000_000,
            no_progress_us: 12_000_000,
            link_wait_us: 10_000_000,
            max_transmissions: None,
            strict: false,
            elide_zeros: true,
        }
    }

    /// Bytes in front of a payload in an IPv4 packet: IP, UDP, debugnet.
    pub const OVERHEAD_V4: u16 = (Ipv4Header::LEN + UdpHeader::LEN + MessageHeader::LEN) as u16;

    /// Payload bytes of one message on an interface of this MTU: 1448 at 1500.
    pub const fn payload_len(&self, ip_mtu: u16) -> u16 {
        let mtu = if ip_mtu < self.mtu { ip_mtu } else { self.mtu };
        let room = mtu.saturating_sub(Self::OVERHEAD_V4);
        if room < self.max_payload { room } else { self.max_payload }
    }

    /// Checks what can be checked before a NIC is known.
    ///
    /// # Errors
    /// The first [`ConfigError`] found.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.targets.is_empty() {
            return Err(ConfigError::NoTarget);
        }
        for target in &self.targets {
            if target.server.is_ipv6() || target.client.is_some_and(|ip| ip.is_ipv6()) {
                return Err(ConfigError::Ipv6);
            }
            if target.gateway.is_some_and(|ip| ip.is_ipv6()) {
                return Err(ConfigError::Ipv6);
            }
            let server = target.server;
            let is_broadcast = server == IpAddr::V4(Ipv4Addr::BROADCAST);
            if server.is_unspecified() || server.is_multicast() || is_broadcast {
                return Err(ConfigError::Server { found: server });
            }
            if target.client == Some(server) {
                return Err(ConfigError::Server { found: server });
            }
            if target.herald_port == 0 || target.client_port == 0 {
                return Err(ConfigError::Zero { what: "port" });
            }
            if let Some(vlan @ (0 | 4095..)) = target.vlan {
                return Err(ConfigError::Vlan { found: vlan });
            }
        }
        for (what, value) in [
            ("deadline", self.deadline_us),
            ("no-progress", self.no_progress_us),
            ("max-transmissions", u64::from(self.max_transmissions.unwrap_or(1))),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero { what });
            }
        }
        let payload = self.payload_len(u16::MAX);
        if usize::from(payload) < KernelDumpHeader::LEN {
            return Err(ConfigError::Payload { found: payload });
        }
        Ok(())
    }

    /// Reads the text form: words `key=value` separated by white space.
    ///
    /// `server=ADDR` begins a target; `client=`, `gateway=`, `nic=`, `vlan=`,
    /// `port=` and `client-port=` belong to the target before them. For the
    /// whole: `path=`, `mtu=`, `payload=`, `deadline=`, `no-progress=` and
    /// `link-wait=` in seconds, `max-transmissions=`, `strict=yes|no`,
    /// `zeros=elide|send`.
    ///
    /// ```
    /// use debugnet_core::Config;
    ///
    /// let config = Config::parse("server=192.0.2.1 client=192.0.2.9 path=lab mtu=9000").unwrap();
    /// assert_eq!(config.targets[0].server.to_string(), "192.0.2.1");
    /// assert_eq!((config.path.as_str(), config.mtu), ("lab", 9000));
    /// ```
    ///
    /// # Errors
    /// [`ConfigError`], with the value and what was expected.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::new();
        for word in text.split_ascii_whitespace() {
            let (key, value) = word.split_once('=').ok_or(ConfigError::word("key=value", word))?;
            config.apply(key, value)?;
        }
        config.check()?;
        Ok(config)
    }

    fn apply(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        match key {
            "server" => {
                let target = Target::new(address(value)?);
                self.targets.push(target).map_err(|_| ConfigError::TooManyTargets)?;
            }
            "client" => self.target()?.client = Some(address(value)?),
            "gateway" => self.target()?.gateway = Some(address(value)?),
            "nic" => self.target()?.nic = usize::from(number::<u8>(value)?),
            "vlan" => self.target()?.vlan = Some(number(value)?),
            "port" => self.target()?.herald_port = number(value)?,
            "client-port" => self.target()?.client_port = number(value)?,
            "path" => {
                self.path.clear();
                self.path
                    .push_str(value)
                    .map_err(|_| ConfigError::word("a path of at most 255 bytes", value))?;
            }
            "mtu" => self.mtu = number(value)?,
            "payload" => self.max_payload = number(value)?,
            "deadline" => self.deadline_us = seconds(value)?,
            "no-progress" => self.no_progress_us = seconds(value)?,
            "link-wait" => self.link_wait_us = seconds(value)?,
            "max-transmissions" => self.max_transmissions = Some(number(value)?),
            "strict" => self.strict = choice(value, "no", "yes")?,
            "zeros" => self.elide_zeros = choice(value, "send", "elide")?,
            _ => return Err(ConfigError::word("a known key", key)),
        }
        Ok(())
    }

    fn target(&mut self) -> Result<&mut Target, ConfigError> {
        self.targets.last_mut().ok_or(ConfigError::NoTarget)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

fn address(value: &str) -> Result<IpAddr, ConfigError> {
    value.parse().map_err(|_: AddrParseError| ConfigError::word("an IP address", value))
}

fn number<T: core::str::FromStr>(value: &str) -> Result<T, ConfigError> {
    value.parse().map_err(|_| ConfigError::word("a whole number in range", value))
}

fn seconds(value: &str) -> Result<u64, ConfigError> {
    Ok(u64::from(number::<u32>(value)?).saturating_mul(1_000_000))
}

fn choice(value: &str, no: &'static str, yes: &'static str) -> Result<bool, ConfigError> {
    match value {
        _ if value == yes => Ok(true),
        _ if value == no => Ok(false),
        _ => Err(ConfigError::word(yes, value)),
    }
}

/// Why a configuration or the memory given with it cannot work.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is no target, or a word that belongs to one comes before `server=`.
    NoTarget,
    /// More than [`TARGETS_MAX`].
    TooManyTargets,
    /// IPv6 addresses are not supported yet.
    Ipv6,
    /// A server no packet reaches, or our own address.
    Server {
        /// Its address.
        found: IpAddr,
    },
    /// A limit or port of zero.
    Zero {
        /// Which.
        what: &'static str,
    },
    /// A VLAN id outside 1..=4094.
    Vlan {
        /// The id.
        found: u16,
    },
    /// A payload that does not even hold the 512-byte kernel dump header.
    Payload {
        /// Bytes a message could hold.
        found: u16,
    },
    /// Slots must be a power of two from 16 to 4096.
    Slots {
        /// Slots given.
        found: usize,
    },
    /// The table must have eight entries a slot.
    Index {
        /// Entries given.
        found: usize,
        /// Entries needed.
        need: usize,
    },
    /// There must be room for one cell at least.
    Cells {
        /// Bytes given.
        found: usize,
        /// Bytes of one cell.
        need: usize,
    },
    /// The receive buffer must hold a frame.
    Rx {
        /// Bytes given.
        found: usize,
        /// Bytes needed.
        need: usize,
    },
    /// A word of the text form is not what was expected.
    Word {
        /// What was expected.
        expected: &'static str,
        /// The word, cut at 32 bytes.
        found: heapless::String<32>,
    },
}

impl ConfigError {
    fn word(expected: &'static str, found: &str) -> Self {
        let mut kept = heapless::String::new();
        for character in found.chars() {
            if kept.push(character).is_err() {
                break;
            }
        }
        Self::Word { expected, found: kept }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTarget => write!(f, "no server= before this point"),
            Self::TooManyTargets => write!(f, "more than {TARGETS_MAX} servers"),
            Self::Ipv6 => write!(f, "IPv6 addresses are not supported yet"),
            Self::Server { found } => write!(f, "server {found}, expected another host's address"),
            Self::Zero { what } => write!(f, "{what} is 0, expected at least 1"),
            Self::Vlan { found } => write!(f, "VLAN id {found}, expected 1 to 4094"),
            Self::Payload { found } => {
                write!(f, "mtu or payload leaves {found} bytes a message, expected at least 512")
            }
            Self::Slots { found } => {
                write!(f, "{found} slots, expected a power of two from 16 to 4096")
            }
            Self::Index { found, need } => write!(f, "{found} index entries, expected {need}"),
            Self::Cells { found, need } => {
                write!(f, "{found} bytes of cells, expected at least {need}")
            }
            Self::Rx { found, need } => {
                write!(f, "receive buffer of {found} bytes, expected {need}")
            }
            Self::Word { expected, found } => write!(f, "`{found}`: expected {expected}"),
        }
    }
}

impl core::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_payload_is_1448_at_1500() {
        let config = Config::new();
        assert_eq!(config.payload_len(1500), 1448);
        assert_eq!(config.payload_len(9000), 1448, "the configured MTU limits");
        let jumbo = Config { mtu: 9000, ..Config::new() };
        assert_eq!(jumbo.payload_len(9000), 4096, "a stock server takes no more");
        assert_eq!(jumbo.payload_len(1500), 1448, "the NIC limits");
    }

    #[test]
    fn several_targets() {
        let config = Config::parse(
            "server=10.0.0.1 vlan=7 gateway=10.0.0.254 server=10.0.1.1 nic=1 port=4000",
        )
        .unwrap();
        assert_eq!(config.targets.len(), 2);
        assert_eq!(config.targets[0].vlan, Some(7));
        assert_eq!((config.targets[1].nic, config.targets[1].herald_port), (1, 4000));
    }

    #[test]
    fn bad_words_are_named() {
        for (text, expected) in [
            ("server=10.0.0.300", "`10.0.0.300`: expected an IP address"),
            ("client=10.0.0.1", "no server= before this point"),
            ("server=10.0.0.1 mtu=70000", "`70000`: expected a whole number in range"),
            (
                "server=10.0.0.1 mtu=100",
                "mtu or payload leaves 48 bytes a message, expected at least 512",
            ),
            ("server=10.0.0.1 vlan=4095", "VLAN id 4095, expected 1 to 4094"),
            ("server=::1", "IPv6 addresses are not supported yet"),
            ("server=10.0.0.1 colour=red", "`colour`: expected a known key"),
            ("nonsense", "`nonsense`: expected key=value"),
            ("", "no server= before this point"),
            ("server=0.0.0.0", "server 0.0.0.0, expected another host's address"),
            ("server=1.2.3.4 client=1.2.3.4", "server 1.2.3.4, expected another host's address"),
            ("server=1.2.3.4 no-progress=0", "no-progress is 0, expected at least 1"),
            ("server=1.2.3.4 port=0", "port is 0, expected at least 1"),
        ] {
            assert_eq!(Config::parse(text).unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn link_local_address_comes_from_the_mac() {
        let target = Target::new(IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)));
        let ip = target.client_address(MacAddr([2, 0, 0, 0, 0xff, 0x34])).unwrap();
        assert_eq!(ip, Ipv4Addr::new(169, 254, 2, 0x34));
    }
}
