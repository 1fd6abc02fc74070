//! What an operator sets up: addresses, a user, a configuration, a service
//! manager; and what keeps the server from harm.
#![cfg_attr(
    not(all(feature = "metrics", feature = "sandbox", feature = "systemd")),
    allow(unused_imports, reason = "some tests are not there without them")
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::crowd::status;
use crate::daemon::{Daemon, PROGRAM, executable, run, run_command};
use crate::stock_client::StockClient;
use crate::support::{pattern, skip};

fn dump(address: SocketAddr, len: usize) -> StockClient {
    let mut client = StockClient::new("127.0.0.1");
    client.herald(address, b"");
    client.dump(&pattern(len));
    client.finish();
    client
}

/// Every test of the program runs with it; here the kernel confirms it.
#[cfg(feature = "sandbox")]
#[test]
fn the_sandbox_is_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(dir.path(), &[]);
    dump(daemon.address, 5000);
    daemon.event("finished");
    let process = PathBuf::from(format!("/proc/{}", daemon.child.id()));
    let log = run(&[
        "-D",
        "-d",
        dir.path().to_str().unwrap(),
        "--sandbox",
        "require",
        "-a",
        "192.0.2.77",
    ]);
    assert_eq!(log.status.code(), Some(1), "the address comes first");
    let seccomp = status(&process, "Seccomp:");
    if seccomp == 0 {
        return skip("seccomp of the server", "the kernel refused it");
    }
    assert_eq!(seccomp, 2, "a filter");
    assert_eq!(status(&process, "NoNewPrivs:"), 1);
    for thread in std::fs::read_dir(process.join("task")).unwrap() {
        let thread = thread.unwrap().path();
        assert_eq!(status(&thread, "Seccomp:"), 2, "{}", thread.display());
    }
}

#[test]
fn as_another_user() {
    if !rustix::process::geteuid().is_root() {
        return skip("--user", "only root can become somebody else");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused =
        run(&["-D", "-d", dir.path().to_str().unwrap(), "--user", "nobody", "--port", "0"]);
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && complaint.contains("nobody"), "{complaint}");
    let unknown =
        run(&["-D", "-d", dir.path().to_str().unwrap(), "--user", "no-such-user", "--port", "0"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no-such-user"));

    let nobody = Command::new("id").args(["-u", "nobody"]).output().unwrap().stdout;
    let nobody: u32 = String::from_utf8(nobody).unwrap().trim().parse().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(nobody), None).unwrap();
    // Where the user can go and the script write.
    let said = dir.path().join("said");
    let script = dir.path().join("handler");
    executable(&script, &format!("#!/bin/sh\nid -u > {}\n", said.display()));
    // A configuration that the user cannot read.
    let config = dir.path().join("netdumpd.toml");
    std::fs::write(&config, format!("script = '{}'\n", script.display())).unwrap();
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
    let more = ["--user", "nobody", "--config", config.to_str().unwrap()];
    // The handler's helper starts the program again, as that user: it has to be where he can go.
    let program = dir.path().join("netdumpd");
    std::fs::copy(PROGRAM, &program).unwrap();
    let mut daemon = Daemon::start_by(Command::new(&program), dir.path(), &more);
    dump(daemon.address, 5000);
    assert_eq!(daemon.event("finished")["result"], "complete");
    assert_eq!(daemon.event("script")["status"], "exit status: 0");
    assert_eq!(std::fs::read_to_string(said).unwrap().trim(), nobody.to_string());
    let process = PathBuf::from(format!("/proc/{}", daemon.child.id()));
    assert_eq!(status(&process, "Uid:"), u64::from(nobody));
    assert_eq!(std::fs::metadata(dir.path().join("vmcore.127.0.0.1.0")).unwrap().uid(), nobody);
    drop(daemon);

    // A script that the user cannot run is told before the first dump, not after.
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let at = dir.path().to_str().unwrap();
    let mut refused = Command::new(&program);
    refused.args(["-D", "-a", "127.0.0.1", "--port", "0", "-d", at]).args(more);
    let refused = run_command(&mut refused);
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{complaint}");
    for part in ["cannot run the script", script.to_str().unwrap(), "handler helper"] {
        assert!(complaint.contains(part), "{part}: {complaint}");
    }
}

#[test]
fn a_configuration_and_two_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("netdumpd.toml");
    let text = "listen = ['127.0.0.1', '127.0.0.2']\nport = 0\njson = true\nlinger = 3\n";
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["--config", config.to_str().unwrap(), "-d", dir.path().to_str().unwrap()]);
    let mut daemon = Daemon::start_with(command);
    let second: SocketAddr =
        daemon.event("listening")["address"].as_str().unwrap().parse().unwrap();
    assert_eq!(daemon.address.ip().to_string(), "127.0.0.1");
    assert_eq!(second.ip().to_string(), "127.0.0.2");
    dump(daemon.address, 5000);
    dump(second, 5000);
    assert_eq!(daemon.event("finished")["result"], "complete");
    assert_eq!(daemon.event("finished")["result"], "complete");

    std::fs::write(&config, "lingers = 3\n").unwrap();
    let output = run(&["-D", "--config", config.to_str().unwrap()]);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(complaint.contains("lingers") && complaint.contains("netdumpd.toml"), "{complaint}");
}

#[cfg(feature = "metrics")]
#[test]
fn prometheus_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    // A port that was free just now, on an address that nobody else uses.
    let free = std::net::TcpListener::bind("127.0.9.1:0").unwrap().local_addr().unwrap();
    let mut daemon = Daemon::start(dir.path(), &["--metrics", &free.to_string()]);
    dump(daemon.address, 5000);
    daemon.event("finished");
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(free).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for line in [
        "netdumpd_dumps_total{result=\"complete\"} 1",
        "netdumpd_running 0",
        "netdumpd_received_bytes_total 5000",
        "# EOF",
    ] {
        assert!(answer.lines().any(|found| found == line), "{line}: {answer}");
    }
    assert!(ask("GET /else HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
}

/// One client's directory stands still: its files cannot be opened, because one
/// of them is a pipe without a far end. Nobody else notices.
#[test]
fn a_disk_that_stands_still_holds_up_its_own_client_only() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("bounds.127.0.5.5");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut daemon = Daemon::start(dir.path(), &[]);
    let mut slow = StockClient::new("127.0.5.5");
    let address = daemon.address;
    let waiting = std::thread::spawn(move || {
        slow.herald(address, b"");
        slow.dump(&pattern(100_000));
        slow.finish();
    });
    assert_eq!(
        daemon.event("herald")["peer"].as_str().unwrap().split(':').next(),
        Some("127.0.5.5")
    );
    for n in 0..4 {
        dump(address, 300_000);
        let finished = daemon.event("finished");
        assert_eq!(finished["result"], "complete", "{n}");
        assert!(finished["vmcore"].as_str().unwrap().ends_with(&format!("vmcore.127.0.0.1.{n}")));
    }
    assert!(!waiting.is_finished(), "its herald is not answered before its files are open");
    // The far end comes; the name goes before the server writes there itself.
    let mut far_end = std::fs::File::options().write(true).open(&pipe).unwrap();
    std::fs::remove_file(&pipe).unwrap();
    far_end.write_all(b"7\n").unwrap();
    drop(far_end);
    waiting.join().unwrap();
    let finished = daemon.event("finished");
    assert_eq!(finished["result"], "complete");
    assert!(finished["vmcore"].as_str().unwrap().ends_with("vmcore.127.0.5.5.7"));
}

#[cfg(feature = "systemd")]
#[test]
fn sockets_of_a_service_manager() {
    if !Path::new("/bin/bash").exists() {
        return skip("inherited sockets", "there is no bash to hand them over");
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty()).unwrap();
    let told = dir.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&told).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut command = Command::new("/bin/bash");
    let hand_over = "exec 3<&$0; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
    command.args(["-c", hand_over, &socket.as_raw_fd().to_string(), PROGRAM]);
    command.env("NOTIFY_SOCKET", &told);
    command.args(["-D", "--json", "-d"]).arg(dir.path());
    let mut daemon = Daemon::start_with(command);
    assert_eq!(daemon.address, socket.local_addr().unwrap());
    let mut word = [0; 64];
    let len = manager.recv(&mut word).unwrap();
    assert!(word[..len].starts_with(b"READY=1"));
    dump(daemon.address, 5000);
    assert_eq!(daemon.event("finished")["result"], "complete");
}

#[test]
fn the_journal_gets_priorities() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let file = std::fs::File::create(&log).unwrap();
    let meta = file.metadata().unwrap();
    let mut command = Command::new(PROGRAM);
    command.env("JOURNAL_STREAM", format!("{}:{}", meta.dev(), meta.ino())).stderr(file);
    let mut daemon = Daemon::start_by(command, dir.path(), &[]);
    dump(daemon.address, 5000);
    daemon.event("finished");
    let text = std::fs::read_to_string(log).unwrap();
    assert!(text.lines().any(|line| line.starts_with("<6>listening on 127.0.0.1")), "{text}");
    assert!(text.lines().all(|line| line.starts_with('<')), "{text}");
}

#[test]
fn inspect_tells_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(dir.path(), &[]);
    dump(daemon.address, 100_000);
    daemon.event("finished");
    let mut holey = StockClient::new("127.0.0.2");
    holey.herald(daemon.address, b"");
    holey.dump(&pattern(100_000));
    holey.skip_message();
    holey.finish();
    daemon.event("finished");
    let inspect = |name: &str, code: i32| -> Value {
        let path = dir.path().join(name);
        let output = run(&["inspect", "--json", path.to_str().unwrap()]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}: {said}");
        serde_json::from_str(&said).unwrap()
    };
    for name in
        ["vmcore.127.0.0.1.last", "vmcore.127.0.0.1.0", "info.127.0.0.1.0", "info.127.0.0.1.0.json"]
    {
        let found = inspect(name, 0);
        assert_eq!(found["result"], "complete");
        assert_eq!(
            (&found["architecture"], &found["panic"]),
            (&"amd64".into(), &"test panic".into())
        );
        assert_eq!(found["dump_length"], 100_000);
    }
    let found = inspect("vmcore.127.0.0.2.0", 3);
    assert_eq!((&found["result"], &found["missing_seqnos"]), (&"incomplete".into(), &1.into()));
    assert_eq!(inspect("vmcore.127.0.0.1.0", 0)["kind"], "raw");

    std::fs::write(dir.path().join("core"), elf_core()).unwrap();
    let found = inspect("core", 5);
    assert_eq!((&found["kind"], &found["architecture"]), (&"elf".into(), &"arm64".into()));
    assert_eq!((&found["build_id"], &found["panic"]), (&"abcd".into(), &"oh\\x1b[2J".into()));
    assert_eq!((&found["cpus"], &found["time_s"]), (&1.into(), &77.into()));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&elf_core()).unwrap();
    std::fs::write(dir.path().join("core.gz"), gzip.finish().unwrap()).unwrap();
    let found = inspect("core.gz", 5);
    assert_eq!((&found["compression"], &found["build_id"]), (&"gzip".into(), &"abcd".into()));
    // Cut anywhere, it is told and never the end of the program.
    let core = elf_core();
    for len in 0..core.len() {
        std::fs::write(dir.path().join("core"), &core[..len]).unwrap();
        if len % 16 == 3 {
            inspect("core", 5);
        }
    }
    let missing = run(&["inspect", "/no/such/file"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such/file"));
}

/// A core of one CPU, with the notes of a crash.
fn elf_core() -> Vec<u8> {
    let note = |name: &[u8], kind: u32, desc: &[u8]| {
        let mut bytes = Vec::new();
        for number in [name.len() as u32 + 1, desc.len() as u32, kind] {
            bytes.extend(number.to_le_bytes());
        }
        for part in [name, desc] {
            bytes.extend(part);
            let zeros =
                if part == name { 1 + (3 - name.len() % 4) } else { (4 - part.len() % 4) % 4 };
            bytes.extend(std::iter::repeat_n(0, zeros));
        }
        bytes
    };
    let notes = [
        note(b"CORE", 1, &[0; 16]),
        note(b"VMCOREINFO", 0, b"BUILD-ID=abcd\nCRASHTIME=77\n"),
        note(b"debugnet-rs", 0x6462_0001, b"oh\x1b[2J"),
    ]
    .concat();
    let mut core = b"\x7fELF\x02\x01\x01".to_vec();
    core.resize(16, 0);
    core.extend(4u16.to_le_bytes());
    core.extend(183u16.to_le_bytes());
    core.extend(1u32.to_le_bytes());
    for number in [0u64, 64, 0] {
        core.extend(number.to_le_bytes());
    }
    core.extend(0u32.to_le_bytes());
    for number in [64u16, 56, 1, 0, 0, 0] {
        core.extend(number.to_le_bytes());
    }
    core.extend(4u32.to_le_bytes());
    core.extend(0u32.to_le_bytes());
    for number in [120, 0, 0, notes.len() as u64, 0, 4] {
        core.extend(number.to_le_bytes());
    }
    assert_eq!(core.len(), 120);
    core.extend(notes);
    core
}

#[test]
fn a_helper_without_a_server_ends() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("handler");
    executable(&script, "#!/bin/sh\nexit 0\n");
    let mut helper = Command::new(PROGRAM)
        .args(["--handler-helper", "-i", script.to_str().unwrap(), "-d"])
        .arg(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    drop(helper.stdin.take());
    for _ in 0..3000 {
        if let Some(status) = helper.try_wait().unwrap() {
            return assert!(status.success());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    helper.kill().unwrap();
    panic!("it does not end");
}
