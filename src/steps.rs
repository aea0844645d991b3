//! The steps of a link as a build system calls them, one by one: `thinshim thin-link`,
//! `thinshim back-end` for each module, `thinshim native-link`.
//!
//! What one step leaves for the next stands beside the objects, under names that a makefile can
//! tell from theirs. Every step gets the link's own command line, so none of them has to be told
//! what another has found out.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use crate::Failure;
use crate::back_end_call;
use crate::cache::digest::Digest;
use crate::cache::key::{Action, Key, Keys};
use crate::cache::{environment, files, identity};
use crate::decision::{self, Decision, Parsed, Prepared};
use crate::dispatch::{self, Call, Tool};
use crate::distribution::Distribution;
use crate::driver;
use crate::invocation::lld::{Element, Link, Refusal};
use crate::linker;
use crate::object::elf;
use crate::object::kind::Kind;
use crate::object::module::modules_of_index;
use crate::report::Report;
use crate::settings::Settings;
use crate::stop::{Stop, ThinLinked};
use crate::sys::commit;
use crate::sys::signals::Signals;
use crate::thinlto::back_end::{self, BackEnd};
use crate::thinlto::inputs::Piece;
use crate::thinlto::module::{self, Module, Sort};

/// In the place of a list: in-process ThinLTO has to do the link.
const IN_PROCESS: &[u8] = b"#in-process\n";

/// Begins the line of a dependency file that holds the digest of all inputs.
const INPUTS: &str = "# inputs ";

/// Where a link's files stand.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The list of the modules that need a back end.
    pub list: &'a Path,
    /// Tells this link's files from those of others that share objects with it.
    pub tag: Option<&'a OsStr>,
}

impl Files<'_> {
    /// The individual index of a module.
    fn index(&self, module: &OsStr) -> PathBuf {
        self.named(module.to_owned(), ".thinlto.bc")
    }

    /// The native object of a module.
    fn native(&self, module: &OsStr) -> PathBuf {
        let stem = module.as_bytes().strip_suffix(b".o").unwrap_or(module.as_bytes());
        self.named(OsStr::from_bytes(stem).to_owned(), ".thinlto-native.o")
    }

    /// The native object of the regular-LTO partition.
    fn regular(&self) -> PathBuf {
        let mut name = self.list.as_os_str().to_owned();
        name.push(".regular.o");
        name.into()
    }

    fn named(&self, mut name: OsString, end: &str) -> PathBuf {
        if let Some(tag) = self.tag {
            name.push(".");
            name.push(tag);
        }
        name.push(end);
        name.into()
    }
}

/// The thin link.
///
/// # Errors
/// thinshim's own failures; those of the linker are its exit status.
pub fn thin_link(to: &Files<'_>, link: Vec<OsString>) -> Result<ExitCode, Failure> {
    let Called { call, linker, settings } = Called::read(link)?;
    let parsed = decision::parse(decision::expand(&call.args)?);
    let without_back_ends = |list: &[u8]| {
        if let Parsed::Link(link) = &parsed {
            leave_empty(to, link.elements())?;
        }
        write(to.list, list).map(|()| ExitCode::SUCCESS)
    };
    let in_process = |output: &Path, reason: &str| {
        driver::allow_in_process(output, reason, &settings)?;
        without_back_ends(IN_PROCESS)
    };
    match decision::decide(&linker, parsed.as_ref(), &settings)? {
        Decision::PassThrough(_) => without_back_ends(b""),
        Decision::Small(link, _) => Err(no_small(&link.output)),
        Decision::Fallback(output, reason) => in_process(&output, &reason),
        Decision::Distribute(prepared) if !prepared.inputs.namesakes.is_empty() => {
            let reason = "an option names an archive whose members would have to stand alone";
            in_process(&prepared.link.output, reason)
        }
        Decision::Distribute(prepared) => {
            refuse_members(&prepared)?;
            let signals = hold_signals()?;
            let output = prepared.link.output.clone();
            let mut distribution = Distribution::new(&linker, *prepared, &settings, &signals)?;
            match distribution.thin_link()? {
                ThinLinked::Go => leave(to, &distribution).map(|()| ExitCode::SUCCESS),
                ThinLinked::Stop(stop) => {
                    drop(distribution);
                    drop(signals);
                    Ok(stop.end())
                }
                ThinLinked::InProcess(reason) => in_process(&output, &reason),
            }
        }
    }
}

/// Puts what the thin link has written where the next steps look for it.
fn leave(to: &Files<'_>, distribution: &Distribution<'_>) -> Result<(), Failure> {
    let (paths, said) = distribution.left();
    back_end_call::say(said);
    let mut listed = Vec::new();
    let mut with_index = HashSet::new();
    for job in distribution.jobs() {
        let index = fs::read(&job.index).map_err(|error| failure(&job.index, &error))?;
        update(&to.index(&job.module), &index)?;
        with_index.insert(job.module.as_os_str());
        listed.extend_from_slice(job.module.as_bytes());
        listed.push(b'\n');
    }
    for piece in &distribution.inputs().pieces {
        if let Piece::Word(element) = piece {
            leave_empty(to, [*element])?;
        }
    }
    // Modules that the link does not take.
    for module in &distribution.inputs().modules {
        if !with_index.contains(module.path.as_os_str()) {
            update(&to.index(&module.path), b"")?;
        }
    }
    let regular = fs::read(&paths.regular).unwrap_or_default();
    if elf::read(&regular).is_ok_and(|native| native.has_contents) {
        update(&to.regular(), &regular)?;
    } else {
        let _ = fs::remove_file(to.regular());
    }
    write(to.list, &listed)
}

/// Empty indexes for the objects on a command line that have no back end: a makefile that does
/// not know which they are can wait for an index of every object.
fn leave_empty<'a>(
    to: &Files<'_>,
    elements: impl IntoIterator<Item = Element<'a>>,
) -> Result<(), Failure> {
    for element in elements {
        if let Element::Input { path, .. } = element
            && matches!(
                module::look(&path.to_owned()),
                Ok(Sort::Other(Kind::Elf) | Sort::Bitcode(_))
            )
        {
            update(&to.index(path), b"")?;
        }
    }
    Ok(())
}

/// A back end.
///
/// # Errors
/// thinshim's own failures; those of clang are its exit status.
pub fn back_end(
    module: &OsString,
    index: PathBuf,
    output: PathBuf,
    dependency_file: Option<&Path>,
    link: Vec<OsString>,
) -> Result<ExitCode, Failure> {
    let fail = |what: &dyn std::fmt::Display| {
        Failure::new(format!("back end of {}: {what}", Path::new(module).display()))
    };
    let Called { mut call, linker, settings } = Called::read(link)?;
    if commit::is_special(&output) {
        return Err(fail(&format!("{} is no regular file", output.display())));
    }
    // A link without inputs is none.
    call.args.push(module.clone());
    let parsed = decision::parse(decision::expand(&call.args)?);
    let shard = fs::read(&index).map_err(|error| {
        fail(&format!("its index {}: {error} (`thinshim thin-link` writes it)", index.display()))
    })?;
    if shard.is_empty() {
        let object = fs::read(module).map_err(|error| fail(&error))?;
        write(&output, &object)?;
        return match dependency_file {
            Some(file) => {
                write(file, &rule(&output, [module.as_os_str(), index.as_os_str()], None))
            }
            None => Ok(()),
        }
        .map(|()| ExitCode::SUCCESS);
    }
    let link = match &parsed {
        Parsed::Link(link) => link,
        Parsed::Refused(
            Refusal::PassThrough(reason) | Refusal::StepAside(reason) | Refusal::Bad(reason),
            _,
        ) => return Err(fail(&format!("its link cannot be distributed: {reason}"))),
    };
    let clang = decision::clang_of(&linker, &settings).ok_or_else(|| {
        let linker = linker.display();
        fail(&format!("there is no clang beside {linker}, and THINSHIM_CLANG names none"))
    })?;
    let imported = modules_of_index(&shard)
        .map_err(|_| fail(&format!("its index {} is not understood", index.display())))?;
    let named = named_in_index(module, &imported).ok_or_else(|| {
        let index = index.display();
        fail(&format!("{index} is the index of another module (`thinshim thin-link` writes it)"))
    })?;
    let job =
        job(link, &named, index, output, &imported, &settings, &clang).map_err(|e| fail(&e))?;
    let Some(file) = dependency_file else {
        let ended = back_end_call::compile(&clang, &job.args(), &job, &settings)?;
        return Ok(ended.unwrap_or(ExitCode::SUCCESS));
    };
    let key = key(&job, &clang);
    if let Ok(key) = &key
        && digest_in(file) == Some(key.digest())
        && back_end::verify(&job).is_ok()
    {
        renew(&job.output).map_err(|error| failure(&job.output, &error))?;
        let report = Report::of_back_end(job.output);
        return report.append().map(|()| ExitCode::SUCCESS).map_err(|error| fail(&error));
    }
    // What it says of an object does not hold while another is written.
    if !commit::is_special(file) {
        let _ = fs::remove_file(file);
    }
    if let Some(status) = back_end_call::compile(&clang, &job.args(), &job, &settings)? {
        return Ok(status);
    }
    let own = [job.module.as_os_str(), job.index.as_os_str()];
    let rule = match &key {
        Ok(key) => {
            let changed = key.is_outdated() || key.has_another_index();
            let digest = (!changed).then(|| key.digest());
            rule(&job.output, own.into_iter().chain(key.files()), digest)
        }
        Err(reason) => {
            log::info!("{}: its inputs cannot all be told: {reason}", job.output.display());
            let imported = imported.iter().map(|name| OsStr::from_bytes(name));
            rule(&job.output, own.into_iter().chain(imported), None)
        }
    };
    write(file, &rule).map(|()| ExitCode::SUCCESS)
}

/// A module under the name that its index has for it. By any other, clang takes the module's own
/// code for code to import, and writes an object without it.
fn named_in_index(module: &OsString, names: &[Vec<u8>]) -> Option<OsString> {
    let listed = names.iter().any(|name| name == module.as_bytes());
    // Nothing is said of a module without symbols.
    if listed || names.is_empty() {
        return Some(module.clone());
    }
    let own = fs::metadata(module).ok()?;
    let same = |name: &&Vec<u8>| {
        fs::metadata(OsStr::from_bytes(name))
            .is_ok_and(|other| (other.dev(), other.ino()) == (own.dev(), own.ino()))
    };
    names.iter().find(same).map(|name| OsString::from_vec(name.clone()))
}

fn job(
    link: &Link,
    path: &OsString,
    index: PathBuf,
    output: PathBuf,
    imported: &[Vec<u8>],
    settings: &Settings,
    clang: &Path,
) -> Result<BackEnd, String> {
    let look = |path: &OsString| -> Result<Module, String> {
        match module::look(path) {
            Ok(Sort::Bitcode(module)) => Ok(*module),
            Ok(Sort::Other(_)) => Err(format!("{} is no bitcode", Path::new(path).display())),
            Err(error) => Err(format!("{}: {error}", Path::new(path).display())),
        }
    };
    let module = look(path)?;
    let mut search_paths = Vec::new();
    search_paths.extend(module.record.iter().flat_map(|record| record.search_paths.clone()));
    for name in imported.iter().filter(|name| *name != path.as_bytes()) {
        let other = look(&OsString::from_vec(name.clone()))?;
        search_paths.extend(other.record.iter().flat_map(|record| record.search_paths.clone()));
    }
    let modules = [module];
    let options = decision::options(link, &modules, settings, clang)?;
    let options = options.into_iter().next().unwrap_or_default();
    Ok(BackEnd::new(&modules[0], index, output, options, search_paths))
}

/// The key of a back end on this machine, with the cache or without.
fn key(job: &BackEnd, clang: &Path) -> Result<Key, &'static str> {
    let environment = environment::digest(std::env::vars_os())?;
    let compiler = identity::installed(clang)?.digest();
    Keys::new(compiler, environment, files::Files::default()).of(&Action {
        options: &job.options,
        search_paths: &job.search_paths,
        module: &job.module,
        index: &job.index,
    })
}

/// The native link.
///
/// # Errors
/// thinshim's own failures; those of the linker are its exit status.
pub fn native_link(from: &Files<'_>, link: Vec<OsString>) -> Result<ExitCode, Failure> {
    let Called { call, linker, settings } = Called::read(link)?;
    let list = fs::read(from.list).map_err(|error| {
        let list = from.list.display();
        Failure::new(format!(
            "native link: its list {list}: {error} (`thinshim thin-link` writes it)"
        ))
    })?;
    let parsed = decision::parse(decision::expand(&call.args)?);
    let in_process =
        |output, reason| driver::leave_in_process(&call, &linker, output, reason, &settings);
    match decision::decide(&linker, parsed.as_ref(), &settings)? {
        Decision::PassThrough(_) => linker::become_it(&call, &linker),
        Decision::Small(link, _) => Err(no_small(&link.output)),
        Decision::Fallback(output, reason) => in_process(output, reason),
        Decision::Distribute(prepared) if list == IN_PROCESS => {
            let reason = "its thin link had left it to in-process ThinLTO".to_owned();
            in_process(prepared.link.output.clone(), reason)
        }
        Decision::Distribute(prepared) => {
            refuse_members(&prepared)?;
            let (natives, patchable) = natives(from, &list, &prepared)?;
            let signals = hold_signals()?;
            let mut distribution = Distribution::new(&linker, *prepared, &settings, &signals)?;
            let regular = from.regular();
            let regular = regular.exists().then_some(regular);
            let stop: Stop = distribution.link_natives(natives, patchable, regular.as_deref())?;
            drop(distribution);
            drop(signals);
            Ok(stop.end())
        }
    }
}

/// The native object of each module that is listed, looked at; and how many patchable sections
/// there are in all of them.
fn natives(
    from: &Files<'_>,
    list: &[u8],
    prepared: &Prepared<'_>,
) -> Result<(Vec<Option<PathBuf>>, usize), Failure> {
    let fail =
        |what: String| Failure::new(format!("link of {}: {what}", prepared.link.output.display()));
    let other_link = |module: &OsStr| {
        fail(format!(
            "{} is not of this link ({}): run `thinshim thin-link` again",
            from.list.display(),
            Path::new(module).display()
        ))
    };
    let mut listed: HashSet<&[u8]> = list.split(|&byte| byte == b'\n').collect();
    listed.remove(&b""[..]);
    let mut natives = vec![None; prepared.inputs.modules.len()];
    let mut taken = HashSet::new();
    let mut patchable = 0;
    for piece in &prepared.inputs.pieces {
        let Piece::Module { index, lazy } = piece else { continue };
        let module = &prepared.inputs.modules[*index];
        if !listed.contains(module.path.as_bytes()) {
            let is_linked = module.thin && !lazy && !taken.contains(module.path.as_bytes());
            if is_linked && module.is_thin_bitcode() {
                return Err(other_link(&module.path));
            }
            continue;
        }
        let path = from.native(&module.path);
        let name = path.display();
        let object = fs::read(&path)
            .map_err(|error| fail(format!("{name}: {error} (`thinshim back-end` writes it)")))?;
        let native = elf::read(&object).map_err(|what| fail(format!("{name}: {what}")))?;
        if back_end::machine(module).is_some_and(|machine| machine != native.machine) {
            return Err(fail(format!("{name} is for ELF machine {}", native.machine)));
        }
        // A module that is named twice is linked once.
        if taken.insert(module.path.as_bytes()) {
            patchable += native.patchable_sections;
            natives[*index] = Some(path);
        }
    }
    match listed.difference(&taken).next() {
        Some(module) => Err(other_link(OsStr::from_bytes(module))),
        None => Ok((natives, patchable)),
    }
}

/// A step's link.
struct Called {
    call: Tool,
    linker: PathBuf,
    settings: Settings,
}

impl Called {
    fn read(link: Vec<OsString>) -> Result<Called, Failure> {
        let Call::Lld(call) = dispatch::of_link(link) else {
            return Err(Failure::new(
                "after -- a step wants the linker's command line: … -- ld.lld -r a.o b.o -o c.o",
            ));
        };
        let linker = dispatch::program(&call)?;
        // Whoever runs the steps wants the native objects, and has no place for a kept directory.
        let settings = Settings { small: 0, keep: None, warm: false, ..Settings::read()? };
        Ok(Called { call, linker, settings })
    }
}

/// A member that is no file of its own has no place where its native object could stand.
fn refuse_members(prepared: &Prepared<'_>) -> Result<(), Failure> {
    match prepared.inputs.extracts.first() {
        None => Ok(()),
        Some(extract) => Err(Failure::new(format!(
            "link of {}: the archive {} holds bitcode that is no file of its own: make it a thin \
             one (ar T), or link in one step",
            prepared.link.output.display(),
            extract.archive.display()
        ))),
    }
}

fn no_small(output: &Path) -> Failure {
    Failure::new(format!("link of {}: it counts as small here", output.display()))
}

fn hold_signals() -> Result<Signals, Failure> {
    Signals::hold().map_err(|error| Failure::new(format!("signals: {error}")))
}

fn failure(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

fn write(path: &Path, data: &[u8]) -> Result<(), Failure> {
    commit::write(path, data).map_err(|error| failure(path, &error))
}

fn update(path: &Path, data: &[u8]) -> Result<(), Failure> {
    commit::update(path, data).map_err(|error| failure(path, &error))
}

/// Makes a file newer than all there is.
fn renew(path: &Path) -> std::io::Result<()> {
    let now = fs::FileTimes::new().set_modified(SystemTime::now());
    fs::OpenOptions::new().append(true).open(path)?.set_times(now)
}

/// The digest of the inputs that the last run has left in its dependency file.
fn digest_in(file: &Path) -> Option<Digest> {
    let text = fs::read(file).ok()?;
    let line = text.split(|&byte| byte == b'\n').next()?;
    Digest::from_hex(std::str::from_utf8(line).ok()?.strip_prefix(INPUTS)?)
}

/// A dependency file: a rule for `output`, and an empty one for each input, so that one that goes
/// away stops nothing.
fn rule<'a>(
    output: &Path,
    inputs: impl IntoIterator<Item = &'a OsStr>,
    digest: Option<Digest>,
) -> Vec<u8> {
    let mut seen = HashSet::new();
    let inputs: Vec<&OsStr> = inputs.into_iter().filter(|input| seen.insert(*input)).collect();
    let mut text =
        digest.map(|digest| format!("{INPUTS}{digest}\n")).unwrap_or_default().into_bytes();
    text.extend(for_make(output.as_os_str()));
    text.push(b':');
    for input in &inputs {
        text.extend_from_slice(b" \\\n  ");
        text.extend(for_make(input));
    }
    text.push(b'\n');
    for input in inputs {
        text.push(b'\n');
        text.extend(for_make(input));
        text.extend_from_slice(b":\n");
    }
    text
}

/// A name as make reads it.
fn for_make(name: &OsStr) -> Vec<u8> {
    let mut text = Vec::with_capacity(name.len());
    for &byte in name.as_bytes() {
        match byte {
            b'$' => text.push(b'$'),
            b' ' | b'#' | b':' | b'%' => text.push(b'\\'),
            _ => {}
        }
        text.push(byte);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stand_beside_the_objects() {
        let plain = Files { list: Path::new("vmlinux.thinlto-index"), tag: None };
        let tagged = Files { tag: Some(OsStr::new("ext4")), ..plain };
        let module = OsStr::new("fs/inode.o");
        assert_eq!(plain.index(module), Path::new("fs/inode.o.thinlto.bc"));
        assert_eq!(plain.native(module), Path::new("fs/inode.thinlto-native.o"));
        assert_eq!(tagged.index(module), Path::new("fs/inode.o.ext4.thinlto.bc"));
        assert_eq!(tagged.native(module), Path::new("fs/inode.ext4.thinlto-native.o"));
        assert_eq!(plain.regular(), Path::new("vmlinux.thinlto-index.regular.o"));
    }

    #[test]
    fn the_digest_is_read_back() {
        let space = tempfile::tempdir().expect("a directory");
        let file = space.path().join("d");
        let digest = Digest::of(b"x");
        let inputs = ["a.o", "a $b.o", "a.o"].map(OsStr::new);
        let text = rule(Path::new("n.o"), inputs, Some(digest));
        fs::write(&file, &text).expect("a file");
        assert_eq!(digest_in(&file), Some(digest));
        let text = String::from_utf8(text).expect("text");
        assert!(
            text.ends_with("\nn.o: \\\n  a.o \\\n  a\\ $$b.o\n\na.o:\n\na\\ $$b.o:\n"),
            "{text}"
        );
        fs::write(&file, rule(Path::new("n.o"), inputs, None)).expect("a file");
        assert_eq!(digest_in(&file), None);
    }
}
