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
}
