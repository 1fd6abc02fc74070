//! What a guest logged with `defmt`, read by `defmt`'s own decoder.

use std::fs;
use std::io;
use std::path::Path;

use defmt_decoder::{DecodeError, Table};

/// The messages in the bytes at `log`, oldest first, as a developer sees them. `guest` is the
/// ELF file that wrote them: the texts are in it, and only indices and values in the log.
///
/// # Errors
/// A guest without texts, and a frame that is none of its own or cut short.
pub fn read(guest: &Path, log: &Path) -> io::Result<Vec<String>> {
    let elf = fs::read(guest)?;
    let table = Table::parse(&elf).map_err(io::Error::other)?;
    let table = table
        .ok_or_else(|| io::Error::other(format!("{} has no .defmt section", guest.display())))?;
    decode(&table, &fs::read(log)?)
}

fn decode(table: &Table, bytes: &[u8]) -> io::Result<Vec<String>> {
    let broken = |after: &[String], why: &str| {
        io::Error::other(format!("a {why} frame after {} messages: {after:?}", after.len()))
    };
    let mut messages = Vec::new();
    let mut decoder = table.new_stream_decoder();
    decoder.received(bytes);
    loop {
        match decoder.decode() {
            Ok(frame) => messages.push(frame.display_message().to_string()),
            Err(DecodeError::Malformed) => return Err(broken(&messages, "malformed")),
            // What is left has no end.
            Err(DecodeError::UnexpectedEof) if bytes.last().is_some_and(|last| *last != 0) => {
                return Err(broken(&messages, "cut"));
            }
            Err(DecodeError::UnexpectedEof) => return Ok(messages),
        }
    }
}

/// Looks for the story of a dump to a server's `port` that was confirmed: every stage that is
/// told, in order, the port when the herald was answered, and the end.
///
/// # Errors
/// What is missing, or out of order.
pub fn judge(messages: &[String], port: u16) -> Result<(), String> {
    let established = format!("Established {{ port: {port} }}");
    let story = [
        "Target { index: 0 }",
        "Stage(TakeOver)",
        "Stage(Link)",
        "Stage(Resolve)",
        "Resolved(",
        "Stage(Herald)",
        established.as_str(),
        "Stage(Data)",
        "Progress { done: ",
        "Stage(Header)",
        "Stage(Finish)",
        "Finished(Confirmed)",
    ];
    let mut last_us = 0;
    let mut rest = story.iter().peekable();
    for message in messages {
        let stamped = message.split_once(" us: ");
        let stamped = stamped.and_then(|(us, event)| Some((us.parse::<u64>().ok()?, event)));
        let (us, event) = stamped.ok_or_else(|| format!("`{message}` has no time"))?;
        if us < last_us {
            return Err(format!("`{message}` comes after {last_us} us"));
        }
        last_us = us;
        rest.next_if(|wanted| event.starts_with(**wanted));
    }
    rest.next().map_or(Ok(()), |missing| {
        Err(format!("no `{missing}` in its place in the log: {messages:#?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story() -> Vec<String> {
        let events = [
            "Target { index: 0 }",
            "Stage(TakeOver)",
            "Stage(Link)",
            "Stage(Resolve)",
            "Resolved(MacAddr([2, 0, 0, 0, 0, 1]))",
            "Stage(Herald)",
            "Established { port: 40000 }",
            "Stage(Data)",
            "Progress { done: 1, total: 2, rate_bytes_s: 0, remaining_us: 0 }",
            "Stage(Header)",
            "Stage(Finish)",
            "Finished(Confirmed)",
        ];
        events.iter().enumerate().map(|(us, event)| format!("{us} us: {event}")).collect()
    }

    #[test]
    fn a_whole_story_passes_and_another_port_does_not() {
        assert_eq!(judge(&story(), 40_000), Ok(()));
        assert!(judge(&story(), 4_000).unwrap_err().starts_with("no `Established { port: 4000 }`"));
    }

    #[test]
    fn what_is_left_out_or_out_of_order_is_named() {
        for left_out in 0..story().len() {
            let mut messages = story();
            messages.remove(left_out);
            assert!(judge(&messages, 40_000).is_err(), "without {left_out}");
        }
        let mut messages = story();
        messages.swap(2, 3);
        assert!(judge(&messages, 40_000).unwrap_err().contains("comes after"));
        assert!(judge(&["Stage(Link)".into()], 1).unwrap_err().contains("no time"));
    }

    /// The texts of a guest that logs `N us: Stage(Link)`, with index 1.
    fn table() -> Table {
        let text = serde_json::json!({ "tag": "Info", "string": "{=u8} us: Stage(Link)" });
        let entry = serde_json::json!({ "string": text, "raw_symbol": "" });
        serde_json::from_value(serde_json::json!({
            "timestamp": null, "entries": { "1": entry }, "bitflags": {}, "encoding": "Rzcobs",
        }))
        .unwrap()
    }

    /// Index 1 and a time of `us`, not 0, as the guest's encoder writes it: seven bytes of which
    /// the last four and the second are zeros.
    fn frame(us: u8) -> [u8; 4] {
        [1, us, 0b0111_1010, 0]
    }

    #[test]
    fn frames_are_read_in_order() {
        let log = [&[0][..], &frame(5), &frame(7)].concat();
        let messages = decode(&table(), &log).unwrap();
        assert_eq!(messages, ["5 us: Stage(Link)", "7 us: Stage(Link)"]);
        assert!(decode(&table(), &[]).unwrap().is_empty());
    }

    #[test]
    fn broken_frames_are_errors_that_tell_what_came_before() {
        for (broken, why) in [
            (&[2, 7, 0b0111_1010, 0][..], "malformed"), // no such text
            (&[0b0111_1010, 0], "malformed"),           // bytes are missing in it
            (&[1, 0b0111_1101, 0], "malformed"),        // the index 256
            (&[0xff, 0], "malformed"),
            (&[1, 7, 0b0111_1010], "cut"),
            (&[1], "cut"),
        ] {
            let log = [&frame(5)[..], broken].concat();
            let error = decode(&table(), &log).unwrap_err().to_string();
            let before = "frame after 1 messages: [\"5 us: Stage(Link)\"]";
            assert_eq!(error, format!("a {why} {before}"), "{broken:?}");
            // What follows does not hide it.
            if why == "malformed" {
                let log = [&log[..], &frame(9)].concat();
                assert_eq!(decode(&table(), &log).unwrap_err().to_string(), error);
            }
        }
    }

    #[test]
    fn no_bit_can_flip_unnoticed_but_in_a_value() {
        let log = [frame(5), frame(7)].concat();
        let sound = decode(&table(), &log).unwrap();
        for bit in 0..log.len() * 8 {
            let mut damaged = log.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let Ok(messages) = decode(&table(), &damaged) else { continue };
            assert_ne!(messages, sound, "bit {bit}");
            assert_eq!(messages.len(), 2, "bit {bit}: {messages:?}");
        }
    }
}
