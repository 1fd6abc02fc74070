//! What the firmware does with its NIC while it lives: it asks who has the
//! server's address.

use core::net::{IpAddr, Ipv4Addr};

use debugnet_core::nic::{Checksum, Nic, Payload, Start, TxFrame};
use debugnet_core::time::{Budget, Clock};

use crate::lan9118::Lan9118;
use crate::options::Options;

/// Longest wait for the chip, and for an answer.
const WAIT_US: u64 = 2_000_000;

/// Frames that passed.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// Starts the NIC and asks for the server by ARP, until anything is received.
pub(crate) fn use_it(nic: &mut Lan9118, clock: &mut dyn Clock, options: &Options) -> Seen {
    let mut seen = Seen::default();
    let mut budget = Budget::new(clock.now().after(WAIT_US), 10_000_000);
    while !matches!(nic.poll_start(clock), Ok(Start::Ready)) {
        if !budget.spend(clock.now()) {
            return seen;
        }
    }
    let request = arp_request(nic, options);
    let frame = TxFrame { header: &request, payload: Payload::None, checksum: Checksum::Complete };
    seen.sent += u64::from(nic.transmit(&frame).is_ok());
    let mut into = [0; 64];
    while seen.received == 0 && budget.spend(clock.now()) {
        seen.received += u64::from(matches!(nic.receive(&mut into), Ok(Some(_))));
    }
    seen
}

/// "Who has the server? Tell me", to everybody.
fn arp_request(nic: &Lan9118, options: &Options) -> [u8; 42] {
    let octets = |address: Option<IpAddr>| match address {
        Some(IpAddr::V4(address)) => address.octets(),
        _ => Ipv4Addr::UNSPECIFIED.octets(),
    };
    let target = options.config.targets.first();
    let server = octets(target.map(|target| target.server));
    let client = octets(target.and_then(|target| target.client));
    let mac = nic.capabilities().mac.0;
    let parts: [&[u8]; 7] = [
        &[0xff; 6],
        &mac,
        &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1],
        &mac,
        &client,
        &[0; 6],
        &server,
    ];
    let mut request = [0; 42];
    for (to, from) in request.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    request
}
