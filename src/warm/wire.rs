//! What goes over the socket between thinshim and a warm compiler: native byte order, one machine.

/// Says over the socket that the compiler is loaded and takes jobs.
pub const HELLO: i32 = 0x7761_726d;

/// The descriptors that come with a job: its standard streams.
pub const STREAMS: usize = 3;

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
}

impl Header {
    /// Bytes of a header.
    pub const SIZE: usize = 16;

    /// As it is sent.
    pub fn to_bytes(self) -> [u8; Header::SIZE] {
        let mut bytes = [0; Header::SIZE];
        let words = [self.bytes, self.arguments, self.variables, self.parent];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// As it was sent.
    pub fn from_bytes(bytes: [u8; Header::SIZE]) -> Header {
        let word = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Header { bytes: word(0), arguments: word(4), variables: word(8), parent: word(12) }
    }
}
