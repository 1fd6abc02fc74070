//! The registers of a fault as QEMU saw them: what `-d int` writes when a CPU
//! takes an exception, before any code of the guest runs.

use std::path::Path;
use std::{fs, io};

/// One exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The vector.
    pub vector: u64,
    /// Registers by QEMU's names: `RAX`, `RIP`, `RFL`, `CS` and so on.
    pub registers: Vec<(String, u64)>,
}

impl Fault {
    /// The register of this name.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.registers.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
}

/// Every exception of the log at `path`, in order.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<Fault>> {
    Ok(parse(&String::from_utf8_lossy(&fs::read(path)?)))
}

/// `v=0e e=0002 ...` begins an exception; lines of `NAME=value` follow. A
/// segment is `CS =0008 base limit flags`.
fn parse(log: &str) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once(" v=") {
            let vector = rest.get(..2).and_then(|hex| u64::from_str_radix(hex, 16).ok());
            faults.extend(vector.map(|vector| Fault { vector, registers: Vec::new() }));
            continue;
        }
        let Some(fault) = faults.last_mut() else { continue };
        let line = line.replace(" =", "=");
        for word in line.split_ascii_whitespace() {
            if let Some((name, hex)) = word.split_once('=')
                && let Ok(value) = u64::from_str_radix(hex, 16)
                && fault.get(name).is_none()
            {
                fault.registers.push((name.to_owned(), value));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_qemu_is_understood() {
        let log = "     0: v=0e e=0002 i=0 cpl=0 IP=0008:000000000011faf1 pc=000000000011faf1 \
                   SP=0010:00000000001beee8 CR2=0000000000000018\n\
                   RAX=00000000001beecc RBX=00000000001bef08 RCX=0000000000000018\n\
                   R8 =00000000004c4b40 R9 =636d727f67766f6d\n\
                   RIP=000000000011faf1 RFL=00010006 [-----P-] CPL=0 II=0 A20=1 SMM=0 HLT=0\n\
                   CS =0008 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]\n\
                   Servicing hardware INT=0x02\n\
                   1: v=02 e=0000 i=0 cpl=0 IP=0008:00 pc=00 SP=0010:00 env->regs[R_EAX]=00\n\
                   RAX=0000000000000001\n";
        let faults = parse(log);
        assert_eq!(faults.iter().map(|fault| fault.vector).collect::<Vec<_>>(), [14, 2]);
        assert_eq!(faults[0].get("R9"), Some(0x636d_727f_6776_6f6d));
        assert_eq!(faults[0].get("RFL"), Some(0x10006));
        assert_eq!((faults[0].get("CS"), faults[0].get("RIP")), (Some(8), Some(0x11_faf1)));
        assert_eq!(faults[1].get("RAX"), Some(1));
        assert_eq!(faults[1].get("RBX"), None);
    }
}
