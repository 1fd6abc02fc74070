//! `cargo xtask ledger`: every `unsafe` of the project, with its argument, in SAFETY.md.
//!
//! The arguments stand at the code and are only collected: a copy kept by hand
//! would rot. What the page adds is that nobody can add, move or drop an
//! `unsafe` without a change that a reviewer sees.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::cargo::root;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fail if SAFETY.md is not what the code says, instead of writing it
    #[arg(long)]
    check: bool,
}

const PAGE: &str = "SAFETY.md";
const BEGIN: &str = "<!-- ledger:begin -->";
const END: &str = "<!-- ledger:end -->";

/// Places that promise to have none, whoever is allowed to elsewhere.
const NONE_IN: &[&str] = &["debugnet-core/src/", "netdumpd/src/core/"];

/// Lines between an `unsafe` and the end of the comment that argues for it: a
/// statement may begin above, an attribute may stand between.
const REACH_LINES: usize = 8;

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.check { check() } else { write() }
}

/// Fails if the page is not what the code says.
pub(crate) fn check() -> Result<()> {
    let (page, fresh) = pages()?;
    ensure!(
        page == fresh,
        "{PAGE} does not list the `unsafe` that there is; `cargo xtask ledger` writes it anew, \
         and the difference is for a reviewer to read"
    );
    Ok(())
}

fn write() -> Result<()> {
    let (_, fresh) = pages()?;
    fs::write(root().join(PAGE), fresh).with_context(|| format!("writing {PAGE}"))
}

/// The page as it is, and as it should be.
fn pages() -> Result<(String, String)> {
    let entries = collect(root())?;
    let faults: Vec<String> = entries.iter().filter_map(Entry::fault).collect();
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    let page = fs::read_to_string(root().join(PAGE)).with_context(|| format!("reading {PAGE}"))?;
    let marks = page.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) = marks.with_context(|| format!("{PAGE} has lost its marks"))?;
    let fresh = format!("{before}{BEGIN}\n\n{}{END}{after}", render(&entries));
    Ok((page, fresh))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block,
    Function,
    Implementation,
    Trait,
    Foreign,
    Attribute,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Function => "fn",
            Self::Implementation => "impl",
            Self::Trait => "trait",
            Self::Foreign => "extern",
            Self::Attribute => "attribute",
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// From the workspace's directory.
    file: String,
    line: usize,
    /// The function, or what is implemented.
    item: String,
    kind: Kind,
    argument: String,
}

impl Entry {
    /// What is wrong with it.
    fn fault(&self) -> Option<String> {
        let what = if let Some(place) = NONE_IN.iter().find(|place| self.file.starts_with(*place)) {
            format!("`unsafe` in {place}, which has none")
        } else if !matches!(self.kind, Kind::Attribute | Kind::Foreign) && self.argument.is_empty()
        {
            "`unsafe` without a `SAFETY:` comment or a `# Safety` section".to_owned()
        } else {
            return None;
        };
        Some(format!("{}:{}: {what}", self.file, self.line))
    }
}

fn collect(root: &Path) -> Result<Vec<Entry>> {
    let mut files = Vec::new();
    walk(root, &mut files)?;
    files.sort();
    let mut entries = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path)?;
        let file = path.strip_prefix(root)?.to_string_lossy().into_owned();
        entries.extend(scan(&file, &text)?);
    }
    Ok(entries)
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && name != "target" {
                walk(&path, files)?;
            }
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Every `unsafe` of one file. Tokens, not syntax: what a macro makes counts too.
fn scan(file: &str, text: &str) -> Result<Vec<Entry>> {
    let tokens: TokenStream = text.parse().map_err(|error| anyhow::anyhow!("{file}: {error}"))?;
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    visit(tokens, "", None, &mut found);
    let entries = found.into_iter().map(|Found { line, item, kind, contract }| {
        let argument = match (kind, contract) {
            // They only name things; what uses them has to argue.
            (Kind::Attribute | Kind::Foreign, _) => String::new(),
            (_, Some(contract)) => format!("as `{contract}` demands"),
            (_, None) => argument(&lines, line),
        };
        Entry { file: file.to_owned(), line, item, kind, argument }
    });
    Ok(entries.collect())
}

struct Found {
    line: usize,
    item: String,
    kind: Kind,
    /// The trait that says what the caller of a method owes.
    contract: Option<String>,
}

/// Adds each `unsafe` of `tokens`. `within` is the function around `tokens`, `of_trait` the trait that
/// they implement.
fn visit(tokens: TokenStream, within: &str, of_trait: Option<&str>, found: &mut Vec<Found>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut item = within.to_owned();
    let mut implemented = None;
    for (at, token) in tokens.iter().enumerate() {
        let next = |ahead: usize| tokens.get(at + ahead);
        match token {
            TokenTree::Ident(word) if *word == "fn" => {
                if let Some(name) = function_name(&tokens[at..]) {
                    item = name;
                }
            }
            TokenTree::Ident(word) if *word == "impl" => {
                implemented = heading(&tokens[at..])
                    .split_once(" for ")
                    .map(|(name, _)| name.trim_start_matches("impl ").to_owned());
            }
            TokenTree::Ident(word) if *word == "unsafe" => {
                let line = word.span().start().line;
                let has_name = function_name(&tokens[at..]).is_some();
                let kind = match next(1) {
                    Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                        Kind::Block
                    }
                    Some(TokenTree::Group(_)) => Kind::Attribute,
                    Some(TokenTree::Ident(word)) if *word == "impl" => Kind::Implementation,
                    Some(TokenTree::Ident(word)) if *word == "trait" => Kind::Trait,
                    Some(TokenTree::Ident(word)) if *word == "extern" && !has_name => Kind::Foreign,
                    _ => Kind::Function,
                };
                let item = match kind {
                    Kind::Implementation | Kind::Trait => heading(&tokens[at + 1..]),
                    Kind::Function => function_name(&tokens[at..]).unwrap_or_default(),
                    _ => item.clone(),
                };
                let contract = of_trait.filter(|_| kind == Kind::Function).map(str::to_owned);
                found.push(Found { line, item, kind, contract });
            }
            TokenTree::Group(group) => {
                let body = group.delimiter() == Delimiter::Brace;
                let of_trait = if body { implemented.take() } else { None };
                visit(group.stream(), &item, of_trait.as_deref(), found);
            }
            _ => {}
        }
    }
}

/// The name in `fn name`, `unsafe fn $name` or `unsafe extern "C" fn name`.
fn function_name(tokens: &[TokenTree]) -> Option<String> {
    let is_fn = |token: &TokenTree| matches!(token, TokenTree::Ident(word) if *word == "fn");
    let at = tokens.iter().take(4).position(is_fn)?;
    match (tokens.get(at + 1)?, tokens.get(at + 2)) {
        (TokenTree::Ident(name), _) => Some(name.to_string()),
        // A macro's.
        (TokenTree::Punct(mark), Some(TokenTree::Ident(name))) if mark.as_char() == '$' => {
            Some(format!("${name}"))
        }
        _ => None,
    }
}

/// `impl Send for Mmio`, from the tokens up to the body.
fn heading(tokens: &[TokenTree]) -> String {
    tokens
        .iter()
        .take_while(|token| {
            !matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
        })
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ")
        .replace(" < ", "<")
        .replace(" >", ">")
        .replace(" :: ", "::")
        .replace(" : ", ": ")
        .replace("' ", "'")
}

/// What the comment above line `line` (from 1) argues, on one line.
fn argument(lines: &[&str], line: usize) -> String {
    let last = (line - 1).min(lines.len());
    for at in (last.saturating_sub(REACH_LINES)..last).rev() {
        let Some(comment) = comment(lines[at]) else { continue };
        let begin = (0..=at).rev().take_while(|&at| self::comment(lines[at]).is_some()).last();
        let block: Vec<&str> =
            (begin.unwrap_or(at)..=at).filter_map(|at| self::comment(lines[at])).collect();
        let text = block.join(" ");
        let argued = text.split_once("SAFETY:").or_else(|| text.split_once("# Safety"));
        if let Some((_, argued)) = argued {
            let section = argued.split(" # ").next().unwrap_or_default();
            return section.split_whitespace().collect::<Vec<_>>().join(" ");
        }
        if !comment.is_empty() && lines[at].trim_start().starts_with("///") {
            break;
        }
    }
    String::new()
}

/// The text of a line that is only a comment.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.trim_start_matches(['/', '!']).trim())
}

fn render(entries: &[Entry]) -> String {
    let mut page = String::new();
    let count = |kind| entries.iter().filter(|entry| entry.kind == kind).count();
    let _ = writeln!(
        page,
        "{} in all: {} blocks, {} functions, {} implementations, {} traits, {} foreign, {} attributes.",
        entries.len(),
        count(Kind::Block),
        count(Kind::Function),
        count(Kind::Implementation),
        count(Kind::Trait),
        count(Kind::Foreign),
        count(Kind::Attribute)
    );
    let mut file = "";
    for entry in entries {
        if entry.file != file {
            file = &entry.file;
            let _ = writeln!(page, "\n### `{file}`\n\n| where | what | argument |\n|---|---|---|");
        }
        let argument = entry.argument.replace('|', "\\|");
        let item = if entry.item.is_empty() { "-" } else { &entry.item };
        let _ = writeln!(page, "| `{item}` | {} | {argument} |", entry.kind.name());
    }
    page.push('\n');
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<(usize, String, Kind, String)> {
        let entries = scan("a.rs", text).unwrap();
        entries.into_iter().map(|e| (e.line, e.item, e.kind, e.argument)).collect()
    }

    #[test]
    fn every_kind_is_found_with_its_argument() {
        let found = of("
// SAFETY: one
// owner.
unsafe impl<T: Send> Sync for Cell<T> {}

/// Takes it.
///
/// # Safety
/// The caller owns it.
///
/// # Errors
/// None.
#[inline]
pub unsafe fn take() {
    // SAFETY: ours.
    let x =
        unsafe { read() };
    let y = unsafe { read() };
}
#[unsafe(no_mangle)]
fn plain() {}
macro_rules! m { ($name:ident) => { fn $name() {
    // SAFETY: in a macro.
    unsafe { read() }
} } }
");
        let expected = [
            (4, "impl<T: Send> Sync for Cell<T>", Kind::Implementation, "one owner."),
            (14, "take", Kind::Function, "The caller owns it."),
            (17, "take", Kind::Block, "ours."),
            (18, "take", Kind::Block, "ours."),
            (20, "take", Kind::Attribute, ""),
            (24, "$name", Kind::Block, "in a macro."),
        ];
        let expected = expected
            .map(|(line, item, kind, argument)| (line, item.to_owned(), kind, argument.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_trait_has_the_contract_of_its_functions() {
        let found = of("impl Access for Pci { unsafe fn read(&self) {} }\nunsafe fn b() {}");
        assert_eq!(found[0], (1, "read".into(), Kind::Function, "as `Access` demands".into()));
        assert_eq!(found[1], (2, "b".into(), Kind::Function, String::new()));
    }

    #[test]
    fn comments_and_texts_are_no_code() {
        assert!(of("// unsafe { }\n/// unsafe fn\nfn a() { let _ = \"unsafe {}\"; }").is_empty());
    }

    #[test]
    fn an_unargued_one_is_seen() {
        let found = of("/// Reads.\nfn a() {\n    let x = unsafe { read() };\n}");
        assert_eq!(found, [(3, "a".to_owned(), Kind::Block, String::new())]);
    }
}
