//! The program itself: its command line, its events, its exit status, its script.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

use crate::stock_client::StockClient;
use crate::support::pattern;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_netdumpd");

pub(crate) struct Daemon {
    pub(crate) child: Child,
    output: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
}

impl Daemon {
    pub(crate) fn start(dir: &Path, more: &[&str]) -> Self {
        Self::start_by(Command::new(PROGRAM), dir, more)
    }

    pub(crate) fn start_by(mut command: Command, dir: &Path, more: &[&str]) -> Self {
        command.args(["-D", "--json", "-a", "127.0.0.1", "--port", "0", "-d"]).arg(dir).args(more);
        Self::start_with(command)
    }

    pub(crate) fn start_with(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut daemon = Self { child, output, address: "127.0.0.1:1".parse().unwrap() };
        let event = daemon.event("listening");
        daemon.address = event["address"].as_str().unwrap().parse().unwrap();
        daemon
    }

    /// The next event of this kind.
    pub(crate) fn event(&mut self, kind: &str) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "no {kind} before the end");
            let event: Value = serde_json::from_str(&line).expect("an event");
            if event["event"] == kind {
                return event;
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs it to its end, which is to come soon.
pub(crate) fn run(args: &[&str]) -> Output {
    run_command(Command::new(PROGRAM).args(args))
}

pub(crate) fn run_command(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..3000 {
        if child.try_wait().unwrap().is_some() {
            return child.wait_with_output().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    panic!("{command:?} does not end");
}

pub(crate) fn executable(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn one_dump_with_events_and_a_path() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("good")).unwrap();
    let mut daemon = Daemon::start(dir.path(), &["--once", "--linger", "1"]);
    let mut client = StockClient::new("127.0.0.1");
    client.herald(daemon.address, b"good\0");
    assert_eq!(daemon.event("herald")["provisional"], false);
    let session = daemon.event("session");
    client.dump(&pattern(1 << 20));
    client.finish();
    let finished = daemon.event("finished");
    assert_eq!(finished["result"], "complete");
    assert_eq!(finished["bytes"], 1 << 20);
    assert_eq!(finished["dump_length"], 1 << 20);
    assert_eq!(finished["holes"]["count"], 0);
    assert_eq!(finished["vmcore"], session["vmcore"]);
    let vmcore = Path::new(finished["vmcore"].as_str().unwrap());
    assert_eq!(vmcore, dir.path().canonicalize().unwrap().join("good/vmcore.127.0.0.1.0"));
    assert!(std::fs::read(vmcore).unwrap() == pattern(1 << 20));
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn a_dump_with_a_hole_ends_with_status_3() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(dir.path(), &["--once", "--linger", "0"]);
    let mut client = StockClient::new("127.0.0.1");
    client.herald(daemon.address, b"");
    client.dump(&pattern(100_000));
    client.skip_message();
    client.finish();
    let finished = daemon.event("finished");
    assert_eq!(
        (&finished["result"], &finished["missing_seqnos"]),
        (&"incomplete".into(), &1.into())
    );
    assert_eq!(daemon.exit_code(), Some(3));
}

#[test]
fn a_dump_that_cannot_be_stored_ends_with_status_4() {
    let dir = tempfile::tempdir().unwrap();
    let more = ["--once", "--linger", "0", "--max-total-size", "300K"];
    let mut daemon = Daemon::start(dir.path(), &more);
    let mut client = StockClient::new("127.0.0.1");
    client.herald(daemon.address, b"");
    let record = dir.path().join("info.127.0.0.1.0.json");
    let is_over = || std::fs::read_to_string(&record).is_ok_and(|it| it.contains("\"failed\""));
    let acked = client.dump_until(&pattern(1 << 20), is_over);
    assert!(acked <= 300 << 10, "{acked} bytes were acked");
    let finished = daemon.event("finished");
    assert_eq!((&finished["result"], &finished["end"]), (&"failed".into(), &"store_failed".into()));
    assert_eq!(daemon.exit_code(), Some(4));
}

#[test]
fn signals_stop_it_cleanly() {
    for (signal, once, code) in
        [(Signal::TERM, false, 0), (Signal::INT, false, 0), (Signal::TERM, true, 5)]
    {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let mut more = vec!["-P", pid_file.to_str().unwrap()];
        more.extend(once.then_some("--once"));
        let mut daemon = Daemon::start(dir.path(), &more);
        if !once {
            let mut client = StockClient::new("127.0.0.1");
            client.herald(daemon.address, b"");
            client.dump(&pattern(100_000));
        }
        let pid: u32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        assert_eq!(pid, daemon.child.id());
        daemon.signal(signal);
        if !once {
            assert_eq!(daemon.event("finished")["end"], "stopped");
            let json = std::fs::read_to_string(dir.path().join("info.127.0.0.1.0.json")).unwrap();
            let json: Value = serde_json::from_str(&json).unwrap();
            assert_eq!(
                (&json["end"], &json["received_bytes"]),
                (&"stopped".into(), &100_000.into())
            );
        }
        assert_eq!(daemon.exit_code(), Some(code));
        assert!(!pid_file.exists());
    }
}

#[test]
fn the_script_is_told_and_gets_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let tools = tempfile::tempdir().unwrap();
    let script = tools.path().join("handler");
    let said = tools.path().join("said");
    executable(
        &script,
        &format!(
            "#!/bin/sh\n\
             {{ echo \"args $*\"; echo \"cwd $(pwd)\"; echo \"descriptors\" $(readlink /proc/$$/fd/*); \
             /usr/bin/env | grep -v -e ^PWD= -e ^SHLVL= -e ^_= -e ^OLDPWD=; tail -n 1 \"$4\"; }} > {0}.tmp\n\
             mv {0}.tmp {0}\nexit 7\n",
            said.display()
        ),
    );
    // A careless parent leaves a descriptor open.
    let mut careless = Command::new("/bin/sh");
    careless.args(["-c", "exec 9</etc/passwd; exec \"$0\" \"$@\"", PROGRAM]);
    let mut daemon = Daemon::start_by(careless, dir.path(), &["-i", script.to_str().unwrap()]);
    let mut client = StockClient::new("127.0.0.1");
    client.herald(daemon.address, b"");
    client.dump(&pattern(5000));
    client.finish();
    let event = daemon.event("script");
    assert_eq!((&event["reason"], &event["status"]), (&"success".into(), &"exit status: 7".into()));
    let said = std::fs::read_to_string(&said).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        lines[0],
        "args success 127.0.0.1 127.0.0.1 ./info.127.0.0.1.0 ./vmcore.127.0.0.1.0"
    );
    assert_eq!(lines[1], format!("cwd {}", dir.path().canonicalize().unwrap().display()));
    // Its own three, the script itself, and what the shell made: nothing of ours.
    let descriptors: Vec<_> = lines[2].split(' ').skip(1).collect();
    let tools = tools.path().canonicalize().unwrap();
    for descriptor in &descriptors {
        let is_its_own = *descriptor == "/dev/null"
            || descriptor.starts_with("pipe:")
            || Path::new(descriptor).starts_with(&tools);
        assert!(is_its_own, "{descriptors:?}");
    }
    assert!(lines[3].starts_with("PATH="));
    assert_eq!(lines[4..], ["Dump complete"], "the info file was whole");
}

#[test]
fn a_script_that_does_not_end_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("handler");
    executable(&script, "#!/bin/sh\nsleep 1000 & sleep 1000\n");
    let more = ["-i", script.to_str().unwrap(), "--script-limit", "1"];
    let mut daemon = Daemon::start(dir.path(), &more);
    let mut client = StockClient::new("127.0.0.1");
    client.herald(daemon.address, b"");
    client.finish();
    assert_eq!(daemon.event("script")["status"], "killed: it took too long");
}

#[test]
fn bad_input_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().to_str().unwrap();
    let plain = dir.path().join("no-script");
    std::fs::write(&plain, "").unwrap();
    std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(0o644)).unwrap();
    let plain = plain.to_str().unwrap();
    for (args, code, named) in [
        (&["-D", "-d", "/no/such/directory"][..], 1, "/no/such/directory"),
        (&["-D", "-d", "/dev/null"], 1, "/dev/null"),
        (&["-D", "-d", good, "-p", "../elsewhere"], 1, "../elsewhere"),
        (&["-D", "-d", good, "-a", "192.0.2.77", "--port", "0"], 1, "192.0.2.77:0"),
        (&["-D", "-d", good, "-i", "/no/such/script"], 1, "/no/such/script"),
        (&["-D", "-d", good, "-i", plain], 1, plain),
        (&["-D", "-a", "nowhere"], 2, "nowhere"),
        (&["-D", "--port", "70000"], 2, "70000"),
        (&["-D", "--max-dump-size", "much"], 2, "much"),
        // The daemon's complaint reaches whoever started it.
        (&["-d", "/no/such/directory"], 1, "/no/such/directory"),
    ] {
        let output = run(args);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {complaint}");
        assert!(complaint.contains(named), "{args:?}: {complaint}");
    }
}

/// People see a progress bar, and the log above it.
#[test]
fn on_a_terminal() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let dir = tempfile::tempdir().unwrap();
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let terminal = std::fs::File::options()
        .read(true)
        .write(true)
        .open(Path::new(name.to_str().unwrap()))
        .unwrap();
    let mut child = Command::new(PROGRAM)
        .args(["-D", "-a", "127.0.0.1", "--port", "0", "--once", "--linger", "0", "-d"])
        .arg(dir.path())
        .stderr(terminal)
        .spawn()
        .unwrap();
    let mut screen = BufReader::new(std::fs::File::from(master));
    let mut line = String::new();
    let address = loop {
        line.clear();
        assert_ne!(screen.read_line(&mut line).unwrap(), 0);
        if let Some((_, address)) = line.split_once("listening on ") {
            break address.trim().parse().unwrap();
        }
    };
    let mut client = StockClient::new("127.0.0.1");
    client.herald(address, b"");
    client.dump(&pattern(100_000));
    client.finish();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // Linux ends a terminal without a far side with an error, after all that was written.
    let mut rest = Vec::new();
    let _ = screen.read_to_end(&mut rest);
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains("complete (finished): 100000 bytes"), "{rest}");
}

/// What the name of the loopback address is, if any, is this machine's affair.
#[test]
fn a_lookup_does_not_stand_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(dir.path(), &["--resolve"]);
    let mut client = StockClient::new("127.0.0.1");
    client.herald(daemon.address, b"");
    let session = daemon.event("session");
    client.dump(&pattern(5000));
    client.finish();
    let finished = daemon.event("finished");
    assert_eq!(
        (&finished["result"], &finished["vmcore"]),
        (&"complete".into(), &session["vmcore"])
    );
    let host = session["host"].as_str().unwrap();
    let vmcore = Path::new(finished["vmcore"].as_str().unwrap());
    assert_eq!(vmcore.file_name().unwrap().to_str().unwrap(), format!("vmcore.{host}.0"));
    assert!(host == "127.0.0.1" || !host.contains('.'), "{host}");
}

#[test]
fn it_becomes_a_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    let [.., high, low] = std::process::id().to_be_bytes();
    let ip = format!("127.77.{high}.{}", low | 1);
    // A port that was free just now, on an address that nobody else uses.
    let address = UdpSocket::bind((&*ip, 0)).unwrap().local_addr().unwrap();
    let port = address.port().to_string();
    let (at, pid_path) = (dir.path().to_str().unwrap(), pid_file.to_str().unwrap());
    let args = ["-d", at, "-P", pid_path, "-a", &ip, "--port", &port];
    let output = run(&args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    let pid = Pid::from_raw(pid).unwrap();

    let mut client = StockClient::new("127.0.0.1");
    client.herald(address, b"");
    client.dump(&pattern(100_000));
    client.finish();
    let vmcore = std::fs::read(dir.path().join("vmcore.127.0.0.1.last")).unwrap();
    assert!(vmcore == pattern(100_000));

    let second = run(&args);
    assert_eq!(second.status.code(), Some(1), "the address is taken");
    kill_process(pid, Signal::TERM).unwrap();
    for _ in 0..3000 {
        if !pid_file.exists() && test_kill_process(pid).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // A process that nobody waits for stays as a zombie: the file is what counts.
    assert!(!pid_file.exists(), "it did not stop");
}
