//! The crash path and nothing else, as a program that is linked but never run.
//!
//! The panic handler calls a function that does not exist. If the optimiser
//! can show that nothing on the crash path reaches it, the linker drops it and
//! the program links. If it does not link, something can panic.
//!
//! Every entry point is called with arguments that the compiler knows nothing
//! about; the platform's traits are implemented with the least that is real.
#![no_std]
#![no_main]

mod entry;
#[cfg(feature = "layouts")]
mod layouts;
mod platform;
#[cfg(target_os = "linux")]
mod strings;

use core::panic::PanicInfo;

#[cfg(not(feature = "defined"))]
unsafe extern "C" {
    fn PANIC_PATH_REMAINS() -> !;
}

#[cfg(feature = "defined")]
#[unsafe(no_mangle)]
extern "C" fn PANIC_PATH_REMAINS() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // Keeps the location in the program that `defined` makes.
    core::hint::black_box(info.location());
    #[cfg(feature = "defined")]
    PANIC_PATH_REMAINS();
    #[cfg(not(feature = "defined"))]
    // SAFETY: the program that would call it does not link.
    unsafe {
        PANIC_PATH_REMAINS()
    }
}

#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    entry::boot();
    entry::crash();
    #[cfg(feature = "inject")]
    entry::index(core::hint::black_box(&[1, 2, 3]), core::hint::black_box(3));
    loop {
        core::hint::spin_loop();
    }
}
