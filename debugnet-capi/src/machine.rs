//! The machine's clock, and what it wants to be told, as C functions.

use core::ffi::c_void;

use debugnet_core::observer::{Event, Observer};
use debugnet_core::time::{Clock as CoreClock, Instant};

/// What the dump needs of the machine besides NIC and memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Given to each function.
    pub context: *mut c_void,
    /// Microseconds since any start. Read often; must not wait.
    pub now_us: Option<extern "C" fn(context: *mut c_void) -> u64>,
    /// Waits a little, a millisecond at most: a pause instruction, or a counted delay.
    pub relax: Option<extern "C" fn(context: *mut c_void)>,
    /// A sign of life, at each step and while waiting: feed the watchdog. May be null.
    pub alive: Option<extern "C" fn(context: *mut c_void)>,
    /// So much of `total` bytes has been acknowledged, or was zeros and left out; at
    /// most once a 64th of the image. May be null.
    pub progress: Option<extern "C" fn(context: *mut c_void, done: u64, total: u64)>,
}

impl Machine {
    /// Whether it has what it must have.
    pub(crate) fn is_whole(&self) -> bool {
        self.now_us.is_some() && self.relax.is_some()
    }
}

/// Its clock as the core's.
pub(crate) struct Clock<'a>(pub(crate) &'a Machine);

impl CoreClock for Clock<'_> {
    fn now(&mut self) -> Instant {
        Instant::from_micros(self.0.now_us.map_or(0, |now_us| now_us(self.0.context)))
    }

    fn relax(&mut self) {
        if let Some(relax) = self.0.relax {
            relax(self.0.context);
        }
    }
}

/// What it wants to be told, as the core's observer.
pub(crate) struct Told<'a>(pub(crate) &'a Machine);

impl Observer for Told<'_> {
    fn event(&mut self, _: Instant, event: &Event) {
        if let (Event::Progress { done, total, .. }, Some(progress)) = (event, self.0.progress) {
            progress(self.0.context, *done, *total);
        }
    }

    fn alive(&mut self, _: Instant) {
        if let Some(alive) = self.0.alive {
            alive(self.0.context);
        }
    }
}
