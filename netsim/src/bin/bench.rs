//! Goodput of the client over simulated links, beside the stock client's
//! pattern and the limit of the line: all in virtual time, so the figures do
//! not depend on the machine. `cargo xtask bench` runs it.

use std::cell::RefCell;
use std::env;
use std::rc::Rc;

use debugnet_core::dump::{Stability, Verdict};
use debugnet_core::nic::ChecksumOffload;
use debugnet_core::{Config, Limits};
use netsim::link::{GilbertElliott, Link, LinkConfig};
use netsim::models::{PlainServer, Service, StockClient};
use netsim::ram::{Ram, SharedRam};
use netsim::rng::Rng;
use netsim::server::Server;
use netsim::world::{CLIENT_IP, Machine, SERVER_IP, World};

const GBIT: u64 = 1_000_000_000;
/// Bytes of payload in the bytes a full frame takes on the line.
const PAYLOAD_SHARE: f64 = 1448.0 / 1538.0;

struct Scenario {
    name: String,
    up: LinkConfig,
    down: LinkConfig,
    service: Option<Service>,
    slots: usize,
    /// Share of the limit that `--check` asks for.
    gate: Option<f64>,
    /// Largest share of packets the bottleneck or server may drop.
    drops: Option<f64>,
}

impl Scenario {
    fn new(rate_bps: u64, rtt_us: u64, name: &str) -> Self {
        let link = LinkConfig::new(rate_bps, rtt_us / 2);
        let rtt = match rtt_us {
            100 => "100us".to_string(),
            us => format!("{}ms", us / 1000),
        };
        Self {
            name: format!("{}g-{rtt}-{name}", rate_bps / GBIT),
            up: link.clone(),
            down: link,
            service: None,
            slots: if rtt_us >= 10_000 { 4096 } else { 1024 },
            gate: None,
            drops: None,
        }
    }

    fn gate(mut self, share: f64) -> Self {
        self.gate = Some(share);
        self
    }

    fn loss(mut self, loss: f64) -> Self {
        self.up.loss = loss;
        self.down.loss = loss;
        self
    }

    fn limit_mb_s(&self) -> f64 {
        let lost = self.up.loss.max(self.up.burst.map_or(0.0, |_| 0.01));
        let line = self.up.rate_bps as f64 / 8e6 * PAYLOAD_SHARE * (1.0 - lost);
        match self.service {
            Some(service) => line.min(1448.0 * 1e3 / service.packet_ns as f64),
            None => line,
        }
    }
}

fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    let gates: [(u64, [Option<f64>; 4]); 4] = [
        (100, [Some(0.97), None, Some(0.95), Some(0.85)]),
        (1_000, [Some(0.97), Some(0.95), Some(0.95), Some(0.85)]),
        (10_000, [Some(0.93), None, Some(0.85), None]),
        (50_000, [Some(0.80), None, Some(0.60), None]),
    ];
    for (rtt_us, row) in gates {
        for (loss, gate) in [("0", 0.0), ("0.1", 0.001), ("1", 0.01), ("5", 0.05)].iter().zip(row) {
            let mut scenario = Scenario::new(GBIT, rtt_us, &format!("loss{}", loss.0)).loss(loss.1);
            scenario.gate = gate;
            all.push(scenario);
        }
    }
    let one_ms = |name| Scenario::new(GBIT, 1_000, name);
    let mut reorder = one_ms("reorder5").gate(0.90);
    (reorder.up.reorder, reorder.up.reorder_delay_us) = (0.05, 3_000);
    all.push(reorder);
    let mut dup = one_ms("dup1").gate(0.95);
    dup.up.duplicate = 0.01;
    dup.down.duplicate = 0.01;
    all.push(dup);
    let mut burst = one_ms("burst1").gate(0.80);
    burst.up.burst = Some(GilbertElliott::bursts(0.01, 10.0));
    burst.down.burst = burst.up.burst;
    all.push(burst);
    let mut queue = one_ms("queue32").gate(0.90);
    queue.up.queue_frames = Some(32);
    queue.drops = Some(0.01);
    all.push(queue);
    let stock = |rate, rtt, drops| Scenario {
        service: Some(Service::STOCK),
        drops,
        ..Scenario::new(rate, rtt, "stock")
    };
    all.push(stock(GBIT, 1_000, None));
    all.push(Scenario::new(10 * GBIT, 100, "loss0").gate(0.90));
    all.push(stock(10 * GBIT, 100, Some(0.005)).gate(0.90));
    all.push(stock(10 * GBIT, 10_000, Some(0.005)).gate(0.90));
    all
}

struct Row {
    ours_mb_s: f64,
    identical: bool,
    drops: u64,
    retransmits: u64,
    frames: u64,
}

fn world(scenario: &Scenario, seed: u64) -> Rc<RefCell<World<PlainServer>>> {
    let up = Link::new(scenario.up.clone(), 2 * seed);
    let down = Link::new(scenario.down.clone(), 2 * seed + 1);
    Rc::new(RefCell::new(World::new(up, down, PlainServer::new(scenario.service))))
}

fn ours(scenario: &Scenario, ram: &SharedRam, seed: u64) -> Row {
    let world = world(scenario, seed);
    let mut machine = Machine::new(ram.clone());
    machine.config =
        Config::parse(&format!("server={SERVER_IP} client={CLIENT_IP} zeros=send")).expect("sound");
    machine.limits = Limits { slots: scenario.slots, ..Limits::DEFAULT };
    machine.nic.checksum = ChecksumOffload::Insert;
    machine.nic.tx_slots = 256;
    machine.nic.rx_slots = 4096;
    machine.idle_us = 2;
    let outcome = machine.crash(&world);
    let world = world.borrow();
    let (image, finished) = world.server.image().unwrap_or((&[], false));
    let identical =
        finished && outcome.verdict == Verdict::Confirmed && image == ram.borrow().truth();
    if env::var_os("NETSIM_VERBOSE").is_some() {
        eprintln!("{} seed {seed}: {outcome:?}", scenario.name);
    }
    Row {
        ours_mb_s: outcome.acked_bytes as f64 / outcome.data_us.max(1) as f64,
        identical,
        drops: world.server.drops + world.up.counters().queue_dropped,
        retransmits: u64::from(outcome.retransmits),
        frames: u64::from(outcome.transmissions),
    }
}

/// The stock pattern crawls under loss: as many bytes as it moves in about ten virtual minutes.
fn burst_mb_s(scenario: &Scenario, ram: &SharedRam, len: usize) -> f64 {
    let rounds = 1.0
        - (1.0 - scenario.up.loss.max(0.01 * f64::from(u8::from(scenario.up.burst.is_some()))))
            .powi(92);
    let slow = if rounds > 0.5 {
        64
    } else if rounds > 0.001 {
        8
    } else {
        4
    };
    let len = (len / slow).next_multiple_of(65_536).min(len);
    let world = world(scenario, 1);
    let outcome = StockClient::MTU_1500.dump(&world, ram, len);
    if !outcome.success {
        return 0.0;
    }
    len as f64 / outcome.data_us.max(1) as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let value = |name: &str| {
        args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned()
    };
    let mib: usize = value("--mib").and_then(|text| text.parse().ok()).unwrap_or(256);
    let seeds: u64 = value("--seeds").and_then(|text| text.parse().ok()).unwrap_or(5);
    let only = value("--only").unwrap_or_default();
    let mut rng = Rng::new(1);
    let mut bytes = vec![0u8; mib << 20];
    for word in bytes.chunks_exact_mut(8) {
        word.copy_from_slice(&rng.next_u64().to_le_bytes());
    }
    let mut ram = Ram::new();
    ram.add(0, bytes, Stability::Frozen);
    let ram = Rc::new(RefCell::new(ram));
    let mut failed = Vec::new();
    for scenario in scenarios().iter().filter(|scenario| scenario.name.contains(&only)) {
        let rows: Vec<Row> = (0..seeds).map(|seed| ours(scenario, &ram, seed)).collect();
        let limit = scenario.limit_mb_s();
        let ours = median(rows.iter().map(|row| row.ours_mb_s).collect());
        let drops = median(rows.iter().map(|row| row.drops as f64).collect());
        let frames = median(rows.iter().map(|row| row.frames as f64).collect());
        let retransmits = median(rows.iter().map(|row| row.retransmits as f64).collect());
        let identical = rows.iter().all(|row| row.identical);
        let burst = burst_mb_s(scenario, &ram, mib << 20);
        let share = ours / limit;
        let fast = scenario.gate.is_none_or(|gate| share >= gate);
        let few = scenario.drops.is_none_or(|most| drops / frames <= most);
        if !(identical && fast && few) {
            failed.push(scenario.name.clone());
        }
        println!(
            "{{\"scenario\":\"{}\",\"limit_mb_s\":{limit:.1},\"ours_mb_s\":{ours:.1},\
             \"burst_mb_s\":{burst:.2},\"share\":{share:.3},\"gate\":{},\"identical\":{identical},\
             \"server_drops\":{drops},\"drop_share\":{:.4},\"retransmits\":{retransmits},\
             \"slots\":{},\"ok\":{}}}",
            scenario.name,
            scenario.gate.map_or("null".into(), |gate| gate.to_string()),
            drops / frames,
            scenario.slots,
            identical && fast && few,
        );
    }
    if !failed.is_empty() {
        eprintln!("below the gate: {}", failed.join(", "));
    }
}
