//! Dates of the PC's real-time clock as seconds since 1970.

/// What the clock's registers say, as read.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RtcTime {
    /// 0 to 59.
    pub second: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 23, or 1 to 12 with bit 7 for the afternoon.
    pub hour: u8,
    /// 1 to 31.
    pub day: u8,
    /// 1 to 12.
    pub month: u8,
    /// Within the century.
    pub year: u8,
}

impl RtcTime {
    /// Seconds since 1970, taken as UTC in the years 2000 to 2099. `status_b`
    /// is the register that says how the others are coded. `None` for a date
    /// that does not exist.
    pub fn unix_seconds(self, status_b: u8) -> Option<u64> {
        const BINARY: u8 = 1 << 2;
        const HOURS_24: u8 = 1 << 1;
        const AFTERNOON: u8 = 1 << 7;
        let decode = |value: u8| -> u64 {
            let (tens, units) = (value >> 4, value & 0xf);
            u64::from(if status_b & BINARY != 0 { value } else { tens * 10 + units })
        };
        let mut hour = decode(self.hour & !AFTERNOON);
        if status_b & HOURS_24 == 0 {
            hour = hour % 12 + if self.hour & AFTERNOON != 0 { 12 } else { 0 };
        }
        let (minute, second) = (decode(self.minute), decode(self.second));
        let (day, month, year) = (decode(self.day), decode(self.month), decode(self.year));
        let leap = year.is_multiple_of(4);
        let month_len = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 => 28 + u64::from(leap),
            _ => return None,
        };
        if !(1..=month_len).contains(&day) || year > 99 || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        /// Days before each month of a year that is no leap year.
        const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        /// Days from 1970 to 2000.
        const EPOCH: u64 = 10_957;
        let before = BEFORE[month as usize - 1] + u64::from(leap && month > 2);
        let days = EPOCH + year * 365 + year.div_ceil(4) + before + day - 1;
        Some(((days * 24 + hour) * 60 + minute) * 60 + second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bcd(date: [u8; 6]) -> Option<u64> {
        let [year, month, day, hour, minute, second] = date;
        RtcTime { second, minute, hour, day, month, year }.unix_seconds(0x02)
    }

    /// The right column is `date -u -d ... +%s`.
    #[test]
    fn dates_are_those_of_date() {
        assert_eq!(bcd([0x00, 0x01, 0x01, 0x00, 0x00, 0x00]), Some(946_684_800));
        assert_eq!(bcd([0x00, 0x02, 0x29, 0x12, 0x34, 0x56]), Some(951_827_696));
        assert_eq!(bcd([0x01, 0x03, 0x01, 0x00, 0x00, 0x00]), Some(983_404_800));
        assert_eq!(bcd([0x26, 0x11, 0x23, 0x12, 0x27, 0x01]), Some(1_795_436_821));
        assert_eq!(bcd([0x99, 0x12, 0x31, 0x23, 0x59, 0x59]), Some(4_102_444_799));
    }

    #[test]
    fn codings() {
        let noon = RtcTime { second: 1, minute: 2, hour: 12 | 0x80, day: 3, month: 4, year: 25 };
        let expected = Some(1_743_681_721);
        assert_eq!(noon.unix_seconds(0x04), expected);
        assert_eq!(RtcTime { hour: 12, ..noon }.unix_seconds(0x06), expected);
        let midnight = RtcTime { hour: 12, ..noon };
        assert_eq!(midnight.unix_seconds(0x04), expected.map(|noon| noon - 12 * 3600));
        let bcd = RtcTime { hour: 0x92, year: 0x25, ..noon };
        assert_eq!(bcd.unix_seconds(0x00), expected);
    }

    #[test]
    fn dates_that_do_not_exist() {
        for date in [
            [0x25, 0x02, 0x29, 0, 0, 0],
            [0x25, 0x00, 0x01, 0, 0, 0],
            [0x25, 0x13, 0x01, 0, 0, 0],
            [0x25, 0x01, 0x00, 0, 0, 0],
            [0x25, 0x01, 0x01, 0x24, 0, 0],
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(bcd(date), None, "{date:x?}");
        }
    }
}
