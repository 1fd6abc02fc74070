//! [`Sink`]: a part of a stream that is generated from its beginning each time.

use byteorder::ByteOrder;

use crate::decimal::decimal;

/// Takes a stream of bytes and keeps those from `from` on, as many as fit.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    from: u64,
    into: &'a mut [u8],
    at: u64,
}

impl<'a> Sink<'a> {
    /// Keeps what comes from `from` on. What nothing is put into becomes zero.
    pub(super) fn new(from: u64, into: &'a mut [u8]) -> Self {
        into.fill(0);
        Self { from, into, at: 0 }
    }

    /// Keeps nothing, and counts.
    pub(super) fn count(put: impl FnOnce(&mut Sink<'_>)) -> u64 {
        let mut sink = Sink { from: 0, into: &mut [], at: 0 };
        put(&mut sink);
        sink.at
    }

    /// Offset of what is put next.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Whether nothing of the next `len` bytes is kept.
    pub(super) fn is_past(&self, len: u64) -> bool {
        self.at.saturating_add(len) <= self.from || self.is_full()
    }

    /// Whether what is kept is complete.
    pub(super) fn is_full(&self) -> bool {
        self.at >= self.from.saturating_add(self.into.len() as u64)
    }

    /// Zeros, or bytes that nobody wants.
    pub(super) fn skip(&mut self, len: u64) {
        self.at = self.at.saturating_add(len);
    }

    pub(super) fn align(&mut self, to: u64) {
        self.at = self.at.checked_next_multiple_of(to).unwrap_or(self.at);
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        let before = usize::try_from(self.from.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let start = usize::try_from(self.at.saturating_sub(self.from)).unwrap_or(usize::MAX);
        let kept = bytes.get(before..).unwrap_or(&[]);
        let room = self.into.get_mut(start..).unwrap_or(&mut []);
        for (to, from) in room.iter_mut().zip(kept) {
            *to = *from;
        }
        self.skip(bytes.len() as u64);
    }

    /// As many elements of the same length as wanted, `put` by index.
    pub(super) fn array(&mut self, count: u64, len: u64, mut put: impl FnMut(&mut Self, u64)) {
        let start = self.at;
        let wanted = self.from.saturating_sub(start).checked_div(len).unwrap_or(0);
        let first = wanted.min(count);
        self.skip(first.saturating_mul(len));
        for index in first..count {
            if self.is_full() {
                break;
            }
            put(self, index);
        }
        self.at = start.saturating_add(count.saturating_mul(len));
    }

    pub(super) fn put_u16<E: ByteOrder>(&mut self, value: u16) {
        let mut bytes = [0; 2];
        E::write_u16(&mut bytes, value);
        self.put(&bytes);
    }

    pub(super) fn put_u32<E: ByteOrder>(&mut self, value: u32) {
        let mut bytes = [0; 4];
        E::write_u32(&mut bytes, value);
        self.put(&bytes);
    }

    pub(super) fn put_u64<E: ByteOrder>(&mut self, value: u64) {
        let mut bytes = [0; 8];
        E::write_u64(&mut bytes, value);
        self.put(&bytes);
    }

    /// In decimal.
    pub(super) fn put_decimal(&mut self, value: u64) {
        let mut digits = [0; 20];
        self.put(decimal(value, &mut digits));
    }

    /// Two hexadecimal digits a byte.
    pub(super) fn put_hex(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.put(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
    }
}

fn hex_digit(value: u8) -> u8 {
    if value < 10 { b'0'.wrapping_add(value) } else { b'a'.wrapping_add(value.wrapping_sub(10)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use byteorder::{BigEndian, LittleEndian};

    fn stream(sink: &mut Sink<'_>) {
        sink.put(b"ab");
        sink.put_u16::<BigEndian>(0x6364);
        sink.put_u32::<LittleEndian>(0x6867_6665);
        sink.skip(1);
        sink.align(4);
        sink.array(3, 2, |sink, index| sink.put(&[b'x', b'0' + index as u8]));
        sink.put_decimal(1_234_567);
        sink.put_hex(&[0x0f, 0xa0]);
    }

    #[test]
    fn any_part_is_a_part_of_the_whole() {
        let len = Sink::count(stream) as usize;
        let mut whole = vec![0xff; len];
        stream(&mut Sink::new(0, &mut whole));
        assert_eq!(whole, b"abcdefgh\0\0\0\0x0x1x212345670fa0");
        for from in 0..len {
            for to in from..=len {
                let mut part = vec![0xff; to - from];
                stream(&mut Sink::new(from as u64, &mut part));
                assert_eq!(part, whole[from..to], "{from}..{to}");
            }
        }
    }
}
