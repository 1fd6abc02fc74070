//! Numbers for Prometheus: one page of text over HTTP.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, Result};
use netdumpd::core::SessionId;
use netdumpd::net::{Event, Observer};
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// How long a request may take; others wait meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most of a request that is read.
const MAX_REQUEST_LEN: usize = 8 << 10;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct ByResult(&'static str);

impl EncodeLabelSet for ByResult {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        use prometheus_client::encoding::EncodeLabel;
        ("result", self.0).encode(encoder.encode_label())
    }
}

/// Counts events.
pub(crate) struct Metrics {
    dumps: Family<ByResult, Counter>,
    running: Gauge,
    heralds: Counter,
    scripts: Counter,
    errors: Counter,
    bytes: Counter<u64, AtomicU64>,
    /// Bytes of running dumps that were counted.
    counted: HashMap<SessionId, u64>,
}

/// Answers requests.
pub(crate) struct Endpoint {
    listener: TcpListener,
    registry: Arc<Registry>,
}

/// Opens the endpoint; it answers once [`Endpoint::start`] is called.
pub(crate) fn open(address: SocketAddr) -> Result<(Metrics, Endpoint)> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address} (--metrics)"))?;
    let mut registry = Registry::with_prefix("netdumpd");
    let metrics = Metrics {
        dumps: Family::default(),
        running: Gauge::default(),
        heralds: Counter::default(),
        scripts: Counter::default(),
        errors: Counter::default(),
        bytes: Counter::default(),
        counted: HashMap::new(),
    };
    registry.register("dumps", "Dumps that have ended, by result", metrics.dumps.clone());
    registry.register("running", "Dumps under way", metrics.running.clone());
    registry.register("heralds", "Heralds of new sessions", metrics.heralds.clone());
    registry.register("scripts", "Runs of the handler script", metrics.scripts.clone());
    registry.register("errors", "Refused heralds and messages", metrics.errors.clone());
    let help = "Distinct bytes of images received";
    registry.register_with_unit("received", help, Unit::Bytes, metrics.bytes.clone());
    Ok((metrics, Endpoint { listener, registry: Arc::new(registry) }))
}

impl Observer for Metrics {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Herald { .. } => drop(self.heralds.inc()),
            Event::Session { session, .. } => {
                self.counted.insert(*session, 0);
                self.running.set(self.counted.len() as i64);
            }
            Event::Progress { session, bytes, .. } => self.count(*session, *bytes),
            Event::Finished(outcome) => {
                self.count(outcome.session, outcome.bytes);
                self.counted.remove(&outcome.session);
                self.running.set(self.counted.len() as i64);
                self.dumps.get_or_create(&ByResult(outcome.result)).inc();
            }
            Event::Script { .. } => drop(self.scripts.inc()),
            Event::Error { .. } => drop(self.errors.inc()),
            _ => {}
        }
    }
}

impl Metrics {
    fn count(&mut self, session: SessionId, bytes: u64) {
        if let Some(counted) = self.counted.get_mut(&session) {
            self.bytes.inc_by(bytes.saturating_sub(*counted));
            *counted = bytes;
        }
    }
}

impl Endpoint {
    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers from a thread of its own, one request after the other.
    pub(crate) fn start(self) -> io::Result<()> {
        let serve = move || {
            for stream in self.listener.incoming() {
                let answered = stream.and_then(|stream| self.answer(stream));
                if let Err(error) = answered {
                    tracing::debug!("metrics: {error}");
                    // Without descriptors, `accept` fails at once and again.
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        };
        std::thread::Builder::new().name("metrics".into()).spawn(serve).map(drop)
    }

    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut request = Vec::new();
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            let mut piece = [0; 1024];
            let len = stream.read(&mut piece)?;
            request.extend_from_slice(&piece[..len]);
            if len == 0 || request.len() > MAX_REQUEST_LEN {
                break;
            }
        }
        let is_known = [&b"GET /metrics "[..], b"GET / "].iter().any(|it| request.starts_with(it));
        let (status, text) = if is_known {
            let mut text = String::new();
            encode(&mut text, &self.registry).map_err(io::Error::other)?;
            ("200 OK", text)
        } else {
            ("404 Not Found", "GET /metrics\n".to_owned())
        };
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let len = text.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n\
             Connection: close\r\n\r\n{text}"
        )
    }
}
