//! A machine's RAM, shared by its CPU and its NIC.

use std::cell::RefCell;
use std::rc::Rc;

use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::dump::{DumpSource, Extent, ReadFault, ReadRam, Stability};

/// RAM: the regions a dump covers.
#[derive(Debug, Default)]
pub struct Ram {
    regions: Vec<Region>,
    /// Reads by the CPU that touch it fault.
    pub poison: Option<PhysRange>,
    /// Bytes read by the CPU.
    pub cpu_read: u64,
}

#[derive(Debug)]
struct Region {
    start: u64,
    bytes: Vec<u8>,
    stability: Stability,
}

impl Ram {
    /// No RAM.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a region. Regions must not overlap and are dumped in the order added.
    pub fn add(&mut self, start: u64, bytes: Vec<u8>, stability: Stability) {
        self.regions.push(Region { start, bytes, stability });
    }

    fn slice(&self, at: PhysAddr, len: usize) -> Option<&[u8]> {
        self.regions.iter().find_map(|region| {
            let offset = usize::try_from(at.0.checked_sub(region.start)?).ok()?;
            region.bytes.get(offset..offset.checked_add(len)?)
        })
    }

    /// What a device reads there, if there is RAM.
    pub fn dma(&self, range: PhysRange) -> Option<&[u8]> {
        self.slice(range.start(), range.len() as usize)
    }

    /// Changes a byte, as a device that was not stopped does.
    pub fn scribble(&mut self, at: u64, value: u8) {
        for region in &mut self.regions {
            let place = at.checked_sub(region.start).and_then(|i| region.bytes.get_mut(i as usize));
            if let Some(byte) = place {
                *byte = value;
            }
        }
    }

    /// The image a complete dump must leave: file offset = physical address.
    pub fn truth(&self) -> Vec<u8> {
        let end = self.regions.iter().map(|r| r.start as usize + r.bytes.len()).max().unwrap_or(0);
        let mut image = vec![0; end];
        for region in &self.regions {
            let start = region.start as usize;
            image[start..start + region.bytes.len()].copy_from_slice(&region.bytes);
        }
        image
    }
}

/// RAM that the NIC holds too.
pub type SharedRam = Rc<RefCell<Ram>>;

/// The dump's view of shared RAM.
#[derive(Debug)]
pub struct RamSource {
    ram: SharedRam,
    next: usize,
}

impl RamSource {
    /// All regions, from the first.
    pub fn new(ram: SharedRam) -> Self {
        Self { ram, next: 0 }
    }
}

impl DumpSource for RamSource {
    fn next(&mut self) -> Option<Extent> {
        let ram = self.ram.borrow();
        let region = ram.regions.get(self.next)?;
        self.next += 1;
        Some(Extent {
            offset: region.start,
            range: PhysRange::new(PhysAddr(region.start), region.bytes.len() as u64)?,
            stability: region.stability,
        })
    }

    fn rewind(&mut self) {
        self.next = 0;
    }
}

impl ReadRam for RamSource {
    fn read(&mut self, at: PhysAddr, into: &mut [u8]) -> Result<(), ReadFault> {
        let mut ram = self.ram.borrow_mut();
        ram.cpu_read += into.len() as u64;
        let wanted = PhysRange::new(at, into.len() as u64).ok_or(ReadFault { at })?;
        if let Some(poison) = ram.poison.filter(|poison| poison.overlaps(wanted)) {
            return Err(ReadFault { at: at.max(poison.start()) });
        }
        into.copy_from_slice(ram.slice(at, into.len()).ok_or(ReadFault { at })?);
        Ok(())
    }
}
