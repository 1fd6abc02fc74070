//! The guest kernel of `main.rs`, linked for the top 2 GiB of the address space.
//!
//! Only the `guest` profile builds it: that one aborts on panic and brings the
//! linker script. Any other build of this file is a stub, so that commands on
//! the whole workspace go on working.
#![cfg_attr(all(panic = "abort", not(test)), no_std, no_main)]

#[cfg(all(panic = "abort", not(test)))]
mod kernel;

#[cfg(not(all(panic = "abort", not(test))))]
fn main() {
    eprintln!(
        "this is a kernel: cargo build -p guest --profile guest --features kernel --bin guest-higher-half"
    );
}
