//! The lines of an info file, ours or the stock server's.

use super::Report;
use crate::store::harmless;

/// Takes what the lines say; they are escaped already, but for what a stock server wrote.
pub(crate) fn read(text: &str, report: &mut Report) {
    for line in text.lines() {
        if let Some((name, value)) = harmless(line).trim_start().split_once(": ") {
            let value = value.to_owned();
            match name {
                "Architecture" => report.architecture = Some(value),
                "Panic String" => report.panic = Some(value),
                "Version String" => report.kernel_version = Some(value),
                "Hostname" => report.hostname = Some(value),
                "Dump Length" => {
                    let digits = value.split('B').next().and_then(|digits| digits.parse().ok());
                    report.dump_length = digits;
                }
                _ => {}
            }
        }
        // The last of these lines counts: what follows a header is by the server.
        if line.starts_with("Dump complete") {
            report.result = "complete".into();
        } else if line.starts_with("Dump incomplete") {
            report.result = "incomplete".into();
        } else if line.starts_with("Dump unsuccessful") {
            report.result = "failed".into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_stock_server() {
        let mut report = Report::default();
        let text = "Dump from victim [10.0.0.1]\n  Architecture: amd64\n  Dump Length: 3145728B (3 MB)\n  \
                    Panic String: oh\u{1b}[2J\nDump complete\n";
        read(text, &mut report);
        assert_eq!(report.architecture.as_deref(), Some("amd64"));
        assert_eq!((report.dump_length, &*report.result), (Some(3_145_728), "complete"));
        assert_eq!(report.panic.as_deref(), Some("oh\\x1b[2J"));
    }
}
