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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::{ErrorKind, Write};
    use std::process::Command;

    /// In a thread of its own: it holds for that one.
    #[test]
    fn only_the_dump_directory_is_left() {
        let (dumps, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::os::unix::fs::symlink("/etc", dumps.path().join("out")).unwrap();
        fs::create_dir(dumps.path().join("below")).unwrap();
        let locked = move || {
            let dump_dir = dumps.path();
            let allowed = Allowed { dump_dir, pid_dir: None, resolve: false };
            if let Err(error) = restrict(&allowed) {
                // Not through `println!`, whose output a passing test keeps to
                // itself: `cargo xtask test` counts this line.
                let line = format!("\nskipped: landlock: {error:#}\n");
                return std::io::stdout().write_all(line.as_bytes()).unwrap();
            }
            // What the stock file names need, also in a directory a herald names.
            for dir in [dump_dir.to_owned(), dump_dir.join("below")] {
                fs::write(dir.join("new"), "x").unwrap();
                fs::rename(dir.join("new"), dir.join("vmcore")).unwrap();
                std::os::unix::fs::symlink("vmcore", dir.join("last")).unwrap();
                assert_eq!(fs::read(dir.join("last")).unwrap(), b"x");
                fs::File::options()
                    .write(true)
                    .open(dir.join("vmcore"))
                    .unwrap()
                    .set_len(0)
                    .unwrap();
                fs::remove_file(dir.join("last")).unwrap();
                assert!(fs::read_dir(&dir).unwrap().count() > 0);
            }
            let denied = |result: std::io::Result<()>, what: &str| {
                let error = result.expect_err(what);
                assert!(
                    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::CrossesDevices),
                    "{what}: {error}"
                );
            };
            denied(fs::read("/etc/passwd").map(drop), "reading elsewhere");
            denied(fs::read(dump_dir.join("out/passwd")).map(drop), "reading through a link");
            denied(fs::write(other.path().join("a"), "x"), "writing elsewhere");
            let (from, to) = (dump_dir.join("vmcore"), other.path().join("vmcore"));
            denied(fs::rename(&from, &to), "moving a dump out");
            denied(fs::hard_link(&from, &to), "linking a dump from outside");
            denied(Command::new("/bin/true").status().map(drop), "running a program");
            denied(std::net::TcpStream::connect(address).map(drop), "a connection");
        };
        std::thread::spawn(locked).join().unwrap();
    }
}
