//! Bitstreams for tests.

/// Writes a bitstream, bit by bit.
#[derive(Default)]
pub(super) struct Bits(pub(super) Vec<bool>);

impl Bits {
    pub(super) fn fixed(mut self, value: u64, width: u32) -> Self {
        self.0.extend((0..width).map(|bit| value >> bit & 1 == 1));
        self
    }

    /// In one chunk: small values alone.
    pub(super) fn vbr(self, value: u64, width: u32) -> Self {
        assert!(value < 1 << (width - 1));
        self.fixed(value, width)
    }

    /// A block that says how long it is, unless `words` says otherwise.
    pub(super) fn block(self, outer_width: u32, id: u64, words: Option<u64>, body: Self) -> Self {
        let body = body.align();
        let len = words.unwrap_or(body.0.len() as u64 / 32);
        let mut block = self.fixed(1, outer_width).vbr(id, 8).vbr(3, 4).align().fixed(len, 32);
        block.0.extend(body.0);
        block
    }

    pub(super) fn align(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32), false);
        self
    }

    pub(super) fn stream(self) -> Vec<u8> {
        let mut bytes = b"BC\xC0\xDE".to_vec();
        let byte =
            |bits: &[bool]| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
        bytes.extend(self.align().0.chunks(8).map(byte));
        bytes
    }
}
