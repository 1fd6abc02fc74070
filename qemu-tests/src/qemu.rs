//! A QEMU process with the guest in it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use smoltcp::wire::EthernetAddress;

use crate::board::{self, board};
use crate::far_end::Network;
use crate::gateway::socket_paths;
use crate::process::{Closed, Process};
use crate::serial::{self, Line};
use crate::tap::{Namespace, QEMU_END};

/// The one that wants a port of its own.
const IGB: &str = "igb";
/// virtio-mmio of version 2.
const MMIO_NIC: &str = "virtio-net-device";
/// The same with version 1.
const MMIO_NIC_LEGACY: &str = "virtio-net-device-legacy";
/// A chip on the board: no device, but the board's own NIC.
const ON_BOARD: &str = "lan9118";

/// NICs that the QEMU program `program` has, among those of all boards.
///
/// # Errors
/// It cannot be run.
pub fn devices(program: &Path) -> io::Result<Vec<&'static str>> {
    let output = Command::new(program).args(["-device", "help"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let has = |nic: &str| text.contains(&format!("name \"{}\"", device_of(nic)));
    let mut nics = board::nics();
    nics.retain(|nic| *nic == ON_BOARD || has(nic));
    Ok(nics)
}

/// What QEMU calls the device of `nic`.
fn device_of(nic: &str) -> &str {
    match nic {
        "virtio-net-pci-legacy" => "virtio-net-pci",
        MMIO_NIC_LEGACY => MMIO_NIC,
        other => other,
    }
}

/// What the NIC is called in QEMU's monitor.
pub const NIC_ID: &str = "nic0";

/// Ways of dying.
pub const CRASHES: &[&str] = &["null", "panic", "stack", "driver-lock"];
/// Where the kernel's virtual addresses are: equal to the physical ones, or in the top 2 GiB. Each
/// is a guest of its own.
pub const MAPPINGS: &[&str] = &["identity", "higher-half"];
/// What dumps: the library in Rust, C code through its C interface, or Rust that logs with `defmt`
/// on a second serial port. Each is a guest of its own.
pub const CLIENTS: &[&str] = &["rust", "c", DEFMT];
/// The last of them.
pub const DEFMT: &str = "defmt";
/// What the guest's dump can look like.
pub const IMAGES: &[&str] = &["elf", "flat", "freebsd"];
/// How the guest's dump can be compressed; the first is the usual.
pub const COMPRESSIONS: &[&str] = &["none", "gzip"];
/// Accelerators.
pub const ACCELERATORS: &[&str] = &["tcg", "kvm"];

/// Station address of the guest's NIC.
pub const MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);

/// One mebibyte.
pub const MIB: u64 = 1 << 20;

/// A machine and what its guest is to do.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The name of one of [`BOARDS`](crate::board::BOARDS).
    pub machine: String,
    /// One of the board's NICs.
    pub nic: String,
    /// One of [`ACCELERATORS`].
    pub accel: String,
    /// One of [`MAPPINGS`].
    pub mapping: String,
    /// One of [`CLIENTS`].
    pub client: String,
    /// One of [`IMAGES`].
    pub image: String,
    /// One of [`COMPRESSIONS`].
    pub compress: String,
    /// Whether the guest keeps its keys out of the image.
    pub redact: bool,
    /// How many CPUs, 1 or 2.
    pub cpus: u32,
    /// RAM in MiB.
    pub memory_mib: u64,
    /// IP MTU in bytes.
    pub mtu: u16,
    /// One of [`CRASHES`].
    pub crash: String,
    /// Slots of the window; `None` leaves it to the guest.
    pub slots: Option<u32>,
    /// Seed of the pattern in RAM.
    pub seed: u64,
    /// More words for the guest's command line.
    pub append: String,
    /// More properties of QEMU's device, as in `packed=on,mq=on`.
    pub properties: String,
    /// More arguments for QEMU.
    pub arguments: Vec<String>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            machine: "q35".into(),
            nic: "virtio-net-pci".into(),
            accel: "tcg".into(),
            mapping: "identity".into(),
            client: "rust".into(),
            image: "elf".into(),
            compress: COMPRESSIONS[0].into(),
            redact: false,
            cpus: 1,
            memory_mib: 256,
            mtu: 1500,
            crash: "null".into(),
            slots: None,
            seed: 1,
            append: String::new(),
            properties: String::new(),
            arguments: Vec::new(),
        }
    }
}

impl Machine {
    /// RAM in the image, in bytes.
    pub const fn memory_len(&self) -> u64 {
        self.memory_mib * MIB
    }

    /// The guest's command line on `network`.
    pub fn command_line(&self, network: &Network) -> String {
        let mut line = format!(
            "nic={} crash={} mtu={} server={} client={} seed={}",
            self.nic, self.crash, self.mtu, network.server.ip, network.client, self.seed
        );
        if network.gateway.ip != Ipv4Addr::UNSPECIFIED {
            let _ = write!(line, " gateway={}", network.gateway.ip);
        }
        if let Some(slots) = self.slots {
            let _ = write!(line, " slots={slots}");
        }
        // The usual one of each guest needs no word.
        if board(&self.machine).is_some_and(|board| board.guest.images()[0] != self.image) {
            let _ = write!(line, " image={}", self.image);
        }
        if self.compress != COMPRESSIONS[0] {
            let _ = write!(line, " compress={}", self.compress);
        }
        if self.redact {
            line.push_str(" redact=1");
        }
        if self.cpus != 1 {
            let _ = write!(line, " cpus={}", self.cpus);
        }
        if !self.append.is_empty() {
            let _ = write!(line, " {}", self.append);
        }
        line
    }

    /// QEMU's arguments for the NIC.
    fn device(&self) -> Vec<String> {
        if self.nic == ON_BOARD {
            let nic = format!("nic,netdev=net0,model={ON_BOARD},macaddr={MAC}");
            return vec!["-net".into(), nic];
        }
        let name = device_of(&self.nic);
        let more = match self.nic.as_str() {
            "virtio-net-pci-legacy" => ",disable-modern=on,disable-legacy=off",
            _ => "",
        };
        let mut arguments = Vec::new();
        let mut device = format!("{name},id={NIC_ID},netdev=net0,mac={MAC}{more}");
        if name == MMIO_NIC {
            let legacy = if self.nic == MMIO_NIC_LEGACY { "on" } else { "off" };
            arguments.extend(["-global".into(), format!("virtio-mmio.force-legacy={legacy}")]);
        } else {
            // No option ROM: the guest is not booted from the network, and the
            // file is in a package of its own.
            device.push_str(",romfile=");
        }
        if name == IGB {
            // A port of its own: on the root bus, its virtual functions would need slot after slot.
            arguments.extend(["-device".into(), "pcie-root-port,id=port0,chassis=1".into()]);
            device.push_str(",bus=port0");
        }
        if self.mtu != 1500 && self.nic.starts_with("virtio-net") {
            let _ = write!(device, ",host_mtu={}", self.mtu);
        }
        if !self.properties.is_empty() {
            let _ = write!(device, ",{}", self.properties);
        }
        arguments.extend(["-device".into(), device]);
        arguments
    }
}

/// Files and sockets of a run.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The kernel to boot.
    pub guest: PathBuf,
    /// Everything the guest says is written here.
    pub serial_log: PathBuf,
    /// Where the bytes of a second serial port go, if the guest writes to one.
    pub defmt_log: Option<PathBuf>,
    /// What QEMU itself says is written here.
    pub qemu_log: PathBuf,
    /// Where QEMU writes the registers of every exception, if it is to.
    pub fault_log: Option<PathBuf>,
    /// A short path for sockets (at most about 90 bytes).
    pub sockets: PathBuf,
    /// Where QEMU writes its own capture of the link, if it is to.
    pub filter_dump: Option<PathBuf>,
}

impl Paths {
    /// The monitor's socket.
    pub fn monitor(&self) -> PathBuf {
        self.sockets.join("qmp")
    }
}

/// A running QEMU; killed when dropped.
#[derive(Debug)]
pub struct Qemu {
    process: Process,
    serial_log: File,
    paths: Paths,
}

impl Qemu {
    /// Starts `program` with `machine`, its link in `namespace` if there is one, else at
    /// the gateway's socket, which must exist.
    ///
    /// # Errors
    /// A file or the process cannot be made.
    pub fn start(
        program: &Path,
        machine: &Machine,
        network: &Network,
        namespace: Option<&Namespace>,
        paths: Paths,
    ) -> io::Result<Self> {
        let (host, guest) = socket_paths(&paths.sockets);
        let mut command = match namespace {
            Some(namespace) => namespace.command(program),
            None => Command::new(program),
        };
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        let board = board(&machine.machine)
            .ok_or_else(|| io::Error::other(format!("no machine is called {}", machine.machine)))?;
        command.args(board.arguments).args(["-accel", &machine.accel]);
        if board.memory_mib.is_none() {
            command.arg("-m").arg(machine.memory_mib.to_string());
        }
        command.arg("-smp").arg(machine.cpus.to_string());
        command.arg("-kernel").arg(&paths.guest);
        command.arg("-append").arg(machine.command_line(network));
        command.args(["-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"]);
        if let Some(log) = &paths.defmt_log {
            command.arg("-chardev").arg(format!("file,id=defmt,path={}", option(log)?));
            command.args(["-serial", "chardev:defmt"]);
        }
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", option(&paths.monitor())?));
        command.arg("-netdev").arg(match namespace {
            Some(_) => format!("tap,id=net0,ifname={QEMU_END},script=no,downscript=no"),
            None => format!(
                "dgram,id=net0,local.type=unix,local.path={},remote.type=unix,remote.path={}",
                option(&guest)?,
                option(&host)?
            ),
        });
        if let Some(file) = &paths.filter_dump {
            command.arg("-object");
            command.arg(format!("filter-dump,id=dump0,netdev=net0,file={}", option(file)?));
        }
        command.args(&machine.arguments).args(machine.device());
        if let Some(log) = &paths.fault_log {
            command.args(["-d", "int", "-D"]).arg(log);
        }
        command.stderr(File::create(&paths.qemu_log)?);
        let serial_log = File::create(&paths.serial_log)?;
        Ok(Self { process: Process::spawn(command)?, serial_log, paths })
    }

    /// The next line from the guest; `Ok(None)` after `patience`.
    ///
    /// # Errors
    /// QEMU has ended.
    pub fn line(&mut self, patience: Duration) -> Result<Option<Line>, Closed> {
        let Some(text) = self.process.line(patience)? else { return Ok(None) };
        // A full disk shows when the dump is written, not here.
        let _ = writeln!(self.serial_log, "{text}");
        Ok(Some(serial::parse(&text)))
    }

    /// Waits at most `patience` for QEMU to end by itself.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.process.wait(patience)
    }

    /// The last things that guest and QEMU said, for an error message.
    pub fn last_words(&mut self) -> String {
        // Whatever the reader thread still has.
        while let Ok(Some(_)) = self.line(Duration::from_millis(50)) {}
        let status = self.process.wait(Duration::ZERO);
        let mut words = tail(&self.paths.serial_log, 8);
        let qemu = tail(&self.paths.qemu_log, 4);
        if !qemu.is_empty() {
            let _ = write!(words, "\nqemu: {qemu}");
        }
        if let Some(status) = status {
            let _ = write!(words, "\nqemu ended: {status}");
        }
        words
    }
}

/// A path inside a QEMU option: commas are doubled there.
fn option(path: &Path) -> io::Result<String> {
    let text = path.to_str().ok_or_else(|| io::Error::other("a path is not UTF-8"))?;
    Ok(text.replace(',', ",,"))
}

fn tail(path: &Path, count: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_says_what_was_asked_for() {
        let machine = Machine { slots: Some(256), mtu: 4148, ..Machine::default() };
        assert_eq!(
            machine.command_line(&Network::default()),
            "nic=virtio-net-pci crash=null mtu=4148 server=10.0.2.2 client=10.0.2.15 seed=1 \
             gateway=10.0.2.1 slots=256"
        );
        assert!(machine.device()[1].ends_with("romfile=,host_mtu=4148"));
        assert!(!Machine::default().device()[1].contains("host_mtu"));
        let device = |nic: &str| Machine { nic: nic.into(), ..Machine::default() }.device();
        assert!(device("virtio-net-pci-legacy")[1].contains("virtio-net-pci,"));
        assert!(device("virtio-net-pci-legacy")[1].contains("disable-modern=on"));
        assert_eq!(device(MMIO_NIC)[1], "virtio-mmio.force-legacy=off");
        assert_eq!(device(MMIO_NIC_LEGACY)[1], "virtio-mmio.force-legacy=on");
        assert!(device(MMIO_NIC_LEGACY)[3].starts_with("virtio-net-device,"));
        assert_eq!(device(ON_BOARD)[0], "-net");
    }

    #[test]
    fn commas_do_not_end_an_option() {
        assert_eq!(option(Path::new("/a,b")).unwrap(), "/a,,b");
    }
}
