//! gdb, lldb and readelf as judges of the guest's dumps.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use qemu_tests::board::{Guest, board};
use qemu_tests::core_file::{CoreFile, Thread};
use qemu_tests::fault_log;
use qemu_tests::qemu::Machine;

/// Programs that judge.
pub(crate) const ALL: [&str; 4] = ["gdb", GDB_MULTIARCH, "lldb", "readelf"];
/// gdb for the machines that the host is not.
const GDB_MULTIARCH: &str = "gdb-multiarch";

/// Whether a program can be run.
pub(crate) fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// What the way to each death looks like, innermost frame first, as gdb prints
/// it; the bottom follows.
fn frames(machine: &Machine) -> &'static [&'static str] {
    match machine.crash.as_str() {
        _ if is_firmware(machine) => firmware_frames(&machine.crash),
        "null" => &[
            "::death::complete (request=0x0, queue=3, state=23130)",
            "::death::flush_queue (queue=3, head=0x0)",
            "::death::die (how=guest::cmdline::Death::Null",
        ],
        "panic" => &[
            "::undefined_instruction ()",
            "::panic::on_panic (info=",
            "core::panicking::panic_fmt (",
            "::death::drop_reference (page=1191936, references=0)",
            "::death::free_page (page=1191936, references=2)",
            "::death::die (how=guest::cmdline::Death::Panic",
        ],
        "stack" => &["::death::descend (depth=", "::death::descend (depth="],
        _ => &["::death::die_in_the_driver (buffer="],
    }
}

fn firmware_frames(crash: &str) -> &'static [&'static str] {
    match crash {
        "null" => &[
            "::death::complete (request=0x0, state=3)",
            "::death::flush_queue (queue=3, head=0x0)",
            "::death::die (",
        ],
        "panic" => &[
            "::undefined_instruction (line=",
            "::on_panic (info=",
            "core::panicking::panic_fmt (",
            "core::panicking::panic (",
            "::death::drop_reference (references=0)",
            "::death::die (",
        ],
        // The CPU found no room for its frame: pc and lr are lost.
        "stack" => &["0x00000000 in __vector_table ()"],
        _ => &["::death::store_nowhere (value=1000)", "::death::die ("],
    }
}

const FIRMWARE_BOTTOM: [&str; 3] =
    ["::harness::main (", "::__cortex_m_rt_main (", "::__cortex_m_rt_main_trampoline ("];
const BOTTOM: [&str; 3] = ["::kernel::main (", "::start (", "kernel_entry ()"];
const SECOND: [&str; 5] = [
    "::second::wait_for_work (queue=20973, taken=",
    "::second::serve (cpu=1, queue=20973)",
    "::second::main (cpu=1)",
    "::second_start ()",
    "second_entry ()",
];

/// gdb shows the way to the death, and all threads.
pub(crate) fn gdb(guest: &Path, vmcore: &Path, machine: &Machine) -> Result<()> {
    let text = run(Command::new(if is_pc(machine) { "gdb" } else { GDB_MULTIARCH })
        .args(["-nx", "-batch", "-iex", "set debuginfod enabled off"])
        .args(["-ex", "bt", "-ex", "info locals"])
        .args(["-ex", "echo :threads\\n", "-ex", "info threads"])
        .args(["-ex", "echo :second\\n", "-ex", "thread 2", "-ex", "bt"])
        .args([guest, vmcore]))?;
    judge_gdb(&text, machine).with_context(|| format!("gdb says:\n{text}"))
}

/// Whether the dump is of a machine like the host's. Otherwise gdb-multiarch opens it.
pub(crate) fn is_pc(machine: &Machine) -> bool {
    board(&machine.machine).is_some_and(|board| board.guest == Guest::PC)
}

fn is_firmware(machine: &Machine) -> bool {
    board(&machine.machine).is_some_and(|board| board.guest == Guest::Firmware)
}

fn judge_gdb(text: &str, machine: &Machine) -> Result<()> {
    let (first, rest) = text.split_once(":threads\n").context("gdb stopped early")?;
    let (threads, second) = rest.split_once(":second\n").context("gdb stopped at the threads")?;
    ensure!(!text.contains("warning:"), "gdb complains");

    let backtrace = backtrace(first);
    let way = frames(machine);
    in_order(&backtrace, way)?;
    let expected: &[&str] = match is_firmware(machine) {
        true if machine.crash == "stack" => &[],
        true => &FIRMWARE_BOTTOM,
        false => &BOTTOM,
    };
    let bottom = backtrace.get(backtrace.len().saturating_sub(expected.len())..);
    in_order(bottom.unwrap_or(&[]), expected)?;
    if ["null", "panic"].contains(&machine.crash.as_str()) {
        let (all, known) = (backtrace.len(), way.len() + expected.len());
        ensure!(all == known, "{all} frames instead of {known}");
    }
    if machine.crash == "null" {
        // The offset of the field behind a null pointer.
        let variable = if is_firmware(machine) { "field = 0xc" } else { "field = 0x18" };
        let is_shown = |line: &str| line == variable || line.starts_with(&format!("{variable} "));
        ensure!(first.lines().any(is_shown), "the variable is not shown");
    }
    // Lines of two blanks or a star, a number, and the thread.
    let count = threads.lines().filter(|line| line.contains("LWP ")).count();
    ensure!(count == machine.cpus as usize, "{count} threads for {} CPUs", machine.cpus);
    if machine.cpus == 2 {
        let backtrace = self::backtrace(second);
        in_order(&backtrace, &SECOND)?;
        ensure!(backtrace.len() == SECOND.len(), "{} frames of CPU 1", backtrace.len());
    }
    Ok(())
}

/// The frames of the last backtrace in the text; the line above it shows frame 0 as well.
fn backtrace(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.iter().rposition(|line| line.starts_with("#0 ")).unwrap_or(lines.len());
    let is_frame = |line: &&&str| line.starts_with('#');
    lines[start..].iter().take_while(is_frame).copied().collect()
}

/// Each frame is the next of those expected.
fn in_order(backtrace: &[&str], expected: &[&str]) -> Result<()> {
    for (at, expected) in expected.iter().enumerate() {
        let Some(frame) = backtrace.get(at) else { bail!("no frame for `{expected}`") };
        ensure!(frame.contains(expected), "`{frame}` instead of `{expected}`");
    }
    Ok(())
}

/// lldb opens the core with the recipe of the guest's README, and shows the same.
pub(crate) fn lldb(guest: &Path, vmcore: &Path, machine: &Machine) -> Result<()> {
    let (guest, vmcore) = (guest.display(), vmcore.display());
    let text = run(Command::new("lldb").args(["-b", "--no-lldbinit"]).args([
        "-o",
        &format!("target create --core \"{vmcore}\""),
        "-o",
        &format!("target modules add \"{guest}\""),
        "-o",
        &format!("target modules load --file \"{guest}\" --slide 0"),
        "-o",
        "thread list",
        "-o",
        "bt all",
    ]))?;
    judge_lldb(&text, machine).with_context(|| format!("lldb says:\n{text}"))
}

fn judge_lldb(text: &str, machine: &Machine) -> Result<()> {
    let (list, backtraces) = text.split_once("(lldb) bt all").context("lldb stopped early")?;
    let threads = list.lines().filter(|line| line.contains("thread #")).count();
    ensure!(threads == machine.cpus as usize, "{threads} threads for {} CPUs", machine.cpus);
    let frames: Vec<&str> = backtraces.lines().filter(|line| line.contains("frame #")).collect();
    // Names have a hash behind them, and values more digits than gdb shows.
    let mut names = frames_of_lldb(&machine.crash).to_vec();
    if machine.cpus == 2 {
        names.extend(["second::wait_for_work::", "second::serve::", "second::main::"]);
    }
    let mut rest = frames.iter();
    for name in names {
        ensure!(rest.any(|frame| frame.contains(name)), "no frame of `{name}` in its place");
    }
    Ok(())
}

fn frames_of_lldb(crash: &str) -> &'static [&'static str] {
    match crash {
        "null" => &["death::complete::", "queue=3, head=0x", "death::die::", "kernel_entry"],
        "panic" => &["death::drop_reference::", "references=2", "death::die::", "kernel_entry"],
        _ => &["death::"],
    }
}

/// readelf reads all of it and complains of nothing.
pub(crate) fn readelf(vmcore: &Path, machine: &Machine) -> Result<()> {
    let output = Command::new("readelf").args(["-a", "-W"]).arg(vmcore).output()?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    // Its status says of every ARM file without sections that it failed.
    let is_well = output.status.success() || is_firmware(machine);
    ensure!(is_well && complaints.is_empty(), "readelf: {complaints}");
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = text.lines().find(|line| {
        let line = line.to_ascii_lowercase();
        ["warning", "error", "corrupt", "invalid"].iter().any(|word| line.contains(word))
    });
    ensure!(complaint.is_none(), "readelf: {complaint:?}");
    ensure!(text.contains("NT_PRSTATUS"), "readelf sees no registers");
    Ok(())
}

/// The registers in the notes are those that QEMU saw as it took the exception:
/// of the CPU that died, and of the one that was stopped by an NMI.
pub(crate) fn registers(log: &Path, vmcore: &Path, vector: u64) -> Result<()> {
    const NMI: u64 = 2;
    let faults = fault_log::read(log).context("reading QEMU's log of exceptions")?;
    let core = CoreFile::read(vmcore)?;
    for (thread, vector) in core.threads.iter().zip([vector, NMI]) {
        let seen = faults.iter().rfind(|fault| fault.vector == vector);
        let seen = seen.with_context(|| format!("QEMU saw no exception {vector}"))?;
        let mut compared = 0;
        for (name, told) in Thread::NAMES.iter().zip(&thread.registers) {
            let Some(value) = seen.get(name).filter(|_| !name.is_empty()) else { continue };
            // The CPU sets the resume flag in what it pushes for a fault.
            let told = if *name == "RFL" { told & !0x1_0000 } else { *told };
            let value = if *name == "RFL" { value & !0x1_0000 } else { value };
            ensure!(
                told == value,
                "thread {}: {name} is {told:#x}, QEMU saw {value:#x}",
                thread.pid
            );
            compared += 1;
        }
        ensure!(compared >= 20, "only {compared} registers are in QEMU's log");
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("running {program}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    // lldb of some distributions cannot find its own Python parts, and says so.
    let is_fault = |line: &&str| line.starts_with("warning:") || line.starts_with("error:");
    let faults: Vec<&str> = errors.lines().filter(is_fault).collect();
    ensure!(output.status.success() && faults.is_empty(), "{program}: {errors}\n{text}");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GDB: &str = "[New LWP 1]\n\
        #0  0x1 in guest::kernel::death::complete (request=0x0, queue=3, state=23130) at death.rs:62\n\
        62\t    unsafe { *field = state };\n\
        #0  0x1 in guest::kernel::death::complete (request=0x0, queue=3, state=23130) at death.rs:62\n\
        #1  0x2 in guest::kernel::death::flush_queue (queue=3, head=0x0) at death.rs:48\n\
        #2  0x3 in guest::kernel::death::die (how=guest::cmdline::Death::Null, nic=<optimized out>)\n\
        #3  0x4 in guest::kernel::main (machine=...) at mod.rs:78\n\
        #4  0x5 in guest::kernel::arch::x86_64::start (start_info=<optimized out>) at mod.rs:119\n\
        #5  0x6 in kernel_entry ()\n\
        field = 0x18\n\
        :threads\n  Id   Target Id         Frame \n* 1    LWP 1             0x1 in guest ()\n\
        :second\nInvalid thread id: 2\n";

    #[test]
    fn a_backtrace_of_gdb_is_judged() {
        let machine = Machine::default();
        judge_gdb(GDB, &machine).unwrap();
        for (from, to) in [
            ("queue=3, head=0x0", "queue=<optimized out>, head=0x0"),
            ("#3  0x4 in guest::kernel::main", "#3  0x4 in ?? ()\n#3  0x4 in guest::kernel::main"),
            ("field = 0x18", "field = <optimized out>"),
            ("#5  0x6 in kernel_entry ()\n", ""),
            ("[New LWP 1]", "warning: something"),
        ] {
            assert!(judge_gdb(&GDB.replacen(from, to, 1), &machine).is_err(), "{to}");
        }
        let two = Machine { cpus: 2, ..machine };
        assert!(judge_gdb(GDB, &two).is_err());
    }
}
