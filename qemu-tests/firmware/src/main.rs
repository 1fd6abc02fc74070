//! Firmware for a Cortex-M3 board (QEMU's `mps2-an385`) that starts, uses its
//! network, dies, and dumps its RAM. `README.md` says how to build and boot it.
#![no_std]
#![no_main]
#![cfg_attr(not(feature = "harness"), allow(dead_code, reason = "only the harness looks at it"))]

mod division;
mod dump;
mod fault;
#[cfg_attr(feature = "harness", path = "elf.rs")]
mod image;
mod lan9118;
mod memory;
mod ram;
mod volatile;

// Words for a developer: see `log.rs`.
#[cfg(feature = "defmt")]
mod log;
#[cfg(any(feature = "harness", feature = "defmt"))]
mod uart;

// What a test needs, and an application does not.
#[cfg(feature = "harness")]
mod console;
#[cfg(feature = "harness")]
mod death;
#[cfg(feature = "harness")]
mod harness;
#[cfg(not(feature = "harness"))]
#[path = "smallest.rs"]
mod harness;
#[cfg(feature = "harness")]
mod live;
#[cfg(feature = "harness")]
mod mpu;
#[cfg(feature = "harness")]
mod options;
#[cfg(feature = "harness")]
mod outcome;
#[cfg(feature = "harness")]
mod semihosting;
#[cfg(not(feature = "harness"))]
use harness::outcome;

use cortex_m_rt::entry;
use debugnet_core::time::CounterClock;
use lan9118::{Lan9118, registers::WINDOW_LEN};
use nic_hal::Mmio;

/// The board's interrupts: none is ever enabled, and `cortex-m-rt` wants one at least.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".vector_table.interrupts")]
static __INTERRUPTS: [u32; 1] = [0];

/// A clock over SysTick, which every Cortex-M has: 24 bits that count down.
type SysTickClock = CounterClock<fn() -> u64>;

#[entry]
fn main() -> ! {
    if let Some(mut peripherals) = cortex_m::Peripherals::take() {
        start_systick(&mut peripherals.SYST);
    }
    #[cfg(feature = "defmt")]
    log::start();
    harness::main()
}

/// A driver that has touched nothing yet.
fn nic() -> Option<Lan9118> {
    /// Where the board has the chip.
    const REGISTERS: usize = 0x4020_0000;
    // SAFETY: the chip's registers. Two drivers know them, one after the other: the
    // living firmware's until the crash, the dump's from then on.
    unsafe { Mmio::at(REGISTERS, WINDOW_LEN) }.map(Lan9118::new)
}

/// SysTick at the core's clock, from its largest value.
fn start_systick(timer: &mut cortex_m::peripheral::SYST) {
    timer.set_clock_source(cortex_m::peripheral::syst::SystClkSource::Core);
    timer.set_reload(SYSTICK_MASK as u32);
    timer.clear_current();
    timer.enable_counter();
}

const SYSTICK_MASK: u64 = 0xff_ffff;

/// A clock from now on.
fn systick() -> SysTickClock {
    /// The board's core clock.
    const CORE_HZ: core::num::NonZeroU64 = core::num::NonZeroU64::new(25_000_000).unwrap();
    fn ticks() -> u64 {
        // It counts down.
        u64::from(!cortex_m::peripheral::SYST::get_current())
    }
    CounterClock::new(ticks, CORE_HZ, SYSTICK_MASK)
}

/// A panic is a death like any other: it ends in the fault handler.
#[panic_handler]
fn on_panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let line = info.location().map_or(0, core::panic::Location::line);
    fault::undefined_instruction(line)
}
