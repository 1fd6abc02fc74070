//! The machines that a guest boots on, and what each of them takes.

use crate::qemu::{COMPRESSIONS, DEFMT, IMAGES, Machine};

/// A machine of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Board {
    /// What users call it.
    pub name: &'static str,
    /// QEMU's program for it, found through PATH.
    pub program: &'static str,
    /// The program that boots on it.
    pub guest: Guest,
    /// NICs that fit; the first is the usual one.
    pub nics: &'static [&'static str],
    /// RAM in the image in MiB, where the board leaves no choice.
    pub memory_mib: Option<u64>,
    /// Whether it takes packets of more than 1500 bytes.
    pub jumbo: bool,
    /// QEMU's arguments for it.
    pub(crate) arguments: &'static [&'static str],
}

/// A program that dies and dumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guest {
    /// `qemu-tests/guest`.
    Kernel(Arch),
    /// `qemu-tests/firmware`, for a Cortex-M3.
    Firmware,
}

/// What the kernel is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arch {
    /// A PC, with the host's toolchain.
    X86_64,
    /// QEMU's `virt` for Arm.
    Aarch64,
    /// QEMU's `virt` for RISC-V.
    Riscv64,
}

impl Guest {
    /// The kernel on a PC: the one with a second CPU, a second mapping, and a client in C.
    pub const PC: Self = Self::Kernel(Arch::X86_64);

    /// What its dump can look like; the first is the usual.
    pub const fn images(self) -> &'static [&'static str] {
        match self {
            Self::Kernel(_) => IMAGES,
            Self::Firmware => &["elf", "flat"],
        }
    }

    /// The target that the toolchain must have; `None` is the host's own.
    pub const fn target(self) -> Option<&'static str> {
        match self {
            Self::Kernel(Arch::X86_64) => None,
            Self::Kernel(Arch::Aarch64) => Some("aarch64-unknown-none"),
            Self::Kernel(Arch::Riscv64) => Some("riscv64gc-unknown-none-elf"),
            Self::Firmware => Some("thumbv7m-none-eabi"),
        }
    }
}

const X86_64: &str = "qemu-system-x86_64";
const PC_EXIT: [&str; 2] = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"];

const SEMIHOSTING: [&str; 2] = ["-semihosting-config", "enable=on,target=native"];

/// NICs of QEMU's `virt` machines: in a slot of virtio-mmio, or on PCI Express.
const VIRT_NICS: &[&str] = &[
    "virtio-net-device",
    "virtio-net-device-legacy",
    "virtio-net-pci",
    "virtio-net-pci-non-transitional",
    "virtio-net-pci-legacy",
    "e1000",
    "e1000e",
];

/// NICs on PCI that every PC with it takes.
macro_rules! pci_nics {
    ($($more:literal)?) => {
        &[
            "virtio-net-pci",
            "virtio-net-pci-non-transitional",
            "virtio-net-pci-legacy",
            "e1000",
            "e1000-82544gc",
            "e1000-82545em",
            "e1000e",
            $($more,)?
        ]
    };
}

/// All of them.
pub const BOARDS: &[Board] = &[
    Board {
        name: "q35",
        program: X86_64,
        guest: Guest::PC,
        // igb: only PCI Express has a place for it.
        nics: pci_nics!("igb"),
        memory_mib: None,
        jumbo: true,
        arguments: &["-M", "q35", PC_EXIT[0], PC_EXIT[1]],
    },
    Board {
        name: "pc",
        program: X86_64,
        guest: Guest::PC,
        nics: pci_nics!(),
        memory_mib: None,
        jumbo: true,
        arguments: &["-M", "pc", PC_EXIT[0], PC_EXIT[1]],
    },
    Board {
        name: "microvm",
        program: X86_64,
        guest: Guest::PC,
        nics: &["virtio-net-device", "virtio-net-device-legacy"],
        memory_mib: None,
        jumbo: true,
        arguments: &["-M", "microvm", PC_EXIT[0], PC_EXIT[1]],
    },
    Board {
        name: "mps2-an385",
        program: "qemu-system-arm",
        guest: Guest::Firmware,
        nics: &["lan9118"],
        memory_mib: Some(4),
        jumbo: false,
        arguments: &["-M", "mps2-an385", SEMIHOSTING[0], SEMIHOSTING[1]],
    },
    Board {
        name: "aarch64-virt",
        program: "qemu-system-aarch64",
        guest: Guest::Kernel(Arch::Aarch64),
        nics: VIRT_NICS,
        memory_mib: None,
        jumbo: true,
        arguments: &["-M", "virt", "-cpu", "cortex-a57", SEMIHOSTING[0], SEMIHOSTING[1]],
    },
    Board {
        name: "riscv64-virt",
        program: "qemu-system-riscv64",
        guest: Guest::Kernel(Arch::Riscv64),
        nics: VIRT_NICS,
        memory_mib: None,
        jumbo: true,
        arguments: &["-M", "virt", "-bios", "none", SEMIHOSTING[0], SEMIHOSTING[1]],
    },
];

/// The board of this name.
pub fn board(name: &str) -> Option<&'static Board> {
    BOARDS.iter().find(|board| board.name == name)
}

/// The boards' names.
pub fn machines() -> impl Iterator<Item = &'static str> {
    BOARDS.iter().map(|board| board.name)
}

/// Every NIC, once.
pub fn nics() -> Vec<&'static str> {
    let mut names = Vec::new();
    for nic in BOARDS.iter().flat_map(|board| board.nics) {
        if !names.contains(nic) {
            names.push(nic);
        }
    }
    names
}

impl Board {
    /// Looks at what is to be made of it.
    ///
    /// # Errors
    /// What does not fit, and what would.
    pub fn check(&self, machine: &Machine) -> Result<(), Misfit> {
        let Machine { nic, memory_mib, mtu, mapping, client, cpus, image, compress, .. } = machine;
        let name = self.name;
        let wrong = |what: String| Err(Misfit(what));
        if !self.nics.contains(&nic.as_str()) {
            return wrong(format!(
                "{name} has no place for {nic}; it takes {}",
                self.nics.join(", ")
            ));
        }
        if let Some(fixed) = self.memory_mib.filter(|fixed| fixed != memory_mib) {
            return wrong(format!("{name} has {fixed} MiB of RAM to dump, and no other size"));
        }
        if *mtu > 1500 && !self.jumbo {
            return wrong(format!("an MTU of {mtu} is too large for the NIC of {name}: 1500"));
        }
        let images = self.guest.images();
        if !images.contains(&image.as_str()) {
            return wrong(format!("{name} makes no {image} image, but {}", images.join(", ")));
        }
        if compress != COMPRESSIONS[0] && (self.guest == Guest::Firmware || client == "c") {
            let who = if client == "c" { "the client in C" } else { name };
            return wrong(format!(
                "{who} cannot compress with {compress}, it takes {}",
                COMPRESSIONS[0]
            ));
        }
        if self.guest != Guest::PC && (mapping != "identity" || *cpus != 1) {
            return wrong(format!("{name} has one CPU, and one mapping, identity"));
        }
        // What `debugnet-capi/examples` has a driver for.
        let in_c = ("microvm", "virtio-net-device", "flat", "identity");
        if client == "c" && (name, nic.as_str(), image.as_str(), mapping.as_str()) != in_c {
            return wrong("the client in C takes microvm, virtio-net-device, image flat".into());
        }
        if client == DEFMT && self.guest != Guest::Firmware {
            return wrong(format!("{name} has no client that logs with defmt; mps2-an385 has"));
        }
        Ok(())
    }
}

/// Why a machine cannot be put together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misfit(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_named() {
        let fits = |name: &str, nic: &str, memory_mib, mtu| {
            let board = board(name).unwrap();
            let image = board.guest.images()[0].into();
            let machine = Machine { nic: nic.into(), memory_mib, mtu, image, ..Machine::default() };
            board.check(&machine).map_err(|misfit| misfit.to_string())
        };
        assert_eq!(fits("q35", "igb", 256, 4148), Ok(()));
        assert_eq!(fits("mps2-an385", "lan9118", 4, 1500), Ok(()));
        let text = |result: Result<(), String>| result.unwrap_err();
        assert!(text(fits("q35", "virtio-net-device", 256, 1500)).contains("virtio-net-pci"));
        assert!(text(fits("pc", "igb", 256, 1500)).starts_with("pc has no place for igb"));
        assert!(text(fits("mps2-an385", "lan9118", 16, 1500)).contains("4 MiB"));
        assert!(text(fits("mps2-an385", "lan9118", 4, 4148)).contains("4148"));
        let two = Machine { nic: "lan9118".into(), memory_mib: 4, cpus: 2, ..Machine::default() };
        assert!(board("mps2-an385").unwrap().check(&two).is_err());
        let gzip = Machine { cpus: 1, compress: "gzip".into(), ..two.clone() };
        let wrong = board("mps2-an385").unwrap().check(&gzip).unwrap_err().0;
        assert!(wrong.contains("mps2-an385 cannot compress with gzip"), "{wrong}");
        let in_c = Machine {
            machine: "microvm".into(),
            nic: "virtio-net-device".into(),
            client: "c".into(),
            image: "flat".into(),
            ..gzip
        };
        let wrong = board("microvm").unwrap().check(&in_c).unwrap_err().0;
        assert!(wrong.contains("client in C cannot compress with gzip"), "{wrong}");
        let defmt = Machine { client: DEFMT.into(), cpus: 1, ..two.clone() };
        assert_eq!(board("mps2-an385").unwrap().check(&defmt), Ok(()));
        let on_a_pc = Machine { client: DEFMT.into(), ..Machine::default() };
        assert!(board("q35").unwrap().check(&on_a_pc).unwrap_err().0.contains("defmt"));
        let freebsd = Machine { cpus: 1, image: "freebsd".into(), ..two };
        assert!(board("mps2-an385").unwrap().check(&freebsd).unwrap_err().0.contains("flat"));
    }

    #[test]
    fn names_are_unique_and_every_board_has_a_nic() {
        let names: std::collections::BTreeSet<_> = machines().collect();
        assert_eq!(names.len(), BOARDS.len());
        assert!(BOARDS.iter().all(|board| !board.nics.is_empty()));
    }
}
