//! Questions about the bytes of a dump that are not "the same as in the machine?".

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::qmp::TruthFile;

const PAGE: usize = 4096;
const CHUNK: usize = 1 << 20;
const WORD: usize = 8;

/// Bytes of all pages that hold anything but zeros.
///
/// # Errors
/// A file cannot be read.
pub fn used_bytes(truth: &[TruthFile]) -> io::Result<u64> {
    let mut used = 0;
    for TruthFile { path, .. } in truth {
        let mut file = File::open(path)?;
        let mut bytes = vec![0; CHUNK];
        loop {
            let len = fill(&mut file, &mut bytes)?;
            let pages = bytes[..len].chunks(PAGE);
            let is_used = |page: &&[u8]| page.iter().any(|byte| *byte != 0);
            used += pages.filter(is_used).map(|page| page.len() as u64).sum::<u64>();
            if len < CHUNK {
                break;
            }
        }
    }
    Ok(used)
}

/// As many bytes as there are, up to a bufferful.
fn fill(file: &mut File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        match file.read(&mut bytes[len..])? {
            0 => break,
            more => len += more,
        }
    }
    Ok(len)
}

/// The offset of the first two words in a row of the `secret` range that are
/// anywhere in the file, at any alignment. One word alone may be in a register.
///
/// # Errors
/// A file cannot be read, or the machine has no secret there that one could find.
pub fn leak(vmcore: &Path, secret: &Range<u64>, truth: &[TruthFile]) -> io::Result<Option<u64>> {
    if secret.is_empty() {
        return Ok(None);
    }
    let holder = truth.iter().find(|file| file.range.contains(&secret.start));
    let holder = holder.ok_or_else(|| io::Error::other("the secret is not in RAM"))?;
    let mut bytes = vec![0; (secret.end - secret.start) as usize];
    File::open(&holder.path)?.read_exact_at(&mut bytes, secret.start - holder.range.start)?;
    let words: Vec<u64> = bytes.chunks_exact(WORD).map(word).collect();
    let follows: HashMap<u64, u64> = words.windows(2).map(|pair| (pair[0], pair[1])).collect();
    if follows.len() + 1 != words.len() || words.contains(&0) {
        return Err(io::Error::other("the secret has words that are zero or equal"));
    }
    // Most offsets are told apart by two bytes.
    let mut starts = vec![false; 1 << 16];
    for first in follows.keys() {
        starts[(first & 0xffff) as usize] = true;
    }

    let file = File::open(vmcore)?;
    let len = file.metadata()?.len();
    let mut bytes = vec![0; CHUNK + 2 * WORD];
    for at in (0..len).step_by(CHUNK) {
        let here = bytes.len().min((len - at) as usize);
        file.read_exact_at(&mut bytes[..here], at)?;
        for (offset, pair) in bytes[..here].windows(2 * WORD).enumerate() {
            if starts[usize::from(u16::from_le_bytes([pair[0], pair[1]]))]
                && follows.get(&word(&pair[..WORD])) == Some(&word(&pair[WORD..]))
            {
                return Ok(Some(at + offset as u64));
            }
        }
    }
    Ok(None)
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(dir: &Path, start: u64, bytes: &[u8]) -> Vec<TruthFile> {
        let path = dir.join("truth");
        std::fs::write(&path, bytes).unwrap();
        vec![TruthFile { range: start..start + bytes.len() as u64, path }]
    }

    #[test]
    fn pages_in_use_are_counted_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; 3 * CHUNK + 100];
        bytes[5] = 1;
        bytes[4095] = 1;
        bytes[CHUNK] = 1;
        bytes[3 * CHUNK + 99] = 1;
        assert_eq!(used_bytes(&truth(dir.path(), 0, &bytes)).unwrap(), 2 * 4096 + 100);
    }

    #[test]
    fn a_leak_is_found_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let secret: Vec<u8> = (1..=512_u64)
            .flat_map(|i| i.wrapping_mul(0x0123_4567_89ab_cdef).to_le_bytes())
            .collect();
        let truth = truth(dir.path(), 0x1000, &secret);
        let vmcore = dir.path().join("vmcore");
        let found = |bytes: &[u8]| {
            std::fs::write(&vmcore, bytes).unwrap();
            leak(&vmcore, &(0x1000..0x2000), &truth).unwrap()
        };
        let clean = vec![0x5a; 2 * CHUNK + 77];
        assert_eq!(found(&clean), None);
        for at in [0, 3, CHUNK - 9, CHUNK - 8, 2 * CHUNK + 61] {
            let mut bytes = clean.clone();
            bytes[at..at + 16].copy_from_slice(&secret[800..816]);
            assert_eq!(found(&bytes), Some(at as u64), "{at}");
            // One word is not enough to tell.
            bytes[at + 8..at + 16].fill(0x5a);
            assert_eq!(found(&bytes), None);
        }
        let nothing = vec![0; 4096];
        std::fs::write(&truth[0].path, nothing).unwrap();
        assert!(leak(&vmcore, &(0x1000..0x2000), &truth).is_err());
    }
}
