//! Counting what passed, failed and was skipped.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Lines of a long reason that are told again at the end, of its beginning and of its end.
const WHY_HALF: usize = 20;

/// Results of a command that consists of many checks.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    /// Names, each with what is known of why.
    failed: Vec<(String, String)>,
    skipped: Vec<(String, String)>,
}

impl Tally {
    pub(crate) fn fail(&mut self, name: impl Into<String>, why: impl Into<String>) {
        self.failed.push((name.into(), why.into()));
    }

    pub(crate) fn skip(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.skipped.push((name.into(), reason.into()));
    }

    /// Runs one check and says how it went.
    pub(crate) fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        println!("==> {name}");
        let begin = Instant::now();
        let result = check();
        self.record(name, begin.elapsed(), result);
    }

    pub(crate) fn record(&mut self, name: &str, took: Duration, result: Result<()>) {
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("    {name}: ok ({:.1} s)", took.as_secs_f64());
            }
            Err(error) => {
                let why = format!("{error:#}");
                println!("    {name}: FAILED ({:.1} s)\n{why}", took.as_secs_f64());
                self.fail(name, why);
            }
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }

    /// Names what was skipped and what failed, with what is known of why,
    /// ends with one plain line of numbers, and fails if anything did.
    pub(crate) fn close(self) -> Result<()> {
        print!("\n{}", self.summary());
        match self.failed.len() {
            0 => Ok(()),
            failed => bail!("{failed} failed"),
        }
    }

    /// `.ci/run` repeats what stands between the first line that begins with
    /// `failed: ` and the numbers, so that it is not lost in a long output.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        for (name, reason) in &self.skipped {
            text += &format!("skipped: {name}: {reason}\n");
        }
        for (name, why) in &self.failed {
            text += &format!("failed: {name}\n");
            let lines: Vec<&str> = why.lines().filter(|line| !line.trim().is_empty()).collect();
            if lines.len() > 2 * WHY_HALF {
                let (first, last) = (&lines[..WHY_HALF], &lines[lines.len() - WHY_HALF..]);
                for line in first.iter().chain(&["..."]).chain(last) {
                    text += &format!("    {line}\n");
                }
            } else {
                text.extend(lines.iter().map(|line| format!("    {line}\n")));
            }
        }
        let (failed, skipped) = (self.failed.len(), self.skipped.len());
        text + &format!("{} passed, {failed} failed, {skipped} skipped\n", self.passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_why_and_ends_with_the_numbers() {
        let mut tally = Tally { passed: 7, ..Tally::default() };
        tally.skip("a", "no tap");
        tally.fail("b", "left 1\n\nright 2\n");
        tally.fail("c", "");
        tally.fail("d", (1..=100).map(|line| format!("line {line}\n")).collect::<String>());
        let summary = tally.summary();
        let lines: Vec<&str> = summary.lines().collect();
        assert_eq!(
            lines[..6],
            [
                "skipped: a: no tap",
                "failed: b",
                "    left 1",
                "    right 2",
                "failed: c",
                "failed: d"
            ]
        );
        assert_eq!(lines[6..6 + WHY_HALF].last(), Some(&"    line 20"));
        assert_eq!(lines[6 + WHY_HALF..][..2], ["    ...", "    line 81"]);
        let end = &lines[lines.len() - 2..];
        assert_eq!(end, ["    line 100", "7 passed, 3 failed, 1 skipped"]);
    }
}
