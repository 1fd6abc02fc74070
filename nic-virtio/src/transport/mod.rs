//! How a driver reaches a virtio device: what PCI and MMIO transports have in
//! common (virtio 1.2 chapter 4).

pub mod any;
pub mod mmio;
pub mod pci_legacy;
pub mod pci_modern;

use debugnet_core::addr::DeviceAddr;
use debugnet_core::nic::NicError;
use nic_hal::BadAccess;

/// Device status bits (virtio 1.2 section 2.1).
pub mod status {
    /// Reset; reads so once the device is quiet.
    pub const RESET: u8 = 0;
    /// We have noticed the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// We can drive it.
    pub const DRIVER: u8 = 2;
    /// It may run.
    pub const DRIVER_OK: u8 = 4;
    /// We have chosen the features; reads back only if it agrees.
    pub const FEATURES_OK: u8 = 8;
    /// It cannot go on without a reset.
    pub const NEEDS_RESET: u8 = 64;
    /// We have given it up.
    pub const FAILED: u8 = 128;
    /// What an absent device reads as. No device has all bits set: two are reserved.
    pub const GONE: u8 = 0xff;
}

/// Which of virtio's two interfaces a transport speaks (virtio 1.2 section 1.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interface {
    /// Since virtio 1.0: `VERSION_1`, little-endian, three addresses a queue.
    Modern,
    /// Before that: 32 features, the guest's byte order, a queue in one block of pages.
    Legacy,
}

/// How long the ring of a queue may be; 0 if there is no such queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueLen {
    /// Any power of two up to this.
    UpTo(u16),
    /// Exactly this, as the device fixed it.
    Fixed(u16),
}

/// Where the three parts of a split virtqueue are, for the device. On a legacy
/// interface they are one block from `descriptors`, which starts on a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rings {
    /// Entries, a power of two.
    pub len: u16,
    /// Descriptor table.
    pub descriptors: DeviceAddr,
    /// Available ring (driver area).
    pub avail: DeviceAddr,
    /// Used ring (device area).
    pub used: DeviceAddr,
}

/// The registers of one virtio device.
///
/// A method makes a handful of register accesses and never waits. None of
/// them is called before the crash. All return [`NicError::Gone`] when the
/// device reads as all ones, and [`NicError::Protocol`] when what it says about
/// itself leads outside its windows.
pub trait Transport {
    /// Which interface this is. Reads nothing.
    fn interface(&self) -> Interface;

    /// Makes the registers reachable and silences the interrupts. Called at
    /// every start: the dead kernel may have left either any way. Returns how
    /// many microseconds the device needs before the call is made again; 0 if
    /// it is ready.
    ///
    /// # Errors
    /// [`NicError::Gone`] if nothing answers.
    fn prepare(&mut self) -> Result<u32, NicError>;

    /// Lets the device reach memory. Called at every start, after the reset
    /// was confirmed, so that a device that was cut off while it ran does not
    /// go on where it stood.
    ///
    /// # Errors
    /// [`NicError::Unsupported`] if it cannot be had.
    fn connect(&mut self) -> Result<(), NicError>;

    /// Reads the device status.
    ///
    /// # Errors
    /// [`NicError::Gone`] if it is all ones.
    fn status(&mut self) -> Result<u8, NicError>;

    /// Writes the device status; [`status::RESET`] resets.
    ///
    /// # Errors
    /// [`NicError::Protocol`] if the register is not there.
    fn set_status(&mut self, status: u8) -> Result<(), NicError>;

    /// Features the device offers.
    ///
    /// # Errors
    /// [`NicError::Protocol`] if the registers are not there.
    fn device_features(&mut self) -> Result<u64, NicError>;

    /// Tells the device which of them are accepted, and remembers those that
    /// concern the transport itself.
    ///
    /// # Errors
    /// [`NicError::Protocol`] if the registers are not there.
    fn set_driver_features(&mut self, features: u64) -> Result<(), NicError>;

    /// How long a ring the device takes for `queue`.
    ///
    /// # Errors
    /// [`NicError::Protocol`] if the registers are not there.
    fn queue_len(&mut self, queue: u16) -> Result<QueueLen, NicError>;

    /// Gives the device the rings of `queue` and enables it, without an interrupt vector.
    ///
    /// # Errors
    /// [`NicError::Protocol`] if the queue's doorbell lies outside the device, or
    /// the queue is still in use; [`NicError::NotReachable`] if the rings lie
    /// where a legacy device cannot be told.
    fn enable_queue(&mut self, queue: u16, rings: &Rings) -> Result<(), NicError>;

    /// Rings the doorbell of `queue`, whose available index is now `avail_index`.
    /// It was found by [`Transport::enable_queue`], so this cannot fail.
    fn notify(&mut self, queue: u16, avail_index: u16);

    /// A counter that changes when the device changes its configuration; `None`
    /// on a legacy interface, which has none.
    ///
    /// # Errors
    /// [`NicError::Protocol`] if the register is not there.
    fn config_generation(&mut self) -> Result<Option<u32>, NicError>;

    /// Byte `offset` of the device's configuration.
    ///
    /// # Errors
    /// [`NicError::Protocol`] if the device has no such byte.
    fn config8(&mut self, offset: usize) -> Result<u8, NicError>;

    /// The 16-bit word at `offset` of the device's configuration.
    ///
    /// # Errors
    /// [`NicError::Protocol`] if the device has no such word.
    fn config16(&mut self, offset: usize) -> Result<u16, NicError>;

    /// The last resort for a device that does not confirm its reset: cuts it
    /// off from memory, where the bus can. `true` if it is cut off.
    fn cut_off(&mut self) -> bool;
}

/// The error of a register that the probe did not find room for.
fn lost(_: BadAccess) -> NicError {
    NicError::Protocol("virtio register outside its window")
}

/// The number of the page that `rings` start on, as the legacy interface has it
/// (virtio 1.2 sections 4.1.5.1.2 and 4.2.4): 32 bits, and 0 means "none".
fn page_number(rings: &Rings) -> Result<u32, NicError> {
    let page_len = crate::queue::PAGE_LEN as u64;
    let address = rings.descriptors.0;
    let page = address.checked_div(page_len).filter(|_| address.is_multiple_of(page_len));
    page.and_then(|page| u32::try_from(page).ok())
        .filter(|page| *page != 0)
        .ok_or(NicError::NotReachable)
}
