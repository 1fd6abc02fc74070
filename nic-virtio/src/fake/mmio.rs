//! The fake device's MMIO registers, versions 1 and 2.

use super::registers::{half, set_half};
use super::{Bus, Device};

impl Device {
    fn is_v1(&self) -> bool {
        self.quirks.bus == Bus::MmioV1
    }

    fn check_slot(&mut self, at: u32, width: usize) {
        if at < 0x100 && width != 4 {
            self.violation(format!("access of {width} bytes to register {at:#x}"));
        }
    }

    pub(super) fn read_slot(&mut self, at: u32, width: usize) -> u32 {
        self.check_slot(at, width);
        let select = usize::from(self.queue_select).min(2);
        let version = if self.is_v1() { 1 } else { 2 };
        let identity = self.quirks.identity.unwrap_or([0x7472_6976, version, 1]);
        match at {
            0x000 | 0x004 | 0x008 => identity[at as usize / 4],
            0x010 => half(self.quirks.features, self.feature_select[0]),
            0x034 => self.quirks.queue_len[select].into(),
            0x040 if self.is_v1() => self.queues[select].page,
            0x044 if !self.is_v1() => self.queues[select].enabled.into(),
            0x070 => self.read_status().into(),
            0x0fc if !self.is_v1() => {
                if self.quirks.restless {
                    self.generation = self.generation.wrapping_add(1);
                }
                self.generation.into()
            }
            0x100.. => self.read_net(at - 0x100, width),
            _ => {
                self.violation(format!("read register {at:#x}"));
                0
            }
        }
    }

    pub(super) fn write_slot(&mut self, at: u32, width: usize, value: u32) {
        self.check_slot(at, width);
        if self.resetting.is_some() && at != 0x70 {
            self.violation(format!("wrote register {at:#x} before the reset was confirmed"));
        }
        let select = usize::from(self.queue_select).min(2);
        let is_v1 = self.is_v1();
        let ready = self.queues[select].enabled && !is_v1;
        if ready && matches!(at, 0x038 | 0x080..0x0b0) {
            self.violation(format!("wrote register {at:#x} of a queue that is ready"));
        }
        let longest = self.quirks.queue_len[select];
        let queue = &mut self.queues[select];
        match at {
            0x014 => self.feature_select[0] = value,
            0x020 => self.accept(self.feature_select[1], value),
            0x024 => self.feature_select[1] = value,
            0x028 if is_v1 => self.page_len = value,
            0x030 => self.queue_select = value as u16,
            0x038 => {
                queue.len = value as u16;
                if !queue.len.is_power_of_two() || queue.len > longest {
                    self.violation(format!("ring of {value} entries"));
                }
            }
            0x03c if is_v1 => queue.align = value,
            0x040 if is_v1 => {
                let (len, align) = (queue.len, queue.align);
                self.set_page(value, len, self.page_len, align);
            }
            0x044 if !is_v1 => queue.enabled = value == 1,
            0x050 => self.ring(value),
            0x070 => self.write_status(value as u8),
            0x080 | 0x084 if !is_v1 => set_half(&mut queue.descriptors, (at - 0x80) / 4, value),
            0x090 | 0x094 if !is_v1 => set_half(&mut queue.avail, (at - 0x90) / 4, value),
            0x0a0 | 0x0a4 if !is_v1 => set_half(&mut queue.used, (at - 0xa0) / 4, value),
            _ => self.violation(format!("wrote register {at:#x}")),
        }
    }
}
