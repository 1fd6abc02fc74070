//! The same without a harness: a fixed server, no words. What an application
//! links for the dump, and nothing else; `cargo xtask size` measures it.

use core::net::{IpAddr, Ipv4Addr};

use debugnet_core::{Config, Target};

use crate::{dump, nic};

/// Arms the dump, and goes on with the application: none.
pub(crate) fn main() -> ! {
    let mut target = Target::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
    target.client = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)));
    let mut config = Config::new();
    // The first of four.
    let _ = config.targets.push(target);
    let armed = nic().and_then(|nic| dump::arm(config, nic, 0));
    loop {
        core::hint::black_box(armed);
        cortex_m::asm::wfi();
    }
}

/// What stands in for the words of the harness.
pub(crate) mod outcome {
    use cortex_m::peripheral::SCB;
    use debugnet_core::dump::Outcome;
    use debugnet_core::observer::Event;
    use debugnet_core::progress::Progress;
    use debugnet_core::time::Instant;

    use crate::fault::Registers;

    pub(crate) fn nested(_: &Progress, _: &Registers) -> ! {
        SCB::sys_reset()
    }

    pub(crate) fn unarmed(_: &Registers) -> ! {
        SCB::sys_reset()
    }

    pub(crate) fn announce(_: &Registers) {}

    #[cfg(not(feature = "defmt"))]
    pub(crate) fn event(_: &mut u32, _: Instant, _: &Event) {}

    #[cfg(feature = "defmt")]
    pub(crate) fn event(_: &mut u32, now: Instant, event: &Event) {
        crate::log::event(now, event);
    }

    pub(crate) fn tell(_: &Outcome) -> ! {
        SCB::sys_reset()
    }
}
