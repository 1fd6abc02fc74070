//! Life under test: options from QEMU, a pattern in RAM, a little traffic, and death.

use crate::console::Line;
use crate::options::Options;
use crate::{
    console, death, dump, image, live, mpu, nic, outcome, ram, semihosting, systick, volatile,
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
    if !divides(options.seed) {
        fail("64-bit division is wrong");
    }
    outcome::expect(&options);
    image::set_flat(options.flat);
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
        .text("image", if options.flat { "flat" } else { "elf" })
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

/// Whether `division.rs` divides: numbers of every width, seldom what a dump would divide. The quotient and
/// the rest are the right ones if they make the dividend again and the rest is the smaller.
fn divides(seed: u32) -> bool {
    let mut state = u64::from(seed) | 1 << 32;
    let mut random = || {
        // Xorshift (Marsaglia 2003), cut to any width from 1 to 64 bits.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> (state >> 3 & 63)
    };
    let sound = |value: u64, by: u64| {
        let (value, by) = core::hint::black_box((value, by.max(1)));
        let (quotient, rest) = (value / by, value % by);
        rest < by
            && quotient.checked_mul(by).and_then(|whole| whole.checked_add(rest)) == Some(value)
    };
    let edges = [0, 1, 2, 0xffff_ffff, 1 << 32, 1 << 63, (1 << 63) + 1, u64::MAX - 1, u64::MAX];
    edges.iter().all(|value| edges.iter().all(|by| sound(*value, *by)))
        && (0..2_000).all(|_| sound(random(), random()))
}
