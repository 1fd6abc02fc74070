//! Arm semihosting, as far as QEMU is asked for something: the command line,
//! and the exit (Arm IHI 0056, "Semihosting for AArch32 and AArch64").

/// Longest command line in bytes.
pub(crate) const COMMAND_LINE_MAX: usize = 512;

const SYS_GET_CMDLINE: u32 = 0x15;
const SYS_EXIT_EXTENDED: u32 = 0x20;
/// Reason of an ordinary exit.
const APPLICATION_EXIT: u32 = 0x2_0026;

/// Calls the host. Without one a breakpoint is a fault, so that only a program
/// made for QEMU may do this.
///
/// # Safety
/// `block` is what the operation reads and writes.
unsafe fn call(operation: u32, block: *mut u32) -> u32 {
    let result;
    // SAFETY: the instruction reads and writes the block, which the caller answers
    // for, and r0; it has no other effect on this program.
    unsafe {
        core::arch::asm!("bkpt 0xab", inlateout("r0") operation => result, in("r1") block);
    }
    result
}

/// What QEMU's `-append` says, without the program's name in front.
pub(crate) fn command_line(into: &mut [u8; COMMAND_LINE_MAX]) -> &str {
    let mut block = [into.as_mut_ptr().expose_provenance() as u32, COMMAND_LINE_MAX as u32];
    // SAFETY: buffer and length of it, both ours; the host writes at most so much.
    if unsafe { call(SYS_GET_CMDLINE, block.as_mut_ptr()) } != 0 {
        return "";
    }
    let text = into.get(..block[1] as usize).and_then(|text| core::str::from_utf8(text).ok());
    text.and_then(|text| text.split_once(' ')).map_or("", |(_, words)| words)
}

/// Leaves QEMU: 0 for success, 3 for failure.
pub(crate) fn exit(success: bool) -> ! {
    let mut block = [APPLICATION_EXIT, if success { 0 } else { 3 }];
    loop {
        // SAFETY: the block of this operation is a reason and a status.
        unsafe { call(SYS_EXIT_EXTENDED, block.as_mut_ptr()) };
    }
}
