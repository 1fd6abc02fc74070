//! A write where nobody may write, asked for on the command line to see that it is noticed.

/// Value of every byte of the guard pages, and of what is left free beside them.
pub const CANARY: u8 = 0xc5;

/// A piece of memory that the dump works in, in the order in which they lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// `Memory::slots`.
    Slots,
    /// `Memory::index`.
    Index,
    /// `Memory::cells`.
    Cells,
    /// `Memory::rx`.
    Rx,
    /// The driver's memory.
    Rings,
    /// The compressor's workspace.
    Gzip,
    /// The list of regions.
    Regions,
    /// The crash cell: armed dump, driver, clock, source.
    Kit,
    /// The stack that the dump runs on.
    Stack,
    /// None: free RAM.
    Ram,
}

impl Piece {
    const NAMES: &[(&str, Self)] = &[
        ("slots", Self::Slots),
        ("index", Self::Index),
        ("cells", Self::Cells),
        ("rx", Self::Rx),
        ("rings", Self::Rings),
        ("gzip", Self::Gzip),
        ("regions", Self::Regions),
        ("kit", Self::Kit),
        ("stack", Self::Stack),
        ("ram", Self::Ram),
    ];

    /// How many there are beside the stack and free RAM.
    pub const COUNT: usize = Self::NAMES.len() - 2;

    /// Those, by rising address.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::NAMES.iter().take(Self::COUNT).map(|(_, piece)| *piece)
    }

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, piece)| *piece == self).map_or("?", |(name, _)| name)
    }
}

/// Who writes beyond a piece, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The CPU, the byte in front of the first one.
    Before,
    /// The CPU, the byte behind the last one.
    After,
    /// The same byte, past the page tables, as a device writes.
    Device,
}

impl Side {
    const NAMES: &[(&str, Self)] =
        &[("before", Self::Before), ("after", Self::After), ("device", Self::Device)];
}

/// One byte written beyond a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overrun {
    /// Where.
    pub side: Side,
    /// Of which piece.
    pub piece: Piece,
}

impl Overrun {
    /// Reads `SIDE-PIECE`. A stack has no byte behind it that is nobody's; who writes to free
    /// RAM is a device.
    pub fn parse(word: &str) -> Option<Self> {
        let (side, piece) = word.split_once('-')?;
        let find = |(name, _): &&(&str, Side)| *name == side;
        let side = Side::NAMES.iter().find(find)?.1;
        let piece = Piece::NAMES.iter().find(|(name, _)| *name == piece)?.1;
        let exists = match piece {
            Piece::Stack => side == Side::Before,
            Piece::Ram => side == Side::Device,
            _ => true,
        };
        exists.then_some(Self { side, piece })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read() {
        let read = Overrun { side: Side::Device, piece: Piece::Rings };
        assert_eq!(Overrun::parse("device-rings"), Some(read));
        for word in [
            "",
            "slots",
            "after",
            "after-",
            "beside-rx",
            "after-stack",
            "device-stack",
            "after-ram",
        ] {
            assert_eq!(Overrun::parse(word), None, "{word}");
        }
        assert_eq!(Piece::all().count(), Piece::COUNT);
        assert!(Piece::all().all(|piece| ![Piece::Stack, Piece::Ram].contains(&piece)));
        assert_eq!(Piece::Kit.name(), "kit");
    }
}
