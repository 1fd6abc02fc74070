//! The lines that a harness reads from the serial port.
//!
//! Each is a tag, a blank, one JSON object, and a newline. Everything else the
//! guest prints is for people. Numbers are decimal integers; addresses in
//! arrays are, too, and a range is `[first, one past the last]`.

use core::fmt;

use heapless::Vec;
use serde::Serialize;

use crate::memory::RANGES_MAX;

/// Longest line in bytes, tag and newline included.
pub const LINE_MAX: usize = 2048;

/// `GUEST-READY`: booted, RAM filled, NIC used, about to die.
#[derive(Clone, Serialize, Debug)]
pub struct Ready<'a> {
    /// The one range that the crash path writes to.
    pub volatile: [u64; 2],
    /// RAM: what the dump holds.
    pub ram: Vec<[u64; 2], RANGES_MAX>,
    /// Vendor and device id of the NIC, `none` without one.
    pub nic: &'a str,
    /// What the dump looks like: `elf`, `flat` or `freebsd`.
    pub image: &'a str,
    /// RAM that is kept out of the image, empty if there is none.
    pub redacted: [u64; 2],
    /// RAM that a CPU writes during the dump, empty if there is none.
    pub changing: [u64; 2],
    /// Seed of the pattern.
    pub seed: u64,
    /// Frames the live kernel sent that have to arrive, ARP aside.
    pub live_sent: u64,
    /// Frames it received.
    pub live_received: u64,
    /// Those of them that answered a frame of its own.
    pub live_answers: u64,
}

/// `GUEST-LINK`: the guest waits for its link to change.
#[derive(Clone, Serialize, Debug)]
pub struct Link {
    /// What it waits for.
    pub up: bool,
}

/// `GUEST-GUARD`: memory beside a piece that the dump works in, which nobody writes.
#[derive(Clone, Serialize, Debug)]
pub struct Guard<'a> {
    /// What it is.
    pub kind: &'a str,
    /// Of which piece.
    pub which: &'a str,
    /// Where.
    pub range: [u64; 2],
    /// What each byte of it holds.
    pub canary: u8,
}

/// `GUEST-FILLED`: free RAM, full of the pattern, which nobody writes from then on.
#[derive(Clone, Serialize, Debug)]
pub struct Filled {
    /// Where: whole words.
    pub range: [u64; 2],
    /// Seed of the pattern.
    pub seed: u64,
}

/// `GUEST-BENCH`: what the NIC carries without a protocol.
#[derive(Clone, Serialize, Default, Debug)]
pub struct Bench {
    /// Bytes of each frame.
    pub frame_len: u64,
    /// Those of them that are payload, fetched from RAM by the device.
    pub payload_len: u64,
    /// Frames that were each answered by a small one, at most 64 of them unanswered.
    pub echo_frames: u64,
    /// Microseconds from the first one to the last answer.
    pub echo_us: u64,
    /// Frames that nobody answered, as many under way as the ring holds.
    pub send_frames: u64,
    /// Microseconds until the last one had left the device.
    pub send_us: u64,
}

/// `GUEST-CRASH`: in the fault handler, before the dump.
#[derive(Clone, Serialize, Debug)]
pub struct Crash<'a> {
    /// The way of dying that was asked for.
    pub how: &'a str,
    /// Exception vector, class or cause, by the CPU's numbers.
    pub vector: u64,
    /// Its error code, 0 if it has none.
    pub error_code: u64,
    /// Where, in hexadecimal.
    pub pc: &'a str,
    /// Stack pointer there, in hexadecimal.
    pub sp: &'a str,
    /// Address that faulted, in hexadecimal; meaningful for page faults.
    pub address: &'a str,
    /// The panic message, or what the vector means.
    pub message: &'a str,
}

/// `GUEST-OUTCOME`: the dump is over, one way or another.
#[derive(Clone, Serialize, Default, Debug)]
pub struct Outcome<'a> {
    /// `confirmed`, `unconfirmed`, `failed` or `nested`.
    pub result: &'a str,
    /// RAM in the image.
    pub dump_bytes: u64,
    /// Image bytes acknowledged.
    pub acked_bytes: u64,
    /// Image bytes sent, first transmissions only.
    pub sent_bytes: u64,
    /// Image bytes left out because they are zero.
    pub zero_bytes: u64,
    /// Image bytes that are missing at the server, as far as the guest knows.
    pub hole_bytes: u64,
    /// Image bytes left out for another reason.
    pub not_sent_bytes: u64,
    /// Messages, HERALD to FINISHED.
    pub messages: u64,
    /// Messages handed to the NIC, retransmissions included.
    pub transmissions: u64,
    /// Retransmissions.
    pub retransmits: u64,
    /// Image bytes that the CPU read.
    pub bytes_read: u64,
    /// Image bytes that the CPU copied.
    pub bytes_copied: u64,
    /// Doorbells rung, or tails written, for frames to send.
    pub doorbells: u64,
    /// Most cells in use at once.
    pub cells_high_water: u64,
    /// Microseconds from take-over to the end.
    pub elapsed_us: u64,
    /// Microseconds from the first data sent to the last data acknowledged.
    pub data_us: u64,
    /// Bytes of stack that the dump used, from where it was called.
    pub stack_bytes: u64,
    /// Longest time between two signs of life, in microseconds.
    pub watchdog_gap_us: u64,
    /// Whether interrupts were off at each sign of life and at the end.
    pub interrupts_off: bool,
    /// Whether the NIC confirmed that it is quiet.
    pub nic_stopped: bool,
    /// What the dump was doing last.
    pub stage: &'a str,
    /// The first error, empty if there was none.
    pub error: &'a str,
}

/// A line that a harness reads.
pub trait Line: Serialize {
    /// The word in front.
    const TAG: &'static str;

    /// Writes the whole line.
    ///
    /// # Errors
    /// If `out` fails, or the line is longer than [`LINE_MAX`]; then nothing is written.
    fn write_to(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let mut json = [0; LINE_MAX];
        let len = serde_json_core::to_slice(self, &mut json).map_err(|_| fmt::Error)?;
        let text = json.get(..len).and_then(|json| core::str::from_utf8(json).ok());
        writeln!(out, "{} {}", Self::TAG, text.ok_or(fmt::Error)?)
    }
}

impl Line for Ready<'_> {
    const TAG: &'static str = "GUEST-READY";
}

impl Line for Link {
    const TAG: &'static str = "GUEST-LINK";
}

impl Line for Guard<'_> {
    const TAG: &'static str = "GUEST-GUARD";
}

impl Line for Filled {
    const TAG: &'static str = "GUEST-FILLED";
}

impl Line for Bench {
    const TAG: &'static str = "GUEST-BENCH";
}

impl Line for Crash<'_> {
    const TAG: &'static str = "GUEST-CRASH";
}

impl Line for Outcome<'_> {
    const TAG: &'static str = "GUEST-OUTCOME";
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parsed<L: Line>(line: &L) -> Value {
        let mut text = String::new();
        line.write_to(&mut text).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        let json = text.strip_prefix(L::TAG).unwrap().strip_suffix('\n').unwrap();
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn ready_as_the_harness_reads_it() {
        let ram = Vec::from_slice(&[[0, 654_336], [1_048_576, 268_304_384]]).unwrap();
        let ready = Ready {
            volatile: [2_097_152, 2_621_440],
            ram,
            nic: "1af4:1000",
            image: "elf",
            redacted: [0, 4096],
            changing: [0, 0],
            seed: u64::MAX,
            live_sent: 3,
            live_received: 2,
            live_answers: 1,
        };
        assert_eq!(
            parsed(&ready),
            json!({"volatile": [2_097_152, 2_621_440],
                   "ram": [[0, 654_336], [1_048_576, 268_304_384]],
                   "nic": "1af4:1000", "image": "elf", "redacted": [0, 4096], "changing": [0, 0], "seed": u64::MAX,
                   "live_sent": 3, "live_received": 2, "live_answers": 1})
        );
    }

    #[test]
    fn a_message_may_hold_anything() {
        let message = "line one\nline \"two\" \\ \t\u{1} \u{e9}";
        let crash = Crash {
            how: "panic",
            vector: 6,
            error_code: 0,
            pc: "0x100000",
            sp: "0x0",
            address: "0x0",
            message,
        };
        assert_eq!(parsed(&crash)["message"], message);
    }

    #[test]
    fn a_line_too_long_is_an_error_and_prints_nothing() {
        let long = "x".repeat(LINE_MAX);
        let mut text = String::new();
        assert!(Outcome { error: &long, ..Outcome::default() }.write_to(&mut text).is_err());
        assert_eq!(text, "");
    }
}
