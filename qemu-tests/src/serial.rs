//! What the guest says on its serial port: free text, and tagged lines that
//! this harness reads.
//!
//! ```text
//! GUEST-GUARD {"kind":"...","which":"...","range":[start,end],"canary":197}   for each
//! GUEST-FILLED {"range":[start,end],"seed":1}   for each
//! GUEST-READY {"volatile":[start,end],"ram":[[start,end],...],...}
//! GUEST-BENCH {...}                  if it was asked to measure
//! GUEST-LINK {"up":false}            as often as it waits for its link to change
//! GUEST-CRASH {...}
//! GUEST-OUTCOME {"result":"confirmed|unconfirmed|failed|nested","dump_bytes":...,...}
//! ```
//!
//! Addresses are physical, ends are exclusive. Fields that are not listed here
//! are kept in `more`.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The guest has booted and filled its RAM.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Ready {
    /// The one section that the crash path writes to.
    pub volatile: (u64, u64),
    /// RAM of the memory map, in ascending order: what the image holds.
    pub ram: Vec<(u64, u64)>,
    /// What the image looks like.
    pub image: String,
    /// RAM that the image does not hold, empty if there is none.
    #[serde(default)]
    pub redacted: (u64, u64),
    /// RAM that changes during the dump, empty if there is none.
    #[serde(default)]
    pub changing: (u64, u64),
    /// Anything else.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Ready {
    /// The volatile section.
    pub fn volatile_range(&self) -> Range<u64> {
        self.volatile.0..self.volatile.1
    }

    /// What is kept out of the image.
    pub fn redacted_range(&self) -> Range<u64> {
        self.redacted.0..self.redacted.1
    }

    /// What changes during the dump.
    pub fn changing_range(&self) -> Range<u64> {
        self.changing.0..self.changing.1
    }

    /// The RAM ranges.
    pub fn ram_ranges(&self) -> Vec<Range<u64>> {
        self.ram.iter().map(|&(start, end)| start..end).collect()
    }
}

/// Memory that nobody writes from boot on: a guard page, or what is free beside it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Guard {
    /// What it is.
    pub kind: String,
    /// Of which piece of the dump's memory.
    pub which: String,
    /// Where.
    pub range: (u64, u64),
    /// What each byte of it holds.
    pub canary: u8,
}

/// Free RAM, full of the guest's pattern.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct Filled {
    /// Where: whole words.
    pub range: (u64, u64),
    /// Seed of the pattern.
    pub seed: u64,
}

/// How the dump ended, as the guest knows it.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeKind {
    /// Every byte and FINISHED acknowledged.
    Confirmed,
    /// Every byte acknowledged, FINISHED not.
    Unconfirmed,
    /// Given up.
    Failed,
    /// A second fault inside the dump.
    Nested,
}

/// The guest's account of its dump.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub result: OutcomeKind,
    /// RAM in the image, in bytes.
    #[serde(default)]
    pub dump_bytes: u64,
    /// Image bytes acknowledged.
    #[serde(default)]
    pub acked_bytes: u64,
    /// Image bytes sent, first transmissions only.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Frames sent.
    #[serde(default)]
    pub transmissions: u64,
    /// Messages sent again.
    #[serde(default)]
    pub retransmits: u64,
    /// Image bytes read by the CPU.
    #[serde(default)]
    pub bytes_read: u64,
    /// Image bytes copied by the CPU.
    #[serde(default)]
    pub bytes_copied: u64,
    /// Doorbells rung, or tails written, for frames to send.
    #[serde(default)]
    pub doorbells: u64,
    /// Anything else.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// What the NIC carries without a protocol, as the guest measured it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct Bench {
    /// Bytes of each frame.
    pub frame_len: u64,
    /// Those of them that are payload.
    pub payload_len: u64,
    /// Frames that were answered, 64 of them unanswered at most.
    pub echo_frames: u64,
    /// Microseconds until the last answer.
    pub echo_us: u64,
    /// Frames that nobody answered.
    pub send_frames: u64,
    /// Microseconds until the last one had left the device.
    pub send_us: u64,
}

impl Bench {
    /// Payload answered, in units of 10^6 bytes a second.
    pub fn echo_mb_s(&self) -> f64 {
        (self.echo_frames * self.payload_len) as f64 / self.echo_us.max(1) as f64
    }

    /// Payload sent without answers, in units of 10^6 bytes a second.
    pub fn send_mb_s(&self) -> f64 {
        (self.send_frames * self.payload_len) as f64 / self.send_us.max(1) as f64
    }
}

/// The guest waits for its link to change.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct LinkWish {
    /// What it waits for.
    pub up: bool,
}

/// One line from the serial port.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// `GUEST-READY`.
    Ready(Ready),
    /// `GUEST-GUARD`: memory that nobody writes.
    Guard(Guard),
    /// `GUEST-FILLED`: free RAM that nobody writes.
    Filled(Filled),
    /// `GUEST-BENCH`: what the NIC carries.
    Bench(Bench),
    /// `GUEST-LINK`: the guest waits for its link to change.
    Link(LinkWish),
    /// `GUEST-CRASH`: the fault handler has control.
    Crash(Value),
    /// `GUEST-OUTCOME`.
    Outcome(Outcome),
    /// A tagged line that is not what it should be; the reason.
    Broken(String),
    /// Anything else.
    Text,
}

/// Reads one line. The firmware may have left something in front of the tag.
pub fn parse(line: &str) -> Line {
    fn read<T: serde::de::DeserializeOwned>(json: &str, make: fn(T) -> Line) -> Line {
        serde_json::from_str(json).map_or_else(|error| Line::Broken(error.to_string()), make)
    }
    let after = |tag| line.split_once(tag).map(|(_, json)| json);
    if let Some(json) = after("GUEST-READY ") {
        read(json, Line::Ready)
    } else if let Some(json) = after("GUEST-GUARD ") {
        read(json, Line::Guard)
    } else if let Some(json) = after("GUEST-FILLED ") {
        read(json, Line::Filled)
    } else if let Some(json) = after("GUEST-BENCH ") {
        read(json, Line::Bench)
    } else if let Some(json) = after("GUEST-LINK ") {
        read(json, Line::Link)
    } else if let Some(json) = after("GUEST-CRASH ") {
        read(json, Line::Crash)
    } else if let Some(json) = after("GUEST-OUTCOME ") {
        read(json, Line::Outcome)
    } else {
        Line::Text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_read() {
        let Line::Ready(ready) = parse(
            r#"..GUEST-READY {"volatile":[4096,8192],"ram":[[0,10],[20,30]],"image":"elf","redacted":[0,0],"nic":"x"}"#,
        ) else {
            panic!()
        };
        assert_eq!((ready.volatile_range(), ready.ram_ranges()), (4096..8192, vec![0..10, 20..30]));
        assert_eq!(ready.more["nic"], "x");

        assert!(matches!(parse(r#"GUEST-CRASH {"vector":14}"#), Line::Crash(_)));

        let Line::Outcome(outcome) =
            parse(r#"GUEST-OUTCOME {"result":"nested","dump_bytes":7,"doorbells":3,"more":4}"#)
        else {
            panic!()
        };
        assert_eq!((outcome.result, outcome.dump_bytes), (OutcomeKind::Nested, 7));
        assert_eq!((outcome.doorbells, &outcome.more["more"]), (3, &Value::from(4)));

        let line = r#"GUEST-BENCH {"frame_len":1514,"payload_len":1448,"echo_frames":2,"echo_us":100,"send_frames":3,"send_us":0}"#;
        let Line::Bench(bench) = parse(line) else { panic!() };
        assert_eq!((bench.echo_mb_s(), bench.send_mb_s()), (28.96, 4344.0));
        let line = r#"GUEST-GUARD {"kind":"a","which":"b","range":[1,2],"canary":3}"#;
        let guard = Guard { kind: "a".into(), which: "b".into(), range: (1, 2), canary: 3 };
        assert_eq!(parse(line), Line::Guard(guard));
        let filled = Filled { range: (8, 16), seed: 2 };
        assert_eq!(parse(r#"GUEST-FILLED {"range":[8,16],"seed":2}"#), Line::Filled(filled));
        assert_eq!(parse(r#"GUEST-LINK {"up":true}"#), Line::Link(LinkWish { up: true }));
    }

    #[test]
    fn a_torn_line_is_broken_and_text_is_text() {
        assert!(matches!(parse(r#"GUEST-OUTCOME {"result":"conf"#), Line::Broken(_)));
        assert!(matches!(parse(r#"GUEST-OUTCOME {"result":"fine"}"#), Line::Broken(_)));
        assert_eq!(parse("hello"), Line::Text);
    }
}
