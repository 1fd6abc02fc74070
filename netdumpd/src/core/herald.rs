//! The opening message: who is calling, and where it wants its dump.

use debugnet_core::wire::debugnet::{MessageHeader, herald_word};

/// Longest path a herald may carry, its NUL included; FreeBSD's `MAXPATHLEN`.
pub const PATH_MAX_LEN: usize = 1024;

/// Who a herald comes from, beside its address and port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Identity {
    /// A client that says nothing of itself: one machine can only be told
    /// from its next crash by what it sends afterwards.
    Stock,
    /// A client of this project; the nonce is new with every crash.
    Ours {
        /// What the client promises; 1: contiguous sequence numbers, a window of its own.
        version: u32,
        /// Drawn anew for each crash.
        nonce: u16,
    },
}

impl Identity {
    pub(super) fn of(header: &MessageHeader) -> Self {
        match herald_word::parse(header.aux2.get()) {
            Some((version, nonce)) => Self::Ours { version, nonce },
            None => Self::Stock,
        }
    }

    /// Whether sequence numbers are promised to be contiguous.
    pub(super) fn numbers_contiguously(self) -> bool {
        matches!(self, Self::Ours { version: 1.., .. })
    }
}

/// What a herald says of its sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Herald {
    /// Its sequence number.
    pub seqno: u32,
    /// Who sent it.
    pub identity: Identity,
}

/// The path of a herald's payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HeraldPath {
    /// None asked for.
    Default,
    /// Relative to the dump directory, as it came: bytes without NUL, not checked.
    Named(Vec<u8>),
    /// No NUL at the end, or too long. The default is used.
    Unusable,
}

impl HeraldPath {
    pub(super) fn parse(payload: &[u8]) -> Self {
        match payload.split_last() {
            None => Self::Default,
            Some((0, path)) if payload.len() <= PATH_MAX_LEN => {
                match path.split(|byte| *byte == 0).next() {
                    Some(path) if !path.is_empty() => Self::Named(path.to_vec()),
                    _ => Self::Default,
                }
            }
            Some(_) => Self::Unusable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(HeraldPath::parse(b""), HeraldPath::Default);
        assert_eq!(HeraldPath::parse(b"\0"), HeraldPath::Default);
        assert_eq!(HeraldPath::parse(b"good\0"), HeraldPath::Named(b"good".to_vec()));
        assert_eq!(HeraldPath::parse(b"a\0b\0"), HeraldPath::Named(b"a".to_vec()));
        assert_eq!(HeraldPath::parse(b"good"), HeraldPath::Unusable);
        let mut long = vec![b'x'; PATH_MAX_LEN];
        long[PATH_MAX_LEN - 1] = 0;
        assert!(matches!(HeraldPath::parse(&long), HeraldPath::Named(_)));
        long[PATH_MAX_LEN - 1] = b'x';
        long.push(0);
        assert_eq!(HeraldPath::parse(&long), HeraldPath::Unusable);
    }
}
