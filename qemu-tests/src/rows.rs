//! Runs that docs/reliability.md lists, each as a row of a table.

use crate::matrix::Case;

/// One of them.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    /// Whether it is among the runs of a default `cargo xtask test`.
    pub(crate) is_usual: bool,
    pub(crate) case: Case,
}

/// The runs of `rows`: a covering subset, or all.
pub(crate) fn cases(rows: Vec<Row>, full: bool) -> Vec<Case> {
    rows.into_iter().filter(|row| full || row.is_usual).map(|row| row.case).collect()
}

/// The rows as docs/reliability.md has them, under a head of two columns
/// and that of the machine; `becomes` says what a run expects.
pub(crate) fn table(
    [what, of]: [&str; 2],
    rows: &[Row],
    becomes: impl Fn(&Case) -> String,
) -> String {
    let mut table = format!("| {what} | on | what becomes of {of} |\n|---|---|---|\n");
    for Row { what, case, .. } in rows {
        let (machine, nic) = (&case.machine.machine, &case.machine.nic);
        table += &format!("| {what} | {machine}, {nic} | {} |\n", becomes(case));
    }
    table
}

#[cfg(test)]
pub(crate) fn assert_in_docs(table: &str) {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reliability.md");
    let text = std::fs::read_to_string(docs).unwrap();
    assert!(text.contains(table), "docs/reliability.md should contain:\n{table}");
}
