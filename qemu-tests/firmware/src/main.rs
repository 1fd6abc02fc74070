//! Firmware for a Cortex-M3 board (QEMU's `mps2-an385`) that starts, uses its
//! network, dies, and dumps its RAM. `README.md` says how to build and boot it.
#![no_std]
#![no_main]

mod console;
mod death;
mod dump;
mod fault;
mod lan9118;
mod live;
mod mpu;
mod options;
mod ram;
mod semihosting;
mod volatile;

use cortex_m_rt::entry;
use debugnet_core::time::CounterClock;

use console::Line;
use options::Options;

/// A clock over SysTick, which every Cortex-M has: 24 bits that count down.
type SysTickClock = CounterClock<fn() -> u64>;

/// Life, in short.
#[entry]
fn main() -> ! {
    // The only caller; a second one would end here as well.
    let Some(mut peripherals) = cortex_m::Peripherals::take() else { fail("started twice") };
    console::start();
    volatile::paint_stack();
    let mut text = [0; semihosting::COMMAND_LINE_MAX];
    let options = match Options::parse(semihosting::command_line(&mut text)) {
        Ok(options) => options,
        Err(word) => fail(word),
    };
    start_systick(&mut peripherals.SYST);
    mpu::guard(&mut peripherals.MPU);
    ram::fill(options.seed);

    let (Some(mut nic), Some(spare)) = (live::nic(), live::nic()) else { fail("no registers") };
    let seen = live::use_it(&mut nic, &mut systick(), &options);
    if dump::arm(&options, spare).is_none() {
        fail("the dump could not be armed");
    }
    Line::begin("GUEST-READY")
        .ranges("volatile", &[volatile::section()], false)
        .ranges("ram", &[ram::RAM], true)
        .text("nic", "lan9118")
        .text("image", "flat")
        .number("seed", options.seed.into())
        .number("live_sent", seen.sent)
        .number("live_received", seen.received)
        .end();
    death::die(options.crash, &mut nic)
}

/// Ends a start that cannot go on: says why, and leaves QEMU with a failure.
fn fail(why: &str) -> ! {
    console::write("guest: fatal: ");
    console::write(why);
    console::write("\n");
    semihosting::exit(false)
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
