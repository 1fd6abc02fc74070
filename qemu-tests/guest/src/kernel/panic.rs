//! A panic saves its message and executes an undefined instruction, so that
//! it reaches the dump the way every fault does: through an interrupt stack,
//! with the panicking stack left as it was.

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::str;
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use super::{arch, crash};

/// Longest message kept, in bytes.
pub(super) const MESSAGE_MAX: usize = 512;

/// Text that a dying context leaves for the fault handler.
struct Message {
    len: AtomicUsize,
    bytes: [AtomicU8; MESSAGE_MAX],
}

impl Message {
    const fn new() -> Self {
        Self { len: AtomicUsize::new(0), bytes: [const { AtomicU8::new(0) }; MESSAGE_MAX] }
    }

    /// The text, copied into `into`; cut at the last whole character.
    fn read<'a>(&self, into: &'a mut [u8; MESSAGE_MAX]) -> &'a str {
        let len = self.len.load(Ordering::Acquire).min(MESSAGE_MAX);
        for (to, from) in into.iter_mut().zip(&self.bytes).take(len) {
            *to = from.load(Ordering::Relaxed);
        }
        let bytes = &into[..len];
        match str::from_utf8(bytes) {
            Ok(text) => text,
            Err(cut) => str::from_utf8(&bytes[..cut.valid_up_to()]).unwrap_or(""),
        }
    }
}

impl Write for &Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut len = self.len.load(Ordering::Relaxed);
        for (to, from) in self.bytes.iter().skip(len).zip(text.bytes()) {
            to.store(from, Ordering::Relaxed);
            len += 1;
        }
        self.len.store(len, Ordering::Release);
        Ok(())
    }
}

/// The last words of the living kernel: ordinary memory, written before the
/// death, and so the same in the dump and in the truth.
static LAST_WORDS: Message = Message::new();

/// The message of a panic inside the dump.
#[unsafe(link_section = ".volatile")]
static NESTED_WORDS: Message = Message::new();

/// The message of the panic that killed the kernel; empty if none did.
pub(super) fn last_words(into: &mut [u8; MESSAGE_MAX]) -> &str {
    LAST_WORDS.read(into)
}

/// The message of a panic inside the dump; empty if there was none.
pub(super) fn nested_words(into: &mut [u8; MESSAGE_MAX]) -> &str {
    NESTED_WORDS.read(into)
}

#[panic_handler]
fn on_panic(info: &PanicInfo<'_>) -> ! {
    let mut message = if crash::has_begun() { &NESTED_WORDS } else { &LAST_WORDS };
    // Cannot fail: what does not fit is cut.
    let _ = write!(message, "{info}");
    arch::undefined_instruction()
}
