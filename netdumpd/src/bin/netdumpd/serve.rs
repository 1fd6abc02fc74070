//! From the command line to a server that runs: what is opened, as whom, and
//! when the rights to open more are given up.

use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use netdumpd::core::Verdict;
use netdumpd::net::{Handler, HandlerHelper, Server};
use netdumpd::options::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::daemon::{self, Parting, PidFile};
use crate::report::{All, JsonLines};
use crate::{log, user};

const INCOMPLETE: u8 = 3;
const FAILED: u8 = 4;
const NO_DUMP: u8 = 5;

/// Serves until a signal, or with `--once` until a dump has ended.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.daemon_child {
        daemon::detach()?;
    }
    let inherited = inherited_sockets()?;
    // The handler script must get nothing that we got from whoever started us.
    close_fds::set_fds_cloexec(3, &[]);
    raise_descriptor_limit();
    #[cfg_attr(
        not(any(feature = "metrics", all(feature = "sandbox", target_os = "linux"))),
        expect(unused_mut, reason = "nobody adds to it or tells it anything before the server")
    )]
    let mut observer = start_log(args);

    // As whoever started us: addresses, the process id file.
    let script = args.script()?;
    let mut config = args.server_config()?;
    if !inherited.is_empty() {
        config.listen.clear();
        config.inherited = inherited;
    }
    let dump_dir = config.store.dir.clone();
    let mut server = Server::bind(config)?;
    #[cfg(feature = "metrics")]
    let endpoint =
        args.metrics.map(crate::metrics::open).transpose()?.map(|(metrics, endpoint)| {
            // Before whoever tells of an event: who is told may ask at once.
            observer.0.insert(0, Box::new(metrics));
            endpoint
        });
    let pid_file = args.pid_file().map(|path| PidFile::create(&path)).transpose()?;

    // As the user we are to be. The helper starts programs: it is not locked down.
    if let Some(name) = &args.user {
        user::become_user(name, &dump_dir)?;
    }
    let handler = script.map(|script| start_helper(args, &script, &dump_dir)).transpose()?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot take signals")?;
    let parting = args.daemon_child.then(Parting::prepare).transpose()?;
    if args.daemon_child {
        // All paths are absolute by now; a daemon keeps no directory busy.
        std::env::set_current_dir("/")?;
    }
    #[cfg(all(feature = "sandbox", target_os = "linux"))]
    {
        use netdumpd::net::{Event, Observer as _};

        use crate::sandbox::{Allowed, Status, enter};
        let pid_dir = pid_file.as_ref().and_then(PidFile::dir);
        let allowed = Allowed { dump_dir: &dump_dir, pid_dir, resolve: args.resolve };
        let Status { landlock, seccomp } = enter(args.sandbox, &allowed)?;
        tracing::info!("landlock {landlock}, seccomp {seccomp}");
        observer.event(&Event::Sandbox { landlock, seccomp });
    }
    #[cfg(not(all(feature = "sandbox", target_os = "linux")))]
    if args.sandbox == netdumpd::options::Sandbox::Require {
        anyhow::bail!("this netdumpd was built without a sandbox (--sandbox require)");
    }

    // Threads from here on: they are locked down too.
    if let Some(handler) = handler {
        server.set_handler(handler);
    }
    #[cfg(feature = "metrics")]
    if let Some(endpoint) = endpoint {
        tracing::info!("metrics at http://{}/metrics", endpoint.address()?);
        endpoint.start().context("cannot answer Prometheus")?;
    }
    let stopper = server.stopper();
    let signal_handle = signals.handle();
    let listener = std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            tracing::info!("stopping (signal {signal})");
            stopper.stop();
        }
    })?;
    for address in server.local_addrs() {
        tracing::info!("listening on {address}");
    }
    if let Some(parting) = parting {
        parting.announce()?;
    }
    tell_service_manager();

    let verdict = server.run(Box::new(observer)).context("cannot go on")?;
    signal_handle.close();
    // It cannot panic; if it did, the dumps are closed all the same.
    let _ = listener.join();
    drop(pid_file);
    Ok(exit_code(args.once, verdict))
}

/// Runs the handler script for the server that started this process.
pub(crate) fn run_helper(args: &Args) -> Result<ExitCode> {
    // A signal for the whole group or service is for the server, which then
    // has scripts to run; this one ends when the server is gone.
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::<AtomicBool>::default())?;
    }
    let script = args.script()?.context("no script (-i)")?;
    let helper = HandlerHelper { script, dir: args.dump_dir()?, limit: args.script_limit() };
    // A complaint reached whoever started the server; from here on there is none.
    let nowhere = std::fs::File::options().write(true).open("/dev/null");
    rustix::stdio::dup2_stderr(nowhere.context("cannot open /dev/null")?)?;
    helper.run().context("cannot run the handler script")?;
    Ok(ExitCode::SUCCESS)
}

/// It gets what it needs by its command line: who is to run the script may not
/// be who can read the configuration.
fn start_helper(args: &Args, script: &Path, dump_dir: &Path) -> Result<Handler> {
    use std::os::unix::process::CommandExt;
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.arg("--handler-helper").arg("-i").arg(script).arg("-d").arg(dump_dir);
    command.arg("--script-limit").arg(args.script_limit().as_secs().to_string());
    command.env_clear().process_group(0);
    Handler::start(&mut command).context("cannot start the handler helper")
}

fn exit_code(once: bool, verdict: Option<Verdict>) -> ExitCode {
    match verdict {
        _ if !once => ExitCode::SUCCESS,
        Some(Verdict::Complete) => ExitCode::SUCCESS,
        Some(Verdict::Incomplete) => INCOMPLETE.into(),
        Some(Verdict::Failed) => FAILED.into(),
        None => NO_DUMP.into(),
    }
}

/// The log goes to syslog from the daemon, else to standard error; events to
/// standard output as JSON, or to progress bars on a terminal.
fn start_log(args: &Args) -> All {
    let mut all = All::default();
    if args.daemon_child {
        log::to_syslog();
    } else if args.json {
        log::to_stderr(std::io::stderr);
        all.0.push(Box::new(JsonLines));
    } else if std::io::stderr().is_terminal() {
        on_terminal(&mut all);
    } else {
        log::to_stderr(std::io::stderr);
    }
    all
}

#[cfg(feature = "progress")]
fn on_terminal(all: &mut All) {
    let bars = crate::bars::Bars::default();
    log::to_stderr(bars.writer());
    all.0.push(Box::new(bars));
}

#[cfg(not(feature = "progress"))]
fn on_terminal(_: &mut All) {
    log::to_stderr(std::io::stderr);
}

/// Sockets that a service manager has bound for us.
#[cfg(feature = "systemd")]
fn inherited_sockets() -> Result<Vec<std::net::UdpSocket>> {
    let mut given = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..given.len() {
        let socket = given.take_udp_socket(index);
        sockets.extend(socket.with_context(|| format!("inherited socket {index} is not for UDP"))?);
    }
    Ok(sockets)
}

#[cfg(not(feature = "systemd"))]
fn inherited_sockets() -> Result<Vec<std::net::UdpSocket>> {
    Ok(Vec::new())
}

fn tell_service_manager() {
    #[cfg(feature = "systemd")]
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!("service manager: {error}");
    }
}

/// One descriptor a session and four a dump: as many as we may have.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!("descriptor limit: {error}");
    }
}
