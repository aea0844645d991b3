//! A bitcode module of a link, and the options its back end gets.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use nix::sys::stat::makedev;

use crate::invocation::clang;
use crate::object::record::{Record, Unreadable};
use crate::object::{kind, module, wrapper};

/// A bitcode module as an input of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The name that the linker knows it by: a path it can be opened by.
    pub path: OsString,
    /// Its size in bytes, record included.
    pub size: u64,
    /// What it says of the compile that made it.
    pub record: Option<Arc<Record>>,
    /// Its target triple, where its record names none: read from the bitcode.
    pub triple: Option<String>,
    /// It holds a module for ThinLTO.
    pub thin: bool,
    /// It holds a module for regular LTO.
    pub regular: bool,
}

impl Module {
    /// Whether its bitcode is for ThinLTO. A record does not tell: a module with type metadata and
    /// without external symbols is written for regular LTO where clang would have to split it
    /// (`splitAndWriteThinLTOBitcode` in LLVM's `ThinLTOBitcodeWriter.cpp`).
    pub fn is_thin_bitcode(&self) -> bool {
        fs::read(&self.path)
            .and_then(|data| from_bytes(&self.path, &data))
            .map_or(self.thin, |module| module.thin)
    }
}

/// What a file turned out to be.
#[derive(Debug)]
pub enum Sort {
    /// Bitcode.
    Bitcode(Box<Module>),
    /// Something else.
    Other(kind::Kind),
}

/// Bytes that the head of a file needs to tell what it is and where its record stands.
const HEAD: usize = 20;

/// Whether what is at `path` gives its bytes once: a FIFO, a socket, a device. The null device has
/// none.
pub fn is_read_once(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| {
        let kind = meta.file_type();
        let null = meta.rdev() == makedev(1, 3);
        kind.is_fifo() || kind.is_socket() || kind.is_char_device() && !null
    })
}

/// Looks at the file at `path`: its first bytes and, where it is bitcode with a record, its last
/// ones. Only bitcode without a record, or whose record names no target, is read whole. What can be
/// read only once is left for the linker to read.
///
/// # Errors
/// The operating system's, and `InvalidData` for bitcode that cannot be understood. They do not name
/// the file.
pub fn look(path: &OsString) -> io::Result<Sort> {
    Looker::default().look(path)
}

/// Looks at many files: most have the record of the one before.
#[derive(Debug, Default)]
pub struct Looker {
    last: Option<(Vec<u8>, Arc<Record>)>,
}

impl Looker {
    /// As [`look`].
    ///
    /// # Errors
    /// Those of [`look`].
    pub fn look(&mut self, path: &OsString) -> io::Result<Sort> {
        // Looked at before it is opened: to open a FIFO is to wait for its writer.
        if is_read_once(Path::new(path)) {
            return Ok(Sort::Other(kind::Kind::Other));
        }
        let mut file = File::open(path)?;
        let mut head = [0; HEAD];
        let mut got = 0;
        while got < HEAD {
            match file.read(&mut head[got..])? {
                0 => break,
                more => got += more,
            }
        }
        match kind::of(&head[..got]) {
            kind::Kind::Bitcode => {}
            other => return Ok(Sort::Other(other)),
        }
        let size = file.metadata()?.len();
        if let Some(end) = wrapper::end(&head[..got]).filter(|&end| end <= size) {
            let mut tail = vec![0; usize::try_from(size - end).map_err(io::Error::other)?];
            file.read_exact_at(&mut tail, end)?;
            // Without a target in the record the bitcode has to tell, lest a native object for another
            // machine be taken for this module's.
            if let Some(record) = self.record(tail)? {
                return Ok(Sort::Bitcode(Box::new(Module {
                    path: path.clone(),
                    size,
                    record: Some(record),
                    triple: None,
                    thin: true,
                    regular: false,
                })));
            }
        }
        let mut data = head[..got].to_vec();
        file.read_to_end(&mut data)?;
        from_bytes(path, &data).map(|module| Sort::Bitcode(Box::new(module)))
    }

    /// The record in `tail`, where it names a target.
    fn record(&mut self, tail: Vec<u8>) -> io::Result<Option<Arc<Record>>> {
        if let Some((known, record)) = &self.last
            && *known == tail
        {
            return Ok(Some(Arc::clone(record)));
        }
        let record = read_record(&tail)?.filter(|record| clang::target(&record.options).is_some());
        let record = record.map(Arc::new);
        if let Some(record) = &record {
            self.last = Some((tail, Arc::clone(record)));
        }
        Ok(record)
    }
}

/// A module from all its bytes.
///
/// # Errors
/// `InvalidData`, where they are not bitcode that can be understood. It does not name the module.
pub fn from_bytes(path: &OsString, data: &[u8]) -> io::Result<Module> {
    let parts = wrapper::split(data).ok_or_else(|| invalid("a broken bitcode wrapper"))?;
    let record = read_record(parts.tail)?.map(Arc::new);
    let facts = module::facts(parts.bitcode, false).map_err(|_| invalid("broken bitcode"))?;
    Ok(Module {
        path: path.clone(),
        size: data.len() as u64,
        record,
        triple: Some(facts.triple),
        thin: facts.thin,
        regular: facts.regular,
    })
}

fn read_record(tail: &[u8]) -> io::Result<Option<Record>> {
    let record = Record::from_tail(tail).map_err(|error| match error {
        Unreadable::Truncated => invalid("its options record breaks off"),
        Unreadable::Unknown(_) => invalid("its options record is of a newer thinshim"),
    })?;
    // Each becomes a word of clang's command line, where others may be options or response files.
    let absolute = |path: &OsString| path.as_bytes().starts_with(b"/");
    match record {
        Some(record) if !record.search_paths.iter().all(absolute) => {
            Err(invalid("its options record has a search path that is not absolute"))
        }
        record => Ok(record),
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn what_is_read_once_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        // Nobody writes to it.
        let sort = look(&fifo.clone().into_os_string()).unwrap();
        assert!(matches!(sort, Sort::Other(kind::Kind::Other)));
        assert!(is_read_once(&fifo));
        let absent = directory.path().join("absent");
        for path in [directory.path(), Path::new("/dev/null"), absent.as_path()] {
            assert!(!is_read_once(path), "{}", path.display());
        }
    }

    #[test]
    fn search_paths_are_absolute() {
        let read = |paths: &[&str]| {
            let search_paths = paths.iter().map(OsString::from).collect();
            read_record(&Record { search_paths, ..Record::default() }.to_bytes())
        };
        assert_eq!(read(&["/", "/-o", "/@x"]).unwrap().unwrap().search_paths.len(), 3);
        for path in ["@x", "-o", "./x", "x", ""] {
            let error = read(&["/include", path]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{path}");
        }
    }
}
