//! Counting what passed, failed and was skipped.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Results of a command that consists of many checks.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    failed: Vec<String>,
    skipped: Vec<(String, String)>,
}

impl Tally {
    pub(crate) fn fail(&mut self, name: impl Into<String>) {
        self.failed.push(name.into());
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
                println!("    {name}: FAILED ({:.1} s)\n{error:#}", took.as_secs_f64());
                self.fail(name);
            }
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }

    /// Names what failed and what was skipped, ends with one plain line of
    /// numbers, and fails if anything did.
    pub(crate) fn close(self) -> Result<()> {
        println!();
        for (name, reason) in &self.skipped {
            println!("skipped: {name}: {reason}");
        }
        for name in &self.failed {
            println!("failed: {name}");
        }
        let (failed, skipped) = (self.failed.len(), self.skipped.len());
        println!("{} passed, {failed} failed, {skipped} skipped", self.passed);
        if failed > 0 {
            bail!("{failed} failed");
        }
        Ok(())
    }
}
