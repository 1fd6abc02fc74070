//! The command line: words `key=value`, as the big guest has them.

use debugnet_core::Config;
use heapless::String;

/// A way of dying.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// A store through a null pointer.
    Null,
    /// A Rust panic.
    Panic,
    /// Recursion without end.
    Stack,
    /// A fault in the driver, with half a frame in the FIFO.
    DriverLock,
}

impl Death {
    const NAMES: [(&str, Self); 4] = [
        ("null", Self::Null),
        ("panic", Self::Panic),
        ("stack", Self::Stack),
        ("driver-lock", Self::DriverLock),
    ];

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, death)| *death == self).map_or("?", |(name, _)| name)
    }
}

/// What is asked for.
pub(crate) struct Options {
    pub(crate) crash: Death,
    pub(crate) seed: u32,
    /// Fault once more at this event of the dump; 0 is never.
    pub(crate) nested: u32,
    /// Leave QEMU after the outcome.
    pub(crate) exit: bool,
    pub(crate) config: Config,
}

impl Options {
    /// Reads a command line; the error is the word that is not understood.
    pub(crate) fn parse(line: &str) -> Result<Self, &str> {
        let (mut crash, mut seed, mut nested, mut exit) = (Death::Null, 1, 0, false);
        let mut dump = String::<{ crate::semihosting::COMMAND_LINE_MAX }>::new();
        for word in line.split_ascii_whitespace() {
            let Some((key, value)) = word.split_once('=') else { return Err(word) };
            let number = value.parse::<u32>();
            match (key, number) {
                ("nic", _) if matches!(value, "lan9118" | "auto") => {}
                ("crash", _) => {
                    let death = Death::NAMES.iter().find(|(name, _)| *name == value);
                    crash = death.ok_or(word)?.1;
                }
                ("seed", Ok(number)) => seed = number,
                ("nested", Ok(number)) => nested = number,
                ("exit", Ok(number @ 0..=1)) => exit = number == 1,
                // The window has as many as the memory set aside.
                ("slots", Ok(number)) if number as usize == crate::volatile::SLOTS => {}
                ("nic" | "seed" | "nested" | "exit" | "slots", _) => return Err(word),
                // The dump's own.
                _ => {
                    dump.push_str(" ").and_then(|()| dump.push_str(word)).map_err(|_| word)?;
                }
            }
        }
        match Config::parse(&dump) {
            Ok(config) => Ok(Self { crash, seed, nested, exit, config }),
            Err(_) => Err("the words for the dump are wrong"),
        }
    }
}
