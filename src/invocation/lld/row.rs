//! What the table says about one option of `ld.lld`.

/// One option: how it is written, and what a distributed link does with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// The name without its dashes. The name of a [`Form::Joined`] option keeps its `=`.
    pub name: &'static str,
    /// Which dashes may stand before the name.
    pub dashes: Dashes,
    /// Where the value stands.
    pub form: Form,
    /// Which of the steps of a distributed link get the option.
    pub fate: Fate,
    /// What the parser reads out of it.
    pub act: Act,
    /// What it writes besides the output.
    pub side: Side,
}

/// The prefixes of an option. lld keeps many of its own to two dashes, lest they collide with
/// short options: `-omagic` is `-o magic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dashes {
    /// `-x`
    One,
    /// `--x`
    Two,
    /// `-x` and `--x`
    Either,
}

/// The shape of an option, after the kinds of LLVM's `OptParser.td`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// No value.
    Flag,
    /// The value is the rest of the word: `--lto-O2`, `--build-id=sha1`.
    Joined,
    /// The value is the next word.
    Separate,
    /// `--name value` or `--name=value`: lld's `Eq` and `EEq`.
    Eq,
    /// `-Ldir` or `-L dir`.
    JoinedOrSeparate,
}

/// Which steps of a distributed link an option belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The thin link and the native link, as it was given.
    Keep,
    /// The native link: what speaks of the output's content, layout or statistics.
    NativeOnly,
    /// The thin link: what speaks of bitcode, or of the files the user named.
    ThinOnly,
    /// Code generation: the thin link (for a regular-LTO partition) and, as
    /// [`LtoOptions`](super::LtoOptions) has it, the back ends.
    BackEnd,
    /// None: what only in-process back ends would use.
    Drop,
    /// Not a link of ours, whatever the inputs.
    PassThrough(&'static str),
    /// LTO inside lld has to do it, for this reason.
    StepAside(&'static str),
}

/// Files and texts that an option makes lld write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Nothing.
    Nothing,
    /// Words on stdout or stderr.
    Stdout,
    /// A file under the name in the option's value (`-` is stdout).
    File,
    /// A file whose name lld derives from the output's.
    BesideOutput,
    /// A Make dependency file under the name in the value. It lists the link's inputs: paths of
    /// native objects in it have to be put back to those of their modules.
    DependencyFile,
}

/// What the parser does on meeting an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the option of that name")]
pub enum Act {
    Nothing,
    // Inputs and where they are looked for.
    Library,
    LibraryPath,
    Sysroot,
    Emulation,
    Script,
    DefaultScript,
    ExcludeLibs,
    // The positional state, and what counts as an input on its own.
    WholeArchive(bool),
    StartGroup,
    EndGroup,
    StartLib,
    EndLib,
    AsNeeded(bool),
    Static(bool),
    PushState,
    PopState,
    Format,
    JustSymbols,
    // The output.
    Output,
    Relocatable,
    Shared,
    Pie(bool),
    GcSections(bool),
    Icf(bool),
    EmitRelocs,
    /// Has a say in where sections go.
    PlacesSections,
    /// Puts single sections in an order of their own.
    OrdersSections,
    // Not only a link, or none.
    Version,
    Quoting,
    // How many threads.
    Threads,
    ThinltoJobs,
    // LTO.
    LtoKind,
    OptLevel,
    CgLevel,
    Partitions,
    Mllvm,
    PluginMinus,
    PluginOther,
    Mcpu,
    SampleProfile,
    CsProfileGenerate,
    CsProfileFile,
    BasicBlockSections,
    BasicBlockAddressMap(bool),
    UniqueBasicBlockSectionNames(bool),
    PgoWarnMismatch(bool),
    FatLtoObjects(bool),
}

impl Row {
    pub(super) const fn new(name: &'static str, dashes: Dashes, form: Form, fate: Fate) -> Self {
        Self { name, dashes, form, fate, act: Act::Nothing, side: Side::Nothing }
    }

    pub(super) const fn act(mut self, act: Act) -> Self {
        self.act = act;
        self
    }

    pub(super) const fn side(mut self, side: Side) -> Self {
        self.side = side;
        self
    }
}

impl Form {
    /// Whether the option has a value.
    pub fn takes_value(self) -> bool {
        self != Self::Flag
    }
}
