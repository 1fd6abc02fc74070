//! The daemon's command line and its configuration file.

mod args;
mod config_file;

use std::ffi::OsString;
use std::io;
use std::path::Path;

use anyhow::Context;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

pub use args::{Args, Command, Generate, Sandbox};

/// Why there are no [`Args`].
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The command line: it is not understood, or asks for no more than a text (`--help`).
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The configuration file: it cannot be read, or says what is not understood. The error
    /// names file and key.
    #[error("{0:#}")]
    File(anyhow::Error),
}

/// The arguments of a program, its name first, with those of the file that they name.
/// `read` reads that file.
///
/// # Errors
/// What is not understood.
pub fn parse(
    typed: Vec<OsString>,
    read: impl FnOnce(&Path) -> io::Result<String>,
) -> Result<Args, Refused> {
    Ok(Args::from_arg_matches(&matches(typed, read)?)?)
}

pub(crate) fn matches(
    mut typed: Vec<OsString>,
    read: impl FnOnce(&Path) -> io::Result<String>,
) -> Result<ArgMatches, Refused> {
    let matches = Args::command().try_get_matches_from(&typed)?;
    let args = Args::from_arg_matches(&matches)?;
    let Some(path) = &args.config else { return Ok(matches) };
    let shown = path.display();
    let text = read(path)
        .with_context(|| format!("cannot read the configuration {shown} (--config)"))
        .map_err(Refused::File)?;
    let found = config_file::arguments(&text, &matches)
        .with_context(|| format!("in {shown}"))
        .map_err(Refused::File)?;
    // In front: behind a `--` they would be no options.
    typed.splice(1..1, found);
    Args::command()
        .try_get_matches_from(typed)
        .map_err(|error| Refused::File(anyhow::anyhow!("in {shown}: {}", error.render())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(typed: &[&str], text: &str) -> Result<Args, Refused> {
        let typed = ["netdumpd", "--config", "c.toml"].iter().chain(typed);
        parse(typed.map(OsString::from).collect(), |path| {
            assert_eq!(path, Path::new("c.toml"));
            Ok(text.to_owned())
        })
    }

    #[test]
    fn a_file_is_read_whatever_ends_the_command_line() {
        let plain = parsed(&["--port", "7"], "linger = 5\n").unwrap();
        assert_eq!(plain.limits().linger_us, 5_000_000);
        assert_eq!(parsed(&["--port", "7", "--"], "linger = 5\n").unwrap(), plain);
    }

    #[test]
    fn what_is_wrong_says_where_it_was_found() {
        let error = parsed(&[], "linger = 'x'\n").unwrap_err();
        let shown = error.to_string();
        assert!(matches!(error, Refused::File(_)), "{shown}");
        assert!(shown.starts_with("in c.toml: ") && shown.contains("'x'"), "{shown}");
        assert!(shown.contains("--linger"), "{shown}");
        assert!(matches!(parsed(&["--linger=x"], ""), Err(Refused::Usage(_))));
        let typed = ["netdumpd", "--config", "gone"].map(OsString::from).to_vec();
        let error = parse(typed, |_| Err(io::ErrorKind::NotFound.into())).unwrap_err().to_string();
        assert!(error.starts_with("cannot read the configuration gone (--config): "), "{error}");
    }
}
