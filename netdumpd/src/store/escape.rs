//! Text from the network, made harmless.

/// Printable ASCII as it is, all else (and the backslash) as `\n`, `\t`, `\\` or `\xNN`.
///
/// ```
/// assert_eq!(netdumpd::store::escape(b"a\x1b[2J\n\\"), r"a\x1b[2J\n\\");
/// ```
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

/// As [`escape`], but one newline at the very end stays: FreeBSD's version string has one.
pub fn escape_keeping_newline(bytes: &[u8]) -> String {
    match bytes.strip_suffix(b"\n") {
        Some(line) => escape(line) + "\n",
        None => escape(bytes),
    }
}

/// Text that should be escaped already, of whose origin nobody is sure: as [`escape`], but
/// a backslash stays.
pub(crate) fn harmless(text: &str) -> String {
    let parts: Vec<_> = text.split('\\').map(|part| escape(part.as_bytes())).collect();
    parts.join("\\")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_last_newline_stays() {
        assert_eq!(escape_keeping_newline(b"a\nb\n"), "a\\nb\n");
        assert_eq!(escape_keeping_newline(b"a"), "a");
    }

    #[test]
    fn what_is_escaped_stays_as_it_is() {
        assert_eq!(harmless(r"a\x1b\\b"), r"a\x1b\\b");
        assert_eq!(harmless("a\u{1b}[2J\u{e9}"), r"a\x1b[2J\xc3\xa9");
    }

    proptest! {
        #[test]
        fn nothing_but_printable_ascii_comes_out(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(escape(&bytes).bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
    }
}
