//! Files of results: whole or not there at all, and recognised before anything in them is used.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

/// A tensor to be written.
pub(crate) struct NamedTensor<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    values: Values<'a>,
}

/// What a tensor holds. Large ones are borrowed: the bytes of all of them together would be the size of the file.
enum Values<'a> {
    F64(&'a [f64]),
    /// Little endian.
    Bytes(Vec<u8>),
}

impl<'a> NamedTensor<'a> {
    pub fn floats(name: impl Into<String>, shape: impl Into<Vec<usize>>, values: &'a [f64]) -> Self {
        Self { name: name.into(), dtype: Dtype::F64, shape: shape.into(), values: Values::F64(values) }
    }

    /// Of bytes, little endian.
    pub fn bytes(
        name: impl Into<String>,
        dtype: Dtype,
        shape: impl Into<Vec<usize>>,
        bytes: Vec<u8>,
    ) -> Self {
        Self { name: name.into(), dtype, shape: shape.into(), values: Values::Bytes(bytes) }
    }

    fn length(&self) -> usize {
        match &self.values {
            Values::F64(values) => size_of_val(*values),
            Values::Bytes(bytes) => bytes.len(),
        }
    }

    /// Its bytes, a piece at a time.
    fn pieces(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        /// Values of a piece.
        const PIECE: usize = 1 << 16;
        match &self.values {
            Values::F64(values) => values.chunks(PIECE).try_for_each(|piece| take(&to_bytes(piece))),
            Values::Bytes(bytes) => take(bytes),
        }
    }
}

/// How the names of files begin that are being written, or were when the process was killed.
pub(crate) const TEMPORARY: &str = ".delta-influence-";

/// Why a safetensors file is not read.
pub(crate) enum Unusable {
    /// The system does not give it out.
    Unreadable(io::Error),
    /// What is wrong with it.
    Damaged(String),
    /// Its version, later than the one asked for.
    Newer(u32),
}

/// Names of the standard output and of the standard error. Opened once more they would begin anew, over what is printed
/// there.
const STDOUT: [&str; 3] = ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
const STDERR: [&str; 3] = ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"];

/// Whether [`write_whole`] takes the path for the standard output.
pub(crate) fn is_stdout(path: &Path) -> bool {
    STDOUT.iter().any(|name| path == Path::new(name))
}

/// Writes to a temporary file in the same folder (renaming works only within a file system), then renames it. Into a
/// device or a pipe, which a file must not replace, it writes straight; so it does to what is open already and may be a
/// file elsewhere, as the standard output of a command.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole_by(path, |out| out.write_all(bytes))
}

/// [`write_whole`] of what `write` writes.
fn write_whole_by(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    if is_stdout(path) {
        let mut stdout = io::stdout().lock();
        return write(&mut stdout).and_then(|()| stdout.flush());
    }
    if STDERR.iter().any(|name| path == Path::new(name)) {
        return write(&mut io::stderr());
    }
    // Files that somebody opened already, of which the name is but a handle; `/dev/shm` is a folder like any other.
    let is_open = ["/dev/fd", "/proc"].iter().any(|folder| path.starts_with(folder));
    if path.metadata().is_ok_and(|there| (!there.is_file() || is_open) && !there.is_dir()) {
        return write(&mut OpenOptions::new().write(true).open(path)?);
    }
    temporary(path, write)?.persist(path)?;
    Ok(())
}

/// [`write_whole_by`], unless something is there already, which stays. Returns whether it was written.
fn write_new_by(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<bool> {
    match temporary(path, write)?.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // Some file systems can't rename like that, nor link; what is there is looked for as well as it can be.
        Err(_) if path.exists() => Ok(false),
        Err(failed) => failed.file.persist(path).map(|_| true).map_err(|error| error.error),
    }
}

/// What `write` writes, on disk, in the folder of `path`, under a name of its own.
fn temporary(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    // Temporary files are private by default; results are for others to read, as far as the umask allows.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.prefix(TEMPORARY).tempfile_in(folder.unwrap_or(Path::new(".")))?;
    let mut out = BufWriter::new(file.as_file());
    write(&mut out)?;
    out.flush()?;
    drop(out);
    file.as_file().sync_all()?;
    Ok(file)
}

/// f64 values as a safetensors file holds them.
pub(crate) fn to_bytes(values: &[f64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 * values.len());
    values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    bytes
}

/// Writes a safetensors file with format, version, crate version and a checksum in its header, beside `entries`.
pub(crate) fn save_tensors(
    path: &Path,
    format: (&str, u32),
    entries: impl IntoIterator<Item = (&'static str, String)>,
    tensors: &[NamedTensor<'_>],
) -> io::Result<()> {
    let file = TensorFile::new(format, entries, tensors)?;
    write_whole_by(path, |out| file.write(out))
}

/// [`save_tensors`], unless something is there already, which stays. Returns whether it was written.
pub(crate) fn save_new_tensors(
    path: &Path,
    format: (&str, u32),
    entries: impl IntoIterator<Item = (&'static str, String)>,
    tensors: &[NamedTensor<'_>],
) -> io::Result<bool> {
    let file = TensorFile::new(format, entries, tensors)?;
    write_new_by(path, |out| file.write(out))
}

/// A safetensors file to be written: its values stay where they are.
struct TensorFile<'t, 'v> {
    header: Vec<u8>,
    /// In the file's order.
    tensors: Vec<&'t NamedTensor<'v>>,
}

impl<'t, 'v> TensorFile<'t, 'v> {
    fn new(
        (format, version): (&str, u32),
        entries: impl IntoIterator<Item = (&'static str, String)>,
        tensors: &'t [NamedTensor<'v>],
    ) -> io::Result<Self> {
        let mut header = HashMap::from([
            ("format".to_owned(), format.to_owned()),
            ("version".to_owned(), version.to_string()),
            ("crate_version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ]);
        header.extend(entries.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let mut checksum = Checksum::new(&header);
        let mut tensors: Vec<&NamedTensor<'_>> = tensors.iter().collect();
        tensors.sort_by(|one, other| one.name.cmp(&other.name));
        for tensor in &tensors {
            checksum.begin(&tensor.name, &tensor.shape, tensor.length());
            tensor.pieces(|piece| {
                checksum.piece(piece);
                Ok(())
            })?;
        }
        header.insert(CHECKSUM.to_owned(), checksum.finish());
        // As the format has it: wider types first, then by name.
        tensors.sort_by(|one, other| other.dtype.cmp(&one.dtype).then_with(|| one.name.cmp(&other.name)));
        let mut end = 0;
        let infos = tensors.iter().map(|tensor| {
            let begin = end;
            end += tensor.length();
            let info =
                TensorInfo { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets: (begin, end) };
            (tensor.name.clone(), info)
        });
        let metadata = Metadata::new(Some(header), infos.collect()).map_err(io::Error::other)?;
        let mut header = serde_json::to_vec(&metadata)?;
        header.resize(header.len().next_multiple_of(LENGTH as usize), b' ');
        match header.len() as u64 <= LARGEST_HEADER {
            true => Ok(Self { header, tensors }),
            false => Err(io::Error::other("its header is too long for a safetensors file")),
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&(self.header.len() as u64).to_le_bytes())?;
        out.write_all(&self.header)?;
        self.tensors.iter().try_for_each(|tensor| tensor.pieces(|piece| out.write_all(piece)))
    }
}

/// The bytes and the header of a safetensors file of this format, up to this version. What the file claims to hold is
/// compared with its size before it is read, its checksum, where it has one, before anything is used.
pub(crate) fn read_tensors(
    path: &Path,
    format: (&str, u32),
) -> Result<(Vec<u8>, HashMap<String, String>), Unusable> {
    let bytes = read_as_claimed(path)?;
    let header = header(&bytes, format)?;
    Ok((bytes, header))
}

/// More than any header needs: safetensors' own limit.
const LARGEST_HEADER: u64 = 100_000_000;
/// Bytes that say how long the header is.
const LENGTH: u64 = 8;

fn read_as_claimed(path: &Path) -> Result<Vec<u8>, Unusable> {
    let damaged =
        |detail: &str| Unusable::Damaged(format!("truncated, damaged or no safetensors file ({detail})"));
    let mut file = File::open(path).map_err(Unusable::Unreadable)?;
    let size = file.metadata().map_err(Unusable::Unreadable)?.len();
    let mut read = |bytes: &mut Vec<u8>, count: u64| match (&mut file).take(count).read_to_end(bytes) {
        Ok(got) if got as u64 == count => Ok(()),
        Ok(_) => Err(damaged("it ends too early")),
        Err(error) => Err(Unusable::Unreadable(error)),
    };
    let mut bytes = Vec::new();
    read(&mut bytes, LENGTH)?;
    let length = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    if length > LARGEST_HEADER.min(size.saturating_sub(LENGTH)) {
        return Err(damaged("its header can't be so long"));
    }
    read(&mut bytes, length)?;
    let header = bytes.get(LENGTH as usize..).unwrap_or_default();
    let header: BTreeMap<String, Value> =
        serde_json::from_slice(header).map_err(|error| damaged(&error.to_string()))?;
    let ends = header.values().filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64());
    let left = size - LENGTH - length;
    if ends.max().unwrap_or(0) != left {
        return Err(damaged("it is not as long as its header says"));
    }
    read(&mut bytes, left)?;
    Ok(bytes)
}

fn header(bytes: &[u8], (format, version): (&str, u32)) -> Result<HashMap<String, String>, Unusable> {
    let damaged = |detail: String| Err(Unusable::Damaged(detail));
    let header = match SafeTensors::read_metadata(bytes) {
        Ok((_, metadata)) => metadata.metadata().clone().unwrap_or_default(),
        Err(error) => return damaged(format!("truncated, damaged or no safetensors file ({error})")),
    };
    if header.get("format").map(String::as_str) != Some(format) {
        return damaged(format!("its header does not say \"format\": \"{format}\""));
    }
    match header.get("version").and_then(|version| version.parse().ok()) {
        Some(found) if found > version => return Err(Unusable::Newer(found)),
        Some(_) => {}
        None => return damaged("its header has no version".to_owned()),
    }
    if let Some(stated) = header.get(CHECKSUM) {
        let tensors = match SafeTensors::deserialize(bytes) {
            Ok(tensors) => tensors.tensors(),
            Err(error) => return damaged(error.to_string()),
        };
        let mut checksum = Checksum::new(&header);
        let in_order: BTreeMap<_, _> = tensors.iter().map(|(name, view)| (name, view)).collect();
        for (name, view) in in_order {
            checksum.begin(name, view.shape(), view.data().len());
            checksum.piece(view.data());
        }
        if checksum.finish() != *stated {
            return damaged("damaged: its checksum is not that of its contents".to_owned());
        }
    }
    Ok(header)
}

/// The header's entry with the checksum of all the rest. Files from before it was introduced have none.
const CHECKSUM: &str = "sha256";

/// SHA-256 over the header's entries and the tensors' names, shapes and values, each with its length, in the order of
/// their names.
struct Checksum(Sha256);

impl Checksum {
    fn new(header: &HashMap<String, String>) -> Self {
        let mut checksum = Self(Sha256::new());
        let entries: BTreeMap<_, _> = header.iter().filter(|(name, _)| *name != CHECKSUM).collect();
        for (name, value) in entries {
            checksum.whole(name.as_bytes());
            checksum.whole(value.as_bytes());
        }
        checksum
    }

    /// A tensor with so many bytes, whose [pieces](Self::piece) come next.
    fn begin(&mut self, name: &str, shape: &[usize], length: usize) {
        self.whole(name.as_bytes());
        self.whole(format!("{shape:?}").as_bytes());
        self.0.update((length as u64).to_le_bytes());
    }

    fn piece(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    fn whole(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    fn finish(self) -> String {
        hexadecimal(&self.0.finalize())
    }
}

/// Bytes as text.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_is_there_stays_where_something_new_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part");
        let write_new = |bytes: &[u8]| write_new_by(&path, |out| out.write_all(bytes)).unwrap();
        assert!(write_new(b"first"));
        assert!(!write_new(b"second"));
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(folder.path().read_dir().unwrap().count(), 1, "nothing temporary is left");
    }

    #[test]
    fn tensors_are_written_as_safetensors_reads_and_writes_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tensors");
        // More than a piece, and a name that comes later, of a narrower type.
        let many: Vec<f64> = (0..70_000).map(f64::from).collect();
        let tensors = [
            NamedTensor::bytes("a", Dtype::F32, [1, 2], [1.5f32, -2.0].map(f32::to_le_bytes).concat()),
            NamedTensor::floats("many", [2, 35_000], &many),
            NamedTensor::floats("none", [0, 3], &[]),
        ];
        save_tensors(&path, ("test", 1), [("key", "value".to_owned())], &tensors).unwrap();
        let Ok((bytes, header)) = read_tensors(&path, ("test", 1)) else { panic!("it is sound") };
        assert_eq!(header["key"], "value");
        let read = SafeTensors::deserialize(&bytes).unwrap();
        let found = read.tensor("many").unwrap();
        assert_eq!((found.shape(), found.data()), (&[2, 35_000][..], &to_bytes(&many)[..]));
        // safetensors' own writer sorts the header's entries at random: its values are what is compared.
        let again = safetensors::serialize(read.tensors(), Some(header)).unwrap();
        let values = many.len() * 8 + 8;
        assert_eq!(again.len(), bytes.len());
        assert_eq!(again[again.len() - values..], bytes[bytes.len() - values..]);

        // The values that no longer fit their shape are not written, nor does anything stay of them.
        let short = [NamedTensor::floats("short", [3], &many[..2])];
        assert!(save_tensors(&folder.path().join("short"), ("test", 1), [], &short).is_err());
        assert_eq!(folder.path().read_dir().unwrap().count(), 1, "the sound file alone");
        // One value that was changed on the disk.
        let last = bytes.len() - 1;
        let mut changed = bytes.clone();
        changed[last] ^= 1;
        std::fs::write(&path, changed).unwrap();
        assert!(matches!(read_tensors(&path, ("test", 1)), Err(Unusable::Damaged(_))));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_in_shared_memory_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = folder.path().join("record");
        write_whole(&path, b"a long record").unwrap();
        write_whole(&path, b"short").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"short");
    }

    #[test]
    fn devices_and_pipes_are_written_to_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let [nowhere, pipe, file, link] =
            ["nowhere", "pipe", "file", "link"].map(|name| folder.path().join(name));
        symlink("/dev/null", &nowhere).unwrap();
        write_whole(&nowhere, b"result").unwrap();
        assert_eq!(std::fs::read_link(&nowhere).unwrap(), Path::new("/dev/null"));

        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read(pipe).unwrap()
        });
        write_whole(&pipe, b"result").unwrap();
        assert!(pipe.metadata().unwrap().file_type().is_fifo());
        assert_eq!(reader.join().unwrap(), b"result");

        // A link to a file is replaced, as ever.
        std::fs::write(&file, b"old").unwrap();
        symlink(&file, &link).unwrap();
        write_whole(&link, b"result").unwrap();
        assert_eq!([&file, &link].map(|path| std::fs::read(path).unwrap()), [&b"old"[..], b"result"]);
        assert_eq!(folder.path().read_dir().unwrap().count(), 4, "nothing temporary is left");
    }

    #[test]
    fn results_are_as_readable_as_any_file_that_the_user_writes() {
        let folder = tempfile::tempdir().unwrap();
        let [ours, plain] = ["ours", "plain"].map(|name| folder.path().join(name));
        std::fs::write(&plain, b"x").unwrap();
        write_whole(&ours, b"x").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
