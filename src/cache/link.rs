//! The cache of whole links: an output whose every input is what it was is there already.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::claim::Claim;
use super::desk::{Brought, cannot_write};
use super::digest::Digest;
use super::files::{self, Files};
use super::key::Keys;
use super::link_key::{self, Action, FIRST, PARTS, Reason};
use super::link_record::{Fate, Record};
use super::settings::{Mode, Settings};
use super::signature::{Signature, Signed};
use super::store::{Copied, Store};
use super::{bound, environment, identity};
use crate::object::assembly::{Name, Opened};
use crate::sys::commit::Temporary;

/// Why a link is not kept that says something on stdout: what comes from the cache is silent there.
pub const ON_STDOUT: Reason = "it says something on stdout";

/// The tools of a link.
#[derive(Clone, Copy, Debug)]
pub struct Tools<'a> {
    /// The linker.
    pub linker: &'a Path,
    /// The back ends' compiler; `None` where the linker is alone.
    pub clang: Option<&'a Path>,
}

/// A link that has a key.
#[derive(Debug)]
pub struct CachedLink {
    store: Store,
    limit: u64,
    output: PathBuf,
    tools: Vec<PathBuf>,
    /// The tools as they were when the link began.
    installed: Option<Vec<Signed>>,
    keys: Keys,
    first: [Digest; FIRST],
    search_paths: Vec<std::ffi::OsString>,
    /// What the modules' assembly opens, where that is known before the link.
    opened: Option<Opened>,
    record: Option<Record>,
    claim: Option<Claim>,
    /// What stood in the output's place before the link.
    before: Option<Signature>,
    /// The entry was not what had been stored: told in these words.
    pub damaged: Option<String>,
    /// The cache was asked for by name, and nothing can be written there: told in these words.
    pub unwritable: Option<String>,
}

impl CachedLink {
    /// The link of `action`, or why it has no key.
    ///
    /// # Errors
    /// The reason.
    pub fn open(
        settings: &Settings,
        tools: Tools<'_>,
        action: &Action<'_>,
    ) -> Result<CachedLink, Reason> {
        let writable = settings.mode == Mode::On;
        let output = &action.link.output;
        let mut unwritable = None;
        let store = Store::open(&settings.directory, writable)
            .or_else(|error| {
                if !settings.is_default {
                    unwritable = Some(cannot_write(&settings.directory, &error));
                }
                Store::open(&settings.directory, false)
            })
            .map_err(|_| "the cache directory cannot be used")?;
        let record = Record::load(store.root(), output);
        let opened = key_parts(&store, tools, action);
        if let Err(reason) = &opened {
            let now = Record::not_keyed(record.as_ref(), reason);
            if record.as_ref() != Some(&now) {
                write(&store, &files::output_file(store.root(), output, "link"), &now.to_text());
            }
        }
        let (keys, first) = opened?;
        let mut link = CachedLink {
            limit: settings.limit,
            output: output.clone(),
            tools: std::iter::once(tools.linker).chain(tools.clang).map(Path::to_owned).collect(),
            installed: None,
            keys,
            first,
            search_paths: link_key::search_paths(action.inputs),
            opened: None,
            record,
            claim: None,
            before: None,
            damaged: None,
            unwritable,
            store,
        };
        if tools.clang.is_none() {
            link.open_modules(action)?;
        }
        Ok(link)
    }

    /// Looks into the modules of a link so small that this costs nothing.
    fn open_modules(&mut self, action: &Action<'_>) -> Result<(), Reason> {
        let mut opened = Opened::default();
        for module in &action.inputs.modules {
            let facts = self.keys.files.module(&module.path);
            facts.map_err(|_| "an input cannot be read")?.add_to(&mut opened);
        }
        // What the linker opens must have been looked at before it does.
        link_key::files(&mut self.keys, &opened, &self.search_paths)?;
        self.opened = Some(opened);
        Ok(())
    }

    /// Whether what is linked will be kept.
    pub fn is_writable(&self) -> bool {
        self.store.is_writable()
    }

    /// Puts the output in its place, where the cache has it; returns what was said by its link.
    /// To be called before the link is done, if that shall be kept.
    pub fn fetch(&mut self) -> Option<Vec<u8>> {
        if self.store.is_writable() {
            self.claim = Claim::on(self.store.root(), &self.output)
                .inspect_err(|error| log::info!("cache: {}: {error}", self.output.display()))
                .ok();
            self.before = Signature::at(&self.output);
        }
        let said = self.find();
        if said.is_none() && self.store.is_writable() {
            let tools = self.tools.iter().map(|tool| identity::installed(tool));
            self.installed = tools.collect::<Result<_, _>>().ok();
        }
        said
    }

    fn find(&mut self) -> Option<Vec<u8>> {
        let opened = match &self.opened {
            Some(opened) => opened.clone(),
            None => self.known_to_open(),
        };
        let files = link_key::files(&mut self.keys, &opened, &self.search_paths).ok()?;
        let key = link_key::digest(&self.first, &files);
        let mut temporary = Temporary::beside(&self.output);
        let copied = self.store.copy(&key, temporary.path());
        let said = match copied {
            Ok(Copied::Hit(said)) => said,
            Ok(Copied::Absent) => return None,
            Ok(Copied::Damaged) => {
                self.damaged = Some(format!(
                    "the cache entry {key} was damaged, so {} is linked again; `thinshim cache \
                     verify` looks at all entries",
                    self.output.display()
                ));
                return None;
            }
            Err(error) => {
                log::info!("cache: {key}: {error}");
                return None;
            }
        };
        if let Err(error) = temporary.persist(&self.output) {
            log::info!("cache: {}: {error}", self.output.display());
            return None;
        }
        self.remember(true, files, key);
        Some(said)
    }

    /// Keeps the output, which is there, and what was said when it was linked. `brought` is what
    /// its modules brought in, as their back ends' keys have it.
    ///
    /// # Errors
    /// Why it is not kept.
    pub fn keep(&mut self, said: &[u8], brought: Option<&Brought>) -> Result<(), Reason> {
        const UNKNOWN: Reason = "not all of its modules were looked at";
        const CHANGED: Reason = "an input changed while it was linked";
        if !self.store.is_writable() {
            return Ok(());
        }
        let known = self.opened.clone();
        let opened = known.as_ref().or(brought.map(|brought| &brought.opened)).ok_or(UNKNOWN)?;
        let files = link_key::files(&mut self.keys, opened, &self.search_paths)?;
        let differs = |(path, digest): &(std::ffi::OsString, Digest)| {
            self.keys.files.known(path).is_some_and(|now| now != *digest)
        };
        if brought.is_some_and(|brought| brought.files.iter().any(differs)) {
            return Err(CHANGED);
        }
        if self.keys.files.have_changed() {
            return Err(CHANGED);
        }
        if self.installed.as_ref().is_none_or(|tools| tools.iter().any(Signed::has_changed)) {
            return Err("a tool changed while it was linked");
        }
        let key = link_key::digest(&self.first, &files);
        let (output, size) = self.written()?;
        let bytes = size + said.len() as u64;
        if bound::is_too_large(bytes, self.limit) {
            return Err(bound::TOO_LARGE);
        }
        self.write_entry(&key, opened, &output, bytes, said).map_err(|error| {
            log::info!("cache: {}: {error}", self.output.display());
            "the cache cannot be written to"
        })?;
        self.remember(false, files, key);
        Ok(())
    }

    /// The output that this link wrote, and its size in bytes.
    fn written(&self) -> Result<(File, u64), Reason> {
        const UNREADABLE: Reason = "its output cannot be read";
        if !fs::symlink_metadata(&self.output).map_err(|_| UNREADABLE)?.is_file() {
            return Err("its output is no regular file");
        }
        let output = File::open(&self.output).map_err(|_| UNREADABLE)?;
        let meta = output.metadata().map_err(|_| UNREADABLE)?;
        if self.before == Some(Signature::of(&meta)) {
            return Err("it wrote no output");
        }
        // What is open stays what it is: others put another file in its place.
        if !self.claim.as_ref().is_some_and(Claim::is_undisputed) {
            return Err("another link has the same output");
        }
        Ok((output, meta.len()))
    }

    fn write_entry(
        &self,
        key: &Digest,
        opened: &Opened,
        output: &File,
        bytes: u64,
        said: &[u8],
    ) -> io::Result<()> {
        bound::count(&self.store, bytes, self.limit)?;
        self.store.put_file(key, output, said)?;
        if self.opened.is_none() && !opened.names.is_empty() {
            let mut text = Vec::new();
            for Name { name, assembly } in &opened.names {
                text.push(if *assembly { b'a' } else { b'b' });
                text.extend_from_slice(name);
                text.push(b'\n');
            }
            self.store.write(&self.opens_file(), &[&text])?;
        }
        Ok(())
    }

    /// Where it stands what the modules open: known by their contents, so that a link that is kept
    /// need not look into them.
    fn opens_file(&self) -> PathBuf {
        let name = link_key::digest(&self.first, &Digest::of(b"opens"));
        self.store.root().join("outputs").join(format!("{name}.opens"))
    }

    /// What the modules are known to open. Were a name missing there or wrong, the key would be
    /// another.
    fn known_to_open(&self) -> Opened {
        let text = fs::read(self.opens_file()).unwrap_or_default();
        let name = |line: &[u8]| {
            let (kind, name) = line.split_first()?;
            Some(Name { name: name.to_vec(), assembly: *kind == b'a' })
        };
        Opened {
            names: text.split(|&byte| byte == b'\n').filter_map(name).collect(),
            unclear: false,
        }
    }

    /// Writes down what the next link is to know.
    fn remember(&mut self, hit: bool, files: Digest, key: Digest) {
        if !self.store.is_writable() {
            return;
        }
        let root = self.store.root();
        let memo = files::output_file(root, &self.output, "inputs");
        match self.keys.files.to_memo() {
            Some(text) => write(&self.store, &memo, &text),
            None => files::touch(&memo),
        }
        let mut parts = [files; PARTS.len()];
        parts[..FIRST].copy_from_slice(&self.first);
        let (record, surplus) = Record::keyed(self.record.as_ref(), hit, parts, key);
        for key in surplus {
            self.store.forget(&key);
        }
        if self.record.as_ref() != Some(&record) {
            write(&self.store, &files::output_file(root, &self.output, "link"), &record.to_text());
        }
        debug_assert!(!matches!(record.fate, Fate::NotKeyed(_)));
    }
}

/// The parts of the key that are known before the link.
fn key_parts(
    store: &Store,
    tools: Tools<'_>,
    action: &Action<'_>,
) -> Result<(Keys, [Digest; FIRST]), Reason> {
    link_key::check(action)?;
    let is_lld_s = |(name, _): &(std::ffi::OsString, _)| name.as_bytes().starts_with(b"LLD_");
    if env::vars_os().any(|variable| is_lld_s(&variable)) {
        return Err("the environment speaks to lld");
    }
    let environment = environment::digest(env::vars_os())?;
    let (linker, memo) = identity::of_linker(tools.linker, &store.tools())?;
    remember_tool(store, memo);
    let compiler = match tools.clang {
        None => Digest::of(b"none"),
        Some(clang) => {
            let (compiler, memo) = identity::of(clang, &store.tools())?;
            remember_tool(store, memo);
            compiler
        }
    };
    let memo = files::output_file(store.root(), &action.link.output, "inputs");
    let mut keys = Keys::new(compiler, environment, Files::load(&memo));
    let [command_line, options, inputs] = link_key::first(&mut keys, action)?;
    Ok((keys, [linker, compiler, environment, command_line, options, inputs]))
}

fn remember_tool(store: &Store, memo: Option<identity::Memo>) {
    if let Some((path, text)) = memo {
        write(store, &path, &text);
    }
}

/// Writes what makes the next link quicker: nothing is lost where it cannot be.
fn write(store: &Store, path: &Path, text: &str) {
    if store.is_writable()
        && let Err(error) = store.write(path, &[text.as_bytes()])
    {
        log::info!("cache: {}: {error}", path.display());
    }
}

/// Whether words name a directory that is gone when they are said again.
pub fn names(said: &[u8], directory: &Path) -> bool {
    let name: &OsStr = directory.as_os_str();
    said.windows(name.len().max(1)).any(|window| window == name.as_bytes())
}
