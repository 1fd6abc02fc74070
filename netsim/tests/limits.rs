//! Limits that hold whatever NIC, clock and memory do, and ends that tell the
//! truth. One test for each thing that once went wrong.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::{CoreWorld, assert_identical, assert_same, lossy, random_ram, world};
use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::dump::{
    DumpInfo, Failure, FailureKind, ImageStream, Outcome, Reason, Stability, Transform,
    TransformError, Verdict,
};
use debugnet_core::nic::{
    Capabilities, ChecksumOffload, Link, Nic, NicError, PayloadKind, RxError, Start, TxError,
    TxFrame, TxTicket,
};
use debugnet_core::observer::{Blind, Event, Observer, Trace};
use debugnet_core::pool::Cells;
use debugnet_core::progress::Stage;
use debugnet_core::session::{Message, Session, Stored};
use debugnet_core::time::{Clock, CountedClock, Instant};
use debugnet_core::wire::debugnet;
use debugnet_core::{
    Armed, Config, Dump, Io, Limits, Memory, Progress, Slot, Step, arm, memory_needed,
};
use netsim::nic::{CellWindow, Device, SimNic};
use netsim::ram::{Ram, RamSource};
use netsim::server::{CoreServer, Server};
use netsim::world::{CLIENT_IP, Machine, SERVER_IP, SimClock};

const CELLS_PHYS: PhysAddr = PhysAddr(0x4000_0000_0000);

fn config(words: &str) -> Config {
    Config::parse(&format!("server={SERVER_IP} client={CLIENT_IP} {words}")).unwrap()
}

/// The same server twice.
fn two_targets(words: &str) -> Config {
    config(&format!("server={SERVER_IP} client={CLIENT_IP} {words}"))
}

/// A machine whose server's silence is noticed after two seconds.
fn impatient(len: usize) -> Machine {
    let mut machine = Machine::new(random_ram(len, 1));
    machine.config = config("no-progress=2");
    machine.idle_us = 100;
    machine
}

fn dead_world() -> CoreWorld {
    let world = world(&lossy(0.0), 1);
    world.borrow_mut().server.is_dead = true;
    world
}

/// A machine taken apart, for a test with a loop, NIC or clock of its own.
struct Parts<'a, 'm> {
    armed: &'a mut Armed<'m>,
    nic: SimNic,
    clock: SimClock<CoreServer>,
    source: RamSource,
}

fn take_apart<R>(machine: &Machine, world: &CoreWorld, run: impl FnOnce(Parts<'_, '_>) -> R) -> R {
    let payload_len = usize::from(machine.config.payload_len(u16::MAX));
    let needs = memory_needed(&Limits { payload_len, ..machine.limits });
    let mut slots = vec![Slot::EMPTY; needs.slots];
    let mut index = vec![0; needs.index];
    let mut cells = vec![0u8; needs.cell_bytes];
    let mut rx = vec![0; needs.rx];
    // SAFETY: the device with this window leaves the world, its last owner
    // besides `run`, at the end of this function, and `cells` is dropped after that.
    let window = unsafe { CellWindow::new(cells.as_ptr(), cells.len(), CELLS_PHYS) };
    let device = Device::new(machine.nic, machine.ram.clone(), Some(window));
    world.borrow_mut().device_is(Some(device.clone()));
    let phys = machine.cells_reachable.then_some(CELLS_PHYS);
    let memory = Memory {
        slots: &mut slots,
        index: &mut index,
        cells: Cells { bytes: &mut cells, phys },
        rx: &mut rx,
    };
    let mut armed = arm(machine.config.clone(), memory).unwrap();
    let clock = SimClock::new(world.clone(), machine.clock_step_us, machine.idle_us);
    let source = RamSource::new(machine.ram.clone());
    let result = run(Parts { armed: &mut armed, nic: SimNic::new(device), clock, source });
    world.borrow_mut().device_is(None);
    result
}

/// Dumps with this NIC, clock and observer.
fn dump_with(
    armed: &mut Armed<'_>,
    nic: &mut dyn Nic,
    clock: &mut dyn Clock,
    source: &mut RamSource,
    observer: &mut dyn Observer,
    progress: &Progress,
) -> Outcome {
    let info = DumpInfo::default();
    let mut io = Io { clock, source, transform: None, info: &info, observer, progress };
    armed.dump(&mut [nic], &mut io)
}

/// A NIC with one flaw.
struct Flawed {
    inner: SimNic,
    flaw: Flaw,
    polls: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    /// Its take-over never ends.
    NeverReady,
    /// It transmits, and after these tickets never says so.
    CompletesUpTo(TxTicket),
    /// It has no room for the message FINISHED.
    RefusesFinished,
    /// It transmits nothing and always has another frame that is nobody's.
    Babbles,
}

/// Polls after which a babbling NIC ends a test that would not end.
const BABBLE_MAX: u32 = 200_000;

impl Nic for Flawed {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn poll_start(&mut self, clock: &mut dyn Clock) -> Result<Start, NicError> {
        match self.flaw {
            Flaw::NeverReady => Ok(Start::Again { until: clock.now().after(1000) }),
            _ => self.inner.poll_start(clock),
        }
    }

    fn link(&mut self) -> Link {
        self.inner.link()
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<TxTicket, TxError> {
        // The type stands behind Ethernet, IPv4 and UDP headers.
        let kind = frame.header.get(42..46);
        match self.flaw {
            Flaw::RefusesFinished if kind == Some(&debugnet::FINISHED.to_be_bytes()) => {
                Err(TxError::Full)
            }
            Flaw::Babbles => Ok(TxTicket::NONE.next()),
            _ => self.inner.transmit(frame),
        }
    }

    fn kick(&mut self) {
        self.inner.kick();
    }

    fn poll_tx(&mut self) -> Result<TxTicket, NicError> {
        self.polls += 1;
        match self.flaw {
            Flaw::CompletesUpTo(last) => self.inner.poll_tx().map(|done| done.min(last)),
            Flaw::Babbles if self.polls > BABBLE_MAX => Err(NicError::Failed),
            _ => self.inner.poll_tx(),
        }
    }

    fn receive(&mut self, buf: &mut [u8]) -> Result<Option<usize>, RxError> {
        match self.flaw {
            Flaw::Babbles => {
                buf[..60].fill(0x55);
                Ok(Some(60))
            }
            _ => self.inner.receive(buf),
        }
    }

    fn stop(&mut self) -> Result<(), NicError> {
        self.inner.stop()
    }
}

fn crash_flawed(machine: &Machine, world: &CoreWorld, flaw: Flaw) -> Outcome {
    take_apart(machine, world, |parts| {
        let Parts { armed, nic, mut clock, mut source } = parts;
        let mut nic = Flawed { inner: nic, flaw, polls: 0 };
        dump_with(armed, &mut nic, &mut clock, &mut source, &mut Blind, &Progress::new())
    })
}

/// A clock that jumps, once.
struct Jumping<C> {
    inner: C,
    /// Shown instead of the inner clock's zero.
    epoch_us: u64,
    /// When, on the inner clock.
    at: Instant,
    by_us: i64,
}

impl<C: Clock> Clock for Jumping<C> {
    fn now(&mut self) -> Instant {
        let now = self.inner.now();
        let by_us = if now >= self.at { self.by_us } else { 0 };
        let shown_us = (now.as_micros() + self.epoch_us).checked_add_signed(by_us);
        Instant::from_micros(shown_us.expect("an epoch that covers the jump"))
    }

    fn relax(&mut self) {
        self.inner.relax();
    }
}

/// Dumps on a clock that jumps `at_us` after the start. Returns the microseconds it took.
fn crash_jumping(machine: &Machine, world: &CoreWorld, at_us: u64, by_us: i64) -> (Outcome, u64) {
    let began = world.borrow().now();
    let outcome = take_apart(machine, world, |parts| {
        let Parts { armed, mut nic, clock, mut source } = parts;
        let at = began.after(at_us);
        let mut clock = Jumping { inner: clock, epoch_us: 7_200_000_000, at, by_us };
        dump_with(armed, &mut nic, &mut clock, &mut source, &mut Blind, &Progress::new())
    });
    let took_us = world.borrow().now().since_us(began);
    (outcome, took_us)
}

fn failures<const N: usize>(trace: &Trace<N>) -> Vec<Failure> {
    let failure = |event: &Event| match event {
        Event::Failure(failure) => Some(*failure),
        _ => None,
    };
    trace.events().filter_map(|(_, event)| failure(event)).collect()
}

// Ends.

#[test]
fn a_poll_after_the_end_says_the_same() {
    for is_dead in [true, false] {
        let machine = impatient(30_000);
        let world = world(&lossy(0.0), 1);
        world.borrow_mut().server.is_dead = is_dead;
        take_apart(&machine, &world, |parts| {
            let Parts { armed, mut nic, mut clock, mut source } = parts;
            let mut dump = armed.begin(0);
            let first = poll_to_the_end(&mut dump, &mut nic, &mut clock, &mut source);
            let expected = if is_dead { Verdict::Failed } else { Verdict::Confirmed };
            assert_eq!((first.verdict, first.is_complete()), (expected, !is_dead));
            for _ in 0..3 {
                clock.relax();
                let again = poll_to_the_end(&mut dump, &mut nic, &mut clock, &mut source);
                assert_eq!(format!("{again:?}"), format!("{first:?}"));
            }
        });
    }
}

fn poll_to_the_end(
    dump: &mut Dump<'_, '_>,
    nic: &mut dyn Nic,
    clock: &mut dyn Clock,
    source: &mut RamSource,
) -> Outcome {
    for _ in 0..10_000_000 {
        match poll_once(dump, nic, clock, source) {
            Step::Done(outcome) => return outcome,
            Step::Again { .. } => clock.relax(),
        }
    }
    panic!("the dump does not end");
}

fn poll_once(
    dump: &mut Dump<'_, '_>,
    nic: &mut dyn Nic,
    clock: &mut dyn Clock,
    source: &mut RamSource,
) -> Step {
    let (info, progress) = (DumpInfo::default(), Progress::new());
    let observer = &mut Blind;
    let mut io = Io { clock, source, transform: None, info: &info, observer, progress: &progress };
    dump.poll(nic, &mut io)
}

#[test]
fn finished_that_never_left_is_failed() {
    let machine = impatient(30_000);
    let world = world(&lossy(0.0), 1);
    let outcome = crash_flawed(&machine, &world, Flaw::RefusesFinished);
    assert_eq!((outcome.verdict, outcome.stage), (Verdict::Failed, Stage::Finish));
    assert_eq!(outcome.failure.unwrap().kind, FailureKind::Silence);
    assert!(!outcome.is_complete());
    assert_eq!(outcome.acked_bytes, 30_000, "all of the image did arrive");
}

/// The control of the test above.
#[test]
fn finished_that_left_and_was_not_answered_is_unconfirmed() {
    let machine = impatient(30_000);
    let world = world(&lossy(0.0), 1);
    // The server dies with the kernel dump header in its hands.
    let outcome = take_apart(&machine, &world, |parts| {
        let Parts { armed, mut nic, mut clock, mut source } = parts;
        let mut dies = DiesAtFinish(world.clone());
        dump_with(armed, &mut nic, &mut clock, &mut source, &mut dies, &Progress::new())
    });
    assert_eq!((outcome.verdict, outcome.stage), (Verdict::Unconfirmed, Stage::Finish));
    assert!(outcome.is_complete());
}

struct DiesAtFinish(CoreWorld);

impl Observer for DiesAtFinish {
    fn event(&mut self, _: Instant, event: &Event) {
        if *event == Event::Stage(Stage::Finish) {
            self.0.borrow_mut().server.is_dead = true;
        }
    }
}

#[test]
fn a_failed_dump_names_its_end_and_not_an_unreadable_page() {
    let machine = impatient(1 << 20);
    machine.ram.borrow_mut().poison = PhysRange::new(PhysAddr(3000), 300);
    let world = world(&lossy(0.0), 1);
    let dies = world.borrow().now().after(6_000);
    world.borrow_mut().at(dies, Box::new(|world| world.server.is_dead = true));
    let mut trace = Trace::<256>::new();
    let outcome = machine.crash_with(&world, None, &mut trace, &DumpInfo::default());
    assert_eq!(outcome.verdict, Verdict::Failed);
    assert_eq!(outcome.failure.unwrap().kind, FailureKind::Silence);
    assert_eq!(outcome.not_sent.list()[0].reason, Reason::Unreadable);
    let told = failures(&trace);
    assert!(matches!(told[0].kind, FailureKind::Read(_)), "the page was met first: {told:?}");
}

#[test]
fn an_unreadable_page_has_no_other_messages_offset() {
    let machine = Machine::new(random_ram(1 << 20, 1));
    machine.ram.borrow_mut().poison = PhysRange::new(PhysAddr(600_000), 300);
    let world = world(&lossy(0.0), 1);
    let outcome = machine.crash(&world);
    let failure = outcome.failure.unwrap();
    assert!(matches!(failure.kind, FailureKind::Read(_)), "{failure:?}");
    assert!(failure.address.unwrap().0.abs_diff(600_000) < 1448, "{failure:?}");
    assert_eq!((failure.offset, failure.seqno, failure.tries), (None, None, 0));
}

// Several targets.

#[test]
fn the_target_that_got_further_is_told_of() {
    let absent = format!("server={SERVER_IP} nic=5");
    let present = format!("server={SERVER_IP} client={CLIENT_IP}");
    for (words, best) in [(format!("{present} {absent}"), 0), (format!("{absent} {present}"), 1)] {
        let mut machine = impatient(30_000);
        machine.config = Config::parse(&format!("{words} no-progress=2")).unwrap();
        let outcome = machine.crash(&dead_world());
        assert_eq!((outcome.target, outcome.targets_tried), (best, 2));
        assert_eq!(outcome.failure.unwrap().kind, FailureKind::NoHerald);
        assert_eq!((outcome.image_len, outcome.holes.bytes()), (30_000, 30_000));
    }
}

/// Nobody asked the source how long the image is while there was a NIC to wait for.
#[test]
fn without_a_nic_the_image_is_still_known_to_be_missing() {
    let mut machine = impatient(30_000);
    machine.config = Config::parse(&format!("server={SERVER_IP} nic=5")).unwrap();
    let outcome = machine.crash(&dead_world());
    assert_eq!(outcome.failure.unwrap().kind, FailureKind::NoNic { index: 5 });
    assert_eq!((outcome.image_len, outcome.holes.bytes()), (30_000, 30_000));
}

#[test]
fn progress_of_the_second_target_starts_at_nothing() {
    let mut machine = impatient(1 << 20);
    machine.config = two_targets("no-progress=2");
    let world = world(&lossy(0.0), 1);
    let dies = world.borrow().now().after(8_000);
    world.borrow_mut().at(dies, Box::new(|world| world.server.is_dead = true));
    let progress = Progress::new();
    let mut watch = Watch { progress: &progress, seen: Vec::new() };
    let outcome = take_apart(&machine, &world, |parts| {
        let Parts { armed, mut nic, mut clock, mut source } = parts;
        dump_with(armed, &mut nic, &mut clock, &mut source, &mut watch, &progress)
    });
    assert_eq!((outcome.target, outcome.targets_tried), (0, 2));
    let most = |target| watch.seen.iter().filter(|(t, ..)| *t == target).map(|(_, n, _)| *n).max();
    assert!(most(0).unwrap() > 0, "the first target got nothing: the test shows nothing");
    assert_eq!(most(1), Some(0));
    let first = watch.seen.iter().find(|(target, ..)| *target == 1);
    assert_eq!(first, Some(&(1, 0, Stage::Idle)));
}

/// What another context reads at each event: target, bytes, stage.
struct Watch<'a> {
    progress: &'a Progress,
    seen: Vec<(usize, u64, Stage)>,
}

impl Observer for Watch<'_> {
    fn event(&mut self, _: Instant, _: &Event) {
        let progress = self.progress;
        self.seen.push((progress.target(), progress.acked_bytes(), progress.stage()));
    }
}

// Memory that cannot be read, and cells.

/// Everything but what overlaps `poison` arrived; both sides say what did not.
fn assert_left_out(machine: &Machine, world: &CoreWorld, outcome: &Outcome, poison: PhysRange) {
    assert_eq!(outcome.verdict, Verdict::Confirmed, "{outcome:?}");
    assert!(matches!(outcome.failure.unwrap().kind, FailureKind::Read(_)), "{outcome:?}");
    let [gap] = outcome.not_sent.list() else { panic!("{:?}", outcome.not_sent) };
    assert_eq!(gap.reason, Reason::Unreadable);
    let (start, end) = (gap.offset, gap.offset + gap.len);
    assert!(start <= poison.start().0 && end >= poison.end().0, "{gap:?}");
    assert!(gap.len <= poison.len() + 2 * 1448, "{gap:?}");
    let world = world.borrow();
    let record = world.server.record().expect("a record");
    assert!(record.holes.is_empty(), "not sent is no hole");
    assert_eq!(record.missing_seqnos, 0);
    let listed: &[_] = &record.not_sent.listed;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0], start..end);
    let (image, finished) = world.server.image().unwrap();
    assert!(finished);
    let truth = machine.ram.borrow().truth();
    assert_eq!(outcome.acked_bytes, truth.len() as u64 - gap.len);
    assert_eq!(outcome.sent_bytes, outcome.acked_bytes);
    assert_same(&image[..start as usize], &truth[..start as usize]);
    assert_same(&image[end as usize..], &truth[end as usize..]);
}

#[test]
fn an_unreadable_page_does_not_end_the_dump_of_a_nic_that_takes_bytes() {
    for loss in [0.0, 0.05] {
        let mut machine = Machine::new(random_ram(400_000, 1));
        machine.nic.payload = PayloadKind::Bytes;
        machine.cells_reachable = false;
        let poison = PhysRange::new(PhysAddr(100_000), 3000).unwrap();
        machine.ram.borrow_mut().poison = Some(poison);
        let world = world(&lossy(loss), 1);
        let outcome = machine.crash(&world);
        assert_left_out(&machine, &world, &outcome, poison);
    }
}

#[test]
fn an_unreadable_page_that_is_to_be_bounced_does_not_end_the_dump() {
    for loss in [0.0, 0.05] {
        let mut ram = Ram::new();
        ram.add(0, vec![7; 100_000], Stability::Frozen);
        let mut machine = Machine::new(Rc::new(RefCell::new(ram)));
        machine.nic.checksum = ChecksumOffload::Insert;
        machine.nic.unreachable = Some((40_000, 60_000));
        machine.config = config("zeros=send");
        let poison = PhysRange::new(PhysAddr(50_000), 100).unwrap();
        machine.ram.borrow_mut().poison = Some(poison);
        let world = world(&lossy(loss), 1);
        let outcome = machine.crash(&world);
        assert_left_out(&machine, &world, &outcome, poison);
    }
}

#[test]
fn all_of_memory_unreadable_is_all_not_sent() {
    for payload in [PayloadKind::Dma, PayloadKind::Bytes] {
        let mut machine = Machine::new(random_ram(30_000, 1));
        machine.nic.payload = payload;
        machine.ram.borrow_mut().poison = PhysRange::new(PhysAddr(0), 30_000);
        let world = world(&lossy(0.0), 1);
        let outcome = machine.crash(&world);
        assert_eq!(outcome.verdict, Verdict::Confirmed, "{outcome:?}");
        assert!(matches!(outcome.failure.unwrap().kind, FailureKind::Read(_)));
        assert_eq!((outcome.dump_bytes, outcome.not_sent.bytes()), (30_000, 30_000));
        let claimed = (outcome.sent_bytes, outcome.acked_bytes, outcome.zero_bytes);
        // A zero in place of the last byte gives the file its length.
        assert_eq!(claimed, (1, 1, 0), "{payload:?}");
        assert!(outcome.holes.is_empty());
        assert!(world.borrow().server.image().unwrap().1, "the server has header and FINISHED");
    }
}

/// The image as one stream.
struct Verbatim;

impl Transform for Verbatim {
    fn restart(&mut self) {}

    fn next(
        &mut self,
        image: &mut ImageStream<'_>,
        cell: &mut [u8],
    ) -> Result<usize, TransformError> {
        Ok(common::fill(image, cell))
    }

    fn compression(&self) -> u8 {
        0
    }
}

/// Cells are as long as the configuration allows, the NIC takes less.
#[test]
fn a_transform_fills_no_more_than_the_nic_takes() {
    let mut ram = Ram::new();
    ram.add(0, (0..100_000u32).map(|i| (i / 3) as u8).collect(), Stability::Frozen);
    let mut machine = Machine::new(Rc::new(RefCell::new(ram)));
    machine.config = config("mtu=9000");
    let world = world(&lossy(0.0), 1);
    let outcome = machine.crash_with(&world, Some(&mut Verbatim), &mut Blind, &DumpInfo::default());
    assert_identical(&machine, &world, &outcome);
}

/// The dropped attempt's NIC may still fetch from its cell.
#[test]
fn cells_of_a_dropped_attempt_are_not_used_again() {
    for cells in [1, 2] {
        let mut machine = impatient(30_000);
        machine.limits = Limits { cells, ..Limits::DEFAULT };
        machine.config = config("path=lab no-progress=2");
        let world = dead_world();
        let outcome = take_apart(&machine, &world, |parts| {
            let Parts { armed, mut nic, mut clock, mut source } = parts;
            let mut dump = armed.begin(0);
            // Far enough for the herald, whose path is in a cell.
            for _ in 0..1000 {
                let step = poll_once(&mut dump, &mut nic, &mut clock, &mut source);
                assert!(matches!(step, Step::Again { .. }));
                clock.relax();
            }
            world.borrow_mut().server.is_dead = false;
            let mut dump = armed.begin(0);
            poll_to_the_end(&mut dump, &mut nic, &mut clock, &mut source)
        });
        if cells == 1 {
            assert_eq!(outcome.failure.unwrap().kind, FailureKind::NoCells);
        } else {
            assert_eq!(outcome.verdict, Verdict::Confirmed, "one cell is left: {outcome:?}");
        }
    }
}

/// A NIC that copies at `transmit` cannot read a cell later, stopped or not.
#[test]
fn a_nic_that_takes_bytes_and_does_not_stop_costs_no_cells() {
    let mut machine = impatient(30_000);
    machine.nic.stop_fails = true;
    machine.nic.payload = PayloadKind::Bytes;
    machine.cells_reachable = false;
    machine.limits = Limits { cells: 1, ..Limits::DEFAULT };
    machine.config = two_targets("path=lab no-progress=2");
    let mut trace = Trace::<64>::new();
    let outcome = machine.crash_with(&dead_world(), None, &mut trace, &DumpInfo::default());
    assert!(!outcome.nic_stopped);
    let kinds: Vec<_> = failures(&trace).iter().map(|failure| failure.kind).collect();
    assert_eq!(kinds, [FailureKind::NoHerald, FailureKind::NoHerald]);
}

// Waits.

#[test]
fn a_take_over_that_never_ends_is_given_up() {
    let mut machine = impatient(30_000);
    machine.config = config("deadline=60");
    machine.idle_us = 1000;
    let outcome = crash_flawed(&machine, &world(&lossy(0.0), 1), Flaw::NeverReady);
    assert_eq!((outcome.verdict, outcome.stage), (Verdict::Failed, Stage::TakeOver));
    let expected = FailureKind::Nic(NicError::Timeout("take-over"));
    assert_eq!(outcome.failure.unwrap().kind, expected);
    assert!((10_000_000..11_000_000).contains(&outcome.elapsed_us), "{}", outcome.elapsed_us);
}

/// With no cell for the next message nothing is in the window, and nothing
/// will ever be: that is no progress too.
#[test]
fn a_device_that_keeps_the_cell_is_given_up() {
    let mut machine = impatient(400_000);
    machine.limits = Limits { cells: 1, ..Limits::DEFAULT };
    machine.config = config("no-progress=2 deadline=20");
    let flaw = Flaw::CompletesUpTo(TxTicket(3));
    let outcome = crash_flawed(&machine, &world(&lossy(0.0), 1), flaw);
    assert_eq!(outcome.verdict, Verdict::Failed);
    assert_eq!(outcome.failure.unwrap().kind, FailureKind::Silence, "{outcome:?}");
    assert!(outcome.elapsed_us < 4_000_000, "{}", outcome.elapsed_us);
    assert!(outcome.acked_bytes > 0 && !outcome.is_complete());
}

struct NoDelay;

impl embedded_hal::delay::DelayNs for NoDelay {
    fn delay_ns(&mut self, _: u32) {}
}

/// Where time passes only in waits, a step with something to do must not
/// always be followed by the next.
#[test]
fn a_busy_wire_does_not_stop_a_counted_clock() {
    for (words, expected) in [
        ("no-progress=1", FailureKind::NoNextHop),
        ("no-progress=3 deadline=1", FailureKind::Deadline),
    ] {
        let mut machine = impatient(30_000);
        machine.config = config(words);
        let outcome = take_apart(&machine, &world(&lossy(0.0), 1), |parts| {
            let Parts { armed, nic, mut source, .. } = parts;
            let mut nic = Flawed { inner: nic, flaw: Flaw::Babbles, polls: 0 };
            let mut clock = CountedClock::new(NoDelay);
            dump_with(armed, &mut nic, &mut clock, &mut source, &mut Blind, &Progress::new())
        });
        assert_eq!(outcome.failure.unwrap().kind, expected);
        assert!((1_000_000..1_100_000).contains(&outcome.elapsed_us), "{}", outcome.elapsed_us);
    }
}

struct Stopped;

impl Clock for Stopped {
    fn now(&mut self) -> Instant {
        Instant::from_micros(1_000_000)
    }

    fn relax(&mut self) {}
}

#[test]
fn a_stopped_clock_ends_the_dump() {
    let outcome = take_apart(&impatient(30_000), &world(&lossy(0.0), 1), |parts| {
        let Parts { armed, nic, mut source, .. } = parts;
        let mut nic = Flawed { inner: nic, flaw: Flaw::NeverReady, polls: 0 };
        dump_with(armed, &mut nic, &mut Stopped, &mut source, &mut Blind, &Progress::new())
    });
    assert_eq!(outcome.verdict, Verdict::Failed);
    assert_eq!(outcome.failure.unwrap().kind, FailureKind::ClockStopped);
}

#[test]
fn a_clock_that_steps_back_costs_almost_nothing() {
    let crash = |seed, at_us, by_us| {
        let machine = Machine::new(random_ram(1 << 20, 1));
        crash_jumping(&machine, &world(&lossy(0.05), seed), at_us, by_us)
    };
    // A seed that spares ARP and herald: each jump is in mid-dump.
    let seed = 2;
    let (steady, steady_us) = crash(seed, 0, 0);
    assert_eq!(steady.verdict, Verdict::Confirmed);
    assert!(steady_us < 100_000 && steady.retransmits > 0, "{steady:?}");
    for by_us in [-900_000, -3_600_000_000] {
        for eighth in 1..8 {
            let at_us = steady_us * eighth / 8;
            let (outcome, took_us) = crash(seed, at_us, by_us);
            assert_eq!(outcome.verdict, Verdict::Confirmed, "at {at_us} by {by_us}: {outcome:?}");
            assert!(took_us < steady_us + 10_000, "at {at_us} by {by_us}: {took_us}");
        }
    }
}

/// A paused or migrated VM: longer than `no_progress`, and nobody's fault.
#[test]
fn a_clock_that_jumps_ahead_is_no_silence() {
    for at_us in [2_000, 5_000, 8_000] {
        let machine = Machine::new(random_ram(1 << 20, 1));
        let world = world(&lossy(0.0), 1);
        let (outcome, _) = crash_jumping(&machine, &world, at_us, 13_000_000);
        assert!(outcome.elapsed_us > 13_000_000, "at {at_us}: it was over before");
        assert_identical(&machine, &world, &outcome);
    }
}

/// As above where frames are lost, so that often none waits to be heard right after the jump.
#[test]
fn a_clock_that_jumps_ahead_on_a_quiet_wire_is_no_silence() {
    let crash = |at_us, by_us| {
        let machine = Machine::new(random_ram(100_000, 1));
        crash_jumping(&machine, &world(&lossy(0.2), 2), at_us, by_us)
    };
    let (steady, steady_us) = crash(0, 0);
    assert_eq!(steady.verdict, Verdict::Confirmed);
    for part in 1..40 {
        let at_us = steady_us * part / 40;
        let (outcome, _) = crash(at_us, 13_000_000);
        assert_eq!(outcome.verdict, Verdict::Confirmed, "at {at_us}: {outcome:?}");
        assert!(outcome.elapsed_us > 13_000_000, "at {at_us}: it was over before");
    }
}

#[test]
fn a_clock_that_jumps_ahead_during_the_wait_for_the_link_is_no_missing_link() {
    let machine = Machine::new(random_ram(100_000, 1));
    let world = world(&lossy(0.0), 1);
    let now = world.borrow().now();
    for (at, up) in [(now, false), (now.after(500_000), true)] {
        let set = move |world: &mut netsim::world::World<CoreServer>| {
            world.device().expect("in the dump").borrow_mut().link_up = up;
        };
        world.borrow_mut().at(at, Box::new(set));
    }
    let (outcome, _) = crash_jumping(&machine, &world, 200_000, 13_000_000);
    assert!(outcome.elapsed_us > 13_000_000);
    assert_identical(&machine, &world, &outcome);
}

#[test]
fn a_clock_that_jumps_ahead_during_the_herald_is_no_silence() {
    let machine = Machine::new(random_ram(100_000, 1));
    let world = dead_world();
    let now = world.borrow().now();
    let rise = |world: &mut netsim::world::World<CoreServer>| world.server.is_dead = false;
    world.borrow_mut().at(now.after(500_000), Box::new(rise));
    let (outcome, _) = crash_jumping(&machine, &world, 200_000, 13_000_000);
    assert!(outcome.elapsed_us > 13_000_000);
    assert_identical(&machine, &world, &outcome);
}

// Order.

#[test]
fn the_herald_is_alone_until_it_is_acknowledged() {
    let mut slots = [Slot::EMPTY; 16];
    let mut index = [0u16; 128];
    let mut session = Session::new(&mut slots, &mut index, 1448);
    let message =
        |kind| Message { kind, aux2: 0, offset: 0, len: 0, stored: Stored::None, sum: Some(0) };
    let mut now = Instant::from_micros(10);
    session.herald(message(debugnet::HERALD)).unwrap();
    session.send(message(debugnet::VMCORE)).unwrap();
    for round in 1..=3 {
        let id = session.poll_transmit(now).expect("the herald");
        let (next, seqno, tries) = session.message(id).unwrap();
        assert_eq!((next.kind, seqno, tries), (debugnet::HERALD, 1, round - 1));
        session.on_sent(now, id, TxTicket(u64::from(round)));
        assert!(session.poll_transmit(now).is_none(), "round {round}");
        now = session.poll_timeout(now);
        session.handle_timeout(now);
    }
    session.handle_datagram(now, 40_000, &1u32.to_be_bytes());
    assert_eq!(session.server_port(), Some(40_000));
    let id = session.poll_transmit(now).expect("what waited for it");
    assert_eq!(session.message(id).unwrap().0.kind, debugnet::VMCORE);
}

#[test]
fn nothing_is_sent_without_a_herald() {
    let mut slots = [Slot::EMPTY; 16];
    let mut index = [0u16; 128];
    let mut session = Session::new(&mut slots, &mut index, 1448);
    let (aux2, offset, len, stored) = (0, 0, 0, Stored::None);
    let kind = debugnet::VMCORE;
    session.send(Message { kind, aux2, offset, len, stored, sum: Some(0) }).unwrap();
    let now = Instant::from_micros(10);
    assert!(session.poll_transmit(now).is_none());
    assert_eq!(session.poll_timeout(now), Instant::NEVER);
}

/// A transform that fails on a page: stream offsets and the source's are not mixed.
#[test]
fn holes_of_a_transformed_image_are_counted_once() {
    struct Fails(u64);
    impl Transform for Fails {
        fn restart(&mut self) {
            self.0 = 0;
        }
        fn next(
            &mut self,
            _: &mut ImageStream<'_>,
            cell: &mut [u8],
        ) -> Result<usize, TransformError> {
            if self.0 >= 50_000 {
                return Err(TransformError("enough"));
            }
            cell.fill(1);
            self.0 += cell.len() as u64;
            Ok(cell.len())
        }
        fn compression(&self) -> u8 {
            0
        }
    }
    let machine = Machine::new(random_ram(100_000, 1));
    let world = world(&lossy(0.0), 1);
    let outcome = machine.crash_with(&world, Some(&mut Fails(0)), &mut Blind, &DumpInfo::default());
    assert_eq!(outcome.verdict, Verdict::Failed);
    let failure = outcome.failure.expect("it says why");
    assert_eq!(failure.kind, FailureKind::Transform(TransformError("enough")));
    assert_eq!(outcome.acked_bytes + outcome.holes.bytes(), 100_000);
}
