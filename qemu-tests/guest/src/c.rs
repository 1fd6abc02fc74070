//! The guest kernel of `main.rs`, with a crash path in C: the examples of
//! `debugnet-capi`, through its C interface.
//!
//! Only the `guest` profile builds it: that one aborts on panic and brings the
//! linker script. Any other build of this file is a stub, so that commands on
//! the whole workspace go on working.
#![cfg_attr(all(panic = "abort", not(test)), no_std, no_main)]
#![cfg_attr(
    all(panic = "abort", not(test)),
    allow(dead_code, reason = "the crash path in Rust is not used here")
)]

#[cfg(all(panic = "abort", not(test)))]
mod kernel;

#[cfg(not(all(panic = "abort", not(test))))]
fn main() {
    eprintln!(
        "this is a kernel: cargo build -p guest --profile guest --features kernel,c --bin guest-c"
    );
}
