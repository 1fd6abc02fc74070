//! `cargo xtask fuzz`: the targets of `fuzz/`, by cargo-fuzz.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::tally::Tally;
use crate::{cargo, tools};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A file of `fuzz/fuzz_targets` without its ending, or `all`
    target: String,
    /// How long to look for something new, for each target
    #[arg(long, default_value_t = 10.0, conflicts_with = "smoke")]
    minutes: f64,
    /// A few seconds for each target, as `cargo xtask ci` does
    #[arg(long)]
    smoke: bool,
}

/// Seconds of a smoke run of one target.
const SMOKE_S: u64 = 4;
/// One input that takes longer hangs. Generous: the machine may be busy.
const HANG_S: u64 = 60;
const MEMORY_MAX_MIB: u64 = 2048;
/// Lines of a run that failed that are told again.
const LAST_LINES: usize = 30;

pub(crate) fn run(args: &Args) -> Result<()> {
    let all = targets()?;
    let wanted = if args.target == "all" {
        all
    } else if all.contains(&args.target) {
        vec![args.target.clone()]
    } else {
        bail!("no fuzz target `{}`: there is `all`, {}", args.target, all.join(", "));
    };
    ensure!(args.minutes > 0.0 && args.minutes.is_finite(), "{} minutes", args.minutes);
    let seconds = if args.smoke { SMOKE_S } else { (args.minutes * 60.0).ceil() as u64 };
    fuzz(&wanted, seconds).close()
}

/// A few seconds of each target.
pub(crate) fn smoke() -> Result<Tally> {
    Ok(fuzz(&targets()?, SMOKE_S))
}

/// The names of the targets.
fn targets() -> Result<Vec<String>> {
    let dir = cargo::root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn fuzz(targets: &[String], seconds: u64) -> Tally {
    let mut tally = Tally::default();
    if let Err(error) = tools::cargo_fuzz() {
        for target in targets {
            println!("    fuzz {target}: skipped: {error:#}");
            tally.skip(format!("fuzz {target}"), format!("{error:#}"));
        }
        return tally;
    }
    for target in targets {
        let begin = Instant::now();
        println!("==> fuzz {target}");
        let result = fuzz_one(target, seconds);
        tally.record(&format!("fuzz {target}"), begin.elapsed(), result);
    }
    tally
}

fn fuzz_one(target: &str, seconds: u64) -> Result<()> {
    // What is new goes to a directory of its own: the one in the repository
    // holds what somebody chose to keep.
    let found = cargo::target_dir()?.join("fuzz-corpus").join(target);
    fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
    let kept = PathBuf::from("fuzz/corpus").join(target);
    ensure!(
        cargo::root().join(&kept).is_dir(),
        "{} is missing: a target has a corpus",
        kept.display()
    );
    let mut command = tools::nightly_cargo();
    command.args(["fuzz", "run", "--target-dir"]).arg(cargo::target_dir()?.join("fuzz"));
    command.arg(target).arg(&found).arg(&kept).arg("--").args([
        format!("-max_total_time={seconds}"),
        format!("-timeout={HANG_S}"),
        format!("-rss_limit_mb={MEMORY_MAX_MIB}"),
        "-verbosity=0".into(),
        "-print_final_stats=1".into(),
    ]);
    without_dictionary(&mut command).with_context(|| {
        format!(
            "the input is in fuzz/artifacts/{target}; with its cure, add it to {}",
            kept.display()
        )
    })
}

/// Runs `command` with its output shown, but for the dictionary of a hundred words and more
/// that the fuzzer's library ends with, whether asked or not.
fn without_dictionary(command: &mut Command) -> Result<()> {
    let shown = cargo::show(command);
    let mut child =
        command.stderr(Stdio::piped()).spawn().with_context(|| format!("running {shown}"))?;
    let mut stderr = BufReader::new(child.stderr.take().context("no pipe")?);
    let (mut line, mut is_inside) = (Vec::new(), false);
    let mut last = VecDeque::new();
    // Words may be no UTF-8.
    while stderr.read_until(b'\n', &mut line).context("reading what the fuzzer says")? > 0 {
        if is_shown(&line, &mut is_inside) {
            let text = String::from_utf8_lossy(&line);
            eprint!("{text}");
            last.push_back(text.into_owned());
            if last.len() > LAST_LINES {
                last.pop_front();
            }
        }
        line.clear();
    }
    let status = child.wait().with_context(|| format!("waiting for {shown}"))?;
    ensure!(
        status.success(),
        "`{shown}` failed: {status}\n{}",
        last.into_iter().collect::<String>()
    );
    Ok(())
}

fn is_shown(line: &[u8], is_inside: &mut bool) -> bool {
    match line {
        b"###### Recommended dictionary. ######\n" => *is_inside = true,
        b"###### End of recommended dictionary. ######\n" => {
            *is_inside = false;
            return false;
        }
        _ => {}
    }
    !*is_inside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_left_out() {
        let mut is_inside = false;
        let shown: Vec<&str> = [
            "INFO: seed\n",
            "###### Recommended dictionary. ######\n",
            "\"x\" # Uses: 1\n",
            "###### End of recommended dictionary. ######\n",
            "stat::peak_rss_mb: 96\n",
        ]
        .into_iter()
        .filter(|line| is_shown(line.as_bytes(), &mut is_inside))
        .collect();
        assert_eq!(shown, ["INFO: seed\n", "stat::peak_rss_mb: 96\n"]);
    }
}
