//! The layouts, for each machine and byte order, over RAM somewhere.

use core::hint::black_box;

use debugnet_core::DumpInfo;
use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::dump::layout::{
    Aarch64, Arm, BigEndian, Cpu, ElfCore, Facts, Flat, LittleEndian, Mapping, Region, Regions,
    Registers, Riscv64, Treatment, X86_64,
};
use debugnet_core::dump::{DumpSource, ReadRam};

/// What the source is for: a whole dump, or all methods of it.
pub(crate) trait Use {
    fn source(&mut self, source: &mut dyn DumpSource);
}

/// Whichever of them, in a way that the compiler cannot foresee.
pub(crate) fn any(ram: &mut dyn ReadRam, info: &DumpInfo<'_>, user: &mut dyn Use) -> Option<()> {
    let mut memory = [Region::EMPTY; 16];
    let mut regions = Regions::new(black_box(&mut memory));
    let range = || PhysRange::new(PhysAddr(black_box(0)), black_box(0));
    for _ in 0..black_box(3) {
        black_box(regions.add(range()?)).ok();
        black_box(regions.mark(range()?, black_box(Treatment::Volatile))).ok();
    }
    black_box(regions.apply(&mut |range| black_box((Treatment::Redacted, range.len())))).ok();
    black_box(regions.iter().count());
    match black_box(0) {
        0 => core::<X86_64, LittleEndian>(ram, &mut regions, info, user),
        1 => core::<Aarch64, LittleEndian>(ram, &mut regions, info, user),
        2 => core::<Aarch64, BigEndian>(ram, &mut regions, info, user),
        3 => core::<Riscv64, LittleEndian>(ram, &mut regions, info, user),
        4 => core::<Arm, LittleEndian>(ram, &mut regions, info, user),
        5 => core::<Arm, BigEndian>(ram, &mut regions, info, user),
        _ => {
            let mut flat = Flat::new(ram, &mut regions);
            black_box(flat.send_first(range()?)).ok();
            user.source(&mut flat);
            Some(())
        }
    }
}

fn core<R: Registers + Default, E: debugnet_core::dump::layout::ByteOrder>(
    ram: &mut dyn ReadRam,
    regions: &mut Regions<'_>,
    info: &DumpInfo<'_>,
    user: &mut dyn Use,
) -> Option<()> {
    let range = PhysRange::new(PhysAddr(black_box(0)), black_box(0))?;
    let cpus = [Cpu { id: black_box(0), signal: 0, registers: R::default() }];
    let facts = Facts {
        info,
        cpus: black_box(&cpus),
        build_id: black_box(&[]),
        vmcoreinfo: black_box(""),
    };
    let mappings = [Mapping { virt: black_box(0), range }];
    if black_box(true) {
        let mut core = ElfCore::<R, E>::freebsd(&mut *ram, &mut *regions).ok()?;
        user.source(&mut core);
    }
    let mut core = ElfCore::<R, E>::new(ram, regions, black_box(&mappings), &facts).ok()?;
    black_box(core.send_first(range)).ok();
    black_box(core.headers_len());
    user.source(&mut core);
    Some(())
}
