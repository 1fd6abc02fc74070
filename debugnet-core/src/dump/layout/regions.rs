//! [`Regions`]: what RAM there is, and how each part of it is treated.

use crate::addr::{PhysAddr, PhysRange};
use crate::dump::Stability;

/// How a part of RAM is treated. Each is stronger than those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u32)]
pub enum Treatment {
    /// In the image; sent from where it is.
    Frozen = 0,
    /// In the image; the dump itself writes to it, so that it is copied first.
    Volatile = 1,
    /// Kept out: never read, never sent. The image says so: it has a hole there, the notes and
    /// [`Outcome::not_sent`](crate::Outcome::not_sent) name it.
    Redacted = 2,
    /// Not in the image at all: never read, never sent. Only the notes name it.
    Excluded = 3,
}

impl Treatment {
    /// Whether the image has its bytes.
    pub const fn is_sent(self) -> bool {
        matches!(self, Self::Frozen | Self::Volatile)
    }

    pub(super) const fn stability(self) -> Stability {
        match self {
            Self::Frozen => Stability::Frozen,
            Self::Volatile => Stability::Volatile,
            Self::Redacted | Self::Excluded => Stability::Redacted,
        }
    }
}

/// A run of RAM that is treated alike: 40 bytes on a 64-bit machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Region {
    pub(super) range: PhysRange,
    pub(super) treatment: Treatment,
    /// Where it lies in the part of the image that holds RAM.
    pub(super) position: u64,
}

impl Region {
    /// No RAM, to fill an array with.
    pub const EMPTY: Self =
        Self { range: PhysRange::EMPTY, treatment: Treatment::Frozen, position: 0 };

    /// Where it is.
    pub const fn range(&self) -> PhysRange {
        self.range
    }

    /// How it is treated.
    pub const fn treatment(&self) -> Treatment {
        self.treatment
    }
}

/// Index of the first region that ends behind `at`.
pub(super) fn first_behind(regions: &[Region], at: PhysAddr) -> usize {
    regions.partition_point(|region| region.range.end() <= at)
}

/// Why a list of RAM cannot be as it was asked to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RegionError {
    /// RAM was added that is in the list already.
    Overlap {
        /// What was to be added.
        found: PhysRange,
        /// What it overlaps.
        with: PhysRange,
    },
    /// The list is full.
    Full {
        /// Regions it holds.
        capacity: usize,
    },
}

impl core::fmt::Display for RegionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Overlap { found, with } => write!(
                f,
                "RAM from {} to {} overlaps that from {} to {}",
                found.start(),
                found.end(),
                with.start(),
                with.end()
            ),
            Self::Full { capacity } => write!(f, "more than {capacity} regions of RAM"),
        }
    }
}

impl core::error::Error for RegionError {}

/// The RAM of the machine in ascending order, in the caller's memory.
///
/// What is not in the list is never touched: leave device memory out.
///
/// ```
/// use debugnet_core::addr::{PhysAddr, PhysRange};
/// use debugnet_core::dump::layout::{Region, Regions, Treatment};
///
/// let range = |start, len| PhysRange::new(PhysAddr(start), len).unwrap();
/// let mut memory = [Region::EMPTY; 16];
/// let mut ram = Regions::new(&mut memory);
/// ram.add(range(0, 0x9_f000))?;
/// ram.add(range(0x10_0000, 0x3ff0_0000))?; // nothing of the hole in between is touched
/// ram.mark(range(0x20_0000, 0x1000), Treatment::Redacted)?; // the keys
/// let secret = ram.iter().find(|region| region.treatment() == Treatment::Redacted);
/// assert_eq!(secret.unwrap().range(), range(0x20_0000, 0x1000));
/// # Ok::<(), debugnet_core::dump::layout::RegionError>(())
/// ```
#[derive(Debug)]
pub struct Regions<'m> {
    memory: &'m mut [Region],
    len: usize,
}

impl<'m> Regions<'m> {
    /// No RAM, and room for as many regions as `memory` is long.
    pub fn new(memory: &'m mut [Region]) -> Self {
        Self { memory, len: 0 }
    }

    /// Forgets all of it.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The regions, by rising address.
    pub fn iter(&self) -> core::slice::Iter<'_, Region> {
        self.as_slice().iter()
    }

    pub(super) fn as_slice(&self) -> &[Region] {
        self.memory.get(..self.len).unwrap_or(&[])
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Region] {
        self.memory.get_mut(..self.len).unwrap_or(&mut [])
    }

    /// Adds RAM, which is [`Treatment::Frozen`] until it is marked. Any
    /// alignment will do. No RAM at all adds nothing.
    ///
    /// # Errors
    /// [`RegionError::Overlap`] and [`RegionError::Full`]; the list is then as before.
    pub fn add(&mut self, range: PhysRange) -> Result<(), RegionError> {
        if range.is_empty() {
            return Ok(());
        }
        let index = self.first_behind(range.start());
        if let Some(next) = self.as_slice().get(index)
            && next.range.overlaps(range)
        {
            return Err(RegionError::Overlap { found: range, with: next.range });
        }
        self.insert(index, Region { range, ..Region::EMPTY })
    }

    /// Treats the RAM in `range` as `treatment` says, where that is stronger
    /// than how it was treated: what is redacted stays so whatever is said later.
    ///
    /// # Errors
    /// [`RegionError::Full`] if there is no room to split a region. To be on the
    /// safe side, such a region is then [`Treatment::Volatile`] or
    /// [`Treatment::Redacted`] as a whole; it is not [`Treatment::Excluded`].
    pub fn mark(&mut self, range: PhysRange, treatment: Treatment) -> Result<(), RegionError> {
        let mut result = Ok(());
        let mut index = self.first_behind(range.start());
        // Each turn ends one region further on.
        while let Some(region) = self.as_slice().get(index).copied() {
            if range.is_empty() || region.range.start() >= range.end() {
                break;
            }
            if region.treatment >= treatment {
                index = index.saturating_add(1);
                continue;
            }
            let before = range.start().0.saturating_sub(region.range.start().0);
            let (head, rest) = region.range.split_at(before);
            let (inside, tail) = rest.split_at(range.end().0.saturating_sub(rest.start().0));
            let extra = usize::from(!head.is_empty()).saturating_add((!tail.is_empty()).into());
            if self.memory.len().saturating_sub(self.len) < extra {
                result = Err(RegionError::Full { capacity: self.memory.len() });
                if treatment != Treatment::Excluded {
                    self.replace(index, Region { treatment, ..region });
                }
                index = index.saturating_add(1);
                continue;
            }
            self.replace(index, Region { range: inside, treatment, ..region });
            if !tail.is_empty() {
                self.insert(index.saturating_add(1), Region { range: tail, ..region })?;
            }
            if !head.is_empty() {
                self.insert(index, Region { range: head, ..region })?;
            }
            index = index.saturating_add(1).saturating_add(extra);
        }
        result
    }

    /// Asks `policy` about all RAM that would be sent.
    ///
    /// It is given a range, and says how the first so many bytes of it are to be
    /// treated; the rest is asked about again. All of a grain ([`Regions::GRAIN`])
    /// is treated alike: by the strongest of the answers for its parts. A policy
    /// can only make the treatment stronger.
    ///
    /// ```
    /// # use debugnet_core::addr::{PhysAddr, PhysRange};
    /// # use debugnet_core::dump::layout::{Region, Regions, Treatment};
    /// # let range = |start, len| PhysRange::new(PhysAddr(start), len).unwrap();
    /// # let mut memory = [Region::EMPTY; 16];
    /// let mut ram = Regions::new(&mut memory);
    /// ram.add(range(0, 0x10_0000))?;
    /// // Every sixteenth page is a user's.
    /// let is_user = |page: u64| page % 16 == 3;
    /// ram.apply(&mut |range| match is_user(range.start().0 / 4096) {
    ///     true => (Treatment::Redacted, 4096),
    ///     false => (Treatment::Frozen, 4096),
    /// })
    /// .unwrap_err(); // 16 of them do not fit in this list: more is kept out than was asked for
    /// assert!(ram.iter().any(|region| region.treatment() == Treatment::Redacted));
    /// # Ok::<(), debugnet_core::dump::layout::RegionError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Regions::mark`]. All RAM was asked about nevertheless.
    pub fn apply(
        &mut self,
        policy: &mut dyn FnMut(PhysRange) -> (Treatment, u64),
    ) -> Result<(), RegionError> {
        let mut result = Ok(());
        let mut at = PhysAddr(0);
        while let Some(region) = self.as_slice().get(self.first_behind(at)).copied() {
            let done = at.0.saturating_sub(region.range.start().0);
            let (_, rest) = region.range.split_at(done);
            if !region.treatment.is_sent() {
                at = rest.end();
                continue;
            }
            let (treatment, len) = policy(rest);
            let (inside, treatment) = Self::to_a_border(rest, len, treatment, policy);
            at = inside.end();
            if let Err(error) = self.mark(inside, treatment) {
                result = Err(error);
            }
        }
        result
    }

    /// What an answer for the first `len` bytes of `rest` means for whole grains: down to
    /// the last border inside, or up to the first one behind, if all of the grain up to there
    /// may be treated alike: by the strongest of the answers for its parts.
    fn to_a_border(
        rest: PhysRange,
        len: u64,
        treatment: Treatment,
        policy: &mut dyn FnMut(PhysRange) -> (Treatment, u64),
    ) -> (PhysRange, Treatment) {
        const MASK: u64 = !(Regions::GRAIN - 1);
        let start = rest.start().0;
        let mut asked = start.saturating_add(len.max(1)).min(rest.end().0);
        let border = asked & MASK;
        if asked == rest.end().0 || border > start {
            let end = if asked == rest.end().0 { asked } else { border };
            return (rest.split_at(end.saturating_sub(start)).0, treatment);
        }
        let end = border.saturating_add(Self::GRAIN).min(rest.end().0);
        let mut strongest = treatment;
        // At most a grain of answers for a byte each.
        while asked < end {
            let (_, more) = rest.split_at(asked.saturating_sub(start));
            let (treatment, len) = policy(more);
            strongest = strongest.max(treatment);
            asked = asked.saturating_add(len.max(1));
        }
        (rest.split_at(end.saturating_sub(start)).0, strongest)
    }

    /// Borders at which [`Regions::apply`] may split, in bytes.
    pub const GRAIN: u64 = 4096;

    fn first_behind(&self, at: PhysAddr) -> usize {
        first_behind(self.as_slice(), at)
    }

    fn replace(&mut self, index: usize, region: Region) {
        if let Some(slot) = self.as_mut_slice().get_mut(index) {
            *slot = region;
        }
    }

    fn insert(&mut self, index: usize, region: Region) -> Result<(), RegionError> {
        let full = RegionError::Full { capacity: self.memory.len() };
        let len = self.len.saturating_add(1);
        let moved = self.memory.get_mut(index..len).ok_or(full)?;
        // `rotate_right` may panic.
        moved.iter_mut().fold(region, |carried, slot| core::mem::replace(slot, carried));
        self.len = len;
        Ok(())
    }
}
