//! Writes a core of each layout to a folder, for `readelf` and `gdb` to judge
//! (`cargo xtask test` does so).
//!
//! Register `i` is `0x1000 + i`, but program counter and stack pointer point to RAM,
//! where each 32-bit word is its own physical address in the machine's byte order.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use byteorder::ByteOrder;
use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::dump::layout::{
    Aarch64, Arm, BigEndian, Cpu, ElfCore, Facts, LittleEndian, Mapping, Region, Regions,
    Registers, Riscv64, Treatment, X86_64,
};
use debugnet_core::dump::{DumpInfo, DumpSource, ReadFault, ReadRam, Stability};

/// RAM whose words are their addresses.
struct Ram<E>(std::marker::PhantomData<E>);

impl<E: ByteOrder> ReadRam for Ram<E> {
    fn read(&mut self, at: PhysAddr, into: &mut [u8]) -> Result<(), ReadFault> {
        for (address, byte) in (at.0..).zip(into) {
            let mut word = [0; 4];
            E::write_u32(&mut word, address as u32 & !3);
            *byte = word[(address & 3) as usize];
        }
        Ok(())
    }
}

const RAM: u64 = 0x10_0000;
const RAM_LEN: u64 = 0x10_0000;
const KERNEL: u64 = 0x8000_0000;

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr(start), len).expect("a range")
}

fn regions(memory: &mut [Region]) -> Regions<'_> {
    let mut regions = Regions::new(memory);
    regions.add(range(RAM, RAM_LEN)).expect("room");
    regions.add(range(0x1234, 0x777)).expect("room");
    regions.mark(range(RAM + 0x8_0000, 0x1000), Treatment::Volatile).expect("room");
    regions.mark(range(RAM + 0x9_0000, 0x1000), Treatment::Redacted).expect("room");
    regions
}

/// Writes the image as a server does that receives it.
fn write(path: &Path, source: &mut dyn DumpSource) -> std::io::Result<()> {
    let file = File::create(path)?;
    source.rewind();
    while let Some(extent) = source.next() {
        let mut bytes = vec![0; extent.range.len() as usize];
        match extent.stability {
            Stability::Redacted => continue,
            Stability::Generated => source.generate(extent.offset, &mut bytes),
            _ => source.read(extent.range.start(), &mut bytes),
        }
        .expect("all of it can be read");
        file.write_all_at(&bytes, extent.offset)?;
    }
    println!("{}", path.display());
    Ok(())
}

fn core<R: Registers + Copy, E: ByteOrder>(
    dir: &Path,
    name: &str,
    registers: R,
) -> std::io::Result<()> {
    let info = DumpInfo {
        hostname: "box",
        version: "kernel 1.0\n",
        panic: "the end",
        time_s: 1_700_000_000,
        ..DumpInfo::default()
    };
    let facts = Facts {
        info: &info,
        cpus: &[Cpu { id: 0, signal: 6, registers }, Cpu { id: 1, signal: 0, registers }],
        build_id: &[0xbe, 0xef],
        vmcoreinfo: "",
    };
    let mappings = [Mapping { virt: KERNEL, range: range(RAM, RAM_LEN) }];
    let (mut memory, mut freebsd_memory) = ([Region::EMPTY; 16], [Region::EMPTY; 16]);
    let mut regions = (regions(&mut memory), regions(&mut freebsd_memory));
    let mut ram = Ram::<E>(std::marker::PhantomData);
    let mut core = ElfCore::<R, E>::new(&mut ram, &mut regions.0, &mappings, &facts)
        .expect("it fits this class");
    write(&dir.join(format!("{name}.core")), &mut core)?;
    let mut core = ElfCore::<R, E>::freebsd(&mut ram, &mut regions.1).expect("it fits this class");
    write(&dir.join(format!("{name}.freebsd")), &mut core)
}

fn main() -> std::io::Result<()> {
    let dir = std::env::args().nth(1).expect("a folder to write to");
    let dir = Path::new(&dir);
    let (pc, sp) = (KERNEL + 0x1000, KERNEL + 0x2000);
    let numbers = |first: u64| std::array::from_fn(|index| 0x1000 + first + index as u64);
    let x86_64 = X86_64 {
        rax: 0x1000,
        rbx: 0x1001,
        rcx: 0x1002,
        rdx: 0x1003,
        rsi: 0x1004,
        rdi: 0x1005,
        rbp: 0x1006,
        r8: 0x1008,
        r9: 0x1009,
        r10: 0x100a,
        r11: 0x100b,
        r12: 0x100c,
        r13: 0x100d,
        r14: 0x100e,
        r15: 0x100f,
        rip: pc,
        rsp: sp,
        rflags: 0x202,
        cs: 8,
        ss: 16,
        ds: 17,
        es: 18,
        fs: 19,
        gs: 20,
        fs_base: 0x1021,
        gs_base: 0x1022,
    };
    core::<_, LittleEndian>(dir, "x86_64", x86_64)?;
    let aarch64 = Aarch64 { x: numbers(0), sp, pc, pstate: 0x3c5 };
    core::<_, LittleEndian>(dir, "aarch64", aarch64)?;
    core::<_, BigEndian>(dir, "aarch64_be", aarch64)?;
    let mut riscv64 = Riscv64 { pc, x: numbers(1) };
    riscv64.x[1] = sp;
    core::<_, LittleEndian>(dir, "riscv64", riscv64)?;
    let mut r = std::array::from_fn(|index| 0x1000 + index as u32);
    (r[13], r[15]) = (sp as u32, pc as u32);
    let arm = Arm { r, cpsr: 0x1d3 };
    core::<_, LittleEndian>(dir, "arm", arm)?;
    core::<_, BigEndian>(dir, "armeb", arm)
}
