//! A command line and a configuration file: the words, one a line, then a line `---` and the file.
//!
//! What is accepted is what was said, by readings of sizes and addresses that share no code with
//! the parser's; the command line wins; the same options by file and by command line are the same;
//! what is refused is named. Not looked at: `--help` (its width is the terminal's), whether paths,
//! users and the dump directory exist.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::sync::LazyLock;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches};
use toml::{Table, Value};

use crate::options::{Args, Refused, matches};

const FILE: &str = "--config=netdumpd.toml";

/// Feeds `data`.
///
/// # Panics
/// If a promise is broken.
pub fn run(data: &[u8]) {
    let (words, file) = split(data);
    let text = String::from_utf8(file.to_vec());
    let read = || text.clone().map_err(io::Error::other);
    let mut typed: Vec<OsString> = vec!["netdumpd".into()];
    let lines = words.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    typed.extend(lines.map(|line| OsString::from_vec(line.to_vec())));

    let alone = Args::command().try_get_matches_from(&typed);
    let both = matches(typed.clone(), |_| read());
    let alone = match alone {
        Ok(alone) => alone,
        Err(error) => {
            assert!(matches!(both, Err(Refused::Usage(_))), "the file cures nothing: {both:?}");
            return refused(&error);
        }
    };
    let args = Args::from_arg_matches(&alone).expect("what was matched is understood");
    sound(&args, &alone);
    if args.command.is_some() {
        return;
    }
    the_same_by_file(&args, &alone);

    // The file, behind what was typed or in front of it.
    let both = if args.config.is_some() {
        both
    } else {
        typed.insert(1, FILE.into());
        matches(typed, |_| read())
    };
    let by_file = matches(vec!["netdumpd".into(), FILE.into()], |_| read());
    match (&both, &by_file, &text) {
        (Ok(both), _, _) => {
            sound(&Args::from_arg_matches(both).expect("as above"), both);
            the_command_line_wins(&alone, by_file.as_ref().ok(), both);
        }
        (Err(error), Ok(_), _) => panic!("refused only with what was typed: {error}"),
        (Err(Refused::File(error)), _, Ok(text)) => names_its_key(&format!("{error:#}"), text),
        (Err(error), _, Ok(_)) => panic!("the command line was accepted before: {error}"),
        (Err(error), _, Err(_)) => assert!(error.to_string().contains("cannot read"), "{error}"),
    }
}

fn split(data: &[u8]) -> (&[u8], &[u8]) {
    const MARK: &[u8] = b"\n---\n";
    if let Some(file) = data.strip_prefix(&MARK[1..]) {
        return (b"", file);
    }
    match data.windows(MARK.len()).position(|window| window == MARK) {
        Some(at) => (&data[..at], &data[at + MARK.len()..]),
        None => (data, b""),
    }
}

fn refused(error: &clap::Error) {
    let asked = [
        ErrorKind::DisplayHelp,
        ErrorKind::DisplayVersion,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
    ];
    if asked.contains(&error.kind()) {
        return;
    }
    assert_eq!(error.exit_code(), 2, "{error}");
    let shown = error.render().to_string();
    for kind in [ContextKind::InvalidArg, ContextKind::InvalidValue] {
        // clap leaves out what would command a terminal.
        if let Some(ContextValue::String(named)) = error.get(kind)
            && !named.chars().any(char::is_control)
        {
            assert!(shown.contains(named.as_str()), "{named:?} is not in {shown}");
        }
    }
    if error.kind() == ErrorKind::ValueValidation {
        assert!(error.get(ContextKind::InvalidArg).is_some(), "{shown}");
        assert!(std::error::Error::source(error).is_some(), "no reason: {shown}");
    }
}

fn names_its_key(shown: &str, text: &str) {
    match text.parse::<Table>() {
        Ok(table) => {
            assert!(table.keys().any(|key| shown.contains(key.as_str())), "{shown}");
        }
        Err(_) => assert!(shown.contains("TOML parse error at line "), "{shown}"),
    }
}

/// What was accepted, read once more in a way of our own.
fn sound(args: &Args, matches: &ArgMatches) {
    if args.command.is_some() {
        return;
    }
    let raw = |id: &str| {
        let mut values = matches.get_raw(id)?;
        Some(values.next()?.to_str().expect("numbers are text").to_owned())
    };
    for id in ["max_dump_size", "max_total_size", "min_free", "memory"] {
        let told = matches.get_one::<u64>(id).copied();
        assert_eq!(told, raw(id).map(|raw| bytes(&raw)), "{id}");
    }
    assert!(matches.get_one::<u64>("memory").is_some_and(|memory| *memory >= 1 << 20));
    let limits = args.limits();
    let number = |id: &str| raw(id).and_then(|raw| raw.parse::<u64>().ok()).expect(id);
    assert_eq!(limits.max_sessions as u64, number("max_sessions"));
    assert_eq!(limits.max_sessions_per_source as u64, number("max_sessions_per_source"));
    assert_eq!(u64::from(limits.max_heralds_per_s), number("max_heralds_per_second"));
    assert_eq!(limits.linger_us, number("linger") * 1_000_000);
    assert_eq!(args.script_limit().as_secs(), number("script_limit"));
    assert!(limits.max_sessions > 0 && limits.max_sessions_per_source > 0);
    assert!(limits.max_heralds_per_s > 0, "a server that takes no dump");

    let port = number("port");
    let listen = args.listen_addresses();
    let given: Vec<_> = matches.get_raw("listen").into_iter().flatten().collect();
    assert_eq!(listen.len(), given.len().max(1));
    for (address, given) in listen.iter().zip(&given) {
        let given = given.to_str().expect("addresses are text");
        // With a port it is "192.0.2.1:7" or "[::1]:7"; a bare IPv6 address has more colons.
        let has_port = given.starts_with('[') || given.matches(':').count() == 1;
        let told = given.rsplit(':').next().and_then(|port| port.parse().ok());
        assert_eq!(Some(u64::from(address.port())), if has_port { told } else { Some(port) });
        let again = ["netdumpd", "-a", &address.to_string()];
        let again = Args::command().try_get_matches_from(again).expect("as it was printed");
        let again = Args::from_arg_matches(&again).expect("as above").listen_addresses();
        assert_eq!(again, [*address]);
    }
}

/// A size as the documentation has it.
fn bytes(raw: &str) -> u64 {
    let unit = raw.bytes().last().map(|byte| byte.to_ascii_uppercase());
    let factor = match unit {
        Some(b'K') => 1u128 << 10,
        Some(b'M') => 1 << 20,
        Some(b'G') => 1 << 30,
        Some(b'T') => 1 << 40,
        _ => 1,
    };
    let digits = raw.strip_suffix(|last: char| last.is_ascii_alphabetic()).unwrap_or(raw);
    assert!(!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()), "{raw:?}");
    let digits = digits.trim_start_matches('0');
    let number: u128 =
        if digits.is_empty() { 0 } else { digits.parse().expect("no more than u64") };
    u64::try_from(number * factor).expect("no more than u64")
}

fn options() -> impl Iterator<Item = &'static Arg> {
    static ALL: LazyLock<Vec<Arg>> =
        LazyLock::new(|| Args::command().get_arguments().cloned().collect());
    ALL.iter().filter(|arg| arg.get_id() != "config")
}

fn is_typed(matches: &ArgMatches, arg: &Arg) -> bool {
    matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
}

fn values(matches: &ArgMatches, arg: &Arg) -> Vec<OsString> {
    let raw = matches.get_raw(arg.get_id().as_str());
    raw.into_iter().flatten().map(ToOwned::to_owned).collect()
}

/// The file that says what was typed.
fn as_file(typed: &ArgMatches) -> Option<String> {
    let mut table = Table::new();
    for arg in options().filter(|arg| is_typed(typed, arg)) {
        if arg.is_hide_set() {
            return None;
        }
        let texts: Option<Vec<_>> =
            values(typed, arg).into_iter().map(|value| value.into_string().ok()).collect();
        let mut values = texts?.into_iter().map(|text| match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => Value::Integer(number),
            _ => Value::String(text),
        });
        let value = match arg.get_action() {
            ArgAction::SetTrue => Value::Boolean(true),
            ArgAction::Append => Value::Array(values.collect()),
            _ => values.next()?,
        };
        table.insert(arg.get_long()?.to_owned(), value);
    }
    Some(toml::to_string(&table).expect("a table of texts"))
}

fn the_same_by_file(args: &Args, typed: &ArgMatches) {
    let Some(text) = as_file(typed) else { return };
    let by_file = matches(vec!["netdumpd".into(), FILE.into()], |_| Ok(text.clone()));
    let by_file = by_file.unwrap_or_else(|error| panic!("refused in a file: {error}\n{text}"));
    let mut by_file = Args::from_arg_matches(&by_file).expect("as above");
    by_file.config.clone_from(&args.config);
    assert_eq!(&by_file, args, "{text}");
}

fn the_command_line_wins(typed: &ArgMatches, by_file: Option<&ArgMatches>, both: &ArgMatches) {
    for arg in options() {
        let winner = if is_typed(typed, arg) { Some(typed) } else { by_file };
        if let Some(winner) = winner {
            assert_eq!(values(both, arg), values(winner, arg), "{}", arg.get_id());
        }
    }
}
