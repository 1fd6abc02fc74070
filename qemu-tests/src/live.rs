//! Frames of the living kernel, read from outside. `guest/src/live_frame.rs`
//! says what they are for; nothing of it is used here.

use smoltcp::wire::EthernetAddress;

/// Ethernet type of the frames.
pub const ETHERTYPE: u16 = 0x88b6;
/// Stands in every frame of the living kernel, in the padding of its ARP requests too.
pub const MARK: &[u8; 8] = b"LIVE-KRN";

/// Bytes of the smallest Ethernet frame, less its FCS.
const FRAME_MIN: usize = 60;
/// Bytes of the fields that are read.
const FIELDS_LEN: usize = 36;
/// Highest number that is tracked.
const NUMBER_MAX: usize = 1 << 24;

/// What a frame of the living kernel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Plain,
    /// A small answer with the same number.
    Ask,
    /// Nothing, and it may as well be lost.
    Doomed,
    /// That no frame is taken for some milliseconds.
    Hold(u16),
}

/// A frame of the living kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Its sender.
    pub from: EthernetAddress,
    /// What it asks for.
    pub kind: Kind,
    /// Its number.
    pub number: u32,
    /// Whether length, padding and payload are what its header says.
    pub is_sound: bool,
}

/// Whether a frame is one of the living kernel's, ARP included.
pub fn is_marked(frame: &[u8]) -> bool {
    let arp_padding = frame.get(42..50);
    frame.get(14..22) == Some(MARK) || arp_padding == Some(MARK)
}

/// Reads a frame of type [`ETHERTYPE`]. `None` if it does not bear the mark, or is an answer.
pub fn parse(frame: &[u8]) -> Option<Live> {
    let fields = frame.get(..FIELDS_LEN)?;
    if &fields[14..22] != MARK {
        return None;
    }
    let half = |at: usize| u16::from_be_bytes([fields[at], fields[at + 1]]);
    let kind = match fields[22] {
        1 => Kind::Plain,
        2 => Kind::Ask,
        4 => Kind::Doomed,
        5 => Kind::Hold(half(34)),
        _ => return None,
    };
    let (frame_len, header_len) = (usize::from(half(28)), usize::from(half(30)));
    Some(Live {
        from: EthernetAddress::from_bytes(&fields[6..12]),
        kind,
        number: u32::from(half(24)) << 16 | u32::from(half(26)),
        is_sound: frame.len() == frame_len.max(FRAME_MIN)
            && frame.get(header_len..frame_len).is_some_and(|payload| sum(payload) == half(32))
            && frame[frame_len..].iter().all(|byte| *byte == 0),
    })
}

/// The answer to frame `number` of `asker`, of the smallest size, into `frame`.
pub fn build_answer(
    frame: &mut Vec<u8>,
    from: EthernetAddress,
    asker: EthernetAddress,
    number: u32,
) {
    const ANSWER: u8 = 3;
    frame.clear();
    for field in [&asker.0[..], &from.0, &ETHERTYPE.to_be_bytes(), MARK, &[ANSWER, 0]] {
        frame.extend_from_slice(field);
    }
    frame.extend_from_slice(&number.to_be_bytes());
    frame.resize(FRAME_MIN, 0);
}

/// Ones' complement sum of big-endian words, the last one filled up on the right (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let (words, odd) = bytes.as_chunks::<2>();
    let mut total: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum();
    total += odd.first().map_or(0, |byte| u64::from(*byte) << 8);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Which frames have come.
#[derive(Debug, Default)]
pub struct Census {
    seen: Vec<bool>,
    counts: Counts,
}

/// Counts of a [`Census`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Different frames that had to arrive, and did, unharmed.
    pub arrived: u64,
    /// Frames that came twice.
    pub repeated: u64,
    /// Frames whose length, padding or payload is wrong.
    pub broken: u64,
}

impl Census {
    /// Takes note of a frame.
    pub fn saw(&mut self, live: &Live) {
        if !live.is_sound {
            self.counts.broken += 1;
        }
        if !live.is_sound || !matches!(live.kind, Kind::Plain | Kind::Ask) {
            return;
        }
        let Some(index) = usize::try_from(live.number).ok().filter(|index| *index < NUMBER_MAX)
        else {
            self.counts.broken += 1;
            return;
        };
        if index >= self.seen.len() {
            self.seen.resize((index + 1).next_power_of_two(), false);
        }
        if std::mem::replace(&mut self.seen[index], true) {
            self.counts.repeated += 1;
        } else {
            self.counts.arrived += 1;
        }
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, number: u32, header_len: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend_from_slice(&[2, 0, 0, 0, 0, 9, 0x88, 0xb6]);
        frame.extend_from_slice(b"LIVE-KRN");
        frame.extend_from_slice(&[kind, 0]);
        frame.extend_from_slice(&number.to_be_bytes());
        frame.extend_from_slice(&(header_len + payload.len() as u16).to_be_bytes());
        frame.extend_from_slice(&header_len.to_be_bytes());
        frame.extend_from_slice(&sum(payload).to_be_bytes());
        frame.extend_from_slice(&300_u16.to_be_bytes());
        frame.resize(header_len.into(), 0);
        frame.extend_from_slice(payload);
        frame.resize(frame.len().max(60), 0);
        frame
    }

    #[test]
    fn sums_as_rfc_1071_has_them() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!(sum(&[0x12]), 0x1200);
        assert_eq!(sum(&[]), 0);
    }

    #[test]
    fn a_frame_is_read_and_its_faults_are_seen() {
        let from = EthernetAddress([2, 0, 0, 0, 0, 9]);
        let good = frame(2, 0x0001_0002, 66, &[7; 33]);
        let live = Live { from, kind: Kind::Ask, number: 0x0001_0002, is_sound: true };
        assert_eq!(parse(&good), Some(live));
        assert_eq!(parse(&frame(5, 0, 36, &[])).unwrap().kind, Kind::Hold(300));
        assert!(is_marked(&good) && parse(&frame(1, 0, 36, &[1])).unwrap().is_sound);

        let mut wrong = good.clone();
        wrong[80] ^= 1;
        assert!(!parse(&wrong).unwrap().is_sound);
        assert!(!parse(&good[..good.len() - 1]).unwrap().is_sound);
        let mut longer = good.clone();
        longer.push(0);
        assert!(!parse(&longer).unwrap().is_sound);
        let mut padding = frame(1, 0, 36, &[]);
        padding[59] = 1;
        assert!(!parse(&padding).unwrap().is_sound);
        assert_eq!(parse(&frame(3, 1, 60, &[])), None, "an answer");
    }

    #[test]
    fn each_frame_counts_once() {
        let mut census = Census::default();
        for (kind, number) in [(1, 0), (2, 1), (2, 1), (4, 7)] {
            census.saw(&parse(&frame(kind, number, 60, &[1, 2])).unwrap());
        }
        let mut wrong = frame(1, 9, 60, &[1, 2]);
        wrong[60] ^= 1;
        census.saw(&parse(&wrong).unwrap());
        assert_eq!(census.counts(), Counts { arrived: 2, repeated: 1, broken: 1 });
    }

    #[test]
    fn answers_are_of_the_smallest_size() {
        let mut answer = Vec::new();
        build_answer(&mut answer, EthernetAddress([2; 6]), EthernetAddress([4; 6]), 5);
        assert_eq!((answer.len(), &answer[..6], answer[22]), (60, &[4; 6][..], 3));
        assert_eq!(answer[24..28], [0, 0, 0, 5]);
    }
}
