//! What the judges accept, and what they do not.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;

use super::*;
use crate::gateway::Stats;
use crate::run::Files;
use crate::serial::{Line, parse};

const ACKED: u64 = 16 << 20;

/// A dump that was given up in the middle with all that is promised kept, told in these words.
fn report(outcome: &str) -> RunReport {
    let ready = r#"GUEST-READY {"volatile":[0,4096],"ram":[[0,33554432]],"image":"elf"}"#;
    let Line::Ready(ready) = parse(ready) else { panic!() };
    let outcome = format!("GUEST-OUTCOME {{{outcome}}}");
    let Line::Outcome(outcome) = parse(&outcome) else { panic!("{outcome}") };
    let mut stats = Stats::default();
    stats.traffic.acked_bytes = ACKED + 1000;
    stats.traffic.data_bytes = ACKED + 2000;
    RunReport {
        ready,
        crash: Value::Null,
        bench: None,
        outcome,
        logged: None,
        server: None,
        stats,
        verdict: None,
        dump_bytes: 32 * MIB,
        used_bytes: 0,
        unpacked: None,
        guards: 1,
        filled_bytes: 1,
        look: Look::Clean,
        ended: None,
        leak_at: None,
        files: Files {
            vmcore: Some(PathBuf::from("vmcore")),
            serial_log: PathBuf::new(),
            server_log: PathBuf::new(),
            pcap: None,
            qemu_pcap: None,
            truth: Vec::new(),
            fault_log: None,
        },
    }
}

/// Given up, with these figures.
fn failed(figures: &str) -> RunReport {
    report(&format!(
        r#""result":"failed","error":"Gone","acked_bytes":{ACKED},"hole_bytes":{ACKED}{figures}"#
    ))
}

const FIGURES: &str = r#","interrupts_off":true,"stack_bytes":3000,"watchdog_gap_us":500"#;

fn nested(acked: u64, stage: &str, error: &str) -> RunReport {
    let words = format!(
        r#""result":"nested","acked_bytes":{acked},"stage":"{stage}","interrupts_off":false,"stack_bytes":0,"error":"{error}""#
    );
    RunReport { look: Look::NotTaken, ..report(&words) }
}

fn case(expect: Expect) -> Case {
    Case { expect, ..Case::new("q35", "virtio-net-pci", 32, PLAIN, 0, "null") }
}

fn judged(expect: Expect, report: RunReport) -> Result<(), String> {
    case(expect).judge(&Ok(report))
}

#[test]
fn memory_that_nobody_looked_at_is_not_clean() {
    let gives_up = Expect::GivesUp("Gone");
    assert_eq!(judged(gives_up, failed(FIGURES)), Ok(()));
    let ended = Some(ExitStatus::from_raw(11));
    let unseen = RunReport { look: Look::NotTaken, ended, ..failed(FIGURES) };
    assert!(judged(gives_up, unseen).unwrap_err().contains("nobody looked"));
    let spoilt = RunReport { look: Look::Spoilt("here".into()), ..failed(FIGURES) };
    assert_eq!(judged(gives_up, spoilt), Err("here".into()));
    let unseen = RunReport { look: Look::NotTaken, ..failed(FIGURES) };
    assert!(judged(Expect::Spoilt("here"), unseen).unwrap_err().contains("NotTaken"));
}

#[test]
fn figures_that_were_not_measured_do_not_pass() {
    let gives_up = Expect::GivesUp("Gone");
    for (figures, complaint) in [
        (r#","interrupts_off":true,"watchdog_gap_us":500"#, "None bytes of stack"),
        (r#","interrupts_off":true,"stack_bytes":0,"watchdog_gap_us":500"#, "Some(0) bytes"),
        (r#","interrupts_off":true,"stack_bytes":4096,"watchdog_gap_us":500"#, "Some(4096)"),
        (r#","interrupts_off":true,"stack_bytes":3000"#, "None us without"),
        (r#","interrupts_off":true,"stack_bytes":3000,"watchdog_gap_us":0"#, "Some(0) us"),
        (r#","stack_bytes":3000,"watchdog_gap_us":500"#, "interrupts were on"),
    ] {
        let error = judged(gives_up, failed(figures)).unwrap_err();
        assert!(error.contains(complaint), "{error}");
    }
    let bare = || failed(r#","interrupts_off":true"#);
    assert_eq!(case(gives_up).in_c().judge(&Ok(bare())), Ok(()));
}

#[test]
fn a_fault_in_the_dump_tells_where_and_how_much() {
    let judged = |acked, stage| judged(Expect::Nested("data"), nested(acked, stage, "page fault"));
    assert_eq!(judged(ACKED, "data"), Ok(()));
    assert!(judged(ACKED, "finish").unwrap_err().contains("in stage data"));
    assert!(judged(ACKED + 4096, "data").unwrap_err().contains("bytes acked"));
    assert!(judged(ACKED - 2 * MIB, "data").unwrap_err().contains("bytes acked"));
    assert!(judged(0, "data").is_err());
    let spoilt = RunReport { look: Look::Spoilt("here".into()), ..nested(ACKED, "data", "") };
    assert_eq!(case(Expect::Nested("data")).judge(&Ok(spoilt)), Err("here".into()));
}

#[test]
fn a_panic_in_the_dump_tells_its_message() {
    let judged = |error: &str| judged(Expect::NestedPanic("data"), nested(ACKED, "data", error));
    let told = format!("fault in the dump: panicked at death.rs:1:2:\\n{NESTED_PANIC} at 0x1");
    assert_eq!(judged(&told), Ok(()));
    assert!(judged("fault in the dump: invalid opcode at 0x1").unwrap_err().contains("message"));
    assert!(judged("fault in the dump: panicked at death.rs:1:2").is_err());
}

#[test]
fn only_a_signal_of_qemus_own_doing_is_an_excuse_and_only_where_its_bug_is_known() {
    let usual = case(Expect::GivesUp("Gone"));
    let known = Case { qemu_bug: Some("it is known"), ..usual.clone() };
    let died = |status| -> [Result<RunReport, RunError>; 2] {
        let ended = Some(ExitStatus::from_raw(status));
        let (what, last_words) = (String::new(), String::new());
        [
            Ok(RunReport { look: Look::NotTaken, ended, ..failed(FIGURES) }),
            Err(RunError::Guest { what, last_words, ended }),
        ]
    };
    for result in &died(11) {
        assert_eq!(known.excuse(result).unwrap(), "QEMU died of signal 11: it is known");
        assert_eq!(usual.excuse(result), None);
        assert!(known.judge(result).is_err());
    }
    // Killed by another, ended with status 1, and still there.
    for result in died(9).iter().chain(&died(1 << 8)) {
        assert_eq!(known.excuse(result), None);
    }
    assert_eq!(known.excuse(&Ok(failed(FIGURES))), None);
}
