//! The kernel: what it does while it lives.

mod arch;
#[cfg(feature = "c")]
mod c;
mod crash;
mod death;
mod driver;
mod guarded;
mod image;
mod intel;
mod left;
mod live;
mod meters;
mod panic;
mod pci;
mod reach;
#[cfg(target_arch = "x86_64")]
mod second;
mod traffic;
mod virtio;
mod volatile;

use core::fmt::{self, Write};

use debugnet_core::addr::PhysRange;
use guest::cmdline::Options;
use guest::memory::{self, Ranges};
use guest::report::{Filled, Line, Ready};
use heapless::Vec;

use self::arch::Machine;

/// Prints one line for people on the console.
macro_rules! say {
    ($($text:tt)*) => { $crate::kernel::say_line(format_args!($($text)*)) };
}
pub(crate) use say;

pub(crate) fn say_line(text: fmt::Arguments<'_>) {
    // The console's `write_str` cannot fail; an error would come from a `Display`.
    let _ = writeln!(arch::Serial, "{text}");
}

/// Prints one line for the harness.
fn report(line: &impl Line) {
    if line.write_to(&mut arch::Serial).is_err() {
        say!("guest: a report does not fit its line");
    }
}

/// Ends a boot that cannot go on: says why and leaves QEMU with a failure.
fn fatal(why: fmt::Arguments<'_>) -> ! {
    say!("guest: fatal: {why}");
    arch::exit(false)
}

/// Lives a short life and dies as it was told. Called by the arch layer.
fn main(mut machine: Machine) -> ! {
    let line = machine.cmdline.clone();
    let options = match Options::parse(&line) {
        Ok(options) => options,
        Err(error) => fatal(format_args!("command line: {error}")),
    };
    say!("guest: command line `{line}`");
    say!("guest: counter {} Hz, image {:?}", machine.counter_hz, arch::image());

    let changing = changing(&options);
    if options.cpus > 1
        && let Err(why) = arch::start_second(&machine)
    {
        fatal(format_args!("second CPU: {why}"));
    }
    let free = memory::without(&machine.ram, arch::image());
    let Ok(free) = free else { fatal(format_args!("too many runs of RAM")) };
    fill(&free, &options);

    let mut nic = live::LiveNic::start(&mut machine, &options);
    let keys = image::make_keys(options.seed);
    let secret = if options.redact { keys } else { PhysRange::EMPTY };
    if let Err(why) = crash::arm(&mut machine, &options, nic.device(), secret) {
        fatal(format_args!("arm: {why}"));
    }
    reach::set(&free);
    nic.use_it(&options, &free, &mut arch::cpu_clock(machine.counter_hz));

    ready(&machine.ram, &options, secret, changing, &nic);
    nic.leave(&options, &mut arch::cpu_clock(machine.counter_hz));
    death::die(options.crash, &mut nic)
}

/// What a second CPU is going to write without end. Elsewhere there is none.
fn changing(options: &Options) -> PhysRange {
    #[cfg(target_arch = "x86_64")]
    if options.cpus > 1 && options.second == guest::cmdline::Second::Writes {
        return second::write_without_end();
    }
    let _ = options;
    PhysRange::EMPTY
}

/// Fills free RAM with the pattern, up to the limit of the command line.
fn fill(free: &Ranges, options: &Options) {
    let mut left = options.fill_mib.map_or(u64::MAX, |mib| mib << 20);
    let mut filled = 0;
    for run in free {
        let (part, _) = run.split_at(left);
        // SAFETY: RAM of the map less the image, which holds all that the kernel uses:
        // the loader's data was copied out, and firmware does not run any more.
        unsafe { arch::fill(part, options.seed) };
        let words = [part.start().0.next_multiple_of(8), part.end().0 & !7];
        report(&Filled { range: words, seed: options.seed });
        left = left.saturating_sub(part.len());
        filled += part.len();
    }
    say!("guest: filled {} KiB of RAM", filled >> 10);
}

fn ready(
    ram: &Ranges,
    options: &Options,
    secret: PhysRange,
    changing: PhysRange,
    nic: &live::LiveNic,
) {
    let ends = |range: PhysRange| [range.start().0, range.end().0];
    let mut runs = Vec::new();
    for run in ram {
        // As many as the list it comes from: they fit.
        let _ = runs.push(ends(*run));
    }
    report(&Ready {
        volatile: ends(arch::volatile_section()),
        ram: runs,
        nic: nic.name(),
        image: options.image.name(),
        redacted: ends(secret),
        changing: ends(changing),
        seed: options.seed,
        live_sent: nic.counts().sent,
        live_received: nic.counts().received,
        live_answers: nic.counts().answers,
    });
}
