//! The configuration space of a fake PCI function.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use pci_types::{ConfigRegionAccess, PciAddress};

use crate::pci::PciFunction;

/// 256 bytes of configuration space in memory; clones share it.
///
/// The header is read-only but for the command register; capabilities can be
/// written. Every write is recorded.
#[derive(Clone, Debug)]
pub struct HostConfig(Rc<RefCell<Space>>);

struct Space {
    words: [u32; 64],
    absent: bool,
    /// Words that a driver's writes do not change.
    frozen: Vec<u16>,
    writes: Vec<(u16, u32)>,
    on_read: Option<Rc<dyn Fn()>>,
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space").field("words", &self.words).finish_non_exhaustive()
    }
}

impl HostConfig {
    /// A function with these words at these offsets (multiples of 4), and zero elsewhere.
    ///
    /// # Panics
    /// If an offset is not below 256.
    pub fn new(words: impl IntoIterator<Item = (u16, u32)>) -> Self {
        let config = Self(Rc::new(RefCell::new(Space {
            words: [0; 64],
            absent: false,
            frozen: Vec::new(),
            writes: Vec::new(),
            on_read: None,
        })));
        for (offset, word) in words {
            config.set(offset, word);
        }
        config
    }

    /// Sets a word, read-only or not.
    ///
    /// # Panics
    /// If `offset` is not below 256.
    pub fn set(&self, offset: u16, word: u32) {
        self.0.borrow_mut().words[usize::from(offset) / 4] = word;
    }

    /// The word at `offset`, present or not.
    ///
    /// # Panics
    /// If `offset` is not below 256.
    pub fn get(&self, offset: u16) -> u32 {
        self.0.borrow().words[usize::from(offset) / 4]
    }

    /// Makes the word at `offset` keep its value, whatever a driver writes.
    pub fn freeze(&self, offset: u16) {
        self.0.borrow_mut().frozen.push(offset);
    }

    /// Unplugs the function (it reads as all ones), or plugs it in again.
    pub fn set_absent(&self, absent: bool) {
        self.0.borrow_mut().absent = absent;
    }

    /// Calls `hook` whenever a driver reads: a read takes its time on a real bus.
    pub fn on_read(&self, hook: impl Fn() + 'static) {
        self.0.borrow_mut().on_read = Some(Rc::new(hook));
    }

    /// Whether the function may use the bus.
    pub fn is_bus_master(&self) -> bool {
        self.get(4) & 4 != 0
    }

    /// Every write so far, offset and value.
    pub fn writes(&self) -> Vec<(u16, u32)> {
        self.0.borrow().writes.clone()
    }

    /// The function, for a driver.
    #[allow(unsafe_code)]
    pub fn function(&self) -> PciFunction<Self> {
        // SAFETY: a table in memory: every aligned word below 256 can be read and
        // written, and no real device hears of it.
        unsafe { PciFunction::new(self.clone(), PciAddress::new(0, 0, 3, 0)) }
    }
}

// Nothing unsafe is done: the trait's functions are unsafe to call.
#[allow(unsafe_code)]
impl ConfigRegionAccess for HostConfig {
    unsafe fn read(&self, _: PciAddress, offset: u16) -> u32 {
        assert!(offset < 256 && offset.is_multiple_of(4), "no such word: {offset:#x}");
        let hook = self.0.borrow().on_read.clone();
        if let Some(hook) = hook {
            hook();
        }
        let space = self.0.borrow();
        if space.absent { u32::MAX } else { space.words[usize::from(offset) / 4] }
    }

    unsafe fn write(&self, _: PciAddress, offset: u16, value: u32) {
        assert!(offset < 256 && offset.is_multiple_of(4), "no such word: {offset:#x}");
        let mut space = self.0.borrow_mut();
        space.writes.push((offset, value));
        if space.frozen.contains(&offset) {
            return;
        }
        let word = &mut space.words[usize::from(offset) / 4];
        match offset {
            // The status half is cleared by ones.
            4 => *word = (*word & 0xffff_0000 & !value) | value & 0xffff,
            0x40.. => *word = value,
            _ => {}
        }
    }
}
