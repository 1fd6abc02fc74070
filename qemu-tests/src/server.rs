//! The real `netdumpd`, as a child process.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, io};

use serde_json::Value;

use crate::process::Process;

/// Longest wait for the server to listen.
const START_MAX: Duration = Duration::from_secs(20);
/// Longest wait for it to end when asked to.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A server that takes one dump and ends.
#[derive(Debug)]
pub struct Server {
    process: Process,
    address: SocketAddrV4,
    log: PathBuf,
}

/// What the server said about a dump that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// `complete`, or what was wrong.
    pub result: String,
    /// The dump.
    pub vmcore: Option<PathBuf>,
    /// The whole event.
    pub event: Value,
}

impl Server {
    /// Starts `program` on a port of its own of `ip`, dumping into `dir`; its
    /// log goes to `log`. Returns once it listens.
    ///
    /// # Errors
    /// It cannot be started, or does not listen in time; the error ends with its log.
    pub fn start(program: &Path, ip: Ipv4Addr, dir: &Path, log: &Path) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg("-D").arg("-a").arg(ip.to_string()).args(["--port", "0"]);
        command.arg("-d").arg(dir).args(["--json", "--once"]);
        command.stderr(File::create(log)?);
        let process = Process::spawn(command)?;
        let mut server =
            Self { process, address: SocketAddrV4::new(ip, 0), log: log.to_path_buf() };
        let event = server.event("listening", START_MAX)?;
        server.address = event["address"]
            .as_str()
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| io::Error::other(format!("no address in {event}")))?;
        Ok(server)
    }

    /// Where it listens for heralds.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Waits at most `patience` for the end of the dump.
    ///
    /// # Errors
    /// It ended, or said nothing; the error ends with its log.
    pub fn finished(&mut self, patience: Duration) -> io::Result<Finished> {
        let event = self.event("finished", patience)?;
        Ok(Finished {
            result: event["result"].as_str().unwrap_or("unknown").to_owned(),
            vmcore: event["vmcore"].as_str().map(|path| {
                let path = PathBuf::from(path);
                path.canonicalize().unwrap_or(path)
            }),
            event,
        })
    }

    /// Kills the server, as a power failure would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks the server to end, and makes it.
    pub fn stop(mut self) {
        self.process.stop(STOP_MAX);
    }

    fn event(&mut self, name: &str, patience: Duration) -> io::Result<Value> {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = match self.process.line(left) {
                Ok(Some(line)) => line,
                Ok(None) => return Err(self.error(&format!("no `{name}` in {patience:?}"))),
                Err(_) => return Err(self.error(&format!("it ended before `{name}`"))),
            };
            // Lines of other shapes are not for us.
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if event["event"] == name {
                return Ok(event);
            }
        }
    }

    fn error(&self, what: &str) -> io::Error {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(5).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        io::Error::other(format!("netdumpd: {what}\n{}", tail.join("\n")))
    }
}
