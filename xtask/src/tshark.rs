//! tshark as a judge of the guest's frames, with checksum validation on.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use debugnet_core::wire::debugnet::NETDUMP_CLIENT_PORT;

/// Frames of QEMU's first NIC.
const GUEST: &str = "eth.src == 52:54:00:12:34:56";
/// What no frame of ours may be.
const BAD: &str =
    "(_ws.malformed || (ip && ip.checksum.status != 1) || (udp && udp.checksum.status != 1))";
/// What shows that the validation is at work.
const GOOD: &str = "udp && ip.checksum.status == 1 && udp.checksum.status == 1";

/// Whether tshark can be run.
pub(crate) fn is_there() -> bool {
    Command::new("tshark").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Every frame of the guest in a capture is sound, and there are datagrams if
/// any were acknowledged.
pub(crate) fn judge(capture: &Path, acked_bytes: u64) -> Result<()> {
    let bad = matching(capture, &format!("{GUEST} && {BAD}"))?;
    ensure!(bad.is_empty(), "tshark rejects frame {} of {}", bad[0], capture.display());
    let good = matching(capture, &format!("{GUEST} && {GOOD}"))?;
    // No run's frames are longer than this.
    let least = acked_bytes.div_ceil(9000);
    ensure!(good.len() as u64 >= least, "tshark finds {} sound datagrams", good.len());
    Ok(())
}

/// Numbers of the frames a filter passes.
fn matching(capture: &Path, filter: &str) -> Result<Vec<String>> {
    // What RAM holds may look like a damaged message of any protocol: it is data.
    let as_data = format!("udp.port=={NETDUMP_CLIENT_PORT},data");
    let output = Command::new("tshark")
        .args(["-d", &as_data])
        .args(["-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"])
        .args(["-T", "fields", "-e", "frame.number", "-Y", filter, "-r"])
        .arg(capture)
        .output()
        .context("running tshark")?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}
