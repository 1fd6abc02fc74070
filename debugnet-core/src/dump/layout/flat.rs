//! [`Flat`]: the image without any header.

use super::image::RamImage;
use super::regions::{RegionError, Regions};
use crate::addr::{PhysAddr, PhysRange};
use crate::dump::{DumpSource, Extent, ReadFault, ReadRam};

/// RAM as it is: the offset in the file is the physical address. What is left
/// out is a hole.
pub struct Flat<'a> {
    image: RamImage<'a>,
}

impl<'a> Flat<'a> {
    /// The image of `regions`, read through `ram`.
    pub fn new(ram: &'a mut dyn ReadRam, regions: &'a mut Regions<'_>) -> Self {
        Self { image: RamImage::new(ram, regions, |_, region| region.range().start().0) }
    }

    /// As [`ElfCore::send_first`](super::ElfCore::send_first).
    ///
    /// # Errors
    /// [`RegionError::Full`] after 16.
    pub fn send_first(&mut self, range: PhysRange) -> Result<(), RegionError> {
        self.image.send_first(range)
    }
}

impl DumpSource for Flat<'_> {
    fn next(&mut self) -> Option<Extent> {
        self.image.next()
    }

    fn rewind(&mut self) {
        self.image.rewind(false);
    }

    fn rewind_in_order(&mut self) {
        self.image.rewind(true);
    }
}

impl ReadRam for Flat<'_> {
    fn read(&mut self, at: PhysAddr, into: &mut [u8]) -> Result<(), ReadFault> {
        self.image.ram.read(at, into)
    }

    fn sum(&mut self, range: PhysRange) -> Result<u16, ReadFault> {
        self.image.ram.sum(range)
    }

    fn zero_prefix(&mut self, range: PhysRange) -> Result<u64, ReadFault> {
        self.image.ram.zero_prefix(range)
    }
}
