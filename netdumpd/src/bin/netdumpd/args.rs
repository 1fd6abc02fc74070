//! The command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use debugnet_core::wire::debugnet::NETDUMP_HERALD_PORT;
use netdumpd::core::Limits;
use netdumpd::net::ServerConfig;
use netdumpd::store::{DiskLimits, StoreConfig};

const SECOND_US: u64 = 1_000_000;

/// Collects crash dumps that dying kernels send over FreeBSD's netdump protocol.
#[derive(Clone, Debug, Parser)]
#[command(
    version,
    after_help = "\
Exit status: 0 stopped, or with --once the dump is complete; 1 cannot start or go on; 2 bad usage;
with --once: 3 the dump is incomplete, 4 it could not be stored, 5 stopped before a dump ended."
)]
pub(crate) struct Args {
    /// Address to take heralds at
    #[arg(short = 'a', value_name = "ADDR", default_value_t = Ipv4Addr::UNSPECIFIED.into())]
    address: IpAddr,

    /// Stay in the foreground, log to standard error; implied by --json and --once
    #[arg(short = 'D')]
    foreground: bool,

    /// Dump directory; nothing outside of it is written
    #[arg(short = 'd', value_name = "DIR", default_value = "/var/crash")]
    dir: PathBuf,

    /// Run for every dump that ends, with: reason, address, host, info file, vmcore
    #[arg(short = 'i', value_name = "SCRIPT")]
    script: Option<PathBuf>,

    /// Process id file [default: /var/run/netdumpd.pid, in the foreground none]
    #[arg(short = 'P', value_name = "FILE")]
    pid_file: Option<PathBuf>,

    /// Directory below the dump directory, for clients that ask for none
    #[arg(short = 'p', value_name = "PATH", default_value = ".")]
    path: PathBuf,

    /// Port to take heralds at; 0 picks a free one and tells it
    #[arg(long, value_name = "N", default_value_t = NETDUMP_HERALD_PORT)]
    port: u16,

    /// Exit after one dump; the exit status tells how it ended
    #[arg(long)]
    pub(crate) once: bool,

    /// Write one JSON event a line to standard output
    #[arg(long)]
    pub(crate) json: bool,

    /// Name files by the client's host name (reverse lookup) instead of its address
    #[arg(long)]
    resolve: bool,

    /// Largest dump accepted: bytes, or with K, M, G or T
    #[arg(long, value_name = "SIZE", default_value = "1T", value_parser = size)]
    max_dump_size: u64,

    /// Room that everything below the dump directory may take: bytes, or with K, M, G or T; no limit if not given
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_total_size: Option<u64>,

    /// Room that dumps leave free on the disk: bytes, or with K, M, G or T
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    min_free: u64,

    /// Seconds an ended dump's late retransmits are answered
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    linger: u32,

    /// Seconds the handler script may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    script_limit: u32,

    /// Set for the process that is the daemon
    #[arg(long, hide = true)]
    pub(crate) daemon_child: bool,
}

impl Args {
    /// Whether this process is to serve by itself, under whoever started it.
    pub(crate) fn in_foreground(&self) -> bool {
        self.foreground || self.json || self.once
    }

    /// What the server is to do; paths are absolute.
    pub(crate) fn server_config(&self) -> Result<ServerConfig> {
        let dir = self.dir.canonicalize().with_context(|| {
            format!("cannot use the dump directory {} (-d)", self.dir.display())
        })?;
        ensure!(dir.is_dir(), "the dump directory {} (-d) is no directory", dir.display());
        let mut limits = Limits::default();
        limits.max_dump_len = self.max_dump_size;
        limits.linger_us = u64::from(self.linger) * SECOND_US;
        let mut disk = DiskLimits::default();
        disk.max_total_len = self.max_total_size;
        disk.min_free_len = self.min_free;
        Ok(ServerConfig {
            listen: SocketAddr::new(self.address, self.port),
            store: StoreConfig {
                dir,
                default_path: self.path.clone(),
                time_zone: jiff::tz::TimeZone::system(),
                disk,
            },
            limits,
            script: self.script.as_deref().map(script).transpose()?,
            script_limit: Duration::from_secs(self.script_limit.into()),
            resolve: self.resolve,
            once: self.once,
        })
    }

    /// The process id file to write, if any.
    pub(crate) fn pid_file(&self) -> Option<PathBuf> {
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

fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        Some((at, 't' | 'T')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no size"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))
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
        assert!(size("99999999999T").is_err());
    }
}
