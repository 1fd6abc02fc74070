//! Options from a TOML file.
//!
//! A key is an option's long name. What it says is put in front of what was
//! typed as if it had been typed there, so that it is checked like anything else;
//! an option that was typed wins over the file.

use std::ffi::OsString;

use anyhow::{Result, bail, ensure};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory};
use toml::{Table, Value};

use super::Args;

/// What the file's `text` says, as arguments; without what was typed.
pub(super) fn arguments(text: &str, typed: &ArgMatches) -> Result<Vec<OsString>> {
    let table: Table = toml::from_str(text)?;
    let command = Args::command();
    let mut found = Vec::new();
    for (key, value) in table {
        let is_key = |arg: &&clap::Arg| {
            arg.get_long() == Some(key.as_str()) && !arg.is_hide_set() && key != "config"
        };
        let Some(arg) = command.get_arguments().find(is_key) else {
            bail!("{key}: no such option; expected the long name of one, as in --help");
        };
        if typed.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine) {
            continue;
        }
        let takes_many = matches!(arg.get_action(), ArgAction::Append);
        match (arg.get_action(), value) {
            (ArgAction::SetTrue, Value::Boolean(true)) => found.push(format!("--{key}").into()),
            (ArgAction::SetTrue, Value::Boolean(false)) => {}
            (ArgAction::SetTrue, other) => bail!("{key}: {other} found, true or false expected"),
            (_, Value::Array(values)) => {
                ensure!(takes_many, "{key}: several values found, one expected");
                for value in values {
                    found.push(argument(&key, &value)?);
                }
            }
            (_, value) => found.push(argument(&key, &value)?),
        }
    }
    Ok(found)
}

fn argument(key: &str, value: &Value) -> Result<OsString> {
    match value {
        Value::String(text) => Ok(format!("--{key}={text}").into()),
        Value::Integer(number) => Ok(format!("--{key}={number}").into()),
        other => bail!("{key}: {other} found, a string or a number expected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str, typed: &[&str]) -> Result<Vec<String>> {
        let matches = Args::command().get_matches_from(["netdumpd"].iter().chain(typed));
        let arguments = arguments(text, &matches)?;
        Ok(arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect())
    }

    #[test]
    fn keys_are_long_names_and_the_command_line_wins() {
        let text = "dir = '/a b'\nlinger = 5\nonce = true\njson = false\nlisten = ['::1', '192.0.2.1:7']\n";
        assert_eq!(
            given(text, &["--linger", "9"]).unwrap(),
            ["--dir=/a b", "--listen=::1", "--listen=192.0.2.1:7", "--once"]
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, named) in [
            ("direction = 1", "direction: no such option"),
            ("config = 'x'", "config: no such option"),
            ("daemon-child = true", "daemon-child: no such option"),
            ("once = 'yes'", "once: \"yes\" found"),
            ("dir = ['a', 'b']", "dir: several values"),
            ("linger = 1.5", "linger: 1.5 found"),
            ("= 3", "TOML"),
        ] {
            let error = format!("{:#}", given(text, &[]).unwrap_err());
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
