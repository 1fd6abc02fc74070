//! `cargo xtask guides`: types what the guides in `docs/` say, in a fresh folder beside a link to
//! this checkout, and compares what comes out with what they show.
//!
//! A page marks its blocks with comments that its readers do not see. `file: PATH` is a file of
//! the project, or the next part of one; `server` is typed in another terminal; `dump` with the
//! server running; `expect` is what was printed by then. Other `sh` blocks come first, in order.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::tally::Tally;
use crate::{cargo, tools};

/// A page, the target it builds for, and what it runs besides QEMU's user network.
struct Guide {
    page: &'static str,
    /// The page that has to be followed first.
    after: Option<&'static str>,
    target: &'static str,
    programs: &'static [&'static str],
}

const GUIDES: &[Guide] = &[
    Guide {
        page: "firmware",
        after: None,
        target: "thumbv7m-none-eabi",
        programs: &["unshare", "qemu-system-arm", "gdb-multiarch"],
    },
    Guide {
        page: "write-a-nic",
        after: Some("firmware"),
        target: "thumbv7m-none-eabi",
        programs: &["unshare", "qemu-system-arm", "gdb-multiarch"],
    },
    Guide {
        page: "kernel",
        after: None,
        target: "riscv64gc-unknown-none-elf",
        programs: &["unshare", "qemu-system-riscv64", "gdb-multiarch"],
    },
];

pub(crate) fn run() -> Result<()> {
    let mut tally = Tally::default();
    all(&mut tally);
    tally.close()
}

pub(crate) fn all(tally: &mut Tally) {
    for guide in GUIDES {
        let name = format!("docs/{}.md, as a new user", guide.page);
        match guide.is_missing() {
            Some(reason) => tally.skip(name, reason),
            None => tally.check(&name, || guide.follow()),
        }
    }
}

/// What is typed, where, and what is expected.
#[derive(Debug, Default, PartialEq)]
struct Script {
    /// Up to the program.
    build: String,
    /// In another terminal.
    server: String,
    /// With the server running.
    dump: String,
    expected: Vec<String>,
}

impl Script {
    fn parse(page: &str) -> Result<Self> {
        let mut script = Self::default();
        let mut files: Vec<&str> = Vec::new();
        let mut mark = "";
        let mut lines = page.lines();
        while let Some(line) = lines.next() {
            if let Some(comment) = line.strip_prefix("<!-- ") {
                mark = comment.strip_suffix(" -->").context("a comment of one line")?;
                continue;
            }
            let Some(kind) = line.strip_prefix("```") else { continue };
            let mut text = String::new();
            loop {
                match lines.next().context("a block that does not end")? {
                    "```" => break,
                    line => text += &format!("{line}\n"),
                }
            }
            match (std::mem::take(&mut mark), kind) {
                ("server", "sh") => script.server += &text,
                ("dump", "sh") => script.dump += &text,
                ("", "sh") => script.build += &text,
                ("expect", _) => script.expected.extend(text.lines().map(str::to_owned)),
                (mark, _) if let Some(file) = mark.strip_prefix("file: ") => {
                    let to = if files.contains(&file) { ">>" } else { ">" };
                    files.push(file);
                    script.build +=
                        &format!("cat {to} {file} <<'END_OF_BLOCK'\n{text}END_OF_BLOCK\n");
                }
                ("", _) => {}
                (mark, kind) => anyhow::bail!("a block of {kind} with the mark {mark:?}"),
            }
        }
        for (what, text) in
            [("builds", &script.build), ("serves", &script.server), ("dumps", &script.dump)]
        {
            ensure!(!text.is_empty(), "no block that {what}");
        }
        ensure!(!script.expected.is_empty(), "no block with what is expected");
        Ok(script)
    }
}

/// Whether a line shows what the guide does: its parts between dots, in their order.
fn shows(line: &str, expected: &str) -> bool {
    let mut rest = line;
    expected.split("...").map(str::trim).all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

impl Guide {
    fn is_missing(&self) -> Option<String> {
        if let Err(error) = tools::target(self.target) {
            return Some(format!("{}: {error:#}", self.target));
        }
        let missing = self.programs.iter().find(|program| {
            let version = Command::new(program).arg("--version").stdout(Stdio::null()).status();
            !version.is_ok_and(|status| status.success())
        });
        if let Some(program) = missing {
            return Some(format!("{program} is not there"));
        }
        let apart = Command::new("unshare").args(APART).arg("true").stderr(Stdio::null()).status();
        (!apart.is_ok_and(|status| status.success()))
            .then(|| "no network namespace of its own can be made here".to_owned())
    }

    /// What it says, and before it what the page says that comes first.
    fn text(&self) -> Result<String> {
        let read = |page: &str| {
            let path = cargo::root().join("docs").join(page).with_extension("md");
            fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        let before = self.after.map(read).transpose()?.unwrap_or_default();
        Ok(before + &read(self.page)?)
    }

    fn follow(&self) -> Result<()> {
        let root = cargo::root();
        let text = self.text()?;
        // Not in the checkout: a new project there would become part of its workspace.
        let name = format!("debugnet-guide-{}-{}", self.page, std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        std::os::unix::fs::symlink(root, folder.join("debugnet-rs"))?;
        let dumps = folder.join("dumps");
        let text = text.replace("/tmp/dumps", &dumps.to_string_lossy());
        let Script { build, server, dump, expected } = Script::parse(&text)?;

        // Beforehand, where there is a network to the registry.
        cargo::build_netdumpd()?;
        self.shell(&folder, "build", &build, Command::new("sh"))?;
        let project = fs::read_dir(&folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.join("Cargo.toml").is_file() && !path.is_symlink())
            .context("no project was made")?;

        // Ports of its own, and nothing is left running: the namespace ends with the script.
        let (before, last) = server.trim_end().rsplit_once('\n').unwrap_or(("", &server));
        let script = format!(
            "ip link set lo up\n\
             (cd debugnet-rs\n{before}\nexec {last}) > server.log 2>&1 &\n\
             for _ in $(seq 300); do grep -q ':4E37 ' /proc/net/udp && break; sleep 0.2; done\n\
             cd {}\n{dump}",
            project.display()
        );
        let mut apart = Command::new("unshare");
        apart.args(APART).arg("sh");
        let printed = self.shell(&folder, "dump", &script, apart)?;
        for expected in &expected {
            let found = printed.lines().any(|line| shows(line, expected));
            ensure!(found, "the guide shows `{expected}`, and there was:\n{printed}");
        }
        // What failed stays, to be looked at.
        fs::remove_dir_all(&folder)?;
        Ok(())
    }

    /// Runs a script in the folder and gives what it printed.
    fn shell(&self, folder: &Path, name: &str, script: &str, mut shell: Command) -> Result<String> {
        let file = folder.join(name).with_extension("sh");
        fs::write(&file, script)?;
        // As a user's shell has it: what `cargo xtask` itself was started with is no concern of theirs.
        for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_")) {
            if !["CARGO_HOME", "CARGO_NET_OFFLINE"].contains(&variable.as_str()) {
                shell.env_remove(variable);
            }
        }
        let output = shell
            .arg("-eu")
            .arg(&file)
            .current_dir(folder)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running {}", file.display()))?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}:\n{printed}\n{errors}", file.display());
        Ok(printed)
    }
}

/// Namespaces of their own for network and processes, also where the user is nobody special.
const APART: [&str; 6] = ["-r", "-n", "-p", "--fork", "--kill-child", "--mount-proc"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_typed_in_their_order_and_place() {
        let page = "a\n```sh\nfirst\n```\n<!-- file: a.rs -->\n```rust\none\n```\nb\n\
            ```text\nnot typed\n```\n<!-- file: a.rs -->\n```rust\ntwo\n```\n<!-- server -->\n\
            ```sh\nserve\n```\n<!-- dump -->\n```sh\nboot\n```\n<!-- expect -->\n```text\nx ... y\n```\n";
        let script = Script::parse(page).unwrap();
        assert_eq!(
            script.build,
            "first\ncat > a.rs <<'END_OF_BLOCK'\none\nEND_OF_BLOCK\n\
             cat >> a.rs <<'END_OF_BLOCK'\ntwo\nEND_OF_BLOCK\n"
        );
        assert_eq!((script.server.as_str(), script.dump.as_str()), ("serve\n", "boot\n"));
        assert_eq!(script.expected, ["x ... y"]);
        assert!(Script::parse("<!-- surver -->\n```sh\nx\n```\n").is_err(), "an unknown mark");
        assert!(Script::parse("```sh\nx\n```\n").is_err(), "nothing is served or dumped");
        assert!(Script::parse("```sh\nx\n").is_err(), "a block without an end");
    }

    #[test]
    fn what_is_shown_has_its_parts_in_order() {
        assert!(shows("#0  0x80 in die (how=7) at x.rs:3", "#0 ... die (how=7)"));
        assert!(!shows("#0  0x80 in die (how=7)", "die ... #0"));
        assert!(!shows("#0  0x80 in die (how=7)", "#1"));
    }

    #[test]
    fn the_guides_can_be_typed() {
        for guide in GUIDES {
            Script::parse(&guide.text().unwrap()).unwrap();
        }
    }
}
