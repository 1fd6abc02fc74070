//! What the fuzz targets `netdumpd_options` and `netdumpd_files` run: ordinary functions that
//! take any bytes and panic when a promise is broken.

pub mod files;
pub mod options;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::{files, options};

    /// Every input that is kept for a target; the last name shown is that of the one that fails.
    fn replay(name: &str, run: fn(&[u8])) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
        let entries = fs::read_dir(&dir).expect("the target's corpus");
        let inputs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        assert!(!inputs.is_empty(), "{} is empty", dir.display());
        for input in inputs {
            println!("{}", input.display());
            run(&fs::read(input).unwrap());
        }
    }

    #[test]
    fn the_corpora_run() {
        replay("netdumpd_options", options::run);
        replay("netdumpd_files", files::run);
    }

    proptest! {
        #[test]
        fn any_bytes_as_files(kind in 0u8..5, bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            files::run(&[&[kind][..], &bytes].concat());
        }

        #[test]
        fn any_words_and_lines(
            words in prop::collection::vec(WORD, 0..6),
            lines in prop::collection::vec(LINE, 0..5),
        ) {
            options::run(format!("{}\n---\n{}\n", words.join("\n"), lines.join("\n")).as_bytes());
        }
    }

    const WORD: &str = "--(linger|port|memory|max-dump-size|listen|once|json|dir|user|config)(=[0-9]{0,3}[KMGT:a.]{0,2})?|[-a-z0-9./]{0,6}";
    const LINE: &str = "(linger|port|memory|min-free|listen|once|dir|sandbox|config|x) = ([0-9]{1,4}|true|'[0-9a-zK./]{0,5}'|\\['::1', '1.2.3.4'\\])";
}
