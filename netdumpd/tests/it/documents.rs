//! `--help`, the man page and the README say the same.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::daemon::run;
use crate::support::skip;

fn output(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// Every `--option` in a text.
fn options(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_lowercase() || letter == '-';
    let words = text.split(|letter: char| !is_part(letter));
    let long = words.filter(|word| word.starts_with("--") && word.len() > 3);
    long.map(|word| word.trim_end_matches('-').to_owned()).collect()
}

/// Without the features there are fewer options than the README has.
#[cfg(feature = "metrics")]
#[test]
fn the_same_options_everywhere() {
    let help = output(&["--help"]);
    let (_, listed) = help.split_once("Options:").unwrap();
    let (listed, _) = listed.split_once("Exit status:").unwrap();
    // What only clap itself knows.
    let own = ["--help", "--version"];
    let wanted: BTreeSet<_> =
        options(listed).into_iter().filter(|name| !own.contains(&name.as_str())).collect();
    assert!(wanted.len() > 15, "{wanted:?}");
    let man = output(&["generate", "man"]).replace("\\-", "-");
    let readme = readme();
    let table: String = readme
        .lines()
        .filter(|line| line.starts_with("| `-"))
        .map(|line| line.split('|').nth(1).unwrap_or_default().to_owned() + "\n")
        .collect();
    assert_eq!(options(&table), wanted, "the table of options in the README");
    for name in &wanted {
        assert!(options(&man).contains(name), "{name} is not in the man page");
    }
    for option in options(&readme) {
        assert!(
            wanted.contains(&option)
                || own.contains(&&*option)
                || option == "--no-default-features",
            "{option} in the README does not exist"
        );
    }
}

/// Of each option: its names with the name of its value, and its default.
#[cfg(feature = "metrics")]
fn help_rows() -> Vec<(String, Option<String>)> {
    let help = output(&["--help"]);
    let (_, listed) = help.split_once("Options:").unwrap();
    let (listed, _) = listed.split_once("Exit status:").unwrap();
    let mut rows: Vec<(String, String)> = Vec::new();
    for line in listed.lines().map(str::trim) {
        match rows.last_mut() {
            _ if line.starts_with('-') && !line.starts_with("- ") => {
                rows.push((line.replace(['<', '>'], ""), String::new()))
            }
            Some((_, text)) => *text += &format!("{line} "),
            None => {}
        }
    }
    let default = |text: &str| {
        let (_, rest) = text.split_once("[default: ")?;
        Some(rest.split([']', ',']).next()?.to_owned())
    };
    rows.into_iter().map(|(names, text)| (names, default(&text))).collect()
}

/// Without the features there are fewer options than the README has.
#[cfg(feature = "metrics")]
#[test]
fn the_same_values_and_defaults_everywhere() {
    let readme = readme();
    let rows: Vec<Vec<_>> = readme
        .lines()
        .filter(|line| line.starts_with("| `-"))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let man = output(&["generate", "man"]).replace("\\-", "-").replace("\\fR", "");
    let man = man.replace("\\fB", "").replace("\\fI", "").replace(['<', '>', '\\'], "");
    let mut compared = 0;
    for (names, default) in help_rows() {
        if names.contains("--help") || names.contains("--version") {
            continue;
        }
        let row = rows.iter().find(|row| row[1].replace('`', "") == names);
        let row = row.unwrap_or_else(|| panic!("{names:?} is not in the README's table"));
        let is_it = |line: &str| {
            line.strip_prefix(&*names).is_some_and(|rest| rest.is_empty() || rest.starts_with(" ["))
        };
        assert!(man.lines().any(is_it), "{names:?} is not in the man page: {man}");
        if let Some(default) = default {
            let told = row[3].split([';', ' ']).next().unwrap().replace('`', "");
            assert_eq!(told, default, "the default of {names} in the README");
            assert!(man.contains(&format!("default: {default}")), "{names}: {default}: {man}");
            compared += 1;
        }
    }
    assert!(compared > 12, "{compared} defaults");
}

#[test]
fn the_same_exit_statuses_everywhere() {
    let one_line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let texts = [
        ("--help", one_line(output(&["--help"]))),
        ("the man page", one_line(output(&["generate", "man"]).replace("\\-", "-"))),
        ("the README", one_line(readme().replace('`', ""))),
    ];
    for (name, text) in texts {
        for status in [
            "0 stopped, or with --once the dump is complete",
            "1 cannot start or go on",
            "2 bad usage",
            "3 the dump is incomplete",
            "4 it could not be stored",
            "5 stopped before a dump ended",
        ] {
            assert!(text.contains(status), "{status:?} is not in {name}: {text}");
        }
    }
}

#[test]
fn completions_are_scripts() {
    let bash = output(&["generate", "completions", "bash"]);
    assert!(bash.contains("--max-dump-size"));
    let Ok(mut shell) = Command::new("bash").arg("-n").stdin(std::process::Stdio::piped()).spawn()
    else {
        return skip("syntax of the completions", "there is no bash");
    };
    std::io::Write::write_all(&mut shell.stdin.take().unwrap(), bash.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
    for other in ["zsh", "fish"] {
        assert!(output(&["generate", "completions", other]).contains("max-dump-size"));
    }
}

/// The unit uses options that exist, and opens what the program needs.
#[test]
fn the_unit_is_sound() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let service = std::fs::read_to_string(dir.join("netdumpd.service")).unwrap();
    let start = service.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
    let help = options(&output(&["--help"]));
    assert!(options(start).iter().all(|option| help.contains(option)), "{start}");
    let Ok(check) = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(dir.join("netdumpd.socket"))
        .output()
    else {
        return skip("systemd's own check of the unit", "systemd-analyze is missing");
    };
    let complaint = String::from_utf8_lossy(&check.stderr);
    let ours: Vec<_> = complaint
        .lines()
        .filter(|line| line.contains("netdumpd") && !line.contains("is not executable"))
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
}
