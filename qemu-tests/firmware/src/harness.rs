//! Life under test: options from QEMU, a pattern in RAM, a little traffic, and death.

use crate::console::Line;
use crate::options::Options;
use crate::{
    console, death, division, dump, live, mpu, nic, outcome, ram, semihosting, systick, volatile,
};

/// Life, in short.
pub(crate) fn main() -> ! {
    console::start();
    volatile::paint_stack();
    let mut text = [0; semihosting::COMMAND_LINE_MAX];
    let options = match Options::parse(semihosting::command_line(&mut text)) {
        Ok(options) => options,
        Err(word) => fail(word),
    };
    if !division::works(options.seed) {
        fail("64-bit division is wrong");
    }
    outcome::expect(&options);
    mpu::guard();
    ram::fill(options.seed);

    let (Some(mut nic), Some(spare)) = (nic(), nic()) else { fail("no registers") };
    let seen = live::use_it(&mut nic, &mut systick(), &options);
    if dump::arm(options.config, spare, options.nested).is_none() {
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
