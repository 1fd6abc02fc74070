//! Captures of Ethernet frames in the classic pcap format, which Wireshark and tshark open.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use debugnet_core::time::Instant;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, PcapError};

/// Writes frames with their time, in microseconds. Frames are longer than the
/// snap length only in theory: it is 256 KiB.
///
/// [`Capture::finish`] reports whether everything reached the file; a capture
/// that is merely dropped is flushed as far as possible.
///
/// ```
/// use debugnet_core::time::Instant;
/// use netsim::pcap::Capture;
///
/// let mut capture = Capture::new(Vec::new()).unwrap();
/// capture.frame(Instant::from_micros(1_000_001), &[0xff; 60]).unwrap();
/// let bytes = capture.finish().unwrap();
/// assert_eq!(bytes.len(), 24 + 16 + 60);
/// ```
#[derive(Debug)]
pub struct Capture<W: Write> {
    writer: PcapWriter<W>,
}

impl Capture<BufWriter<File>> {
    /// A new capture file at `path`; an old one is overwritten.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::new(BufWriter::with_capacity(1 << 20, File::create(path)?))
    }
}

impl<W: Write> Capture<W> {
    const SNAP_LEN: u32 = 256 * 1024;

    /// A capture into `writer`; its header is written at once.
    ///
    /// # Errors
    /// What the writer says.
    pub fn new(writer: W) -> io::Result<Self> {
        let header = PcapHeader {
            datalink: DataLink::ETHERNET,
            snaplen: Self::SNAP_LEN,
            ..PcapHeader::default()
        };
        Ok(Self { writer: PcapWriter::with_header(writer, header).map_err(into_io)? })
    }

    /// Appends one frame (without FCS) seen at `at`: virtual time, or time since the run began.
    ///
    /// # Errors
    /// What the writer says.
    pub fn frame(&mut self, at: Instant, frame: &[u8]) -> io::Result<()> {
        // Seconds are 32 bits in the file; a virtual clock may be further.
        let at = Duration::from_micros(at.as_micros().min(u64::from(u32::MAX) * 1_000_000));
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        self.writer.write_packet(&PcapPacket::new(at, len, frame)).map_err(into_io)?;
        Ok(())
    }

    /// Flushes and gives the writer back.
    ///
    /// # Errors
    /// What the writer says.
    pub fn finish(self) -> io::Result<W> {
        let mut writer = self.writer.into_writer();
        writer.flush()?;
        Ok(writer)
    }
}

fn into_io(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcap::PcapReader;

    #[test]
    fn what_is_written_is_read_back() {
        let mut capture = Capture::new(Vec::new()).unwrap();
        capture.frame(Instant::from_micros(7), b"first frame").unwrap();
        capture.frame(Instant::from_micros(3_000_000), b"second").unwrap();
        capture.frame(Instant::NEVER, b"last").unwrap();
        let bytes = capture.finish().unwrap();

        let mut reader = PcapReader::new(bytes.as_slice()).unwrap();
        assert_eq!(reader.header().datalink, DataLink::ETHERNET);
        let mut seen = Vec::new();
        while let Some(packet) = reader.next_packet() {
            let packet = packet.unwrap();
            seen.push((packet.timestamp, packet.data.into_owned()));
        }
        assert_eq!(
            seen,
            [
                (Duration::from_micros(7), b"first frame".to_vec()),
                (Duration::from_secs(3), b"second".to_vec()),
                (Duration::from_secs(u64::from(u32::MAX)), b"last".to_vec()),
            ]
        );
    }
}
