//! The command line: the one source of `--help`, the man page and completions.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::builder::RangedU64ValueParser;
use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use debugnet_core::wire::debugnet::NETDUMP_HERALD_PORT;

use crate::core::Limits;
use crate::net::ServerConfig;
use crate::store::{DiskLimits, StoreConfig};

const SECOND_US: u64 = 1_000_000;

/// Collects crash dumps that dying kernels send over FreeBSD's netdump protocol.
#[derive(Clone, PartialEq, Eq, Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = "\
Exit status: 0 stopped, or with --once the dump is complete; 1 cannot start or go on; 2 bad usage;
with --once: 3 the dump is incomplete, 4 it could not be stored, 5 stopped before a dump ended.
inspect: 0 complete, 1 cannot be read, 2 bad usage, 3 incomplete, 4 not stored, 5 unknown."
)]
pub struct Args {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Address to take heralds at, with or without a port; may be given several times
    /// [default: 0.0.0.0]
    #[arg(short = 'a', long = "listen", value_name = "ADDR", value_parser = listen)]
    listen: Vec<Listen>,

    /// Stay in the foreground, log to standard error; implied by --json and --once
    #[arg(short = 'D', long)]
    foreground: bool,

    /// Dump directory; nothing outside of it is written
    #[arg(short = 'd', long, value_name = "DIR", default_value = "/var/crash")]
    pub dir: PathBuf,

    /// Run for every dump that ends, with: reason, address, host, info file, vmcore
    #[arg(short = 'i', long, value_name = "SCRIPT")]
    script: Option<PathBuf>,

    /// Process id file [default: /var/run/netdumpd.pid, in the foreground none]
    #[arg(short = 'P', long, value_name = "FILE")]
    pid_file: Option<PathBuf>,

    /// Directory below the dump directory, for clients that ask for none
    #[arg(short = 'p', long, value_name = "PATH", default_value = ".")]
    path: PathBuf,

    /// Port to take heralds at; 0 picks a free one and tells it
    #[arg(long, value_name = "N", default_value_t = NETDUMP_HERALD_PORT)]
    port: u16,

    /// Exit after one dump; the exit status tells how it ended
    #[arg(long)]
    pub once: bool,

    /// Write one JSON event a line to standard output
    #[arg(long)]
    pub json: bool,

    /// Name files by the client's host name (reverse lookup) instead of its address
    #[arg(long)]
    pub resolve: bool,

    /// Read options from a TOML file: their long names as keys. The command line wins
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Serve as this user, by name or number, once everything is open
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// Whether to give up all rights that are not needed any more
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Sandbox::Auto)]
    pub sandbox: Sandbox,

    /// Where to answer Prometheus over HTTP
    #[cfg(feature = "metrics")]
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,

    /// Largest dump accepted: bytes, or with K, M, G or T
    #[arg(long, value_name = "SIZE", default_value = "1T", value_parser = size)]
    max_dump_size: u64,

    /// Room that everything below the dump directory may take: bytes, or with K, M, G or T; no limit if not given
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_total_size: Option<u64>,

    /// Room that dumps leave free on the disk: bytes, or with K, M, G or T
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    min_free: u64,

    /// Dumps at a time, with those that have just ended
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_sessions, value_parser = count::<usize>())]
    max_sessions: usize,

    /// The same for one client address
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_sessions_per_source, value_parser = count::<usize>())]
    max_sessions_per_source: usize,

    /// New dumps a second; one client address gets a quarter of them
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_heralds_per_s, value_parser = count::<u32>())]
    max_heralds_per_second: u32,

    /// Received data that may wait for disks, of all dumps together
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = memory)]
    memory: u64,

    /// Seconds an ended dump's late retransmits are answered
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    linger: u32,

    /// Seconds the handler script may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    script_limit: u32,

    /// Set for the process that is the daemon
    #[arg(long, hide = true)]
    pub daemon_child: bool,

    /// Set for the process that runs the handler script
    #[arg(long, hide = true)]
    pub handler_helper: bool,
}

/// What else the program does.
#[derive(Clone, PartialEq, Eq, Debug, Subcommand)]
pub enum Command {
    /// Tell what a vmcore, info file or record holds
    Inspect {
        /// A vmcore (raw, ELF, .gz, .zst), an info file, or a record (.json)
        #[arg(value_name = "FILE")]
        file: PathBuf,

        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the man page or a shell's completions
    Generate {
        /// Which of them
        #[command(subcommand)]
        what: Generate,
    },
}

/// What is printed.
#[derive(Clone, PartialEq, Eq, Debug, Subcommand)]
pub enum Generate {
    /// The man page, for section 8
    Man,
    /// Completions for a shell
    Completions {
        /// Which shell's
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// Whether the server locks itself down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Sandbox {
    /// As far as the system can
    Auto,
    /// Do not start if the system cannot
    Require,
    /// Not at all
    Off,
}

/// An address with or without a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Listen {
    Ip(IpAddr),
    Socket(SocketAddr),
}

impl Args {
    /// Whether this process is to serve by itself, under whoever started it.
    pub fn in_foreground(&self) -> bool {
        self.foreground || self.json || self.once
    }

    /// What the server is to do; paths are absolute.
    ///
    /// # Errors
    /// If the dump directory cannot be used, or the memory is beyond this machine's addresses.
    pub fn server_config(&self) -> Result<ServerConfig> {
        Ok(ServerConfig {
            listen: self.listen_addresses(),
            inherited: Vec::new(),
            store: StoreConfig {
                dir: self.dump_dir()?,
                default_path: self.path.clone(),
                time_zone: jiff::tz::TimeZone::system(),
                disk: DiskLimits {
                    max_total_len: self.max_total_size,
                    min_free_len: self.min_free,
                },
            },
            limits: self.limits(),
            memory_len: usize::try_from(self.memory)?,
            resolve: self.resolve,
            once: self.once,
        })
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_dump_len: self.max_dump_size,
            max_sessions: self.max_sessions,
            max_sessions_per_source: self.max_sessions_per_source,
            max_heralds_per_s: self.max_heralds_per_second,
            linger_us: u64::from(self.linger) * SECOND_US,
            ..Limits::default()
        }
    }

    pub(crate) fn listen_addresses(&self) -> Vec<SocketAddr> {
        let default = [Listen::Ip(std::net::Ipv4Addr::UNSPECIFIED.into())];
        let all = if self.listen.is_empty() { &default[..] } else { &self.listen };
        all.iter()
            .map(|listen| match *listen {
                Listen::Ip(ip) => SocketAddr::new(ip, self.port),
                Listen::Socket(address) => address,
            })
            .collect()
    }

    /// The dump directory as an absolute path.
    ///
    /// # Errors
    /// If it is none.
    pub fn dump_dir(&self) -> Result<PathBuf> {
        let dir = self.dir.canonicalize().with_context(|| {
            format!("cannot use the dump directory {} (-d)", self.dir.display())
        })?;
        ensure!(dir.is_dir(), "the dump directory {} (-d) is no directory", dir.display());
        Ok(dir)
    }

    /// The script as an absolute path, if there is one: it can be run.
    ///
    /// # Errors
    /// If it cannot.
    pub fn script(&self) -> Result<Option<PathBuf>> {
        self.script.as_deref().map(script).transpose()
    }

    /// How long the script may take.
    pub fn script_limit(&self) -> Duration {
        Duration::from_secs(self.script_limit.into())
    }

    /// The process id file to write, if any.
    pub fn pid_file(&self) -> Option<PathBuf> {
        let default = || PathBuf::from("/var/run/netdumpd.pid");
        self.pid_file.clone().or_else(|| self.daemon_child.then(default))
    }
}

fn script(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    let found =
        path.canonicalize().with_context(|| format!("cannot use the script {shown} (-i)"))?;
    rustix::fs::access(&found, rustix::fs::Access::EXEC_OK)
        .with_context(|| format!("cannot run the script {shown} (-i)"))?;
    Ok(found)
}

fn listen(text: &str) -> Result<Listen, String> {
    let ip = text.parse().map(Listen::Ip);
    ip.or_else(|_| text.parse().map(Listen::Socket))
        .map_err(|_| format!("{text:?} is no address; expected 192.0.2.1, 192.0.2.1:20023 or ::1"))
}

/// With none of them a server would take no dump.
fn count<T: TryFrom<u64> + Clone + Send + Sync + 'static>() -> RangedU64ValueParser<T> {
    RangedU64ValueParser::new().range(1..)
}

fn memory(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 1 << 20;
    let len = size(text)?;
    if len < LEAST { Err(format!("{text:?} is too little; expected 1M or more")) } else { Ok(len) }
}

fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        Some((at, 't' | 'T')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let too_large = || format!("{text:?} is too large; expected less than 16777216T");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text:?} is no size; expected bytes, or a number with K, M, G or T"));
    }
    let number: u64 = digits.parse().map_err(|_| too_large())?;
    number.checked_mul(1 << shift).ok_or_else(too_large)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn sizes() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("3k"), Ok(3072));
        assert_eq!(size("2T"), Ok(2 << 40));
        assert!(size("").is_err() && size("G").is_err() && size("-1").is_err());
        assert!(size("+5").is_err() && size("4 K").is_err() && size("4KK").is_err());
        assert!(size("99999999999T").is_err());
        assert!(memory("4K").is_err() && memory("1M").is_ok());
    }

    /// It would answer no herald, and say nothing of it.
    #[test]
    fn a_server_that_takes_no_dump_is_refused() {
        for option in ["max-sessions", "max-sessions-per-source", "max-heralds-per-second"] {
            let with =
                |number: u32| Args::try_parse_from(["netdumpd", &format!("--{option}={number}")]);
            let error = with(0).unwrap_err().to_string();
            assert!(error.contains("invalid value '0'") && error.contains(option), "{error}");
            assert!(with(1).is_ok());
        }
    }

    #[test]
    fn addresses_with_and_without_a_port() {
        let args = ["netdumpd", "-a", "192.0.2.1", "-a", "[::1]:7", "--port", "9"];
        let addresses = Args::parse_from(args).listen_addresses();
        assert_eq!(addresses, ["192.0.2.1:9".parse().unwrap(), "[::1]:7".parse().unwrap()]);
        let addresses = Args::parse_from(["netdumpd"]).listen_addresses();
        assert_eq!(addresses, ["0.0.0.0:20023".parse().unwrap()]);
        assert!(listen("host").is_err() && listen("1.2.3.4:").is_err());
    }
}
