//! A link of the kernel's: two taps on a bridge, in a network namespace made
//! for one run. QEMU has the one, the [gateway](crate::gateway) the other.
//!
//! Only a tap lets QEMU offer checksum insertion: frames leave it with the
//! pseudo-header sum and a note of where the sum belongs. The kernel completes
//! them on their way to the second tap, which has asked for no offload, so that the far end
//! sees, and checks, what the guest's header described.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// QEMU's interface.
pub(crate) const QEMU_END: &str = "tap-qemu";
/// The gateway's interface.
pub(crate) const HOST_END: &str = "tap-host";

/// Programs are found where root's are, whatever the caller's PATH is.
const IP: &str = "ip";

/// A namespace with both taps, removed when it is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

/// Whether such a namespace can be made here; if not, why.
///
/// # Errors
/// What is missing, or refused.
pub fn probe() -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(io::Error::other("only root makes network namespaces"));
    }
    Namespace::new().map(drop)
}

impl Namespace {
    /// Makes one whose name nobody else has.
    pub(crate) fn new() -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("qemu-tests-{}-{count}", std::process::id());
        run(&["netns", "add", &name])?;
        // From here on it is removed, whatever happens.
        let namespace = Self { name };
        namespace.run(&["link", "add", "bridge", "type", "bridge", "mcast_snooping", "0"])?;
        for tap in [QEMU_END, HOST_END] {
            namespace.run(&["tuntap", "add", "dev", tap, "mode", "tap"])?;
            namespace.run(&["link", "set", tap, "master", "bridge"])?;
        }
        for link in ["bridge", QEMU_END, HOST_END] {
            // The kernel has nothing to say on this link.
            namespace.run(&["link", "set", link, "addrgenmode", "none"])?;
            namespace.run(&["link", "set", link, "up"])?;
        }
        Ok(namespace)
    }

    fn run(&self, words: &[&str]) -> io::Result<()> {
        run(&[&["-n", &self.name], words].concat())
    }

    /// A command that runs `program` inside.
    pub(crate) fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new(IP);
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// The file that stands for it.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It has vanished, or it stays: there is nobody to tell.
        let _ = run(&["netns", "del", &self.name]);
    }
}

fn run(words: &[&str]) -> io::Result<()> {
    let output = Command::new(IP)
        .args(words)
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("{IP}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{IP} {}: {}", words.join(" "), message.trim())))
}

/// Moves the calling thread into the namespace at `path`, for good.
pub(crate) fn enter(path: &std::path::Path) -> io::Result<()> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    let file = File::open(path)?;
    Ok(move_into_link_name_space(
        std::os::fd::AsFd::as_fd(&file),
        Some(LinkNameSpaceType::Network),
    )?)
}
