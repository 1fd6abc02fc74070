//! Child processes that never outlive the run: killed on drop, and by the
//! kernel if the harness itself is killed.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// A running child whose standard output is read line by line.
///
/// The kernel kills it when the *thread* that started it ends: start it on the
/// thread that waits for it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    /// Starts `command` with standard input closed and standard output read by a
    /// thread. Standard error stays what the command says.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        // SAFETY: between fork and exec only async-signal-safe calls are
        // allowed; the closure makes one `prctl` system call, and neither
        // allocates nor takes a lock.
        unsafe {
            command.pre_exec(|| {
                set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)
            });
        }
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
        let (sender, lines) = channel();
        std::thread::Builder::new()
            .name("child output".into())
            .spawn(move || forward_lines(stdout, &mut |line| sender.send(line).is_ok()))?;
        Ok(Self { child, lines })
    }

    /// The next line of output without its line end; `Ok(None)` after `patience`.
    ///
    /// # Errors
    /// [`Closed`] once the output has ended and all of it has been taken.
    pub fn line(&self, patience: Duration) -> Result<Option<String>, Closed> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Closed),
        }
    }

    /// Waits at most `patience` for the end.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + patience;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if Instant::now() >= end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to end (SIGTERM), waits at most `patience`, then kills it.
    pub fn stop(&mut self, patience: Duration) -> Option<ExitStatus> {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
            && self.wait(Duration::ZERO).is_none()
        {
            // It may have ended since; it has not been waited for, so that
            // the number is still its own.
            let _ = kill_process(pid, Signal::TERM);
        }
        let status = self.wait(patience);
        self.kill();
        status
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The output of a child has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the output has ended")]
pub struct Closed;

/// Longest line kept; the rest of a longer one becomes the next.
const LINE_MAX: u64 = 1 << 20;

fn forward_lines(from: impl Read, to: &mut dyn FnMut(String) -> bool) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        if !to(text.trim_end_matches(['\n', '\r']).to_owned()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Process {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        Process::spawn(command).unwrap()
    }

    #[test]
    fn lines_come_whole_and_the_end_is_known() {
        let mut process = shell("printf 'one\\r\\ntwo\\nhalf'; exit 3");
        let got: Vec<_> = (0..3).map(|_| process.line(PATIENCE).unwrap().unwrap()).collect();
        assert_eq!(got, ["one", "two", "half"]);
        assert_eq!(process.line(PATIENCE), Err(Closed));
        assert_eq!(process.wait(PATIENCE).unwrap().code(), Some(3));
    }

    #[test]
    fn a_process_that_ignores_the_request_is_killed() {
        let mut process = shell("trap '' TERM; echo up; while :; do sleep 1; done");
        assert_eq!(process.line(PATIENCE).unwrap().unwrap(), "up");
        assert_eq!(process.stop(Duration::from_millis(50)), None);
        assert!(process.wait(PATIENCE).is_some());
    }

    #[test]
    fn a_process_ends_when_dropped() {
        let process = shell("echo up; exec sleep 600");
        assert_eq!(process.line(PATIENCE).unwrap().unwrap(), "up");
        let pid = Pid::from_raw(process.child.id() as i32).unwrap();
        drop(process);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }
}
