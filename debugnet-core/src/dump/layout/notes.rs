//! The notes of a core file.
//!
//! Each is a header of three 32-bit words (length of the name with its NUL,
//! length of the description, type), the name, the description, each padded to
//! four bytes: that is what readers of both classes expect in a core.

use byteorder::ByteOrder;

use super::header::{Lengths, put_word};
use super::regions::Region;
use super::registers::Registers;
use super::sink::Sink;
use crate::dump::DumpInfo;

const NT_PRSTATUS: u32 = 1;

/// Name of our own notes, without its NUL.
pub const OWNER: &str = "debugnet-rs";

/// Types of the notes of [`OWNER`]. Numbers are in the target's byte order, texts
/// UTF-8 without a NUL. A fact that is not known has no note.
///
/// Readers built on BFD look at the type of a note whose owner they do not know,
/// so that these are far from all that have a meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
#[repr(u32)]
pub enum NoteType {
    /// Text: why the machine died.
    Panic = 0x6462_0001,
    /// Bytes: the build id of the kernel.
    BuildId = 0x6462_0002,
    /// One 64-bit number: seconds since 1970 (UTC).
    Time = 0x6462_0003,
    /// Text: the version of the kernel.
    KernelVersion = 0x6462_0004,
    /// Text: the version of this library.
    LibraryVersion = 0x6462_0005,
    /// Text: the name of the machine.
    Hostname = 0x6462_0006,
    /// For each region of RAM, by rising address, four 64-bit numbers: physical
    /// address, length in bytes, [`Treatment`](super::Treatment) as a number, and the offset in the
    /// file, which is all ones for RAM that is not in it. Volatile ranges are
    /// those of treatment 1: their bytes are from the time of the dump, not of the crash.
    Regions = 0x6462_0007,
}

/// Length of one entry of [`NoteType::Regions`].
const REGION_LEN: u64 = 32;

/// A CPU at the crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Cpu<R> {
    /// Its number, different from all others'. The debugger shows it plus one as thread id.
    pub id: u32,
    /// The signal that a debugger names as the reason: 6 (abort) for a panic, 11 for a bad
    /// address, 0 for a CPU that was only stopped.
    pub signal: u16,
    /// Its registers where it stopped.
    pub registers: R,
}

/// What the notes say.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a, R> {
    /// Host name, version, panic message and time; what the kernel dump header has, too.
    pub info: &'a DumpInfo<'a>,
    /// The CPUs whose registers are known. The one that died comes first:
    /// debuggers begin there.
    pub cpus: &'a [Cpu<R>],
    /// Build id of the kernel (the description of its `.note.gnu.build-id`); empty if unknown.
    pub build_id: &'a [u8],
    /// Lines to add to the VMCOREINFO text, each `KEY=value` and a newline.
    pub vmcoreinfo: &'a str,
}

impl<R: Registers> Facts<'_, R> {
    /// All notes. `ram_offset` is that of the first byte of RAM in the file.
    pub(super) fn put<E: ByteOrder>(
        &self,
        sink: &mut Sink<'_>,
        regions: &[Region],
        ram_offset: u64,
    ) {
        for cpu in self.cpus {
            let len = status_len::<R>();
            note::<E>(sink, "CORE", NT_PRSTATUS, len, |sink| put_status::<R, E>(sink, cpu));
        }
        let len = Sink::count(|sink| self.put_vmcoreinfo(sink));
        note::<E>(sink, "VMCOREINFO", 0, len, |sink| self.put_vmcoreinfo(sink));
        for (kind, bytes) in [
            (NoteType::Panic, self.info.panic.as_bytes()),
            (NoteType::BuildId, self.build_id),
            (NoteType::KernelVersion, self.info.version.as_bytes()),
            (NoteType::LibraryVersion, env!("CARGO_PKG_VERSION").as_bytes()),
            (NoteType::Hostname, self.info.hostname.as_bytes()),
        ] {
            if !bytes.is_empty() {
                let len = bytes.len() as u64;
                note::<E>(sink, OWNER, kind as u32, len, |sink| sink.put(bytes));
            }
        }
        if self.info.time_s != 0 {
            let time_s = self.info.time_s;
            note::<E>(sink, OWNER, NoteType::Time as u32, 8, |sink| sink.put_u64::<E>(time_s));
        }
        let count = regions.len() as u64;
        let len = count.saturating_mul(REGION_LEN);
        note::<E>(sink, OWNER, NoteType::Regions as u32, len, |sink| {
            sink.array(count, REGION_LEN, |sink, index| {
                let region = usize::try_from(index).ok().and_then(|index| regions.get(index));
                let Some(region) = region else { return sink.skip(REGION_LEN) };
                let offset = match region.treatment.is_sent() {
                    true => ram_offset.saturating_add(region.position),
                    false => u64::MAX,
                };
                sink.put_u64::<E>(region.range.start().0);
                sink.put_u64::<E>(region.range.len());
                sink.put_u64::<E>(u64::from(region.treatment as u32));
                sink.put_u64::<E>(offset);
            });
        });
    }

    /// The keys that readers of Linux' text of this name know.
    fn put_vmcoreinfo(&self, sink: &mut Sink<'_>) {
        if !self.info.version.is_empty() {
            sink.put(b"OSRELEASE=");
            // One line, whatever is in it.
            for byte in self.info.version.trim_end().as_bytes() {
                sink.put(&[if byte.is_ascii_control() { b' ' } else { *byte }]);
            }
            sink.put(b"\n");
        }
        if !self.build_id.is_empty() {
            sink.put(b"BUILD-ID=");
            sink.put_hex(self.build_id);
            sink.put(b"\n");
        }
        sink.put(b"PAGESIZE=");
        sink.put_decimal(super::PAGE_LEN);
        sink.put(b"\n");
        if self.info.time_s != 0 {
            sink.put(b"CRASHTIME=");
            sink.put_decimal(self.info.time_s);
            sink.put(b"\n");
        }
        sink.put(self.vmcoreinfo.as_bytes());
    }
}

fn note<E: ByteOrder>(
    sink: &mut Sink<'_>,
    name: &str,
    kind: u32,
    len: u64,
    put: impl FnOnce(&mut Sink<'_>),
) {
    let name_len = (name.len() as u64).saturating_add(1);
    let whole = Sink::count(|sink| {
        sink.skip(name_len.saturating_add(12));
        sink.align(4);
        sink.skip(len);
        sink.align(4);
    });
    if sink.is_past(whole) {
        return sink.skip(whole);
    }
    sink.put_u32::<E>(name_len as u32);
    sink.put_u32::<E>(len as u32);
    sink.put_u32::<E>(kind);
    sink.put(name.as_bytes());
    sink.skip(1);
    sink.align(4);
    put(sink);
    sink.align(4);
}

/// Length of `struct elf_prstatus`: 336 bytes on x86-64.
fn status_len<R: Registers>() -> u64 {
    // The registers, a 32-bit flag, and padding to a word.
    let registers = (R::COUNT as u64).saturating_mul(R::WORD);
    registers_at::<R>().saturating_add(registers).saturating_add(R::WORD)
}

/// Offset of the registers in it: 112 or 72.
fn registers_at<R: Registers>() -> u64 {
    // Signal information 16; two signal sets, four times of two words; four process ids.
    R::WORD.saturating_mul(10).saturating_add(32)
}

/// `struct elf_prstatus` of Linux (`include/linux/elfcore.h`).
fn put_status<R: Registers, E: ByteOrder>(sink: &mut Sink<'_>, cpu: &Cpu<R>) {
    let start = sink.at();
    sink.put_u32::<E>(cpu.signal.into()); // si_signo
    sink.skip(8); // si_code, si_errno
    sink.put_u16::<E>(cpu.signal); // pr_cursig
    sink.skip(2);
    sink.skip(R::WORD.saturating_mul(2)); // pending and held signals
    sink.put_u32::<E>(cpu.id.saturating_add(1)); // pr_pid; 0 is no thread
    sink.skip(12); // parent, group, session
    sink.skip(R::WORD.saturating_mul(8)); // times
    debug_assert_eq!(sink.at().saturating_sub(start), registers_at::<R>());
    sink.array(R::COUNT as u64, R::WORD, |sink, index| {
        put_word::<R, E>(sink, cpu.registers.get(index as usize));
    });
    sink.skip(R::WORD); // no floating-point state
}
