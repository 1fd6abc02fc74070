//! Landlock: which files, sockets and processes can be reached.

use std::path::Path;

use anyhow::{Result, ensure};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath,
    PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::Allowed;

/// The newest rules asked for; older kernels enforce what they know.
const ABI: ABI = landlock::ABI::V6;

/// What name lookups read, where it exists.
const FOR_NAMES: [&str; 5] = ["/etc", "/lib", "/lib64", "/usr/lib", "/run/systemd/resolve"];

/// DNS over TCP, for answers that do not fit a datagram.
const DNS_PORT: u16 = 53;

pub(super) fn restrict(allowed: &Allowed<'_>) -> Result<String> {
    // What the stock file names need: creating, writing, renaming, linking,
    // removing; the journal's directory comes and goes. Nothing is run.
    let dumps = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeSym
        | AccessFs::RemoveFile
        | AccessFs::MakeDir
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI))?
        .handle_access(AccessNet::from_all(ABI))?
        .scope(Scope::from_all(ABI))?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new(allowed.dump_dir)?, dumps))?;
    if let Some(dir) = &allowed.pid_dir {
        rules = rules.add_rule(PathBeneath::new(PathFd::new(dir)?, AccessFs::RemoveFile))?;
    }
    if allowed.resolve {
        rules = rules.add_rule(NetPort::new(DNS_PORT, AccessNet::ConnectTcp))?;
        let reading = AccessFs::ReadFile | AccessFs::ReadDir;
        for path in FOR_NAMES.map(Path::new).into_iter().filter(|path| path.is_dir()) {
            rules = readable(rules, path, reading)?;
        }
    }
    let status = rules.restrict_self()?;
    ensure!(status.ruleset != RulesetStatus::NotEnforced, "the kernel does not offer it");
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => "enforced".into(),
        _ => "enforced as far as this kernel knows it".into(),
    })
}

fn readable(
    rules: RulesetCreated,
    path: &Path,
    reading: BitFlags<AccessFs>,
) -> Result<RulesetCreated> {
    Ok(rules.add_rule(PathBeneath::new(PathFd::new(path)?, reading))?)
}
