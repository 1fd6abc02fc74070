//! A server in a process of its own, and the CPU time it has used.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn netdumpd(program: &Path, dir: &Path) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(["-D", "--json", "-a", "127.0.0.1", "--port", "0", "-d"]).arg(dir);
        Self::start(&mut command, |line| {
            let (_, rest) = line.split_once("\"listening\",\"address\":\"")?;
            rest.split('"').next()?.parse().ok()
        })
    }

    pub(crate) fn plain(dir: &Path) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        Self::start(command.arg("plain").arg(dir), |line| line.trim().parse().ok())
    }

    fn start(
        command: &mut Command,
        address: impl Fn(&str) -> Option<SocketAddr>,
    ) -> io::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let mut line = String::new();
        let address = loop {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                let status = child.wait()?;
                return Err(io::Error::other(format!("{command:?} does not serve: {status}")));
            }
            if let Some(address) = address(&line) {
                break address;
            }
        };
        // What else it says must not hold it up.
        std::thread::spawn(move || io::copy(&mut lines, &mut io::sink()));
        Ok(Self { child, address })
    }

    /// User and system time of all its threads.
    pub(crate) fn cpu_s(&self) -> io::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name, in parentheses, may hold anything; utime and stime are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').ok_or(io::ErrorKind::InvalidData)?;
        let ticks: Vec<u64> =
            fields.split_whitespace().skip(11).take(2).filter_map(|t| t.parse().ok()).collect();
        Ok(ticks.iter().sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
