//! Compresses a file as a dump would be, and says how fast and how small: `speed FILE`.

use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::dump::{
    DumpSource, Extent, ImageStream, ReadFault, ReadRam, Stability, StreamState, Transform,
};
use debugnet_gzip::{Gzip, Window};
use rustix::time::{ClockId, clock_gettime};

struct Bytes {
    bytes: Vec<u8>,
    given: bool,
}

impl ReadRam for Bytes {
    fn read(&mut self, at: PhysAddr, into: &mut [u8]) -> Result<(), ReadFault> {
        let start = at.0 as usize;
        into.copy_from_slice(self.bytes.get(start..start + into.len()).ok_or(ReadFault { at })?);
        Ok(())
    }
}

impl DumpSource for Bytes {
    fn next(&mut self) -> Option<Extent> {
        let range = PhysRange::new(PhysAddr(0), self.bytes.len() as u64)?;
        let extent = Extent { offset: 0, range, stability: Stability::Frozen };
        (!std::mem::replace(&mut self.given, true)).then_some(extent)
    }

    fn rewind(&mut self) {
        self.given = false;
    }
}

/// Seconds of CPU, whatever else the machine does meanwhile.
fn cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn main() {
    let path = std::env::args().nth(1).expect("a file");
    let mut source = Bytes { bytes: std::fs::read(path).expect("it can be read"), given: false };
    let len = source.bytes.len();
    println!(
        "{len} bytes\n| window | level | MB/s | ratio | workspace in use |\n|---|---|---|---|---|"
    );
    for (window, level) in [Window::Small, Window::Large]
        .into_iter()
        .flat_map(|window| [1, 3, 6].map(|level| (window, level)))
    {
        let mut workspace = vec![0; window.workspace_len()];
        let mut gzip = Gzip::new(&mut workspace, window, level).expect("it fits");
        let (mut best_s, mut out) = (f64::MAX, 0);
        for _ in 0..3 {
            gzip.restart();
            source.rewind_in_order();
            let mut state = StreamState::default();
            let mut image = ImageStream::new(&mut source, &mut state, len as u64);
            let (mut cell, begin) = ([0; 1448], cpu_s());
            out = 0;
            while let more @ 1.. = gzip.next(&mut image, &mut cell).expect("it goes on") {
                out += more;
            }
            best_s = best_s.min(cpu_s() - begin);
        }
        println!(
            "| {window:?} | {level} | {:.0} | {:.2} | {} |",
            len as f64 / best_s / 1e6,
            len as f64 / out as f64,
            gzip.used_len()
        );
    }
}
