//! Any chip on any bus against the driver: what the fuzz target and its property test run.

use std::collections::VecDeque;

use arbitrary::{Arbitrary, Unstructured};
use debugnet_core::addr::MacAddr;
use debugnet_core::nic::{
    Checksum, Nic, NicError, Payload, RxError, Start, TxError, TxFrame, TxTicket,
};
use debugnet_core::time::Clock;

use super::{FakeClock, FakeDriver, FakeW5500, Lies};

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
/// Steps of one story: what lies beyond says nothing new.
const DEEDS_MAX: usize = 64;
/// Transfers of one call, and the time that they and the pauses between them take: a command
/// that is never taken, and all the openings that follow.
const TRANSFERS_MAX: u64 = 2_000;
const CALL_US_MAX: u64 = 10_000;
/// Steps in which a take-over has to end, one way or the other: each look at the reset may cost
/// sixteen failed transfers.
const START_STEPS_MAX: usize = 20_000;
const FRAME_MIN: usize = 60;
const FRAME_MAX: usize = 1514;

/// How the chip or the bus is unlike an honest one.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Twist {
    BusFailsEvery(Option<u8>),
    Gone(bool),
    Version(Option<u8>),
    ResetNeverEnds(bool),
    CommandsNeverTaken(bool),
    NeverOpens(bool),
    NeverSends(bool),
    SendTimesOut(bool),
    CountersUnsteady(bool),
    RxPrefix(Option<u16>),
    RxWaiting(Option<u16>),
    Noise(u64),
    NoLink(bool),
}

impl Twist {
    /// Whether frames may now be wrong, and the driver be seen to do what it must not, because
    /// it was told wrong of the chip's state.
    const fn misleads(self) -> bool {
        match self {
            Self::Gone(it) | Self::ResetNeverEnds(it) | Self::CountersUnsteady(it) => it,
            Self::RxPrefix(it) | Self::RxWaiting(it) => it.is_some(),
            Self::Noise(seed) => seed != 0,
            _ => false,
        }
    }

    fn apply(self, lies: &mut Lies) {
        match self {
            Self::BusFailsEvery(n) => lies.bus_fails_every = n.map(|n| u32::from(n) + 1),
            Self::Gone(gone) => lies.gone = gone,
            Self::Version(version) => lies.version = version,
            Self::ResetNeverEnds(never) => lies.reset_never_ends = never,
            Self::CommandsNeverTaken(never) => lies.commands_never_taken = never,
            Self::NeverOpens(never) => lies.never_opens = never,
            Self::NeverSends(never) => lies.never_sends = never,
            Self::SendTimesOut(on) => lies.send_times_out = on,
            Self::CountersUnsteady(on) => lies.counters_unsteady = on,
            Self::RxPrefix(prefix) => lies.rx_prefix = prefix,
            Self::RxWaiting(waiting) => lies.rx_waiting = waiting,
            Self::Noise(seed) => lies.noise = seed,
            Self::NoLink(none) => lies.no_link = none,
        }
    }
}

/// What the firmware does with its driver.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Use {
    Start(u8),
    Send { header_len: u8, payload_len: u16 },
    Kick,
    Reap(u16),
    Receive { looks: u16, room: u16 },
    Link,
    Stop,
}

/// What the chip does, besides sending what it is given.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Deed {
    Use(Use),
    Deliver(u16),
    ScribbleRx { at: u16, word: u64 },
    SetSocket { at: u8, value: u16 },
    SetCommon { at: u8, value: u8 },
    ResetItself,
    Twist(Twist),
}

struct Story {
    fake: FakeW5500,
    nic: FakeDriver,
    clock: FakeClock,
    /// Last ticket given, and low-water mark.
    last: TxTicket,
    mark: TxTicket,
    /// Given to the driver and not seen on the wire, the last kicked one among them.
    sent: VecDeque<(TxTicket, Vec<u8>)>,
    kicked: TxTicket,
    /// In the chip, not read.
    incoming: VecDeque<Vec<u8>>,
    delivered: u8,
    misled: bool,
    /// A transfer may have failed, or a frame never left, at some time.
    ever: Ever,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ever {
    bus_failed: bool,
    stuck: bool,
}

impl Ever {
    /// A frame that the chip heard of by a failed transfer, and that never leaves, looks like one
    /// that it did not hear of.
    fn misleads(&mut self, twist: Twist) -> bool {
        self.bus_failed |= matches!(twist, Twist::BusFailsEvery(Some(_)));
        self.stuck |= matches!(twist, Twist::NeverSends(true));
        self.bus_failed && self.stuck
    }
}

/// Tells the story that `data` stands for: a chip, its bus, and what they and the firmware do.
/// Any bytes are one.
///
/// # Panics
/// If the driver breaks a promise: tickets that skip or go back, a call without end, a take-over
/// without end, one that does not mend a chip which is honest again; where the chip gave no cause
/// for it, anything that it must not do, and a frame, either way, that is not what it was.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    // Out of bytes: the story is over.
    let _ = tell(&mut input);
}

fn tell(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let mut lies = Lies::default();
    let (mut misled, mut ever) = (false, Ever::default());
    for _ in 0..u8::arbitrary(input)? % 4 {
        let twist = Twist::arbitrary(input)?;
        twist.apply(&mut lies);
        misled |= twist.misleads() | ever.misleads(twist);
    }
    let fake = FakeW5500::new(lies);
    let mut story = Story {
        nic: fake.driver(MAC),
        clock: fake.clock(),
        fake,
        last: TxTicket::NONE,
        mark: TxTicket::NONE,
        sent: VecDeque::new(),
        kicked: TxTicket::NONE,
        incoming: VecDeque::new(),
        delivered: 0,
        misled,
        ever,
    };
    story.start(u8::MAX);
    for _ in 0..DEEDS_MAX {
        if input.is_empty() {
            break;
        }
        let Ok(deed) = Deed::arbitrary(input) else { break };
        story.act(deed);
        story.look_at_the_wire();
    }
    story.recover();
    Ok(())
}

impl Story {
    /// Does something with the driver and checks that the chip was not asked without end.
    fn bounded<T>(&mut self, call: impl FnOnce(&mut Self) -> T) -> T {
        let (transfers, us) = (self.fake.transfers(), self.fake.now_us());
        let result = call(self);
        let (transfers, us) = (self.fake.transfers() - transfers, self.fake.now_us() - us);
        assert!(transfers <= TRANSFERS_MAX, "{transfers} transfers in a call");
        assert!(us <= CALL_US_MAX, "{us} us in a call");
        result
    }

    fn act(&mut self, deed: Deed) {
        match deed {
            Deed::Use(it) => self.make_use(it),
            Deed::Deliver(len) => self.deliver(len),
            Deed::ScribbleRx { at, word } => {
                self.misled = true;
                self.fake.scribble_rx(at, &word.to_le_bytes());
            }
            Deed::SetSocket { at, value } => {
                self.misled = true;
                self.fake.set_socket(at, value);
            }
            Deed::SetCommon { at, value } => {
                self.misled = true;
                self.fake.set_common(at, value);
            }
            Deed::ResetItself => {
                self.misled = true;
                self.fake.reset_itself();
            }
            Deed::Twist(twist) => {
                self.misled |= twist.misleads() | self.ever.misleads(twist);
                self.fake.change(|lies| twist.apply(lies));
            }
        }
    }

    fn deliver(&mut self, len: u16) {
        self.delivered = self.delivered.wrapping_add(1);
        let mut frame = MAC.0.to_vec();
        frame.resize(FRAME_MIN + usize::from(len) % (FRAME_MAX - FRAME_MIN + 1), self.delivered);
        if self.fake.deliver(&frame) {
            self.incoming.push_back(frame);
        }
    }

    /// A step of the take-over: whether there is another one.
    fn step(&mut self) -> Result<Start, NicError> {
        let step = self.bounded(|story| story.nic.poll_start(&mut story.clock));
        self.clock.relax();
        step
    }

    fn start(&mut self, steps: u8) {
        let is_whole = steps >= 128;
        let steps = if is_whole { START_STEPS_MAX } else { usize::from(steps) };
        for _ in 0..steps {
            if !matches!(self.step(), Ok(Start::Again { .. })) {
                return;
            }
        }
        assert!(!is_whole, "a take-over without end");
    }

    fn make_use(&mut self, it: Use) {
        match it {
            Use::Start(steps) => self.start(steps),
            Use::Send { header_len, payload_len } => drop(self.send(header_len, payload_len)),
            Use::Kick => self.kick(),
            Use::Reap(looks) => {
                // As many as it takes to look closer a few times.
                for _ in 0..looks % 4_096 {
                    if self.reap().is_err() {
                        break;
                    }
                }
            }
            Use::Receive { looks, room } => {
                for _ in 0..looks % 8_192 {
                    if self.receive(usize::from(room) % (FRAME_MAX + 1)).is_err() {
                        break;
                    }
                }
            }
            Use::Link => drop(self.bounded(|story| story.nic.link())),
            Use::Stop => {
                assert_eq!(self.bounded(|story| story.nic.stop()), Ok(()));
                assert_eq!(self.nic.poll_tx(), Err(NicError::NotStarted));
            }
        }
    }

    fn send(&mut self, header_len: u8, payload_len: u16) -> Result<TxTicket, TxError> {
        let payload = vec![payload_len as u8; usize::from(payload_len) % 1_600];
        let mut header = vec![0xe0; usize::from(header_len) % 120];
        // Frames differ.
        for (byte, number) in header.iter_mut().zip(self.last.next().0.to_le_bytes()) {
            *byte = number;
        }
        let frame = TxFrame {
            header: &header,
            payload: Payload::Bytes(&payload),
            checksum: Checksum::Complete,
        };
        let ticket = self.bounded(|story| story.nic.transmit(&frame))?;
        assert_eq!(ticket, self.last.next());
        self.last = ticket;
        let mut whole = [header, payload].concat();
        whole.resize(whole.len().max(FRAME_MIN), 0);
        assert!(whole.len() <= FRAME_MAX, "{} bytes taken", whole.len());
        self.sent.push_back((ticket, whole));
        Ok(ticket)
    }

    fn kick(&mut self) {
        self.kicked = self.last;
        self.bounded(|story| story.nic.kick());
    }

    fn reap(&mut self) -> Result<TxTicket, NicError> {
        let mark = self.bounded(|story| story.nic.poll_tx())?;
        assert!(self.mark <= mark && mark <= self.last, "{mark:?}");
        self.mark = mark;
        Ok(mark)
    }

    /// Takes a frame, if there is one; an error if there is no use in going on.
    fn receive(&mut self, room: usize) -> Result<(), ()> {
        let mut buf = [0; FRAME_MAX];
        match self.bounded(|story| story.nic.receive(&mut buf[..room])) {
            Ok(Some(len)) => {
                assert!((14..=room).contains(&len), "{len}");
                if !self.misled {
                    // Those before it were too long for the buffer, or lost as the socket was
                    // opened again.
                    let found = self.incoming.iter().position(|frame| frame == &buf[..len]);
                    let at = found.expect("a frame that was not delivered, or not now");
                    self.incoming.drain(..=at);
                }
                Ok(())
            }
            Ok(None) | Err(RxError::Device(_)) => Err(()),
            Err(_) => Ok(()),
        }
    }

    /// What left is what was given, in order, and kicked.
    fn look_at_the_wire(&mut self) {
        let frames = self.fake.take_frames();
        if self.misled {
            return;
        }
        for frame in frames {
            let at = self.sent.iter().position(|(_, sent)| *sent == frame);
            let at = at.expect("a frame that was not sent, or not now");
            let ticket = self.sent.drain(..=at).next_back().map(|(ticket, _)| ticket);
            assert!(ticket <= Some(self.kicked), "{ticket:?} left before a kick");
        }
        let violations = self.fake.violations();
        assert!(violations.is_empty(), "{violations:?}");
    }

    /// The chip is honest again: taken over once more, it works, whatever it was.
    fn recover(&mut self) {
        self.fake.change(|lies| *lies = Lies::default());
        self.make_use(Use::Stop);
        self.start(u8::MAX);
        self.fake.take_frames();
        self.fake.forgive();
        (self.misled, self.kicked) = (false, self.last);
        self.sent.clear();
        self.incoming.clear();
        let ticket = self.send(66, 1_448).expect("room in an empty buffer");
        self.kick();
        for _ in 0..64 {
            if self.reap().expect("a chip that works") >= ticket {
                break;
            }
        }
        assert_eq!(self.mark, ticket);
        self.look_at_the_wire();
        assert!(self.sent.is_empty(), "it never left");
        self.deliver(0);
        assert_eq!(self.receive(FRAME_MAX), Ok(()));
        assert!(self.incoming.is_empty() && self.delivered != 0, "it never came");
    }
}
