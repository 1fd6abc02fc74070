//! A hostile device and machine: what happens in the middle of a dump, and what becomes of it.
//!
//! The table in docs/reliability.md is made from this one, and compared with it.

use netsim::link::LinkConfig;

use crate::attack::Attack;
use crate::matrix::{Case, Expect, PLAIN};
use crate::rows::{self, Row};

/// RAM of each, in MiB.
const MEMORY_MIB: u64 = 32;

fn case(machine: &str, nic: &str, name: &str) -> Case {
    Case::new(machine, nic, MEMORY_MIB, PLAIN, 0, "null").named(name)
}

/// Slow enough to be met in the middle.
fn slow(mut case: Case) -> Case {
    case.link = LinkConfig { rate_bps: 100_000_000, ..LinkConfig::default() };
    case
}

fn attacked(machine: &str, nic: &str, name: &str, attack: Attack, expect: Expect) -> Case {
    let case = slow(case(machine, nic, &format!("hostile-{name}"))).append("no-progress=3");
    Case { attack: Some(attack), expect, ..case }
}

fn clock(fate: &str, expect: Expect) -> Case {
    let case = case("q35", "virtio-net-pci", "hostile").guest(&format!("clock={fate}"));
    Case { expect, ..slow(case) }
}

fn iommu(nic: &str, properties: &str, expect: Expect) -> Case {
    let mut case = case("q35", nic, "hostile-iommu");
    if !properties.is_empty() {
        case = case.device(properties);
    }
    case.machine.arguments = ["-device", "intel-iommu"].map(String::from).to_vec();
    Case { expect, ..case }
}

/// QEMU 10 dies of it now and then, with a segmentation fault.
fn unplugged(nic: &str) -> Case {
    let case = attacked("pc", nic, "unplug", Attack::Unplug, Expect::GivesUp("Gone"));
    Case { qemu_bug: Some("it does not always survive the unplugging of a NIC"), ..case }
}

fn nested(when: &str, stage: &'static str) -> Case {
    let case = case("q35", "virtio-net-pci", "hostile").guest(&format!("nested-in={when}"));
    Case { expect: Expect::Nested(stage), ..case }
}

fn panics(when: &str, stage: &'static str) -> Case {
    Case { expect: Expect::NestedPanic(stage), ..nested(when, stage).guest("nested-by=panic") }
}

fn writes(nic: &str) -> Case {
    case("q35", nic, "hostile").two_cpus().guest("second=writes")
}

fn rows() -> Vec<Row> {
    use Attack::{Flap, Reset, Unlink};
    use Expect::{GivesUp, Identical, Refused};
    let usual = |what, case| Row { what, is_usual: true, case };
    let full = |what, case| Row { what, is_usual: false, case };
    let virtio = "virtio-net-pci";
    vec![
        usual(
            "the link goes down three times",
            attacked("q35", virtio, "flap", Flap(3), Identical),
        ),
        full("the same, e1000e", attacked("q35", "e1000e", "flap", Flap(3), Identical)),
        full("the same, igb", attacked("q35", "igb", "flap", Flap(3), Identical)),
        full(
            "the link goes down for good",
            attacked("q35", virtio, "unlink", Unlink, GivesUp("Silence")),
        ),
        usual("the NIC is unplugged", unplugged(virtio)),
        full("the same, e1000", unplugged("e1000")),
        usual(
            "the NIC is reset by somebody else",
            attacked("q35", virtio, "reset", Reset, Identical),
        ),
        full("the same, e1000", attacked("q35", "e1000", "reset", Reset, Identical)),
        full("the same, e1000e", attacked("q35", "e1000e", "reset", Reset, Identical)),
        usual("the clock goes back by a second", clock("back", Identical)),
        full("the clock goes ahead by ten seconds", clock("jump", Identical)),
        full("the clock goes ahead beyond the deadline", clock("late", GivesUp("Deadline"))),
        full("the clock stops", clock("stop", GivesUp("ClockStopped"))),
        usual(
            "a CPU that nobody stopped writes to 64 KiB without end (all else is compared)",
            writes(virtio),
        ),
        full("the same, e1000", writes("e1000")),
        full("an IOMMU that translates nothing", iommu(virtio, "", Identical)),
        full("the same, e1000e", iommu("e1000e", "", Identical)),
        full("a fault in the dump: taking over", nested("take-over", "take-over")),
        full("a fault in the dump: looking for the server", nested("resolve", "resolve")),
        full("a fault in the dump: heralding", nested("herald", "herald")),
        usual("a fault in the dump: half of it sent", nested("half", "data")),
        full("a fault in the dump: closing it", nested("finish", "finish")),
        usual("a panic in the dump: half of it sent", panics("half", "data")),
        usual(
            "an IOMMU, and a virtio device that obeys it: the driver has no addresses for it",
            iommu(
                "virtio-net-pci-non-transitional",
                "iommu_platform=on",
                Refused("needs IOMMU addresses"),
            ),
        ),
    ]
}

/// The runs: a covering subset, or all.
pub(crate) fn cases(full: bool) -> Vec<Case> {
    rows::cases(rows(), full)
}

/// The rows as docs/reliability.md has them.
pub fn table() -> String {
    rows::table(["what happens", "the dump"], &rows(), |case| match case.expect {
        Expect::GivesUp(why) => format!("failed, `{why}`, and says what is missing"),
        Expect::Nested(stage) => {
            format!("nested: how much was acknowledged, and the stage `{stage}`")
        }
        Expect::NestedPanic(stage) => {
            format!(
                "nested: the panic's message, how much was acknowledged, and the stage `{stage}`"
            )
        }
        Expect::Refused(why) => format!("refused at boot: \"{why}\""),
        _ => "identical".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_the_docs_is_this_one() {
        rows::assert_in_docs(&table());
    }
}
