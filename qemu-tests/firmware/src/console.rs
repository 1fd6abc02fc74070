//! The lines that a harness reads from the first UART: a tag, a blank, one JSON object.
//!
//! No `core::fmt`: it would be a third of this firmware.

use crate::uart;

/// Looks at a full transmitter before a byte is dropped: a dead UART must not hang the dump.
const LOOKS: u32 = 1_000_000;

/// Switches the UART on.
pub(crate) fn start() {
    uart::FIRST.start();
}

/// Writes text, byte by byte.
pub(crate) fn write(text: &str) {
    text.bytes().for_each(put);
}

fn put(byte: u8) {
    uart::FIRST.put(byte, LOOKS);
}

/// Writes a decimal number.
fn decimal(number: u64) {
    let mut digits = [0; 20];
    let (mut rest, mut from) = (number, digits.len());
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        from = at;
        if rest == 0 {
            break;
        }
    }
    digits.iter().skip(from).for_each(|digit| put(*digit));
}

/// Writes a number as eight hexadecimal digits.
fn hexadecimal(number: u32) {
    for shift in (0..8).rev() {
        let digit = (number >> (4 * shift) & 0xf) as u8;
        put(if digit < 10 { b'0' + digit } else { b'a' - 10 + digit });
    }
}

/// One line for the harness, written as it is built.
pub(crate) struct Line {
    first: bool,
}

impl Line {
    /// Begins a line.
    pub(crate) fn begin(tag: &str) -> Self {
        write(tag);
        write(" {");
        Self { first: true }
    }

    fn key(&mut self, key: &str) {
        write(if self.first { "\"" } else { ",\"" });
        write(key);
        write("\":");
        self.first = false;
    }

    /// A decimal number.
    pub(crate) fn number(mut self, key: &str, value: u64) -> Self {
        self.key(key);
        decimal(value);
        self
    }

    /// A string of hexadecimal digits.
    pub(crate) fn hex(mut self, key: &str, value: u32) -> Self {
        self.key(key);
        write("\"0x");
        hexadecimal(value);
        write("\"");
        self
    }

    /// A string without quotes or backslashes in it.
    pub(crate) fn text(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        write("\"");
        write(value);
        write("\"");
        self
    }

    /// `true` or `false`.
    pub(crate) fn flag(mut self, key: &str, value: bool) -> Self {
        self.key(key);
        write(if value { "true" } else { "false" });
        self
    }

    /// One range, or a list of them.
    pub(crate) fn ranges(mut self, key: &str, ranges: &[(u64, u64)], list: bool) -> Self {
        self.key(key);
        write(if list { "[" } else { "" });
        for (at, (start, end)) in ranges.iter().enumerate() {
            write(if at == 0 { "[" } else { ",[" });
            decimal(*start);
            write(",");
            decimal(*end);
            write("]");
        }
        write(if list { "]" } else { "" });
        self
    }

    /// Ends the line.
    pub(crate) fn end(self) {
        write("}\n");
    }
}
