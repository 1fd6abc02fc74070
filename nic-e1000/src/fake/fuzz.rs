//! Any device against the driver: what the fuzz target and its property test run.

use arbitrary::{Arbitrary, Unstructured};
use debugnet_core::nic::{Checksum, Nic, Payload, RxError, Start, TxFrame, TxTicket};
use debugnet_core::time::Clock;

use super::{FakeClock, FakeDriver, FakeIntel, NVM_MAC, Quirks, Surroundings};
use crate::MEMORY_NEEDED;

/// One part of each family.
const PARTS: [u16; 3] = [0x100e, 0x10d3, 0x10c9];
/// Steps of one story: what lies beyond says nothing new.
const DEEDS_MAX: usize = 64;
/// Register accesses of one call, but for `stop`, which waits, and has its own bound.
const ACCESSES_MAX: u64 = 10_000;
const STOP_ACCESSES_MAX: u64 = 1_000_000;

/// How the device is unlike an honest one.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Twist {
    ResetKeepsRegisters(bool),
    ResetNeverEnds(bool),
    MasterNeverStops(bool),
    QueuesNeverEnable(bool),
    NvmNeverDone(bool),
    PhyNeverReady(bool),
    NoLink(bool),
    NeverDone(bool),
    DoneOutOfOrder(bool),
    RxLen(Option<u16>),
    RxStatus(u8),
    RxErrors(u8),
    Gone(bool),
    Noise(u64),
}

impl Twist {
    /// Whether the driver may now be seen to do what it must not, because it
    /// was told wrong of the device's state.
    const fn misleads(self) -> bool {
        matches!(self, Self::Gone(_) | Self::Noise(_) | Self::ResetNeverEnds(_))
    }

    fn apply(self, quirks: &mut Quirks) {
        match self {
            Self::ResetKeepsRegisters(keeps) => quirks.reset_keeps_registers = keeps,
            Self::ResetNeverEnds(never) => quirks.reset_never_ends = never,
            Self::MasterNeverStops(never) => quirks.master_never_stops = never,
            Self::QueuesNeverEnable(never) => quirks.queues_never_enable = never,
            Self::NvmNeverDone(never) => quirks.nvm_never_done = never,
            Self::PhyNeverReady(never) => quirks.phy_never_ready = never,
            Self::NoLink(none) => quirks.no_link = none,
            Self::NeverDone(never) => quirks.never_done = never,
            Self::DoneOutOfOrder(on) => quirks.done_out_of_order = on,
            Self::RxLen(len) => quirks.rx_len = len,
            Self::RxStatus(flip) => quirks.rx_status_flip = flip,
            Self::RxErrors(errors) => quirks.rx_errors = errors,
            Self::Gone(gone) => quirks.gone = gone,
            Self::Noise(seed) => quirks.noise = seed,
        }
    }
}

/// What the kernel does with its driver.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Use {
    Start(u8),
    Send { header_len: u8, segments: [u16; 2], sum: Option<(u8, u8)> },
    Kick,
    Reap(u16),
    Receive(u8),
    Link,
    Stop,
}

/// What the device does, besides sending what it is given.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Deed {
    Use(Use),
    Deliver(u16),
    Pass(u32),
    Scribble { offset: u32, word: u64 },
    SetRegister { register: u16, value: u32 },
    ResetItself,
    Twist(Twist),
    Config { at: u8, word: u32 },
}

struct Story {
    fake: FakeIntel,
    nic: FakeDriver,
    clock: FakeClock,
    /// Last ticket given, and low-water mark.
    last: TxTicket,
    mark: TxTicket,
    misled: bool,
}

/// Tells the story that `data` stands for: a device, and what it and the kernel
/// do. Any bytes are one. The first byte chooses the family (modulo 3: `e1000`,
/// `e1000e`, `igb`), the next says whether the driver inserts checksums (bit 0)
/// and sends jumbo frames (bit 1).
///
/// # Panics
/// If the driver breaks a promise: tickets that skip or go back, a frame that
/// cannot be, a call without end, an access outside its memory; anything that it
/// must not do, where the device gave no cause for it.
pub fn run(data: &[u8]) {
    thread_local! {
        static MEMORY: Surroundings = Surroundings::leak();
    }
    let mut input = Unstructured::new(data);
    // Out of bytes: the story is over.
    let _ = MEMORY.with(|memory| tell(&mut input, *memory));
}

fn tell(input: &mut Unstructured<'_>, memory: Surroundings) -> arbitrary::Result<()> {
    let part = PARTS[usize::from(u8::arbitrary(input)? % 3)];
    let options = u8::arbitrary(input)?;
    let mut quirks = Quirks::default();
    let mut misled = false;
    for _ in 0..u8::arbitrary(input)? % 4 {
        let twist = Twist::arbitrary(input)?;
        twist.apply(&mut quirks);
        misled |= twist.misleads();
    }
    let fake = FakeIntel::within(part, quirks, memory);
    let mut nic = fake.driver().with_checksum_offload(options & 1 != 0);
    if options & 2 != 0 {
        nic = nic.with_ip_mtu(9000);
    }
    let clock = fake.clock();
    let none = TxTicket::NONE;
    let mut story = Story { fake, nic, clock, last: none, mark: none, misled };
    story.start(u8::MAX);
    for _ in 0..DEEDS_MAX {
        if input.is_empty() {
            break;
        }
        let Ok(deed) = Deed::arbitrary(input) else { break };
        story.act(deed);
        let violations = story.fake.violations();
        assert!(story.misled || violations.is_empty(), "{violations:?}");
    }
    assert!(story.fake.margins_are_untouched(), "the driver left its memory");
    Ok(())
}

impl Story {
    /// Does something with the driver and checks that the device was not asked without end.
    fn bounded<T>(&mut self, max: u64, call: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.fake.reads();
        let result = call(self);
        let reads = self.fake.reads() - before;
        assert!(reads <= max, "{reads} register reads in a call");
        result
    }

    fn act(&mut self, deed: Deed) {
        match deed {
            Deed::Use(it) => self.make_use(it),
            Deed::Deliver(len) => {
                let mut frame = NVM_MAC.0.to_vec();
                frame.resize(14 + usize::from(len) % 1_600, 0x5a);
                self.fake.deliver(&frame);
            }
            Deed::Pass(us) => self.fake.pass_us(u64::from(us) % 4_000_000),
            Deed::Scribble { offset, word } => {
                self.misled = true;
                let room = (MEMORY_NEEDED - 8) as u64;
                self.fake.scribble(u64::from(offset) % room, &word.to_le_bytes());
            }
            Deed::SetRegister { register, value } => {
                self.misled = true;
                self.fake.set(usize::from(register) & !3, value);
            }
            Deed::ResetItself => {
                self.misled = true;
                self.fake.reset_itself();
            }
            Deed::Twist(twist) => {
                self.misled |= twist.misleads();
                self.fake.change(|quirks| twist.apply(quirks));
            }
            Deed::Config { at, word } => {
                self.misled = true;
                self.fake.config().set(u16::from(at & 0xfc), word);
            }
        }
        // Kept for tests that look at them; here only the driver's own word counts.
        self.fake.take_frames();
        self.fake.take_log();
    }

    fn start(&mut self, steps: u8) {
        let steps = if steps < 128 { usize::from(steps) } else { 20_000 };
        for _ in 0..steps {
            let step = self.bounded(ACCESSES_MAX, |story| story.nic.poll_start(&mut story.clock));
            if !matches!(step, Ok(Start::Again { .. })) {
                break;
            }
            self.clock.relax();
        }
    }

    fn make_use(&mut self, it: Use) {
        match it {
            Use::Start(steps) => self.start(steps),
            Use::Send { header_len, segments, sum } => self.send(header_len, segments, sum),
            Use::Kick => self.bounded(ACCESSES_MAX, |story| story.nic.kick()),
            Use::Reap(looks) => {
                for _ in 0..looks % 1_200 {
                    let mark = self.bounded(ACCESSES_MAX, |story| story.nic.poll_tx());
                    let Ok(mark) = mark else { break };
                    assert!(self.mark <= mark && mark <= self.last, "{mark:?}");
                    self.mark = mark;
                }
            }
            Use::Receive(looks) => {
                let mut buf = [0; 1514];
                for _ in 0..looks {
                    match self.bounded(ACCESSES_MAX, |story| story.nic.receive(&mut buf)) {
                        Ok(Some(len)) => assert!((14..=buf.len()).contains(&len), "{len}"),
                        Ok(None) | Err(RxError::Device(_)) => break,
                        Err(_) => {}
                    }
                }
            }
            Use::Link => drop(self.bounded(ACCESSES_MAX, |story| story.nic.link())),
            Use::Stop => {
                let stopped = self.bounded(STOP_ACCESSES_MAX, |story| story.nic.stop());
                if stopped.is_ok() {
                    assert_eq!(self.nic.poll_tx(), Ok(self.last), "a stop completes all");
                    self.mark = self.last;
                }
            }
        }
    }

    fn send(&mut self, header_len: u8, segments: [u16; 2], sum: Option<(u8, u8)>) {
        let header = vec![0xe0; usize::from(header_len) % 120];
        let [first, second] = segments.map(|len| vec![0x77; usize::from(len) % 0x1400]);
        let ranges = [self.fake.payload(0, &first), self.fake.payload(0x8000, &second)];
        let checksum = match sum {
            None => Checksum::Complete,
            Some((start, offset)) => {
                Checksum::Insert { start: start.into(), offset: offset.into() }
            }
        };
        let frame = TxFrame { header: &header, payload: Payload::Dma(&ranges), checksum };
        if let Ok(ticket) = self.bounded(ACCESSES_MAX, |story| story.nic.transmit(&frame)) {
            assert_eq!(ticket, self.last.next());
            self.last = ticket;
        }
    }
}
