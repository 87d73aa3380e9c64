//! Where fjall's journals end after a crash. Knows the bytes of a journal, nothing of what they mean.
//!
//! fjall cuts off a batch that was not finished, and says nothing; a batch whose bytes are not what its checksum says
//! it refuses to open at all, and a power loss may leave one at the end. So the journals are read before fjall does,
//! and cut off behind the last whole batch.
//!
//! ```text
//!   start: 1, items u32, number u64
//!   item:  2, kind u8, compression u8, keyspace u64, key u16, value u32, on disk u32, key, value on disk
//!   clear: 4, keyspace u64
//!   end:   3, xxh3 of the items' bytes u64, "FJL" 3
//! ```
//!
//! Little endian. Allocated and not written: zeros.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::files::nonzero_len;

/// Cuts off the torn ends of all journals in the folder; the last one is copied to `torn`. The number of bytes.
pub(super) fn repair(folder: &Path, torn: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for path in journals(folder)? {
        let mut reader = BufReader::with_capacity(1 << 18, File::open(&path)?);
        let end = whole_batches(&mut reader)?;
        reader.seek(SeekFrom::Start(end))?;
        let rest = nonzero_len(&mut reader)?;
        if rest > 0 {
            reader.seek(SeekFrom::Start(end))?;
            io::copy(&mut reader.take(rest), &mut File::create(torn)?)?;
            let file = OpenOptions::new().write(true).open(&path)?;
            file.set_len(end)?;
            file.sync_all()?;
            bytes += rest;
        }
    }
    Ok(bytes)
}

/// What journals take: a new one is allocated when it is written to.
pub(super) fn disk_bytes(folder: &Path) -> io::Result<u64> {
    let sizes = journals(folder)?.into_iter().map(|path| Ok(fs::metadata(path)?.blocks() * 512));
    sizes.sum()
}

/// The journals, oldest first.
fn journals(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(Ok(number)) = name.strip_suffix(".jnl").map(str::parse) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The length of the batches that are whole.
fn whole_batches(reader: &mut impl Read) -> io::Result<u64> {
    let mut end = 0;
    loop {
        match batch_len(reader) {
            Ok(Some(len)) => end += len,
            Ok(None) => return Ok(end),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(end),
            Err(error) => return Err(error),
        }
    }
}

/// Reads one batch. `None`: these bytes are none.
fn batch_len(reader: &mut impl Read) -> io::Result<Option<u64>> {
    let [tag, items @ .., _, _, _, _, _, _, _, _] = read::<13>(reader)?;
    if tag != START {
        return Ok(None);
    }
    let mut hasher = Xxh3::new();
    let mut len = 13;
    for _ in 0..u32::from_le_bytes(items) {
        match item_len(reader, &mut hasher)? {
            Some(item) => len += item,
            None => return Ok(None),
        }
    }
    let [tag, checksum @ .., f, j, l, version] = read::<13>(reader)?;
    let is_end =
        tag == END && [f, j, l, version] == *MAGIC && u64::from_le_bytes(checksum) == hasher.digest();
    Ok(is_end.then_some(len + 13))
}

fn item_len(reader: &mut impl Read, hasher: &mut Xxh3) -> io::Result<Option<u64>> {
    let tag = read::<1>(reader)?;
    hasher.update(&tag);
    match tag {
        [CLEAR] => {
            hasher.update(&read::<8>(reader)?);
            Ok(Some(9))
        }
        [ITEM] => {
            let head = read::<20>(reader)?;
            hasher.update(&head);
            let [_, _, _, _, _, _, _, _, _, _, key @ .., _, _, _, _, v0, v1, v2, v3] = head;
            let data = u64::from(u16::from_le_bytes(key)) + u64::from(u32::from_le_bytes([v0, v1, v2, v3]));
            // Through the reader's buffer: a claimed length allocates nothing.
            let hashed = io::copy(&mut reader.take(data), &mut HashWriter(hasher))?;
            Ok((hashed == data).then_some(21 + data))
        }
        _ => Ok(None),
    }
}

fn read<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Hashes what is written to it.
struct HashWriter<'a>(&'a mut Xxh3);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const MAGIC: &[u8; 4] = b"FJL\x03";
