//! The handler script's helper: a process of its own that runs the scripts.
//!
//! The server locks itself down and can start no program afterwards; the
//! helper was started before. They speak over two pipes, one JSON object a line;
//! the first thing it says is that it can work.

use std::io::{self, BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use mio::Waker;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::clock::{Clock, micros};
use super::script::{Job, Scripts};
use crate::core::{Reason, SessionId};
use crate::store::DumpPaths;

/// Between two looks at running scripts.
const LOOK: Duration = Duration::from_millis(50);

/// How long a helper may take until it can work.
const READY_S: i64 = 60;

/// Looks after a helper that was told to end.
const GONE_LOOKS: u32 = 100;

/// What the server asks for.
#[derive(Serialize, Deserialize)]
enum Request {
    Run(Job),
    /// Ends all scripts.
    Stop,
}

/// What the helper says.
#[derive(Serialize, Deserialize)]
enum Answer {
    /// The first thing: requests will be served.
    Ready,
    Ended(Ended),
}

/// How a script ended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) session: SessionId,
    pub(super) reason: Reason,
    pub(super) status: String,
}

/// The server's end of the helper.
#[derive(Debug)]
pub struct Handler {
    child: Child,
    requests: Option<ChildStdin>,
    answers: Option<BufReader<ChildStdout>>,
    ended: Option<Receiver<Ended>>,
    /// Scripts that were asked for and have not ended.
    busy: usize,
    refused: Vec<Ended>,
}

impl Handler {
    /// Starts the helper, and waits until it can work: `command` is a program
    /// that calls [`HandlerHelper::run`].
    ///
    /// # Errors
    /// If it cannot be started, or ends before it could work.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (requests, answers) = (child.stdin.take(), child.stdout.take());
        let mut answers = answers.map(BufReader::new);
        if !answers.as_mut().is_some_and(is_ready) {
            let _ = child.kill();
            return Err(io::Error::other(format!("it cannot work ({})", child.wait()?)));
        }
        if let Some(pipe) = &requests {
            // A helper that does not read must not hold up the server.
            rustix::fs::fcntl_setfl(pipe, rustix::fs::fcntl_getfl(pipe)? | OFlags::NONBLOCK)?;
        }
        let (ended, busy, refused) = Default::default();
        Ok(Self { child, requests, answers, ended, busy, refused })
    }

    /// Has the loop be woken when a script ends.
    pub(super) fn begin(&mut self, waker: Arc<Waker>) {
        let (sender, receiver) = channel();
        self.ended = Some(receiver);
        let Some(answers) = self.answers.take() else { return };
        let listen = move || {
            for line in answers.lines().map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    // The server may be gone: then nobody wants to know.
                    Ok(Answer::Ended(ended)) => drop(sender.send(ended)),
                    Ok(Answer::Ready) => {}
                    Err(error) => tracing::error!("handler helper: {error}"),
                }
                let _ = waker.wake();
            }
        };
        if let Err(error) = std::thread::Builder::new().name("handler".into()).spawn(listen) {
            tracing::error!("no thread for the handler script: {error}");
        }
    }

    /// Has the script run as soon as there is room.
    pub(super) fn queue(
        &mut self,
        session: SessionId,
        reason: Reason,
        ip: IpAddr,
        paths: &DumpPaths,
    ) {
        let DumpPaths { host, vmcore, info, .. } = paths.clone();
        let job = Job { session, reason, ip, host, info, vmcore };
        match self.request(&Request::Run(job)) {
            Ok(()) => self.busy += 1,
            Err(error) => {
                let status = format!("not started: {error}");
                self.refused.push(Ended { session, reason, status });
            }
        }
    }

    /// Scripts that have ended since the last call.
    pub(super) fn poll(&mut self) -> Vec<Ended> {
        let mut all = std::mem::take(&mut self.refused);
        let refused = all.len();
        all.extend(self.ended.iter().flat_map(Receiver::try_iter));
        self.busy = self.busy.saturating_sub(all.len() - refused);
        all
    }

    /// Whether any runs or waits.
    pub(super) fn is_busy(&self) -> bool {
        self.busy > 0 || !self.refused.is_empty()
    }

    fn request(&mut self, request: &Request) -> io::Result<()> {
        let pipe = self.requests.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        // Shorter than what a pipe takes whole or not at all.
        pipe.write_all(&line)
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        // A helper that is gone has no scripts.
        let _ = self.request(&Request::Stop);
        self.requests = None;
        for _ in 0..GONE_LOOKS {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(LOOK),
                _ => return,
            }
        }
        tracing::warn!("the handler helper does not end");
    }
}

/// The helper: runs scripts until its standard input ends.
#[derive(Debug)]
pub struct HandlerHelper {
    /// What is run: directly, never through a shell.
    pub script: PathBuf,
    /// Its working directory.
    pub dir: PathBuf,
    /// How long it may take.
    pub limit: Duration,
}

impl HandlerHelper {
    /// Takes requests from standard input and answers on standard output.
    ///
    /// When the server is gone, scripts that run are waited for.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn run(self) -> io::Result<()> {
        let (sender, requests) = channel();
        std::thread::Builder::new().name("requests".into()).spawn(move || {
            for line in io::stdin().lines().map_while(Result::ok) {
                let Ok(request) = serde_json::from_str::<Request>(&line) else { continue };
                if sender.send(request).is_err() {
                    return;
                }
            }
        })?;
        say(&Answer::Ready);
        let clock = Clock::new();
        let mut scripts = Scripts::new(self.script, &self.dir, micros(self.limit));
        let mut server_is_there = true;
        while server_is_there || scripts.is_busy() {
            match requests.recv_timeout(if scripts.is_busy() { LOOK } else { Duration::MAX }) {
                Ok(Request::Run(job)) => scripts.queue(job),
                Ok(Request::Stop) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    server_is_there = false;
                    std::thread::sleep(LOOK);
                }
            }
            for ended in scripts.poll(clock.now()) {
                say(&Answer::Ended(ended));
            }
        }
        Ok(())
    }
}

/// Whether the helper says so, within a generous time.
fn is_ready(answers: &mut BufReader<ChildStdout>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Timespec { tv_sec: READY_S, tv_nsec: 0 };
    let mut line = String::new();
    poll(&mut [PollFd::new(answers.get_ref(), PollFlags::IN)], Some(&limit)).is_ok_and(|n| n > 0)
        && answers.read_line(&mut line).is_ok()
        && matches!(serde_json::from_str(&line), Ok(Answer::Ready))
}

/// To the server, which may be gone.
fn say(answer: &Answer) {
    let Ok(mut line) = serde_json::to_vec(answer) else { return };
    line.push(b'\n');
    let mut output = io::stdout().lock();
    let _ = output.write_all(&line).and_then(|()| output.flush());
}
