//! A vmcore: compressed or not; an ELF core, a FreeBSD minidump, or bytes.

use std::io::{self, Read, Seek, SeekFrom};

use debugnet_core::dump::layout::{NoteType, OWNER};
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader};
use object::{Endian, Endianness};

use super::Report;
use crate::core::DumpHeader;
use crate::store::escape;

/// The most that is read of an image: headers and notes come first.
const HEAD_LEN: u64 = 16 << 20;

const MINIDUMP: &[u8] = b"minidump FreeBSD/";
const KERNEL_DUMP: &[u8] = b"FreeBSD Kernel Dump";

pub(crate) fn read(mut file: impl Read + Seek, report: &mut Report) -> io::Result<()> {
    let mut magic = Vec::new();
    (&mut file).take(4).read_to_end(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    let (compression, stream): (_, Box<dyn Read>) = match magic[..] {
        [0x1f, 0x8b, ..] => (Some("gzip"), Box::new(flate2::read::GzDecoder::new(file))),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(file);
            (Some("zstd"), Box::new(decoder.map_err(io::Error::other)?))
        }
        _ => (None, Box::new(file)),
    };
    report.compression = compression;
    let mut head = Vec::new();
    if let Err(error) = stream.take(HEAD_LEN).read_to_end(&mut head) {
        // An interrupted dump ends in the middle of a stream: what is there counts.
        report
            .problems
            .push(format!("cannot be decompressed beyond {} bytes: {error}", head.len()));
    }
    describe(&head, report);
    Ok(())
}

fn describe(head: &[u8], report: &mut Report) {
    if let Some(rest) = head.strip_prefix(MINIDUMP) {
        report.kind = "minidump";
        let end = rest.iter().take(16).position(|byte| *byte == 0).unwrap_or(rest.len().min(16));
        report.architecture = Some(escape(&rest[..end]));
    } else if head.starts_with(KERNEL_DUMP) {
        report.kind = "kernel_dump_header";
        match DumpHeader::parse(head) {
            Some(header) => take_header(&header, report),
            None => report.problems.push(format!("a header of {} bytes is cut off", head.len())),
        }
    } else if head.starts_with(&elf::ELFMAG) {
        report.kind = "elf";
        let result = match head.get(4) {
            Some(2) => take_elf::<FileHeader64<Endianness>>(head, report),
            _ => take_elf::<FileHeader32<Endianness>>(head, report),
        };
        if let Err(error) = result {
            report.problems.push(format!("not a sound ELF core: {error}"));
        }
    } else {
        report.kind = if head.is_empty() { "empty" } else { "raw" };
    }
}

fn take_header(header: &DumpHeader, report: &mut Report) {
    report.architecture = Some(escape(&header.architecture));
    report.panic = Some(escape(&header.panic_string));
    report.kernel_version = Some(escape(&header.version_string));
    report.hostname = Some(escape(&header.hostname));
    report.dump_length = Some(header.dump_length);
    report.time_s = Some(header.dump_time);
    report.problems.extend(header.problems.iter().map(|problem| format!("header: {problem:?}")));
}

fn take_elf<H: FileHeader<Endian = Endianness>>(
    head: &[u8],
    report: &mut Report,
) -> object::Result<()> {
    let header = H::parse(head)?;
    let endian = header.endian()?;
    let machine = header.e_machine(endian);
    report.architecture = Some(match machine {
        elf::EM_X86_64 => "amd64".into(),
        elf::EM_386 => "i386".into(),
        elf::EM_AARCH64 => "arm64".into(),
        elf::EM_ARM => "arm".into(),
        elf::EM_RISCV => "riscv".into(),
        elf::EM_PPC64 => "powerpc64".into(),
        other => format!("{other:?}"),
    });
    // Those of a sound core do not overlap, and a hostile one is not read a thousand times.
    let mut unread = head.len() as u64;
    for segment in header.program_headers(endian, head)? {
        if let Some(notes) = segment.notes(endian, head)? {
            let Some(rest) = unread.checked_sub(segment.p_filesz(endian).into()) else {
                report.problems.push("not a sound ELF core: its notes overlap".into());
                break;
            };
            unread = rest;
            take_notes(notes, endian, report)?;
        }
    }
    Ok(())
}

fn take_notes<H: FileHeader<Endian = Endianness>>(
    mut notes: NoteIterator<'_, H>,
    endian: Endianness,
    report: &mut Report,
) -> object::Result<()> {
    while let Some(note) = notes.next()? {
        let (name, kind, desc) = (note.name(), u64::from(note.n_type(endian).0), note.desc());
        let text = || Some(escape(desc));
        if name == b"CORE" && kind == 1 {
            *report.cpus.get_or_insert(0) += 1;
        } else if name == b"GNU" && kind == 3 {
            report.build_id = Some(hex(desc));
        } else if name == b"VMCOREINFO" {
            take_vmcoreinfo(desc, report);
        } else if name == OWNER.as_bytes() {
            let is = |wanted: NoteType| kind == wanted as u64;
            if is(NoteType::Panic) {
                report.panic = text();
            } else if is(NoteType::BuildId) {
                report.build_id = Some(hex(desc));
            } else if is(NoteType::KernelVersion) {
                report.kernel_version = text();
            } else if is(NoteType::Hostname) {
                report.hostname = text();
            } else if is(NoteType::Time) {
                report.time_s = desc.try_into().ok().map(|bytes| endian.read_u64(bytes));
            }
        }
    }
    Ok(())
}

fn take_vmcoreinfo(desc: &[u8], report: &mut Report) {
    for line in desc.split(|byte| *byte == b'\n') {
        let Some(at) = line.iter().position(|byte| *byte == b'=') else { continue };
        let value = escape(&line[at + 1..]);
        match &line[..at] {
            b"OSRELEASE" => report.kernel_version = Some(value),
            b"BUILD-ID" => report.build_id = Some(value),
            b"CRASHTIME" => report.time_s = value.parse().ok(),
            _ => {}
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 60,000 segments over the same notes: they are not read 60,000 times.
    #[test]
    fn notes_that_overlap_are_read_once() {
        const SEGMENTS: u16 = 60_000;
        let notes_at = 64 + 56 * u64::from(SEGMENTS);
        let note = [&[5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0][..], b"CORE\0\0\0\0"].concat();
        let notes = note.repeat(200_000);
        let mut core = b"\x7fELF\x02\x01\x01".to_vec();
        core.resize(64, 0);
        (core[16], core[18], core[20], core[32], core[54]) = (4, 62, 1, 64, 56);
        core[56..58].copy_from_slice(&SEGMENTS.to_le_bytes());
        let mut segment = [0; 56];
        segment[0] = 4;
        segment[8..16].copy_from_slice(&notes_at.to_le_bytes());
        segment[32..40].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        core.extend(segment.repeat(SEGMENTS.into()));
        core.extend(notes);
        let mut report = Report::default();
        read(io::Cursor::new(&core), &mut report).unwrap();
        assert_eq!((report.kind, report.cpus), ("elf", Some(200_000)), "{:?}", report.problems);
        assert_eq!(report.problems, ["not a sound ELF core: its notes overlap"]);
    }
}
