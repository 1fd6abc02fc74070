//! A compressed dump as the image that it is, by a reader that is not the guest's compressor.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read, Write as _};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;

const CHUNK: usize = 1 << 20;

/// A dump that was compressed, and its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The image: the dump's name without `.gz`.
    pub image: PathBuf,
    /// Bytes of the image.
    pub image_len: u64,
    /// Bytes of the dump.
    pub packed_len: u64,
}

impl Unpacked {
    /// How many times larger the image is.
    pub fn ratio(&self) -> f64 {
        self.image_len as f64 / self.packed_len as f64
    }
}

/// Writes the image beside the dump at `vmcore`, which must be exactly one gzip file of at most
/// `len_max` bytes of image.
///
/// # Errors
/// It is not called `.gz`, cannot be read, is broken or cut, goes on behind its trailer, or its
/// image is too long or there already.
pub fn gunzip(vmcore: &Path, len_max: u64) -> io::Result<Unpacked> {
    let wrong = |what: String| io::Error::new(ErrorKind::InvalidData, what);
    if vmcore.extension().is_none_or(|name| name != "gz") {
        return Err(wrong(format!("{} is not called .gz", vmcore.display())));
    }
    let packed = File::open(vmcore)?;
    let packed_len = packed.metadata()?.len();
    let image = vmcore.with_extension("");
    let mut file = File::create_new(&image)?;
    let mut reader = GzDecoder::new(BufReader::new(packed));
    let mut bytes = vec![0; CHUNK];
    let mut image_len = 0;
    loop {
        let len = reader.read(&mut bytes)?;
        if len == 0 {
            break;
        }
        image_len += len as u64;
        if image_len > len_max {
            return Err(wrong(format!("the image has more than {len_max} bytes")));
        }
        file.write_all(&bytes[..len])?;
    }
    if !reader.get_mut().fill_buf()?.is_empty() {
        return Err(wrong("the dump goes on behind gzip's trailer".into()));
    }
    Ok(Unpacked { image, image_len, packed_len })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(image: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(image).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(name: &str, file: &[u8], len_max: u64) -> Result<(Unpacked, Vec<u8>), String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, file).unwrap();
        let unpacked = gunzip(&path, len_max).map_err(|error| error.to_string())?;
        assert_eq!(unpacked.image, dir.path().join("vmcore.guest.0"));
        let image = fs::read(&unpacked.image).unwrap();
        Ok((unpacked, image))
    }

    #[test]
    fn an_image_comes_back_with_its_lengths() {
        let image: Vec<u8> = (0..3 << 20).map(|at: u32| (at >> 10) as u8).collect();
        let file = packed(&image);
        let (told, found) = unpacked("vmcore.guest.0.gz", &file, image.len() as u64).unwrap();
        assert!(found == image);
        assert_eq!((told.image_len, told.packed_len), (image.len() as u64, file.len() as u64));
        assert!(told.ratio() > 10.0);
    }

    #[test]
    fn what_is_not_one_whole_gzip_file_is_refused() {
        let image = vec![7; 100_000];
        let whole = packed(&image);
        let (cut, last) = (&whole[..whole.len() - 1], whole.len() - 1);
        let mut broken = whole.clone();
        broken[last - 4] ^= 1;
        let longer = [&whole[..], &[0]].concat();
        let name = "vmcore.guest.0.gz";
        for file in [cut, &broken, &longer, b"plain", b""] {
            assert!(unpacked(name, file, 100_000).is_err(), "{} bytes", file.len());
        }
        assert!(unpacked(name, &whole, 99_999).unwrap_err().contains("more than 99999"));
        assert!(unpacked("vmcore.guest.0", &whole, 100_000).unwrap_err().contains(".gz"));
    }
}
