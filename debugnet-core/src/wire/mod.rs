//! Every layout on the wire, and nothing else: no state, no decisions.
//!
//! Headers are `#[repr(C)]` structs of big-endian integers with zerocopy's
//! derives, so that reading and writing them is checked and cannot panic.
//! Each knows its own size as `LEN`.

pub mod arp;
pub mod checksum;
pub mod debugnet;
pub mod ethernet;
pub mod ipv4;
pub mod kdh;
pub mod udp;

/// Writes headers one behind the other into a caller's buffer.
///
/// After the first header that does not fit, nothing more is written and
/// [`Writer::finish`] returns `None`.
pub(crate) struct Writer<'a> {
    buf: &'a mut [u8],
    at: usize,
    fits: bool,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(buf: &'a mut [u8]) -> Self {
        Self { buf, at: 0, fits: true }
    }

    pub(crate) fn put<T: zerocopy::IntoBytes + zerocopy::Immutable>(&mut self, header: &T) {
        self.put_bytes(header.as_bytes());
    }

    pub(crate) fn put_bytes(&mut self, bytes: &[u8]) {
        let end = self.at.saturating_add(bytes.len());
        match self.buf.get_mut(self.at..end) {
            Some(room) if self.fits && room.len() == bytes.len() => {
                // `copy_from_slice` keeps its check of the lengths at some levels of optimisation.
                room.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                self.at = end;
            }
            _ => self.fits = false,
        }
    }

    /// The number of bytes written, if all of them fitted.
    pub(crate) fn finish(self) -> Option<usize> {
        self.fits.then_some(self.at)
    }
}
