//! Becoming a daemon without fork: the program starts itself again, in a
//! session of its own, and waits until that one serves or fails.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;

/// Said by the child on its standard output when it serves.
const READY: &[u8] = b"ready\n";

/// Starts the daemon; returns when it serves, or with its exit status and complaint.
pub(crate) fn start() -> Result<ExitCode> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut child = Command::new(program)
        .arg("--daemon-child")
        .args(std::env::args_os().skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the daemon")?;
    let mut said = Vec::new();
    if let Some(mut output) = child.stdout.take() {
        // Its complaint, if any, goes to our standard error, which it inherits
        // until it serves. Its end of the pipe is closed in either case.
        output.read_to_end(&mut said)?;
    }
    if said.ends_with(READY) {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait()?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// In the child, before anything else: a session without a terminal.
pub(crate) fn detach() -> Result<()> {
    rustix::process::setsid().context("cannot begin a session")?;
    Ok(())
}

/// In the child: what stands in for the descriptors it shares with the parent.
pub(crate) struct Parting(File);

impl Parting {
    /// To be made while files can still be opened.
    pub(crate) fn prepare() -> Result<Self> {
        Ok(Self(File::options().read(true).write(true).open("/dev/null")?))
    }

    /// When it serves: lets the parent go, and all it shares with it.
    pub(crate) fn announce(self) -> Result<()> {
        let mut output = std::io::stdout();
        output.write_all(READY)?;
        output.flush()?;
        rustix::stdio::dup2_stdin(&self.0)?;
        rustix::stdio::dup2_stdout(&self.0)?;
        rustix::stdio::dup2_stderr(&self.0)?;
        Ok(())
    }
}

/// A process id file: locked as long as the process lives, removed at its end.
pub(crate) struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let shown = path.display();
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(|| format!("cannot write the process id file {shown} (-P)"))?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut other = String::new();
            let _ = file.read_to_string(&mut other);
            bail!("already running as process {} ({shown})", other.trim().escape_default());
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { path: path.canonicalize()?, file })
    }
}

impl PidFile {
    /// The directory it is in.
    #[cfg(all(feature = "sandbox", target_os = "linux"))]
    pub(crate) fn dir(&self) -> Option<PathBuf> {
        self.path.parent().map(Path::to_path_buf)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Emptied first: a file that cannot be removed names nobody.
        let _ = self.file.set_len(0);
        let _ = std::fs::remove_file(&self.path);
    }
}
