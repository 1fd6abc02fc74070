//! The fake device's legacy registers: I/O ports, and queues as page numbers.

use super::{Bus, Device};

/// Where the ports are.
pub(super) const PORT: u16 = 0xc040;

/// A transitional function that lost its modern capabilities: ports in BAR 0,
/// MSI-X left on by the dead kernel, I/O decoding and bus mastering off.
pub(super) fn config_space() -> Vec<(u16, u32)> {
    vec![
        (0x00, 0x1000_1af4),
        (0x04, 0x0010_0000),
        (0x08, 0x0200_0000),
        (0x10, u32::from(PORT) | 1),
        (0x14, 0xfebd_1000),
        (0x2c, 0x0001_1af4),
        (0x34, 0x40),
        (0x40, 0x8002_0011),
    ]
}

impl Device {
    /// Where the configuration begins: MSI-X moves it.
    fn config_at(&self) -> u32 {
        if self.config.get(0x40) >> 31 != 0 { 0x18 } else { 0x14 }
    }

    fn check_port(&mut self, at: u32, width: usize) {
        let own = match at {
            0x00..0x0c => 4,
            0x0c..0x12 => 2,
            0x12..0x14 => 1,
            _ => return,
        };
        if width != own {
            self.violation(format!("access of {width} bytes to port {at:#x}"));
        }
        if self.config.get(4) & 1 == 0 {
            self.violation("access to ports that are not decoded");
        }
    }

    pub(super) fn read_port(&mut self, at: u32, width: usize) -> u32 {
        self.check_port(at, width);
        let select = usize::from(self.queue_select).min(2);
        match at {
            0x00 => self.quirks.features as u32,
            0x04 => self.driver_features as u32,
            0x08 => self.queues[select].page,
            0x0c => self.quirks.queue_len[select].into(),
            0x0e => self.queue_select.into(),
            0x12 => self.read_status().into(),
            // The two vectors, while MSI-X is on: none.
            0x14..0x18 if self.config_at() == 0x18 => 0xffff_ffff,
            0x14.. => self.read_net(at - self.config_at(), width),
            _ => {
                self.violation(format!("read port {at:#x}"));
                0
            }
        }
    }

    pub(super) fn write_port(&mut self, at: u32, width: usize, value: u32) {
        self.check_port(at, width);
        if self.resetting.is_some() && at != 0x12 {
            self.violation(format!("wrote port {at:#x} before the reset was confirmed"));
        }
        match at {
            0x04 => self.accept(0, value),
            0x08 => {
                let len = self.quirks.queue_len[usize::from(self.queue_select).min(2)];
                self.set_page(value, len, 0x1000, 0x1000);
            }
            0x0e => self.queue_select = value as u16,
            0x10 => self.ring(value),
            0x12 => self.write_status(value as u8),
            _ => self.violation(format!("wrote port {at:#x}")),
        }
    }

    /// Puts the selected queue on page `page`, or takes it off with 0.
    pub(super) fn set_page(&mut self, page: u32, len: u16, page_len: u32, align: u32) {
        let queue = &mut self.queues[usize::from(self.queue_select).min(2)];
        let was_on = queue.page;
        if page == 0 {
            // Some devices take that as a reset.
            *queue = super::Queue::default();
            self.page_len = 0;
            return;
        }
        let (n, align) = (u64::from(len), u64::from(align.max(1)));
        queue.page = page;
        queue.len = len;
        queue.enabled = true;
        queue.descriptors = u64::from(page) * u64::from(page_len);
        queue.avail = queue.descriptors + 16 * n;
        queue.used = (queue.avail + 2 * (3 + n)).div_ceil(align) * align;
        if was_on != 0 {
            self.violation(format!("page {page:#x} for a queue that is on page {was_on:#x}"));
        }
        if page_len == 0 || (self.quirks.bus == Bus::MmioV1 && align < 16) {
            self.violation("a queue before the page size and the alignment");
        }
    }
}
