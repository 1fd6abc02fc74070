//! Counts of bytes: 64 bits wide on every machine, so that on one of 32 bits it matters
//! how often the code to add to one is there.

/// Adds to a count, which stays at the largest number rather than wrap.
///
/// On a machine of 32 bits a function; elsewhere it is three instructions.
#[cfg_attr(target_pointer_width = "32", inline(never))]
#[cfg_attr(not(target_pointer_width = "32"), inline)]
pub(crate) const fn add_to(count: &mut u64, more: u64) {
    *count = count.saturating_add(more);
}
