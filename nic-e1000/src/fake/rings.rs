//! The rings of the fake device.

use nic_hal::host::HostMemory;

use super::Device;
use crate::ids::Family;
use crate::registers as reg;
use crate::registers::{rctl, tctl};

/// QEMU's `e1000` receives nothing for so long after a write to RCTL.
const RX_BLIND_US: u64 = 1_000_000;
/// Bytes that a frame has room for inside the device.
const FRAME_MAX: usize = 0x1_0000;
const DEXT: u32 = 1 << 29;

/// Ones' complement sum of big-endian words, uncomplemented.
fn sum(bytes: &[u8]) -> u16 {
    let total: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from))
        .sum();
    let folded = (total & 0xffff) + (total >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

impl Device {
    fn memory_at(&self, address: u64) -> Option<&'static HostMemory> {
        self.memories.into_iter().find(|memory| {
            let start = memory.device_addr().0;
            (start..start + memory.len() as u64).contains(&address)
        })
    }

    /// Fetches bytes; zeros from where there is nothing.
    fn fetch(&mut self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let read = self.memory_at(address).map(|memory| memory.device_read(address, &mut bytes));
        if !matches!(read, Some(Ok(()))) {
            self.violation(format!("fetched {len} bytes at {address:#x}"));
        }
        bytes
    }

    fn store(&mut self, address: u64, bytes: &[u8]) {
        let written = self.memory_at(address).map(|memory| memory.device_write(address, bytes));
        if !matches!(written, Some(Ok(()))) {
            self.violation(format!("stored {} bytes at {address:#x}", bytes.len()));
        }
    }

    fn descriptor(&mut self, ring: usize, index: u32) -> (u64, [u32; 4]) {
        let base = u64::from(self.word(ring + 4)) << 32 | u64::from(self.word(ring));
        let at = base.wrapping_add(u64::from(index) * 16);
        let bytes = self.fetch(at, 16);
        let word = |index: usize| {
            u32::from_le_bytes(bytes[index * 4..index * 4 + 4].try_into().expect("four bytes"))
        };
        (at, [word(0), word(1), word(2), word(3)])
    }

    /// Sends everything up to the tail, within the write that asked for it.
    pub(super) fn run_transmitter(&mut self) {
        let (_, tx) = self.rings();
        let count = self.word(tx + 8) / 16;
        let (head, tail) = (self.word(tx + 0x10), self.word(tx + 0x18));
        let queue_off = match self.family {
            Family::E1000 => false,
            Family::E1000e => self.word(reg::TARC0) & 1 << 10 == 0,
            Family::Igb => self.word(tx + 0x28) & 1 << 25 == 0,
        };
        if self.word(reg::TCTL) & tctl::EN == 0 || queue_off || tail >= count || head >= count {
            return;
        }
        if !self.config.is_bus_master() {
            // The head moves, and nothing else happens.
            self.set_word(tx + 0x10, tail);
            return;
        }
        let mut index = head;
        while index != tail {
            self.transmit_one(tx, index);
            index = (index + 1) % count;
        }
        self.set_word(tx + 0x10, tail);
        if self.family != Family::E1000 && (!self.partial.is_empty() || self.partial_lost) {
            // The newer models forget a frame that two tails cut.
            self.partial.clear();
            self.partial_lost = true;
        }
    }

    fn transmit_one(&mut self, tx: usize, index: u32) {
        let (at, [low, high, command, options]) = self.descriptor(tx, index);
        let extended = command & DEXT != 0;
        let kind = command >> 20 & 15;
        let igb = self.family == Family::Igb;
        if igb && !extended {
            self.violation("legacy descriptor on an igb");
        }
        if extended && kind == if igb { 2 } else { 0 } {
            let (start, field) = if igb {
                let start = (low >> 9 & 0x7f) + (low & 0x1ff);
                (start, start + 6)
            } else {
                (high & 0xff, high >> 8 & 0xff)
            };
            self.context = Some((start as usize, field as usize));
            return;
        }
        let len = if extended && !igb { command & 0xf_ffff } else { command & 0xffff } as usize;
        // QEMU's 8257x takes the option from the last piece of a frame, silicon from the first.
        if self.partial.is_empty() || self.family == Family::E1000e {
            self.partial_insert = extended && options & 0x200 != 0;
        }
        if self.partial.is_empty() && igb && options >> 14 == 0 {
            self.violation("advanced descriptor without a frame length");
        }
        if len == 0 && self.family != Family::E1000 {
            self.partial_lost = true;
        }
        if self.partial.len() + len > FRAME_MAX {
            self.violation("frame without end");
            self.partial_lost = true;
        } else {
            let bytes = self.fetch(u64::from(high) << 32 | u64::from(low), len);
            self.partial.extend(bytes);
        }
        if command & 1 << 24 != 0 {
            self.end_frame();
        }
        if command & 1 << 27 != 0 {
            self.complete(tx, at, index);
        }
    }

    fn end_frame(&mut self) {
        let mut frame = std::mem::take(&mut self.partial);
        if std::mem::take(&mut self.partial_lost) {
            return;
        }
        if self.partial_insert {
            let Some((start, field)) = self.context else {
                self.violation("checksum to insert without a context");
                return;
            };
            if start < 8 || field + 2 > frame.len() || start > field {
                self.violation("checksum to insert outside the frame");
                return;
            }
            if self.family != Family::E1000 {
                // The newer models do not need the seed: they compute it.
                let udp_len = (frame.len() - start) as u16;
                let seed =
                    sum(&[&frame[start - 8..start], &[0, 17], &udp_len.to_be_bytes()].concat());
                frame[field..field + 2].copy_from_slice(&seed.to_be_bytes());
            }
            let sum = !sum(&frame[start..]);
            frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        }
        self.frames.push(frame);
    }

    fn complete(&mut self, tx: usize, at: u64, index: u32) {
        let out_of_order = self.quirks.done_out_of_order && index.is_multiple_of(2);
        if self.quirks.never_done || out_of_order {
            return;
        }
        let write_back = self.word(tx + 0x38);
        if self.family == Family::Igb && write_back & 1 != 0 {
            self.violation("head written back");
            self.store(u64::from(write_back & !3), &index.to_le_bytes());
            return;
        }
        if self.family == Family::Igb {
            self.store(at, &[0; 12]);
        }
        self.store(at + 12, &[1]);
    }

    pub(super) fn deliver(&mut self, frame: &[u8]) -> bool {
        let (rx, _) = self.rings();
        let count = self.word(rx + 8) / 16;
        let (head, tail) = (self.word(rx + 0x10), self.word(rx + 0x18));
        let control = self.word(reg::RCTL);
        let igb = self.family == Family::Igb;
        let blind = self.family == Family::E1000
            && self.rctl_at_us.is_some_and(|at| self.now_us < at + RX_BLIND_US);
        let queue_off = igb && self.word(rx + 0x28) & 1 << 25 == 0;
        let able = control & rctl::EN != 0
            && self.link_is_up()
            && self.config.is_bus_master()
            && !queue_off
            && !blind;
        if !able || count == 0 || tail >= count || head == tail {
            return false;
        }
        if !self.accepts(frame, control) {
            return true;
        }
        let mut bytes = frame.to_vec();
        if self.family != Family::E1000 && bytes.len() < 60 {
            bytes.resize(60, 0);
        }
        if control & rctl::SECRC == 0 {
            bytes.extend([0xcc; 4]);
        }
        let (at, [low, high, ..]) = self.descriptor(rx, head);
        let len = self.quirks.rx_len.unwrap_or(bytes.len() as u16).to_le_bytes();
        let address = u64::from(high) << 32 | u64::from(low);
        self.store(address, &bytes);
        let status = 3 ^ self.quirks.rx_status_flip;
        let errors = self.quirks.rx_errors;
        let mut words = [0; 16];
        if igb {
            words[8] = status;
            words[11] = errors;
            words[12..14].copy_from_slice(&len);
            self.store(at, &words);
        } else {
            words[8..10].copy_from_slice(&len);
            // "Ignore the sums", says the model.
            words[12] = status | 4;
            words[13] = errors;
            self.store(at + 8, &words[8..]);
        }
        self.set_word(rx + 0x10, (head + 1) % count);
        true
    }

    /// The filter: our address, or a broadcast; what the dead kernel left is a filter too.
    fn accepts(&self, frame: &[u8], control: u32) -> bool {
        let promiscuous = control & 0x18 != 0;
        let broadcast = frame.starts_with(&[0xff; 6]) && control & rctl::BAM != 0;
        let station = (0..16).any(|index| {
            let low = self.word(reg::RAL0 + index * 8).to_le_bytes();
            let high = self.word(reg::RAH0 + index * 8);
            let address = [low.as_slice(), &high.to_le_bytes()[..2]].concat();
            high & reg::RAH_AV != 0 && frame.starts_with(&address)
        });
        let multicast =
            frame[0] & 1 != 0 && (0..128).any(|word| self.word(reg::MTA + word * 4) != 0);
        frame.len() <= 1518 && (promiscuous || broadcast || station || multicast)
    }
}
