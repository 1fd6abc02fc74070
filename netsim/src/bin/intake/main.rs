//! What taking dumps costs a server: CPU time and packets a second of netdumpd
//! beside a plain server, over loopback. `cargo xtask bench` runs it.
//!
//! The plain server has the structure of the stock one: an event, one receive,
//! one copy, one ack. Both take the same dumps of the same client, in turn, and
//! both are judged between the herald and the last ack of data: neither fsync
//! nor digest is counted.

mod client;
mod plain;
mod server;

use std::path::{Path, PathBuf};

use netsim::rng::Rng;

use crate::client::{Arrival, Clients};
use crate::server::Server;

/// Interleaved runs of each server; the median counts.
const ROUNDS: usize = 5;
/// Bytes of all clients together in one run.
const TOTAL_LEN: usize = 256 << 20;
/// Name, clients, how their datagrams come, and how much less CPU time than the
/// plain server is asked for.
const SCENARIOS: [(&str, usize, Arrival, Option<f64>); 4] = [
    ("server-1-client", 1, Arrival::Joined, Some(1.4)),
    ("server-8-clients", 8, Arrival::Joined, Some(1.7)),
    ("server-1-client-single", 1, Arrival::Single, None),
    ("server-8-clients-single", 8, Arrival::Single, None),
];

#[derive(Clone, Copy, Debug)]
struct Run {
    cpu_s: f64,
    wall_s: f64,
    packets: u64,
}

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("plain") => plain::serve(Path::new(&args[1])),
        Some(netdumpd) => compare(Path::new(netdumpd)),
        None => panic!("usage: intake NETDUMPD"),
    }
}

fn compare(netdumpd: &Path) -> std::io::Result<()> {
    let mut rng = Rng::new(7);
    let mut image = vec![0u8; TOTAL_LEN];
    for word in image.chunks_exact_mut(8) {
        word.copy_from_slice(&rng.next_u64().to_le_bytes());
    }
    for (name, clients, arrival, gate) in SCENARIOS {
        let image = &image[..TOTAL_LEN / clients];
        let (mut ours, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(run(|dir| Server::netdumpd(netdumpd, dir), clients, arrival, image)?);
            plain.push(run(Server::plain, clients, arrival, image)?);
        }
        let gib = (image.len() * clients) as f64 / (1u64 << 30) as f64;
        let cost = |runs: &[Run]| median(runs.iter().map(|run| run.cpu_s / gib));
        let rate = |runs: &[Run]| median(runs.iter().map(|run| run.packets as f64 / run.wall_s));
        let ratio = cost(&plain) / cost(&ours);
        let gate =
            gate.map_or(String::new(), |gate| format!(",\"gate\":{gate},\"ok\":{}", ratio >= gate));
        println!(
            "{{\"scenario\":\"{name}\",\"ours_cpu_s_per_gib\":{:.3},\
             \"plain_cpu_s_per_gib\":{:.3},\"ratio\":{ratio:.2},\
             \"ours_packets_per_s\":{:.0},\"plain_packets_per_s\":{:.0}{gate}}}",
            cost(&ours),
            cost(&plain),
            rate(&ours),
            rate(&plain),
        );
    }
    Ok(())
}

fn run(
    start: impl FnOnce(&Path) -> std::io::Result<Server>,
    clients: usize,
    arrival: Arrival,
    image: &[u8],
) -> std::io::Result<Run> {
    let dir = Scratch::new()?;
    let server = start(&dir.0)?;
    let mut clients = Clients::herald(server.address, clients, arrival)?;
    let before = server.cpu_s()?;
    let begin = std::time::Instant::now();
    let packets = clients.send(image)?;
    let run =
        Run { cpu_s: server.cpu_s()? - before, wall_s: begin.elapsed().as_secs_f64(), packets };
    clients.finish()?;
    for n in 0..clients.len() {
        let vmcore = std::fs::read(dir.0.join(format!("vmcore.{}.0", client::ip(n))))?;
        assert!(vmcore == image, "the dump of client {n} differs");
    }
    Ok(run)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A directory in memory, if there is one: the disk is not what is measured.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = base.join(format!("netdumpd-intake-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
