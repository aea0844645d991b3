//! What goes over the socket between thinshim and a warm compiler: native byte order, one machine.

/// Says over the socket that the compiler is loaded and takes jobs; to whoever waits for a job of
/// [`Place`], that it begins.
pub const HELLO: i32 = 0x7761_726d;

/// The first descriptors that come with a job: its standard streams.
pub const STREAMS: usize = 3;

/// With a [`Place`] come its working directory and a socket to whoever waits for it, too.
pub const FDS_MAX: usize = STREAMS + 2;

/// What stands before a job's strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the strings, each with the NUL that ends it.
    pub bytes: u32,
    /// How many of them are arguments, `argv[0]` included; they come first.
    pub arguments: u32,
    /// How many are variables of the environment.
    pub variables: u32,
    /// The process that the job shall not survive.
    pub parent: u32,
    /// Where the job belongs; all zeros: where the compiler does.
    pub place: Place,
}

/// What a process has from its parent, besides its descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its process group, one of the compiler's session.
    pub group: u32,
    /// Its file mode creation mask.
    pub umask: u32,
    /// The signals that it blocks: bit 0 is signal 1.
    pub blocked: u64,
    /// The signals that it ignores.
    pub ignored: u64,
}

impl Header {
    /// Words of a header.
    const WORDS: usize = 8;

    /// Bytes of a header.
    pub const SIZE: usize = Header::WORDS * 8;

    /// As it is sent.
    pub fn to_bytes(self) -> [u8; Header::SIZE] {
        let small = [
            self.bytes,
            self.arguments,
            self.variables,
            self.parent,
            self.place.group,
            self.place.umask,
        ];
        let words = small.into_iter().map(u64::from);
        let words = words.chain([self.place.blocked, self.place.ignored]);
        let mut bytes = [0; Header::SIZE];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// As it was sent.
    pub fn from_bytes(bytes: [u8; Header::SIZE]) -> Header {
        let mut words = [0_u64; Header::WORDS];
        for (word, place) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut whole = [0; 8];
            whole.copy_from_slice(place);
            *word = u64::from_ne_bytes(whole);
        }
        // What was a `u32` is one.
        let small = |at: usize| words[at] as u32;
        Header {
            bytes: small(0),
            arguments: small(1),
            variables: small(2),
            parent: small(3),
            place: Place { group: small(4), umask: small(5), blocked: words[6], ignored: words[7] },
        }
    }
}
