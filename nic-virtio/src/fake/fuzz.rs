//! Any device against the driver: what the fuzz target and its property test run.

use arbitrary::{Arbitrary, Unstructured};
use debugnet_core::addr::MacAddr;
use debugnet_core::nic::{Checksum, Nic, Payload, RxError, Start, TxFrame, TxTicket};
use debugnet_core::time::{Clock, Instant};
use nic_hal::Identity;

use super::{Bus, FakeDriver, FakeVirtio, Quirks, RX, Surroundings, TX};
use crate::transport::status;
use crate::{Sizes, header};

/// Steps of one story: what lies beyond says nothing new.
const DEEDS_MAX: usize = 64;
/// Register accesses of one call, but for `stop`, which waits, and has its own bound.
const ACCESSES_MAX: u64 = 2_000;
const STOP_ACCESSES_MAX: u64 = 60_000;

/// How the device is unlike an honest one.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Twist {
    Features(u64),
    ResetLooks(u8),
    NeverResets,
    RefusesFeatures(bool),
    QueueLen([u16; 3]),
    NotifyOff([u8; 3]),
    Mac([u8; 6]),
    Mtu(u16),
    Link(bool),
    Gone(bool),
    Restless(bool),
    KeepsQueues(bool),
    Identity([u8; 3]),
    Noise(u64),
}

impl Twist {
    /// Whether the driver may now be seen to break the specification, because
    /// it was told wrong of the device's state.
    fn misleads(self) -> bool {
        !matches!(self, Self::ResetLooks(_) | Self::Mac(_) | Self::Mtu(_) | Self::Link(_))
    }

    fn apply(self, quirks: &mut Quirks) {
        match self {
            Self::Features(features) => quirks.features = features,
            Self::ResetLooks(looks) => quirks.reset_looks = looks.into(),
            Self::NeverResets => quirks.reset_looks = u32::MAX,
            Self::RefusesFeatures(refuses) => quirks.refuses_features = refuses,
            Self::QueueLen(len) => quirks.queue_len = len,
            Self::NotifyOff(off) => quirks.notify_off = off.map(u16::from),
            Self::Mac(mac) => quirks.mac = MacAddr(mac),
            Self::Mtu(mtu) => quirks.mtu = mtu,
            Self::Link(up) => quirks.link_up = up,
            Self::Gone(gone) => quirks.gone = gone,
            Self::Restless(restless) => quirks.restless = restless,
            Self::KeepsQueues(keeps) => quirks.keeps_queues = keeps,
            Self::Identity([magic, version, id]) => {
                let magic = 0x7472_6976 ^ u32::from(magic);
                quirks.identity = Some([magic, version.into(), id.into()]);
            }
            Self::Noise(seed) => quirks.noise = seed,
        }
    }
}

/// What the kernel does with its driver.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Use {
    Start(u8),
    Send { header_len: u8, segments: [u16; 2], sum: Option<(u16, u16)> },
    Kick,
    Reap(u16),
    Receive(u8),
    Link,
    Stop,
}

/// What the device does, as it should.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Work {
    Fetch,
    Complete(u8),
    Deliver(u16),
    SuppressDoorbell { queue: bool, suppress: bool },
}

/// What it does as it should not.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Lie {
    Used { queue: bool, id: u8, len: u32 },
    UsedFar { queue: bool, id: u32 },
    UsedIndex { queue: bool, index: u16 },
    DeliverAs { header: [u8; header::MAX], frame_len: u16, len: u32 },
    Scribble { offset: u32, word: u64 },
    StatusBits(u8),
    LoseState,
    Twist(Twist),
    Config { at: u8, word: u32 },
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Deed {
    Use(Use),
    Work(Work),
    Lie(Lie),
}

/// Time that passes only by waiting, 100 us at a time.
struct StepClock(u64);

impl Clock for StepClock {
    fn now(&mut self) -> Instant {
        Instant::from_micros(self.0)
    }
    fn relax(&mut self) {
        self.0 += 100;
    }
}

fn sizes() -> Sizes {
    let sizes = Sizes::new(16, 4).expect("powers of two");
    sizes.with_legacy(16).expect("a power of two")
}

struct Story {
    fake: FakeVirtio,
    nic: FakeDriver,
    clock: StepClock,
    /// Heads the device has and has not given back.
    at_device: Vec<u16>,
    /// Last ticket given, and low-water mark.
    last: TxTicket,
    mark: TxTicket,
    misled: bool,
}

/// Tells the story that `data` stands for: a device, and what it and the kernel
/// do. Any bytes are one. The first byte chooses the transport (modulo 4, in
/// the order of [`Bus::ALL`]).
///
/// # Panics
/// If the driver breaks a promise: tickets that skip or go back, a frame that
/// cannot be, a call without end, an access outside its memory; a breach of
/// the specification, where the device gave no cause for one.
pub fn run(data: &[u8]) {
    thread_local! {
        static MEMORY: Surroundings = Surroundings::leak(sizes());
    }
    let mut input = Unstructured::new(data);
    // Out of bytes: the story is over.
    let _ = MEMORY.with(|memory| tell(&mut input, *memory));
}

fn tell(input: &mut Unstructured<'_>, memory: Surroundings) -> arbitrary::Result<()> {
    let bus = Bus::ALL[usize::from(u8::arbitrary(input)? % 4)];
    let mut quirks = Quirks { queue_len: [16, 16, 64], ..Quirks::on(bus) };
    let mut misled = false;
    for _ in 0..u8::arbitrary(input)? % 4 {
        let twist = Twist::arbitrary(input)?;
        twist.apply(&mut quirks);
        misled |= twist.misleads();
    }
    let fake = FakeVirtio::within(quirks, memory);
    if u8::arbitrary(input)? % 8 == 7 {
        misled = true;
        fake.config().set(u16::from(u8::arbitrary(input)? & 0xfc), u32::arbitrary(input)?);
    }
    let Ok(nic) = fake.try_driver_with(Identity::new(), sizes()) else { return Ok(()) };
    let mut story = Story {
        fake,
        nic,
        clock: StepClock(0),
        at_device: Vec::new(),
        last: TxTicket::NONE,
        mark: TxTicket::NONE,
        misled,
    };
    story.start(u8::MAX);
    for _ in 0..DEEDS_MAX {
        if input.is_empty() {
            break;
        }
        let Ok(deed) = Deed::arbitrary(input) else { break };
        match deed {
            Deed::Use(it) => story.make_use(it),
            Deed::Work(work) => story.work(work),
            Deed::Lie(lie) => story.lie(lie),
        }
        let violations = story.fake.violations();
        assert!(story.misled || violations.is_empty(), "{violations:?}");
    }
    assert!(story.fake.margins_are_untouched(), "the driver left its memory");
    Ok(())
}

impl Story {
    /// Does something with the driver and checks that the device was not asked without end.
    fn bounded<T>(&mut self, max: u64, call: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.fake.accesses();
        let result = call(self);
        let accesses = self.fake.accesses() - before;
        assert!(accesses <= max, "{accesses} register accesses in a call");
        result
    }

    fn start(&mut self, steps: u8) {
        let steps = if steps < 128 { usize::from(steps) } else { 12_000 };
        self.at_device.clear();
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

    fn send(&mut self, header_len: u8, segments: [u16; 2], sum: Option<(u16, u16)>) {
        let header = vec![0xe0; usize::from(header_len) % 120];
        let [first, second] = segments.map(|len| vec![0x77; usize::from(len) % 0x1000]);
        let ranges = [self.fake.payload(0, &first), self.fake.payload(0x8000, &second)];
        let checksum = match sum {
            None => Checksum::Complete,
            Some((start, offset)) => Checksum::Insert { start, offset },
        };
        let frame = TxFrame { header: &header, payload: Payload::Dma(&ranges), checksum };
        if let Ok(ticket) = self.bounded(ACCESSES_MAX, |story| story.nic.transmit(&frame)) {
            assert_eq!(ticket, self.last.next());
            self.last = ticket;
        }
    }

    fn work(&mut self, work: Work) {
        // With rings of the dead kernel's it would only complain of those.
        if self.fake.resets() == 0 {
            return;
        }
        match work {
            Work::Fetch => {
                let frames = self.fake.fetch_frames();
                self.at_device.extend(frames.iter().map(|(head, ..)| *head));
            }
            Work::Complete(place) if !self.at_device.is_empty() => {
                let place = usize::from(place) % self.at_device.len();
                let head = self.at_device.swap_remove(place);
                self.fake.push_used(TX, head.into(), 0);
            }
            Work::Complete(_) => {}
            Work::Deliver(len) => drop(self.fake.deliver(&vec![0x5a; usize::from(len) % 2_036])),
            Work::SuppressDoorbell { queue, suppress } => {
                self.fake.suppress_doorbell(queue.into(), suppress);
            }
        }
    }

    fn lie(&mut self, lie: Lie) {
        let queue = |second: bool| if second { TX } else { RX };
        match lie {
            // Entries that it gives back without having taken them: the driver's index runs ahead.
            Lie::Used { queue: second, id, len } => {
                self.misled = true;
                self.fake.push_used(queue(second), u32::from(id) % 20, len);
            }
            Lie::UsedFar { queue: second, id } => {
                self.misled = true;
                self.fake.push_used(queue(second), id, 60);
            }
            Lie::UsedIndex { queue: second, index } => {
                self.misled = true;
                self.fake.set_used_index(queue(second), index);
            }
            Lie::DeliverAs { header, frame_len, len } => {
                let frame = vec![0xa5; usize::from(frame_len) % 2_036];
                self.fake.deliver_as(header, &frame, len);
            }
            Lie::Scribble { offset, word } => {
                self.misled = true;
                self.fake.scribble(offset, word);
            }
            Lie::StatusBits(bits) => {
                self.misled |= bits & !status::NEEDS_RESET != 0;
                self.fake.set_status_bits(bits);
            }
            Lie::LoseState => {
                self.misled = true;
                self.fake.lose_state();
            }
            Lie::Twist(twist) => {
                self.misled |= twist.misleads();
                self.fake.change(|quirks| twist.apply(quirks));
            }
            Lie::Config { at, word } => {
                self.misled = true;
                self.fake.config().set(u16::from(at & 0xfc), word);
            }
        }
    }
}
