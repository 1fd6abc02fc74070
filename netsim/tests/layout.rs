//! Images with headers, over a wire: what a debugger needs is there, secrets are not.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::{assert_same, lossy, world};
use debugnet_core::Config;
use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::dump::layout::{
    Cpu, ElfCore, Facts, Flat, LittleEndian, Mapping, Region, Regions, Treatment, X86_64,
};
use debugnet_core::dump::{DumpInfo, Outcome, Reason, Stability, Verdict};
use debugnet_core::observer::{Blind, DumpingLine, Event, Observer};
use debugnet_core::time::Instant;
use netdumpd::core::Compression;
use netsim::ram::{Ram, RamSource, SharedRam};
use netsim::rng::Rng;
use netsim::server::{CoreServer, Server};
use netsim::world::{CLIENT_IP, Machine, SERVER_IP, World};
use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{Object as _, ObjectSegment as _};

const RAM: u64 = 0x10_0000;
const RAM_LEN: u64 = 0x8_0000;
const VIRT: u64 = 0xffff_ffff_8000_0000;
const STACK: u64 = RAM + 0x7_0000;
const SECRET_AT: u64 = RAM + 0x2_1230;
const SECRET: &[u8] = b"-----BEGIN PRIVATE KEY----- hunter2";

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr(start), len).unwrap()
}

/// Random bytes; its second quarter is zeros but for a secret, its end is zeros.
fn ram() -> SharedRam {
    let mut rng = Rng::new(5);
    let mut bytes: Vec<u8> = (0..RAM_LEN).map(|_| rng.next_u64() as u8 | 1).collect();
    bytes[0x2_0000..0x4_0000].fill(0);
    bytes[0x7_8000..].fill(0);
    let at = (SECRET_AT - RAM) as usize;
    bytes[at..at + SECRET.len()].copy_from_slice(SECRET);
    let mut ram = Ram::new();
    ram.add(RAM, bytes, Stability::Frozen);
    Rc::new(RefCell::new(ram))
}

/// What the kernel knows of pages: those with keys are its own.
fn is_key_page(address: u64) -> bool {
    address & !0xfff == SECRET_AT & !0xfff
}

fn regions(memory: &mut [Region]) -> Regions<'_> {
    let mut regions = Regions::new(memory);
    regions.add(range(RAM, RAM_LEN)).unwrap();
    regions
        .apply(&mut |range| match is_key_page(range.start().0) {
            true => (Treatment::Redacted, 4096),
            false => (Treatment::Frozen, 4096),
        })
        .unwrap();
    regions
}

fn machine(words: &str) -> Machine {
    let mut machine = Machine::new(ram());
    let text = format!("server={SERVER_IP} client={CLIENT_IP} {words}");
    machine.config = Config::parse(&text).unwrap();
    machine
}

fn info() -> DumpInfo<'static> {
    DumpInfo {
        architecture: "amd64",
        architecture_version: 2,
        hostname: "victim",
        version: "kernel 1.0\n",
        panic: "all is lost",
        time_s: 1_700_000_000,
        key: &[],
    }
}

type World1 = Rc<RefCell<World<CoreServer>>>;

fn crash(machine: &Machine, world: &World1, observer: &mut dyn Observer) -> Outcome {
    let mut memory = [Region::EMPTY; 16];
    let mut regions = regions(&mut memory);
    let info = info();
    let registers = X86_64 { rip: VIRT + 0x1000, rsp: VIRT + (STACK - RAM), ..X86_64::default() };
    let facts = Facts {
        info: &info,
        cpus: &[Cpu { id: 0, signal: 6, registers }],
        build_id: &[1, 2, 3],
        vmcoreinfo: "",
    };
    let mappings = [Mapping { virt: VIRT, range: range(RAM, RAM_LEN) }];
    let mut reader = RamSource::new(machine.ram.clone());
    let mut core =
        ElfCore::<_, LittleEndian>::new(&mut reader, &mut regions, &mappings, &facts).unwrap();
    core.send_first(range(STACK, 0x1000)).unwrap();
    machine.crash_from(world, &mut core, None, observer, &info)
}

/// Memory at a virtual address, as a reader of the file finds it.
fn read(file: &[u8], virt: u64, len: u64) -> Option<Vec<u8>> {
    let elf = ElfFile64::<object::Endianness>::parse(file).expect("an ELF file");
    elf.segments().find_map(|segment| segment.data_range(virt, len).ok()?.map(<[u8]>::to_vec))
}

fn holds(file: &[u8], text: &[u8]) -> bool {
    file.windows(text.len()).any(|window| window == text)
}

#[test]
fn a_secret_is_kept_out_and_said_to_be() {
    for words in ["", "zeros=send"] {
        let machine = machine(words);
        let world = world(&lossy(0.02), 4);
        let outcome = crash(&machine, &world, &mut Blind);
        assert_eq!(outcome.verdict, Verdict::Confirmed, "{outcome:?}");
        assert!(outcome.is_complete());
        let [gap] = outcome.not_sent.list() else { panic!("{:?}", outcome.not_sent) };
        assert_eq!((gap.len, gap.reason), (4096, Reason::Redacted));

        let world = world.borrow();
        let (file, finished) = world.server.image().unwrap();
        assert!(finished);
        // The search finds what is there, so that finding nothing means something.
        let truth = machine.ram.borrow().truth();
        assert!(holds(&truth, SECRET) && holds(file, b"all is lost"));
        assert!(!holds(file, b"PRIVATE KEY") && !holds(file, b"hunter2"), "{words}");
        let record = world.server.record().unwrap();
        assert!(record.holes.is_empty(), "kept out is no hole");
        assert!(record.not_sent.listed.iter().any(|range| range.contains(&gap.offset)));

        // All else is there, at its virtual address; a debugger is told that the page is not.
        assert_eq!(read(file, VIRT + (SECRET_AT - RAM), 16), None);
        for (start, end) in [(0, SECRET_AT & !0xfff), ((SECRET_AT & !0xfff) + 4096, RAM + RAM_LEN)]
        {
            let start = start.max(RAM);
            let bytes = read(file, VIRT + start - RAM, end - start).expect("mapped");
            assert_same(&bytes, &truth[start as usize..end as usize]);
        }
        assert_eq!(outcome.image_len, file.len() as u64);
        let zeros: u64 = if words.is_empty() { 0x2_0000 + 0x8000 - 4096 - 1 } else { 0 };
        // Zeros in the last message before a run of them go with it.
        let passed = zeros.saturating_sub(3 * 1448)..=zeros;
        assert!(passed.contains(&outcome.zero_bytes), "{words}: {} of {zeros}", outcome.zero_bytes);
        assert_eq!(outcome.dump_bytes, RAM_LEN - 4096);
    }
}

#[test]
fn the_flat_image_keeps_it_out_too() {
    let machine = machine("");
    let world = world(&lossy(0.0), 4);
    let mut memory = [Region::EMPTY; 16];
    let mut regions = regions(&mut memory);
    let mut reader = RamSource::new(machine.ram.clone());
    let mut flat = Flat::new(&mut reader, &mut regions);
    flat.send_first(range(STACK, 0x1000)).unwrap();
    let outcome = machine.crash_from(&world, &mut flat, None, &mut Blind, &info());
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!(outcome.not_sent.list()[0].offset, SECRET_AT & !0xfff);
    let world = world.borrow();
    let (file, _) = world.server.image().unwrap();
    assert!(!holds(file, b"PRIVATE KEY"));
    let mut truth = machine.ram.borrow().truth();
    truth[(SECRET_AT & !0xfff) as usize..][..4096].fill(0);
    assert_same(file, &truth);
}

/// The server dies at a quarter, a half, three quarters: the file has its length,
/// opens, and has the stack of the CPU that died.
#[test]
fn a_dump_cut_short_still_opens() {
    for percent in [25, 50, 75] {
        for words in ["no-progress=1", "no-progress=1 zeros=send"] {
            let machine = machine(words);
            let world = world(&lossy(0.0), 9);
            /// Stops the server when so much is done.
            struct Killer(World1, u64, u64);
            impl Observer for Killer {
                fn event(&mut self, _: Instant, event: &Event) {
                    if let Event::Progress { done, total, .. } = event
                        && done * 100 >= total * self.1
                    {
                        self.0.borrow_mut().server.is_dead = true;
                        self.2 = self.2.max(1);
                    }
                }
            }
            let mut killer = Killer(world.clone(), percent, 0);
            let outcome = crash(&machine, &world, &mut killer);
            assert_eq!((outcome.verdict, killer.2), (Verdict::Failed, 1), "{outcome:?}");
            assert!(outcome.acked_bytes < outcome.dump_bytes);
            let world = world.borrow();
            let (file, finished) = world.server.image().unwrap();
            assert!(!finished);
            assert_eq!(file.len() as u64, outcome.image_len, "{percent} %, {words}");
            let truth = machine.ram.borrow().truth();
            let stack = read(file, VIRT + STACK - RAM, 4096).expect("mapped");
            assert_same(&stack, &truth[STACK as usize..][..4096]);
            let elf = ElfFile64::<object::Endianness>::parse(file).unwrap();
            let endian = elf.endian();
            let mut notes = elf.elf_program_headers()[0].notes(endian, file).unwrap().unwrap();
            assert_eq!(notes.next().unwrap().unwrap().name(), b"CORE");
        }
    }
}

/// Everything of the kernel dump header, as netdumpd's reader has it.
#[test]
fn the_kernel_dump_header_is_full_and_true() {
    let machine = machine("");
    let world = world(&lossy(0.0), 4);
    let outcome = crash(&machine, &world, &mut Blind);
    let world = world.borrow();
    let (_, dump) = world.server.store.dumps().last().unwrap();
    let header = dump.headers[0].as_ref().expect("it can be read");
    let len = dump.vmcore.len() as u64;
    assert_eq!((header.dump_length, header.dump_extent), (len, Some(len)));
    assert_eq!(outcome.image_len, len);
    assert!(header.is_sound() && header.problems.is_empty(), "{:?}", header.problems);
    assert_eq!((header.architecture.as_slice(), header.architecture_version), (&b"amd64"[..], 2));
    assert_eq!((header.version, header.block_size, header.key_size), (4, 4096, 0));
    assert_eq!((header.dump_time, header.compression), (1_700_000_000, Some(Compression::None)));
    assert_eq!(header.hostname, b"victim");
    assert_eq!(header.version_string, b"kernel 1.0\n");
    assert_eq!(header.panic_string, b"all is lost");
}

#[test]
fn users_see_the_line_they_know() {
    struct Console(DumpingLine, String, Vec<(u64, u64)>);
    impl Observer for Console {
        fn event(&mut self, _: Instant, event: &Event) {
            self.0.event(event, &mut self.1).unwrap();
            if let Event::Progress { rate_bytes_s, remaining_us, .. } = event {
                self.2.push((*rate_bytes_s, *remaining_us));
            }
        }
    }
    let machine = machine("zeros=send");
    let mut console = Console(DumpingLine::new(64 << 20), String::new(), Vec::new());
    crash(&machine, &world(&lossy(0.0), 4), &mut console);
    let Console(_, text, estimates) = console;
    let items = text.strip_prefix("Dumping 0 out of 64 MB:").expect(&text);
    let items = items.strip_suffix("%\nDump complete\n").expect(&text);
    let percents: Vec<u64> =
        items.split("..").skip(1).map(|p| p.trim_end_matches('%').parse().unwrap()).collect();
    let tens: Vec<u64> = percents.iter().map(|percent| percent / 10).collect();
    assert_eq!(tens, (0..=10).collect::<Vec<_>>(), "{text}");
    // A gigabit line, and an estimate that ends at nothing.
    let (rate, _) = estimates[estimates.len() / 2];
    assert!((50_000_000..130_000_000).contains(&rate), "{estimates:?}");
    assert_eq!(estimates.last().unwrap().1, 0);
    assert!(estimates[8].1 > 1000, "{estimates:?}");
}
