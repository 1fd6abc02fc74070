//! One direction of an Ethernet link: frames in with a time, frames out with
//! the time they arrive.
//!
//! The same model serves the simulator (virtual time), the fuzzers and the
//! QEMU runs (driven in real time). It reads no clock and starts no thread.
//! A two-way link is two of them ([`Link::pair`]).
//!
//! A frame passes these stations, in this order:
//!
//! 1. the **queue** in front of the bottleneck: full means dropped (tail drop);
//! 2. the **line**, one frame at a time at `rate_bps`, with what Ethernet adds
//!    to each frame ([`WIRE_OVERHEAD`]);
//! 3. **loss**: the explicit list, a line that is down, random, bursts. A lost
//!    frame has used the line all the same;
//! 4. **corruption**, past the FCS as by a bad memory in a switch: the frame
//!    arrives with flipped bits;
//! 5. **delay** and jitter. Jitter alone never changes the order;
//! 6. **reordering**: a chosen frame is held back and may be overtaken;
//! 7. **duplication**: a copy with its own jitter and its own chance to be held back.
//!
//! Each station draws from a random sequence of its own, so that the loss
//! pattern of a seed stays the same when, say, jitter is switched on.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use debugnet_core::time::Instant;

use crate::rng::Rng;

/// Bytes a frame costs on the wire beyond its own (IEEE 802.3 clauses 3 and
/// 4.4): preamble and start delimiter 8, FCS 4, inter-frame gap 12.
pub const WIRE_OVERHEAD: usize = 24;

/// Shortest frame on the wire in bytes, without FCS; shorter ones are padded
/// there (the frame delivered keeps its length).
pub const MIN_FRAME: usize = 60;

/// What a [`Link`] does to frames. The default is a perfect link: any rate, no delay.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct LinkConfig {
    /// Line rate in bit/s; 0 means that a frame takes no time.
    pub rate_bps: u64,
    /// One-way delay in microseconds.
    pub delay_us: u64,
    /// Extra delay, uniform between 0 and this many microseconds.
    pub jitter_us: u64,
    /// Probability (0 to 1) that a frame is lost, each for itself.
    pub loss: f64,
    /// Loss in bursts, on top of `loss`.
    pub burst: Option<GilbertElliott>,
    /// Probability that a frame arrives twice.
    pub duplicate: f64,
    /// Probability that a frame is held back by `reorder_delay_us`.
    pub reorder: f64,
    /// How long a frame chosen by `reorder` is held back, in microseconds.
    pub reorder_delay_us: u64,
    /// Probability that one bit, anywhere in the frame, is flipped.
    pub corrupt: f64,
    /// Frames that may wait for the line, the one being sent not counted; `None` for no limit.
    pub queue_frames: Option<usize>,
    /// Frames to drop by ordinal: 0 is the first one offered to this link.
    pub drop_list: BTreeSet<u64>,
}

impl LinkConfig {
    /// A link of `rate_bps` bit/s and `delay_us` one way, otherwise perfect.
    pub fn new(rate_bps: u64, delay_us: u64) -> Self {
        Self { rate_bps, delay_us, ..Self::default() }
    }
}

/// Loss in bursts (Gilbert 1960, Elliott 1963): a two-state chain that moves once a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GilbertElliott {
    /// Probability to go from good to bad.
    pub to_bad: f64,
    /// Probability to go from bad to good; 1 / this is the mean length of a burst in frames.
    pub to_good: f64,
    /// Loss in the good state.
    pub loss_good: f64,
    /// Loss in the bad state.
    pub loss_bad: f64,
}

impl GilbertElliott {
    /// All frames lost in the bad state, none in the good one: `loss` of all
    /// frames (0 to below 1) in bursts of `burst_frames` on average.
    pub fn bursts(loss: f64, burst_frames: f64) -> Self {
        let to_good = 1.0 / burst_frames.max(1.0);
        // Stationary share of the bad state: to_bad / (to_bad + to_good) = loss.
        let to_bad = (loss * to_good / (1.0 - loss).max(f64::MIN_POSITIVE)).min(1.0);
        Self { to_bad, to_good, loss_good: 0.0, loss_bad: 1.0 }
    }
}

/// What has happened to the frames of one direction so far.
///
/// At any time `offered + duplicated == delivered + lost + queue_dropped + in flight`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counters {
    /// Frames given to [`Link::send`].
    pub offered: u64,
    /// Frames taken from [`Link::deliver`], copies included.
    pub delivered: u64,
    /// Frames lost on the line: at random, in a burst, by the list, or while it was down.
    pub lost: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Frames and copies held back.
    pub reordered: u64,
    /// Frames with a flipped bit.
    pub corrupted: u64,
    /// Frames dropped because the queue was full.
    pub queue_dropped: u64,
}

impl Counters {
    /// Frames that went in and will never come out.
    pub const fn dropped(&self) -> u64 {
        self.lost + self.queue_dropped
    }
}

/// A frame that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The Ethernet frame without FCS.
    pub bytes: Vec<u8>,
    /// When it arrived; not before the time that [`Link::deliver`] was asked for it.
    pub at: Instant,
    /// Its place among the frames offered, from 0; a copy has the ordinal of its original.
    pub ordinal: u64,
}

/// One direction of a link. See the [module documentation](self).
///
/// ```
/// use debugnet_core::time::Instant;
/// use netsim::link::{Link, LinkConfig};
///
/// // 1 Gbit/s, 50 us: (1514 + 24) bytes take 12.304 us on the line.
/// let mut link = Link::new(LinkConfig::new(1_000_000_000, 50), 1);
/// link.send(Instant::ZERO, &[0; 1514]);
/// let at = link.next_delivery().unwrap();
/// assert_eq!(at.as_micros(), 63); // 62.304, rounded up
/// let frame = link.deliver(at).unwrap();
/// assert_eq!(frame.bytes.len(), 1514);
/// link.recycle(frame);
/// ```
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    counters: Counters,
    up: bool,
    in_bad_state: bool,
    /// When the line is free again, and the part of a nanosecond, in units of
    /// 1 / `rate_bps` ns, by which it is later than that.
    line_free_ns: u64,
    line_free_rest: u64,
    /// When each frame in queue or on the line leaves it; kept only with a queue limit.
    departures_ns: VecDeque<u64>,
    /// No frame that keeps the order arrives before this.
    order_floor_ns: u64,
    in_flight: BinaryHeap<Reverse<InFlight>>,
    /// Separates frames that arrive in the same nanosecond: first in, first out.
    next_tie: u64,
    /// Buffers of delivered frames, to be used again.
    spare: Vec<Vec<u8>>,
    streams: Streams,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    at_ns: u64,
    tie: u64,
    ordinal: u64,
    bytes: Vec<u8>,
}

/// One random sequence for each station.
#[derive(Debug)]
struct Streams {
    loss: Rng,
    burst: Rng,
    corrupt: Rng,
    jitter: Rng,
    reorder: Rng,
    duplicate: Rng,
}

/// Spare buffers kept; more would only hold memory after a burst.
const SPARE_MAX: usize = 4096;

impl Link {
    /// A link that does what `config` says, with the random sequences of `seed`.
    pub fn new(config: LinkConfig, seed: u64) -> Self {
        Self {
            config,
            counters: Counters::default(),
            up: true,
            in_bad_state: false,
            line_free_ns: 0,
            line_free_rest: 0,
            departures_ns: VecDeque::new(),
            order_floor_ns: 0,
            in_flight: BinaryHeap::new(),
            next_tie: 0,
            spare: Vec::new(),
            streams: Streams {
                loss: Rng::stream(seed, 0),
                burst: Rng::stream(seed, 1),
                corrupt: Rng::stream(seed, 2),
                jitter: Rng::stream(seed, 3),
                reorder: Rng::stream(seed, 4),
                duplicate: Rng::stream(seed, 5),
            },
        }
    }

    /// Two links of the same kind with sequences of their own: one for each direction.
    pub fn pair(config: &LinkConfig, seed: u64) -> (Self, Self) {
        let mut seeds = Rng::stream(seed, u64::MAX);
        let mut one = || Self::new(config.clone(), seeds.next_u64());
        (one(), one())
    }

    /// Offers a frame at `now`. It is lost, or comes out of [`Link::deliver`] later.
    ///
    /// `now` should not go back; a frame offered "earlier" than the last one queues behind it.
    pub fn send(&mut self, now: Instant, frame: &[u8]) {
        let now_ns = to_ns(now);
        let ordinal = self.counters.offered;
        self.counters.offered += 1;
        if !self.has_room(now_ns) {
            self.counters.queue_dropped += 1;
            return;
        }
        let sent_ns = self.occupy_line(now_ns, frame.len());
        if self.is_lost(ordinal) {
            self.counters.lost += 1;
            return;
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(frame);
        self.corrupt(&mut bytes);

        let copy = self.streams.duplicate.chance(self.config.duplicate).then(|| {
            let mut copy = self.spare.pop().unwrap_or_default();
            copy.clone_from(&bytes);
            copy
        });
        self.launch(sent_ns, ordinal, bytes);
        if let Some(copy) = copy {
            self.counters.duplicated += 1;
            self.launch(sent_ns, ordinal, copy);
        }
    }

    /// When the next frame arrives, rounded up to a microsecond; `None` if none is on its way.
    pub fn next_delivery(&self) -> Option<Instant> {
        self.in_flight.peek().map(|Reverse(next)| to_instant(next.at_ns))
    }

    /// The next frame that has arrived by `now`, in order of arrival.
    pub fn deliver(&mut self, now: Instant) -> Option<Frame> {
        if self.next_delivery()? > now {
            return None;
        }
        let Reverse(InFlight { at_ns, ordinal, bytes, .. }) = self.in_flight.pop()?;
        self.counters.delivered += 1;
        Some(Frame { bytes, at: to_instant(at_ns), ordinal })
    }

    /// Gives the buffer of a delivered frame back, which spares an allocation.
    pub fn recycle(&mut self, frame: Frame) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(frame.bytes);
        }
    }

    /// Cuts the link, or joins it again. Frames offered while it is down are
    /// lost; those already on their way arrive.
    pub fn set_up(&mut self, up: bool) {
        self.up = up;
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Frames on their way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// What the link was made to do.
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    fn has_room(&mut self, now_ns: u64) -> bool {
        let Some(limit) = self.config.queue_frames else { return true };
        while self.departures_ns.front().is_some_and(|&left_ns| left_ns <= now_ns) {
            self.departures_ns.pop_front();
        }
        // The front one is being sent; the rest wait.
        self.departures_ns.len() <= limit
    }

    /// Puts a frame on the line and says when its last bit has left.
    fn occupy_line(&mut self, now_ns: u64, len: usize) -> u64 {
        if self.line_free_ns < now_ns {
            self.line_free_ns = now_ns;
            self.line_free_rest = 0;
        }
        if self.config.rate_bps > 0 {
            let bits = 8 * (len.max(MIN_FRAME) + WIRE_OVERHEAD) as u128;
            let rate = u128::from(self.config.rate_bps);
            // The remainder is carried along: n frames take exactly n times
            // as long as one, whatever the rate.
            let scaled = bits * 1_000_000_000 + u128::from(self.line_free_rest);
            let took_ns = u64::try_from(scaled / rate).unwrap_or(u64::MAX);
            self.line_free_ns = self.line_free_ns.saturating_add(took_ns);
            self.line_free_rest = (scaled % rate) as u64;
        }
        if self.config.queue_frames.is_some() {
            self.departures_ns.push_back(self.line_free_ns);
        }
        self.line_free_ns
    }

    fn is_lost(&mut self, ordinal: u64) -> bool {
        let by_chance = self.streams.loss.chance(self.config.loss);
        let in_burst = match self.config.burst {
            None => false,
            Some(chain) => {
                let leave = if self.in_bad_state { chain.to_good } else { chain.to_bad };
                self.in_bad_state ^= self.streams.burst.chance(leave);
                let loss = if self.in_bad_state { chain.loss_bad } else { chain.loss_good };
                self.streams.burst.chance(loss)
            }
        };
        !self.up || by_chance || in_burst || self.config.drop_list.contains(&ordinal)
    }

    fn corrupt(&mut self, bytes: &mut [u8]) {
        if self.streams.corrupt.chance(self.config.corrupt) && !bytes.is_empty() {
            let bit = self.streams.corrupt.below(8 * bytes.len() as u64);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            self.counters.corrupted += 1;
        }
    }

    /// Sends a frame, or a copy, that left the line at `sent_ns` on its way.
    fn launch(&mut self, sent_ns: u64, ordinal: u64, bytes: Vec<u8>) {
        let jitter_ns = match self.config.jitter_us {
            0 => 0,
            max_us => self.streams.jitter.below(max_us.saturating_mul(1000).saturating_add(1)),
        };
        let due_ns = sent_ns
            .saturating_add(self.config.delay_us.saturating_mul(1000))
            .saturating_add(jitter_ns);
        let at_ns = if self.streams.reorder.chance(self.config.reorder) {
            self.counters.reordered += 1;
            due_ns.saturating_add(self.config.reorder_delay_us.saturating_mul(1000))
        } else {
            self.order_floor_ns = self.order_floor_ns.max(due_ns);
            self.order_floor_ns
        };
        let tie = self.next_tie;
        self.next_tie += 1;
        self.in_flight.push(Reverse(InFlight { at_ns, tie, ordinal, bytes }));
    }
}

fn to_ns(at: Instant) -> u64 {
    at.as_micros().saturating_mul(1000)
}

fn to_instant(at_ns: u64) -> Instant {
    Instant::from_micros(at_ns.div_ceil(1000))
}

#[cfg(test)]
mod tests;
