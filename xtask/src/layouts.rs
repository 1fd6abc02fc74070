//! readelf and gdb as judges of the cores that `debugnet-core/examples/cores.rs` writes:
//! one for each machine and byte order, QEMU or not.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::cargo;
use crate::tally::Tally;

/// Stem of the file and what gdb calls registers `0x1000 + i` there, with `i`.
const MACHINES: &[(&str, &[(&str, u64)])] = &[
    ("x86_64", &[("rax", 0), ("rdi", 5), ("r15", 15), ("rbp", 6)]),
    ("aarch64", &[("x0", 0), ("x19", 19), ("x30", 30)]),
    ("aarch64_be", &[("x0", 0), ("x19", 19), ("x30", 30)]),
    ("riscv64", &[("ra", 1), ("a0", 10), ("t6", 31)]),
    ("arm", &[("r0", 0), ("r12", 12), ("lr", 14)]),
    ("armeb", &[("r0", 0), ("r12", 12), ("lr", 14)]),
];

/// Writes the cores and has them judged.
pub(crate) fn all() -> Tally {
    let mut tally = Tally::default();
    println!("==> layouts");
    let dir = match write() {
        Ok(dir) => dir,
        Err(error) => {
            println!("{error:#}");
            tally.fail("layouts: writing cores", format!("{error:#}"));
            return tally;
        }
    };
    if is_there("readelf") {
        let begin = Instant::now();
        let files = MACHINES.iter().flat_map(|(name, _)| {
            ["core", "freebsd"].map(|kind| dir.join(format!("{name}.{kind}")))
        });
        let result = files.into_iter().try_for_each(|file| readelf(&file));
        tally.record("layouts in readelf", begin.elapsed(), result);
    } else {
        tally.skip("layouts in readelf", "readelf is missing");
    }
    for (name, registers) in MACHINES {
        let what = format!("{name} core in gdb");
        // The plain one knows the host's machine alone.
        let native = *name == "x86_64" && cfg!(target_arch = "x86_64");
        let Some(gdb) = ["gdb-multiarch", "gdb"]
            .into_iter()
            .find(|gdb| (*gdb == "gdb-multiarch" || native) && is_there(gdb))
        else {
            tally.skip(what, "gdb-multiarch is missing");
            continue;
        };
        let begin = Instant::now();
        let result = debug(gdb, &dir.join(format!("{name}.core")), registers);
        tally.record(&what, begin.elapsed(), result);
    }
    tally
}

fn write() -> Result<std::path::PathBuf> {
    let dir = cargo::target_dir()?.join("layouts");
    fs::create_dir_all(&dir)?;
    let mut command = cargo::cargo();
    command.args(["run", "--quiet", "-p", "debugnet-core", "--example", "cores", "--"]).arg(&dir);
    cargo::run(command.stdout(Stdio::null()))?;
    Ok(dir)
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// `readelf -a` complains of nothing.
fn readelf(file: &Path) -> Result<()> {
    let output =
        Command::new("readelf").args(["-a", "-W"]).arg(file).output().context("readelf")?;
    let (text, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let complaint = text
        .lines()
        .chain(errors.lines())
        .find(|line| ["Warning", "Error", "corrupt"].iter().any(|word| line.contains(word)));
    ensure!(
        complaint.is_none() && errors.is_empty(),
        "{}: {complaint:?}, {errors}",
        file.display()
    );
    // Its status says of every ARM file without sections that it failed.
    ensure!(text.contains("CORE (Core file)") && text.contains("LOAD"), "{text}");
    Ok(())
}

/// gdb finds two threads, the registers, and RAM at virtual and physical addresses.
fn debug(gdb: &str, file: &Path, registers: &[(&str, u64)]) -> Result<()> {
    let mut command = Command::new(gdb);
    command.args(["-nx", "-batch", "-ex"]).arg(format!("core-file {}", file.display()));
    let mut expected = Vec::new();
    let mut ask = |expression: &str, answer: String| {
        command.args(["-ex", &format!("output/x {expression}"), "-ex", "echo \\n"]);
        expected.push(answer);
    };
    ask("$pc", "0x80001000".into());
    ask("$sp", "0x80002000".into());
    for (name, number) in registers {
        ask(&format!("${name}"), format!("{:#x}", 0x1000 + number));
    }
    // Each word is its physical address: by virtual address, volatile, and not mapped.
    ask("*(unsigned *) 0x80002004", "0x102004".into());
    ask("*(unsigned *) 0x80080000", "0x180000".into());
    ask("*(unsigned *) 0x1234", "0x1234".into());
    command.args(["-ex", "info threads", "-ex", "x/wx 0x80090000"]);
    let output = command.stdin(Stdio::null()).output().context("running gdb")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let answers: Vec<&str> =
        text.lines().filter(|line| line.starts_with("0x") && !line.contains(':')).collect();
    ensure!(answers == expected, "{gdb} on {}: {answers:?}, expected {expected:?}", file.display());
    for words in ["LWP 1", "LWP 2"] {
        ensure!(text.contains(words), "no {words} in {text}");
    }
    let all = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(
        all.contains("Cannot access memory at address 0x80090000"),
        "what is redacted can be read: {all}"
    );
    Ok(())
}
