//! `cargo xtask panic-free`: the crash path cannot panic, shown by linking.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use object::{Object as _, ObjectSection as _, SectionKind};

use crate::probe::{self, BARE, Linked, Probe};
use crate::tally::Tally;
use crate::tools;

/// Sets of features that are shipped together: one driver for one transport
/// is what is linked without any.
const SETS: &[(&str, &str)] = &[
    ("every-transport,w5500,layouts", "every virtio transport, the SPI driver, layouts"),
    ("probe,w5500,layouts", "the driver that the PCI id asks for, the SPI driver, layouts"),
];

/// Levels of optimisation for `target`. Firmware is built for size, where the
/// compiler leaves checks that it removes elsewhere.
fn levels(target: &str) -> &'static [&'static str] {
    match target {
        "thumbv6m-none-eabi" => &["z"],
        "thumbv7m-none-eabi" => &["s", "z"],
        "thumbv7em-none-eabihf" => &["s"],
        _ => &["3"],
    }
}

pub(crate) fn run() -> Result<()> {
    all()?.close()
}

/// Proves it for every target that can be had.
pub(crate) fn all() -> Result<Tally> {
    let mut tally = Tally::default();
    let first = probe::proof_target()?;
    let others = BARE.iter().filter(|target| **target != first);
    for target in std::iter::once(first.as_str()).chain(others.copied()) {
        let name = format!("panic-free {target}");
        if target != first
            && let Err(error) = tools::target(target)
        {
            tally.skip(name, format!("{error:#}"));
            continue;
        }
        let begin = Instant::now();
        let result = prove(target, None, None);
        tally.record(&name, begin.elapsed(), result);
        for (set, what) in SETS {
            for level in levels(target) {
                let begin = Instant::now();
                let result = prove(target, Some(set), Some(level));
                let name = format!("{name} at {level} with {what}");
                tally.record(&name, begin.elapsed(), result);
            }
        }
    }
    let begin = Instant::now();
    let result = prove(&first, Some("e1000"), None);
    tally.record("panic-free with the Intel driver", begin.elapsed(), result);
    let begin = Instant::now();
    let result = notices_an_index(&first);
    tally.record("panic-free notices an indexing expression", begin.elapsed(), result);
    Ok(tally)
}

/// Links the crash path without a way to panic.
fn prove(target: &str, feature: Option<&str>, opt_level: Option<&str>) -> Result<()> {
    match (Probe { target, feature, opt_level, stack_sizes: false }).link()? {
        Linked::Program(_) => Ok(()),
        Linked::PanicRemains(_) => {
            let features = feature.map_or("defined".into(), |more| format!("defined,{more}"));
            let files = culprits(target, &features, opt_level)?;
            bail!(
                "something on the crash path can panic; panic locations in:\n  {}",
                files.join("\n  ")
            )
        }
    }
}

/// The proof must fail for a crash path with an indexing expression, and name it.
fn notices_an_index(target: &str) -> Result<()> {
    let linked =
        Probe { target, feature: Some("inject"), opt_level: None, stack_sizes: false }.link()?;
    ensure!(
        matches!(linked, Linked::PanicRemains(_)),
        "an indexing expression was added, and the probe links all the same"
    );
    let files = culprits(target, "inject,defined", None)?;
    ensure!(files.iter().any(|file| file.ends_with("src/entry.rs")), "named instead: {files:?}");
    Ok(())
}

/// The source files that panics would name, ours before the libraries'.
fn culprits(target: &str, features: &str, opt_level: Option<&str>) -> Result<Vec<String>> {
    let probe = Probe { target, feature: Some(features), opt_level, stack_sizes: false };
    let Linked::Program(program) = probe.link()? else {
        bail!("the probe does not link although {} is defined", probe::SYMBOL);
    };
    let bytes = probe::read(&program)?;
    let file = object::File::parse(bytes.as_slice())?;
    let mut names = BTreeSet::new();
    for section in file.sections() {
        if matches!(section.kind(), SectionKind::ReadOnlyData | SectionKind::ReadOnlyString) {
            names.extend(source_names(section.data()?));
        }
    }
    let (library, ours): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| name.starts_with("/rustc/"));
    Ok(ours.into_iter().chain(library).collect())
}

/// Everything in `bytes` that looks like the path of a Rust file. Texts lie
/// side by side without a separator, so that a name may begin too early.
fn source_names(bytes: &[u8]) -> Vec<String> {
    let in_path = |byte: &u8| byte.is_ascii_alphanumeric() || b"/_-.".contains(byte);
    let mut names = Vec::new();
    let mut from = 0;
    while let Some(at) = bytes[from..].windows(3).position(|window| window == b".rs") {
        let end = from + at + 3;
        let start = bytes[from..end].iter().rposition(|byte| !in_path(byte)).map_or(0, |at| at + 1);
        names.push(String::from_utf8_lossy(&bytes[from + start..end]).into_owned());
        from = end;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The proof would be worth nothing if it could not fail.
    #[test]
    fn an_indexing_expression_is_noticed() {
        let target = probe::proof_target().unwrap();
        prove(&target, None, None).unwrap();
        notices_an_index(&target).unwrap();
    }

    #[test]
    fn names_are_found_side_by_side() {
        let bytes = b"\0text nic-hal/src/a.rs/rustc/x/core.rs\xff none.r";
        assert_eq!(source_names(bytes), ["nic-hal/src/a.rs", "/rustc/x/core.rs"]);
        assert!(source_names(b"").is_empty());
    }
}
