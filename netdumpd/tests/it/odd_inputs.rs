//! Inputs that the stock server stumbles over, against the real daemon. The
//! README has the whole list and where each is tested.

use std::net::UdpSocket;
use std::time::Duration;

use debugnet_core::wire::debugnet::{FINISHED, HERALD, KDH, VMCORE};

use crate::daemon::Daemon;
use crate::stock_client::StockClient;
use crate::support::{message, pattern};

const ACK_WAIT: Duration = Duration::from_secs(30);

/// Sends a message and waits for its ack; returns where that came from.
fn exchange(socket: &UdpSocket, to: std::net::SocketAddr, datagram: &[u8]) -> std::net::SocketAddr {
    socket.set_read_timeout(Some(ACK_WAIT)).unwrap();
    socket.send_to(datagram, to).unwrap();
    let mut ack = [0; 8];
    let (len, from) = socket.recv_from(&mut ack).expect("an ack");
    assert_eq!(ack[..len], datagram[4..8]);
    from
}

fn descriptors(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

#[test]
#[cfg(target_os = "linux")]
fn copies_of_a_herald_leak_no_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(dir.path(), &[]);
    let socket = UdpSocket::bind("127.0.5.1:0").unwrap();
    let herald = message(HERALD, 1, 0, b"");
    let session = exchange(&socket, daemon.address, &herald);
    let before = descriptors(&daemon);
    for _ in 0..50 {
        assert_eq!(exchange(&socket, daemon.address, &herald), session);
    }
    assert_eq!(descriptors(&daemon), before);
    exchange(&socket, session, &message(VMCORE, 2, 0, &pattern(4096)));
    exchange(&socket, session, &message(FINISHED, 3, 0, b""));
    assert_eq!(daemon.event("finished")["result"], "complete");
}

#[test]
fn the_length_field_must_match_whatever_the_size() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(dir.path(), &[]);
    let socket = UdpSocket::bind("127.0.5.2:0").unwrap();
    let session = exchange(&socket, daemon.address, &message(HERALD, 1, 0, b""));
    // 5000 bytes that claim to be 4096, which the stock server accepts.
    let mut lying = message(VMCORE, 2, 0, &pattern(5000)).to_vec();
    lying[16..20].copy_from_slice(&4096u32.to_be_bytes());
    socket.send_to(&lying, session).unwrap();
    // 5000 that say so, which it does not.
    exchange(&socket, session, &message(VMCORE, 3, 0, &pattern(5000)));
    exchange(&socket, session, &message(FINISHED, 4, 0, b""));
    let finished = daemon.event("finished");
    assert_eq!((&finished["bytes"], &finished["missing_seqnos"]), (&5000.into(), &1.into()));
}

#[test]
fn random_headers_rename_nothing_and_end_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(dir.path(), &[]);
    let socket = UdpSocket::bind("127.0.5.3:0").unwrap();
    let session = exchange(&socket, daemon.address, &message(HERALD, 1, 0, b""));
    exchange(&socket, session, &message(VMCORE, 2, 0, &pattern(4096)));
    // As a header of version 4 these say: compressed, with a key.
    exchange(&socket, session, &message(KDH, 3, 0, &[1; 512]));
    exchange(&socket, session, &message(KDH, 4, 0, b"short"));
    exchange(&socket, session, &message(FINISHED, 5, 0, b""));
    let finished = daemon.event("finished");
    let vmcore = finished["vmcore"].as_str().unwrap();
    assert!(vmcore.ends_with("/vmcore.127.0.5.3.0"), "{vmcore}");
    assert_eq!(std::fs::read(vmcore).unwrap(), pattern(4096));
    let info = std::fs::read_to_string(finished["info"].as_str().unwrap()).unwrap();
    assert!(info.contains("Header Problem: not a kernel dump header"), "{info}");
    assert!(info.contains("Bad KDH: packet too small"), "{info}");
}

/// The client is gone for a while: acks come back as "port unreachable".
#[test]
fn a_port_that_is_unreachable_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(dir.path(), &[]);
    let socket = UdpSocket::bind("127.0.5.4:0").unwrap();
    let address = socket.local_addr().unwrap();
    let session = exchange(&socket, daemon.address, &message(HERALD, 1, 0, b""));
    for seqno in 2..50u32 {
        let datagram = message(VMCORE, seqno, u64::from(seqno - 2) * 100, &[seqno as u8; 100]);
        socket.send_to(&datagram, session).unwrap();
    }
    drop(socket);
    // Its acks find nobody. The client comes back to the same port.
    std::thread::sleep(Duration::from_millis(50));
    let socket = UdpSocket::bind(address).unwrap();
    for seqno in 2..50u32 {
        let datagram = message(VMCORE, seqno, u64::from(seqno - 2) * 100, &[seqno as u8; 100]);
        exchange_past_others(&socket, session, &datagram);
    }
    exchange_past_others(&socket, session, &message(FINISHED, 50, 0, b""));
    let finished = daemon.event("finished");
    assert_eq!((&finished["result"], &finished["bytes"]), (&"complete".into(), &4800.into()));
}

/// As [`exchange`], with acks of earlier messages still on their way.
fn exchange_past_others(socket: &UdpSocket, to: std::net::SocketAddr, datagram: &[u8]) {
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    for _ in 0..60 {
        socket.send_to(datagram, to).unwrap();
        let mut ack = [0; 8];
        while let Ok((len, _)) = socket.recv_from(&mut ack) {
            if ack[..len] == datagram[4..8] {
                return;
            }
        }
    }
    panic!("no ack");
}

#[test]
fn paths_that_lead_out_go_to_the_default_directory() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("crash");
    std::fs::create_dir(&dir).unwrap();
    let mut daemon = Daemon::start(&dir, &[]);
    let long = [b'x'; 1500];
    for (n, path) in
        [&b"../\0"[..], b"/tmp\0", b"missing\0", b"no end", &long].into_iter().enumerate()
    {
        let mut client = StockClient::new(&format!("127.0.6.{}", n + 1));
        client.payload_len = 4096;
        client.herald(daemon.address, path);
        let session = daemon.event("session");
        let vmcore = format!("vmcore.127.0.6.{}.0", n + 1);
        let expected = dir.canonicalize().unwrap().join(vmcore);
        assert_eq!(session["vmcore"], expected.to_str().unwrap());
        client.finish();
    }
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "nothing beside it");
}
