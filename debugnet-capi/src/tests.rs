//! Whole dumps through the C interface, from the other side of it. `netsim` is the
//! far end: smoltcp reads every frame there.
#![allow(unsafe_code, clippy::multiple_unsafe_ops_per_block)]

use core::ffi::{CStr, c_char, c_void};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::ptr;

use debugnet_core::addr::MacAddr;
use debugnet_core::time::Instant;
use netsim::host::{Host, Input};
use netsim::server::{CoreServer, Server};

use super::*;

/// A machine, its wire, and the server behind it: the `context` of every function.
struct World {
    now_us: u64,
    host: Host,
    server: CoreServer,
    queued: VecDeque<Vec<u8>>,
    received: VecDeque<Vec<u8>>,
    left: u64,
    started: u32,
    stopped: u32,
    alive: u64,
    done: u64,
    ram: Vec<u8>,
    /// Says of every frame that so many more have left.
    overclaims: u64,
}

impl World {
    fn new() -> Self {
        Self {
            now_us: 0,
            host: Host::new(MacAddr([2, 0, 0, 0, 0, 2]), Ipv4Addr::new(10, 99, 0, 2)),
            server: CoreServer::default(),
            queued: VecDeque::new(),
            received: VecDeque::new(),
            left: 0,
            started: 0,
            stopped: 0,
            alive: 0,
            done: 0,
            ram: (0..300_001_u32).map(|at| (at * 7 + at / 251) as u8).collect(),
            overclaims: 0,
        }
    }

    fn pass(&mut self) {
        let now = Instant::from_micros(self.now_us);
        while let Some(frame) = self.queued.pop_front() {
            self.left += 1;
            match self.host.receive(&frame) {
                Input::Dropped => {}
                Input::Reply(reply) => self.received.push_back(reply),
                Input::Datagram(datagram) => self.server.datagram(now, datagram),
            }
        }
        while let Some(reply) = self.server.poll_reply(now) {
            self.received.extend(self.host.datagram(reply.from_port, reply.to, &reply.payload));
        }
    }
}

/// # Safety
/// `context` is the world of the test that runs.
unsafe fn world<'a>(context: *mut c_void) -> &'a mut World {
    // SAFETY: one thread; the library never calls a function inside another.
    unsafe { &mut *context.cast() }
}

extern "C" fn capabilities(_: *mut c_void, told: *mut Capabilities) {
    let mac = [2, 0, 0, 0, 0, 9];
    // SAFETY: the library gives room for one.
    unsafe { *told = Capabilities { mac, ip_mtu: 1500, tx_slots: 8, dma: 0, checksum: 0 } };
}

extern "C" fn start(context: *mut c_void, now_us: u64, until_us: *mut u64) -> i32 {
    // SAFETY: as `world` says; room for one.
    let (world, until_us) = unsafe { (world(context), &mut *until_us) };
    world.started += 1;
    *until_us = now_us + 100;
    if world.started % 3 == 0 { DEBUGNET_NIC_OK } else { DEBUGNET_NIC_AGAIN }
}

extern "C" fn link(_: *mut c_void) -> i32 {
    DEBUGNET_LINK_UP
}

extern "C" fn transmit(context: *mut c_void, frame: *const Frame) -> i32 {
    // SAFETY: as `world` says; one frame.
    let (world, frame) = unsafe { (world(context), &*frame) };
    if world.queued.len() == 8 {
        return DEBUGNET_NIC_FULL;
    }
    // SAFETY: the library's bytes until this returns.
    let mut bytes = unsafe { std::slice::from_raw_parts(frame.header, frame.header_len) }.to_vec();
    if frame.payload_len != 0 {
        // SAFETY: as the header.
        bytes.extend(unsafe { std::slice::from_raw_parts(frame.payload, frame.payload_len) });
    }
    bytes.resize(bytes.len().max(60), 0);
    world.queued.push_back(bytes);
    DEBUGNET_NIC_OK
}

extern "C" fn kick(context: *mut c_void) {
    // SAFETY: as `world` says.
    unsafe { world(context) }.pass();
}

extern "C" fn transmitted(context: *mut c_void, frames: *mut u64) -> i32 {
    // SAFETY: as `world` says; room for one.
    let (world, frames) = unsafe { (world(context), &mut *frames) };
    *frames = world.left + world.overclaims;
    DEBUGNET_NIC_OK
}

extern "C" fn receive(context: *mut c_void, buffer: *mut u8, len: usize) -> isize {
    // SAFETY: as `world` says; `len` bytes.
    let (world, buffer) = unsafe { (world(context), std::slice::from_raw_parts_mut(buffer, len)) };
    let Some(frame) = world.received.pop_front() else { return 0 };
    buffer[..frame.len()].copy_from_slice(&frame);
    frame.len() as isize
}

extern "C" fn stop(context: *mut c_void) -> i32 {
    // SAFETY: as `world` says.
    unsafe { world(context) }.stopped += 1;
    DEBUGNET_NIC_OK
}

extern "C" fn now_us(context: *mut c_void) -> u64 {
    // SAFETY: as `world` says.
    unsafe { world(context) }.now_us
}

extern "C" fn relax(context: *mut c_void) {
    // SAFETY: as `world` says.
    unsafe { world(context) }.now_us += 50;
}

extern "C" fn alive(context: *mut c_void) {
    // SAFETY: as `world` says.
    unsafe { world(context) }.alive += 1;
}

extern "C" fn progress(context: *mut c_void, done: u64, _: u64) {
    // SAFETY: as `world` says.
    unsafe { world(context) }.done = done;
}

extern "C" fn read(context: *mut c_void, phys: u64, to: *mut u8, len: usize) -> i32 {
    // SAFETY: as `world` says; `len` bytes.
    let (world, to) = unsafe { (world(context), std::slice::from_raw_parts_mut(to, len)) };
    let from = (phys - 0x1000) as usize;
    match world.ram.get(from..from + len) {
        Some(bytes) => {
            to.copy_from_slice(bytes);
            0
        }
        None => -1,
    }
}

/// All that a C caller would have in statics.
struct Caller {
    nic: Nic,
    machine: Machine,
    image: Image,
    facts: Facts,
    _extents: Vec<Extent>,
}

impl Caller {
    fn new(world: *mut World) -> Self {
        let context = world.cast();
        // SAFETY: the test's world; this borrow ends here.
        let len = unsafe { (*world).ram.len() } as u64;
        let extents = vec![
            Extent { offset: 0, phys: 0x1000, len: len - 5000, is_volatile: 0 },
            Extent { offset: len - 5000, phys: 0x1000 + len - 5000, len: 5000, is_volatile: 1 },
        ];
        let nic = Nic {
            context,
            capabilities: Some(capabilities),
            start: Some(start),
            link: Some(link),
            transmit: Some(transmit),
            kick: Some(kick),
            transmitted: Some(transmitted),
            receive: Some(receive),
            stop: Some(stop),
        };
        let machine = Machine {
            context,
            now_us: Some(now_us),
            relax: Some(relax),
            alive: Some(alive),
            progress: Some(progress),
        };
        let image = Image {
            context,
            extents: extents.as_ptr(),
            extent_count: extents.len(),
            read: Some(read),
        };
        let facts = Facts {
            architecture: c"arm".as_ptr(),
            architecture_version: 1,
            hostname: c"rtos".as_ptr(),
            version: ptr::null(),
            panic: c"stack overflow".as_ptr(),
            time_s: 0,
        };
        Self { nic, machine, image, facts, _extents: extents }
    }

    fn job(&self) -> Job {
        Job {
            nics: &self.nic,
            nic_count: 1,
            machine: &self.machine,
            image: &self.image,
            facts: &self.facts,
        }
    }
}

const LIMITS: Limits = Limits { slots: 16, cells: 2, payload_len: 1448 };

fn needed(limits: *const Limits) -> usize {
    // SAFETY: null, or limits that outlive the call.
    unsafe { debugnet_memory_needed(limits) }
}

fn acked(armed: *const Debugnet) -> u64 {
    // SAFETY: from `arm`.
    unsafe { debugnet_progress(armed) }
}

fn dump(armed: *mut Debugnet, job: *const Job, outcome: &mut Outcome) -> Status {
    // SAFETY: from `arm`, and the job of a caller that outlives the call.
    unsafe { debugnet_dump(armed, job, outcome) }
}

fn begin(armed: *mut Debugnet, target: usize) -> Status {
    // SAFETY: null, or from `arm`.
    unsafe { debugnet_begin(armed, target) }
}

fn poll(armed: *mut Debugnet, job: &Job, until_us: &mut u64, outcome: &mut Outcome) -> i32 {
    // SAFETY: from `arm`, and the job of a caller that outlives the call.
    unsafe { debugnet_poll(armed, job, 0, until_us, outcome) }
}

/// Arms in a block that is as long as the library says, and not a byte longer.
fn arm() -> *mut Debugnet {
    let len = needed(&LIMITS);
    let block: &'static mut [u128] = vec![u128::MAX; len.div_ceil(16)].leak();
    let mut armed = ptr::null_mut();
    // SAFETY: a block that is leaked to the library; the rest outlives the call.
    let status = unsafe {
        debugnet_arm(
            c"server=10.99.0.2 client=10.99.0.1".as_ptr(),
            &LIMITS,
            block.as_mut_ptr().cast(),
            len,
            u64::MAX,
            &mut armed,
            ptr::null_mut(),
            0,
        )
    };
    assert_eq!(status, Status::Ok);
    armed
}

const NOTHING: Outcome = Outcome {
    verdict: Verdict::Failed,
    dump_bytes: 0,
    acked_bytes: 0,
    sent_bytes: 0,
    zero_bytes: 0,
    hole_bytes: 0,
    not_sent_bytes: 0,
    transmissions: 0,
    retransmits: 0,
    elapsed_us: 0,
    data_us: 0,
    nic_stopped: 0,
};

#[track_caller]
fn assert_identical(world: &World, outcome: &Outcome) {
    assert_eq!(outcome.verdict, Verdict::Confirmed, "{outcome:?}");
    assert_eq!(outcome.dump_bytes, world.ram.len() as u64);
    assert_eq!((outcome.hole_bytes, outcome.not_sent_bytes, outcome.nic_stopped), (0, 0, 1));
    let (image, finished) = world.server.image().unwrap();
    assert!(finished && image == world.ram);
    assert_eq!(world.stopped, 1);
    assert!(world.alive > 0 && world.done >= world.ram.len() as u64 * 60 / 64);
}

#[test]
fn a_dump_at_once() {
    let mut world = World::new();
    let caller = Caller::new(&raw mut world);
    let (armed, mut outcome) = (arm(), NOTHING);
    assert_eq!(acked(armed), 0);
    assert_eq!(dump(armed, &caller.job(), &mut outcome), Status::Ok);
    assert_identical(&world, &outcome);
    assert_eq!(acked(armed), 300_001 / 4096 * 4096);
}

#[test]
fn a_dump_in_steps() {
    let mut world = World::new();
    let caller = Caller::new(&raw mut world);
    let (armed, mut outcome, mut until_us) = (arm(), NOTHING, 0);
    let job = caller.job();
    assert_eq!(poll(armed, &job, &mut until_us, &mut outcome), -1);
    assert_eq!(begin(armed, 0), Status::Ok);
    let mut steps = 0;
    while poll(armed, &job, &mut until_us, &mut outcome) == 0 {
        relax((&raw mut world).cast());
        steps += 1;
        assert!(steps < 1_000_000);
    }
    assert!(steps > 10);
    assert_identical(&world, &outcome);
}

#[test]
fn a_driver_that_overclaims_ends_it() {
    let mut world = World::new();
    world.overclaims = 1_000;
    let caller = Caller::new(&raw mut world);
    let mut outcome = NOTHING;
    assert_eq!(dump(arm(), &caller.job(), &mut outcome), Status::Ok);
    assert_eq!(outcome.verdict, Verdict::Failed);
}

#[test]
fn what_cannot_be_read_is_not_sent() {
    let mut world = World::new();
    let len = world.ram.len();
    let caller = Caller::new(&raw mut world);
    world.ram.truncate(len - 1000);
    let mut outcome = NOTHING;
    assert_eq!(dump(arm(), &caller.job(), &mut outcome), Status::Ok);
    assert_eq!(outcome.verdict, Verdict::Confirmed, "{outcome:?}");
    assert!(outcome.not_sent_bytes >= 1000, "{outcome:?}");
}

#[test]
fn what_is_missing_is_no_job() {
    let mut world = World::new();
    let mut caller = Caller::new(&raw mut world);
    let mut outcome = NOTHING;
    caller.nic.stop = None;
    assert_eq!(dump(arm(), &caller.job(), &mut outcome), Status::BadArgument);
    caller.nic.stop = Some(stop);
    caller.image.extents = ptr::null();
    assert_eq!(dump(arm(), &caller.job(), &mut outcome), Status::BadArgument);
    caller.image.extent_count = 0;
    assert_eq!(dump(arm(), &caller.job(), &mut outcome), Status::Ok);
    caller.machine.relax = None;
    assert_eq!(dump(arm(), &caller.job(), &mut outcome), Status::BadArgument);
    assert_eq!(outcome.dump_bytes, 0);
}

/// Arms with one thing wrong: status and text.
fn refused(config: &CStr, limits: *const Limits, len: usize, offset: usize) -> (Status, String) {
    let block: &'static mut [u128] = vec![0; 64 << 10].leak();
    let (mut armed, mut why) = (ptr::null_mut(), [1 as c_char; 64]);
    let memory = block.as_mut_ptr().cast::<u8>().wrapping_add(offset);
    // SAFETY: a block that is leaked to the library; the rest outlives the call.
    let status = unsafe {
        debugnet_arm(
            config.as_ptr(),
            limits,
            memory,
            len,
            u64::MAX,
            &mut armed,
            why.as_mut_ptr(),
            why.len(),
        )
    };
    assert!(armed.is_null());
    // SAFETY: the library ends it with a NUL; the test would fail under Miri if not.
    let why = unsafe { CStr::from_ptr(why.as_ptr()) }.to_str().unwrap().to_owned();
    (status, why)
}

#[test]
fn what_is_wrong_is_said() {
    let (good, much) = (c"server=10.99.0.2", 1 << 19);
    let (status, why) = refused(c"server=nowhere", &LIMITS, much, 0);
    assert_eq!(status, Status::BadConfig);
    assert!(why.contains("nowhere"), "{why}");
    let (status, why) = refused(good, &LIMITS, 1000, 0);
    assert_eq!(status, Status::BadMemory);
    assert!(why.contains("1000 bytes"), "{why}");
    assert_eq!(refused(good, &LIMITS, much, 1).0, Status::BadArgument);
    assert_eq!(refused(good, ptr::null(), much, 0).0, Status::BadArgument);
    let odd = Limits { slots: 17, ..LIMITS };
    assert_eq!(needed(&odd), 0);
    let (status, why) = refused(good, &odd, much, 0);
    assert_eq!(status, Status::BadArgument);
    assert!(why.contains("17") && why.len() <= 63, "cut to the room: {why}");
    assert_eq!(needed(ptr::null()), 0);
    // Cells of another size than the configuration's payload.
    let jumbo = Limits { payload_len: 512, cells: 1, ..LIMITS };
    assert_eq!(refused(good, &jumbo, much, 0).0, Status::BadConfig);
    let mut outcome = NOTHING;
    assert_eq!(dump(arm(), ptr::null(), &mut outcome), Status::BadArgument);
    assert_eq!(begin(ptr::null_mut(), 0), Status::BadArgument);
}
