//! Becoming another user.

use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::unistd::{Uid, User, initgroups, setgid, setuid};
use rustix::fs::Access;

/// Becomes `name` for good: user, group and supplementary groups.
///
/// # Errors
/// If there is no such user, if we may not become it, or if it cannot write to `dir`.
pub(crate) fn become_user(name: &str, dir: &Path) -> Result<()> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    let Some(user) = found.with_context(|| format!("cannot look up the user {name} (--user)"))?
    else {
        bail!("there is no user {name} (--user)");
    };
    let account = std::ffi::CString::new(user.name)?;
    // In this order: after the last step the others are no longer allowed.
    initgroups(&account, user.gid)
        .and_then(|()| setgid(user.gid))
        .and_then(|()| setuid(user.uid))
        .with_context(|| format!("cannot become the user {name} (--user)"))?;
    rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK).with_context(|| {
        format!("the user {name} (--user) cannot write to the dump directory {}", dir.display())
    })
}
