//! Giving up what is not needed any more, once everything is open.
//!
//! Landlock leaves the dump directory to be written, and nothing to be
//! executed, connected to or signalled; seccomp leaves the system calls the
//! server makes. Both go over to every thread started afterwards. A system that
//! has one of them not is told by name.

mod files;
mod syscalls;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use netdumpd::options::Sandbox;

/// What stays allowed.
pub(crate) struct Allowed<'a> {
    /// Written below.
    pub(crate) dump_dir: &'a Path,
    /// A directory in which a file of ours is to be removed.
    pub(crate) pid_dir: Option<PathBuf>,
    /// Whether names are looked up.
    pub(crate) resolve: bool,
}

/// How it went, for people.
pub(crate) struct Status {
    pub(crate) landlock: String,
    pub(crate) seccomp: String,
}

/// Locks this process down, in the only thread it has.
///
/// # Errors
/// With [`Sandbox::Require`], if the system cannot.
pub(crate) fn enter(how: Sandbox, allowed: &Allowed<'_>) -> Result<Status> {
    if how == Sandbox::Off {
        return Ok(Status { landlock: "off".into(), seccomp: "off".into() });
    }
    // Landlock first: its own system calls are not on the list.
    let landlock = files::restrict(allowed);
    let seccomp = syscalls::restrict(allowed);
    let told = |name: &str, result: Result<String>| match result {
        Ok(status) => Ok(status),
        Err(error) if how == Sandbox::Require => bail!("{name}: {error:#} (--sandbox require)"),
        Err(error) => {
            tracing::warn!("{name} cannot be used: {error:#}");
            Ok(format!("refused: {error:#}"))
        }
    };
    Ok(Status { landlock: told("landlock", landlock)?, seccomp: told("seccomp", seccomp)? })
}
