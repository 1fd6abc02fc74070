//! QEMU's own view of the guest, through QMP: the ground truth.

use std::io::{self, BufReader};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qapi::{Command, Stream, qmp};

/// Longest wait for one answer; saving a GiB to a slow disk is the longest.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// A connection to QEMU's monitor.
pub struct Monitor {
    inner: qapi::Qmp<Stream<BufReader<UnixStream>, UnixStream>>,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").finish_non_exhaustive()
    }
}

impl Monitor {
    /// Connects to the monitor socket at `path`, trying for at most `patience`:
    /// QEMU makes it some time after its start.
    ///
    /// # Errors
    /// The last refusal, or what the handshake said.
    pub fn connect(path: &Path, patience: Duration) -> io::Result<Self> {
        let end = Instant::now() + patience;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() >= end => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        let mut inner = qapi::Qmp::new(Stream::new(BufReader::new(stream.try_clone()?), stream));
        inner.handshake()?;
        Ok(Self { inner })
    }

    /// Stops the virtual CPUs and the devices' DMA.
    ///
    /// # Errors
    /// What QEMU says, or the socket.
    pub fn stop(&mut self) -> io::Result<()> {
        self.execute(&qmp::stop {})
    }

    /// Saves guest-physical memory `range` to `file`, byte for byte.
    ///
    /// # Errors
    /// What QEMU says, or the socket.
    pub fn save_memory(&mut self, range: &Range<u64>, file: &Path) -> io::Result<()> {
        let filename = file
            .to_str()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "path is not UTF-8"))?
            .to_owned();
        self.execute(&qmp::pmemsave { val: range.start, size: range.end - range.start, filename })
    }

    /// Sets the carrier of the NIC or netdev called `name`.
    ///
    /// # Errors
    /// What QEMU says, or the socket.
    pub fn set_link(&mut self, name: &str, up: bool) -> io::Result<()> {
        self.execute(&qmp::set_link { name: name.to_owned(), up })
    }

    /// Asks the guest to let go of the device called `id`.
    ///
    /// # Errors
    /// What QEMU says, or the socket.
    pub fn unplug(&mut self, id: &str) -> io::Result<()> {
        self.execute(&qmp::device_del { id: id.to_owned() })
    }

    /// A command of the monitor for people, and its answer.
    ///
    /// # Errors
    /// What QEMU says, or the socket.
    pub fn human(&mut self, command: &str) -> io::Result<String> {
        let command =
            qmp::human_monitor_command { command_line: command.to_owned(), cpu_index: None };
        self.inner.execute(&command).map_err(io::Error::from)
    }

    /// Ends QEMU.
    ///
    /// # Errors
    /// What QEMU says, or the socket.
    pub fn quit(&mut self) -> io::Result<()> {
        self.execute(&qmp::quit {})
    }

    fn execute<C: Command>(&mut self, command: &C) -> io::Result<()> {
        self.inner.execute(command).map(drop).map_err(io::Error::from)
    }
}

/// A piece of RAM as QEMU saved it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TruthFile {
    /// Guest-physical addresses.
    pub range: Range<u64>,
    /// Where its bytes are.
    pub path: PathBuf,
}

/// Saves every range of `ram` into `dir` as `truth.START`.
///
/// # Errors
/// What QEMU says, or a file that is shorter than its range.
pub fn save_truth(
    monitor: &mut Monitor,
    ram: &[Range<u64>],
    dir: &Path,
) -> io::Result<Vec<TruthFile>> {
    ram.iter()
        .map(|range| {
            let path = dir.join(format!("truth.{:x}", range.start));
            monitor.save_memory(range, &path)?;
            let len = std::fs::metadata(&path)?.len();
            if len != range.end - range.start {
                return Err(io::Error::other(format!("{} holds {len} bytes", path.display())));
            }
            Ok(TruthFile { range: range.clone(), path })
        })
        .collect()
}
