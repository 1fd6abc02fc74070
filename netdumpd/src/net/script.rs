//! The handler script: run for every dump that ends.
//!
//! It is started directly, never through a shell: nothing in its arguments is
//! interpreted. It gets no descriptor of ours, no environment but `PATH`, the
//! dump directory as its own, and a limited time.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use debugnet_core::time::Instant;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use super::handler::Ended;
use crate::core::{Reason, SessionId};

const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// Scripts at a time; others wait.
const MAX_RUNNING: usize = 8;

/// Scripts that wait; others are not run.
const MAX_WAITING: usize = 4096;

pub(super) struct Scripts {
    script: PathBuf,
    dir: PathBuf,
    limit_us: u64,
    waiting: VecDeque<Job>,
    running: Vec<Running>,
    refused: Vec<Ended>,
}

/// One run of the script; paths are relative to the dump directory.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) session: SessionId,
    pub(super) reason: Reason,
    pub(super) ip: IpAddr,
    pub(super) host: String,
    pub(super) info: PathBuf,
    pub(super) vmcore: PathBuf,
}

struct Running {
    job: Job,
    child: Child,
    deadline: Instant,
}

impl Scripts {
    pub(super) fn new(script: PathBuf, dir: &Path, limit_us: u64) -> Self {
        let (waiting, running, refused) = Default::default();
        Self { script, dir: dir.to_owned(), limit_us, waiting, running, refused }
    }

    /// Has the script run as soon as there is room.
    pub(super) fn queue(&mut self, job: Job) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(job);
        } else {
            let Job { session, reason, .. } = job;
            let status = "not started: too many wait".into();
            self.refused.push(Ended { session, reason, status });
        }
    }

    /// Starts what can be started, ends what took too long, and returns what has ended.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<Ended> {
        let mut ended = std::mem::take(&mut self.refused);
        self.running.retain_mut(|running| {
            let status = match running.child.try_wait() {
                Ok(Some(status)) => status.to_string(),
                Ok(None) if now < running.deadline => return true,
                Ok(None) => {
                    stop(&mut running.child);
                    "killed: it took too long".into()
                }
                Err(error) => error.to_string(),
            };
            let Job { session, reason, .. } = running.job;
            ended.push(Ended { session, reason, status });
            false
        });
        while self.running.len() < MAX_RUNNING
            && let Some(job) = self.waiting.pop_front()
        {
            match self.start(&job) {
                Ok(child) => {
                    let deadline = now.after(self.limit_us);
                    self.running.push(Running { job, child, deadline });
                }
                Err(error) => {
                    let status = format!("not started: {error}");
                    ended.push(Ended { session: job.session, reason: job.reason, status });
                }
            }
        }
        ended
    }

    /// Whether any runs or waits.
    pub(super) fn is_busy(&self) -> bool {
        !self.running.is_empty() || !self.waiting.is_empty() || !self.refused.is_empty()
    }

    fn start(&self, job: &Job) -> std::io::Result<Child> {
        Command::new(&self.script)
            .arg(job.reason.as_str())
            .arg(job.ip.to_string())
            .arg(&job.host)
            .arg(&job.info)
            .arg(&job.vmcore)
            .env_clear()
            .env("PATH", PATH)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        for running in &mut self.running {
            stop(&mut running.child);
        }
    }
}

/// Kills the script and all it started in its process group.
fn stop(child: &mut Child) {
    // It may have ended meanwhile; its group cannot be another's before we wait for it.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let _ = child.wait();
}
