//! The LLVM bitstream container: blocks, abbreviations, records (LLVM's `BitCodeFormat` manual).
//!
//! Reads what it is asked for and skips the rest by the blocks' own lengths. Input is untrusted:
//! every read is checked against the end, and neither time nor memory grows faster than the input:
//! a block reads nothing behind its own end, and what one bit can stand for is bounded.

use std::collections::HashMap;
use std::rc::Rc;

/// What a walk does with a nested block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// Read its records and nested blocks.
    Enter,
    /// Jump over it.
    Skip,
}

/// Receives what a walk meets.
pub trait Visitor {
    /// A block begins; `parent` is the enclosing block's id, if any.
    fn block(&mut self, parent: Option<u64>, id: u64) -> Visit;
    /// A record of `block`; `false` leaves the rest of this block unread.
    fn record(&mut self, block: u64, code: u64, operands: &[u64], blob: &[u8]) -> bool;
}

/// The stream ended early or broke the format's rules.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

const BLOCKINFO: u64 = 0;
const NESTING_MAX: usize = 16;
/// Abbreviations of a block, and encodings of an abbreviation. LLVM's writer comes to about 50.
const ABBREVIATIONS_MAX: usize = 256;
/// Encodings of an abbreviation that take no bits in a record. LLVM's writers 14 to 22 come to 2.
const BITLESS_MAX: usize = 16;

#[derive(Clone, Copy, Debug)]
enum Encoding {
    Literal(u64),
    Fixed(u32),
    Vbr(u32),
    Array,
    Char6,
    Blob,
}

impl Encoding {
    /// Whether its value is known without a look at the record.
    fn is_bitless(self) -> bool {
        // Width zero stands for the value zero (llvm/Bitstream/BitstreamReader.h).
        matches!(self, Self::Literal(_) | Self::Fixed(0) | Self::Vbr(0))
    }
}

type Abbreviation = Rc<[Encoding]>;

struct Cursor<'a> {
    data: &'a [u8],
    bit: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    fn new(data: &'a [u8]) -> Self {
        Cursor { data, bit: 0, end: data.len() * 8 }
    }

    fn at_end(&self) -> bool {
        self.end - self.bit < 32
    }

    fn fixed(&mut self, width: u32) -> Result<u64, Malformed> {
        if width > 64 || self.end - self.bit < width as usize {
            return Err(Malformed);
        }
        let mut value = 0u64;
        let mut got = 0;
        while got < width {
            let byte = u64::from(self.data[self.bit / 8]) >> (self.bit % 8);
            let take = (8 - (self.bit % 8) as u32).min(width - got);
            let mask = (1u64 << take) - 1;
            value |= (byte & mask) << got;
            got += take;
            self.bit += take as usize;
        }
        Ok(value)
    }

    fn vbr(&mut self, width: u32) -> Result<u64, Malformed> {
        if !(2..=32).contains(&width) {
            return Err(Malformed);
        }
        let more = 1u64 << (width - 1);
        let mut value = 0u64;
        let mut shift = 0;
        loop {
            let chunk = self.fixed(width)?;
            if shift < 64 {
                value |= (chunk & (more - 1)) << shift;
            }
            shift += width - 1;
            if chunk & more == 0 {
                return Ok(value);
            }
            if shift > 80 {
                return Err(Malformed);
            }
        }
    }

    fn align(&mut self) -> Result<(), Malformed> {
        self.bit = self.bit.div_ceil(32) * 32;
        if self.bit > self.end { Err(Malformed) } else { Ok(()) }
    }

    fn blob(&mut self, len: u64) -> Result<&'a [u8], Malformed> {
        self.align()?;
        let start = self.bit / 8;
        let len = usize::try_from(len).map_err(|_| Malformed)?;
        let bytes = self.data[..self.end / 8]
            .get(start..start.checked_add(len).ok_or(Malformed)?)
            .ok_or(Malformed)?;
        self.bit += len * 8;
        self.align()?;
        Ok(bytes)
    }
}

struct Walk<'a, 'v> {
    cursor: Cursor<'a>,
    info: HashMap<u64, Vec<Abbreviation>>,
    visitor: &'v mut dyn Visitor,
    operands: Vec<u64>,
}

/// Walks the blocks of `data`, which starts with a bitstream magic (`BC 0xC0DE`).
///
/// # Errors
/// [`Malformed`], where the stream breaks off or breaks the rules. Records seen until then were
/// delivered.
pub fn walk(data: &[u8], visitor: &mut dyn Visitor) -> Result<(), Malformed> {
    let mut walk =
        Walk { cursor: Cursor::new(data), info: HashMap::new(), visitor, operands: Vec::new() };
    walk.cursor.fixed(32)?;
    while !walk.cursor.at_end() {
        // At the top level, abbreviation ids are two bits wide and only blocks occur.
        if walk.cursor.fixed(2)? != 1 {
            return Err(Malformed);
        }
        // A module's BLOCKINFO speaks of that module alone: a second one's abbreviations have
        // other widths.
        walk.info.clear();
        walk.block(None, 1)?;
    }
    Ok(())
}

impl<'a> Walk<'a, '_> {
    fn block(&mut self, parent: Option<u64>, depth: usize) -> Result<(), Malformed> {
        let id = self.cursor.vbr(8)?;
        let width = u32::try_from(self.cursor.vbr(4)?).map_err(|_| Malformed)?;
        self.cursor.align()?;
        let words = self.cursor.fixed(32)? as usize;
        let end = self
            .cursor
            .bit
            .checked_add(words.checked_mul(32).ok_or(Malformed)?)
            .ok_or(Malformed)?;
        if end > self.cursor.end || depth > NESTING_MAX || width < 2 {
            return Err(Malformed);
        }
        if id == BLOCKINFO || self.visitor.block(parent, id) == Visit::Enter {
            let outer = std::mem::replace(&mut self.cursor.end, end);
            self.contents(id, width, depth)?;
            self.cursor.end = outer;
        }
        self.cursor.bit = end;
        Ok(())
    }

    fn contents(&mut self, id: u64, width: u32, depth: usize) -> Result<(), Malformed> {
        let mut abbreviations = self.info.get(&id).cloned().unwrap_or_default();
        let mut described = None; // the block that BLOCKINFO speaks of
        while self.cursor.bit < self.cursor.end {
            match self.cursor.fixed(width)? {
                0 => return Ok(()),
                1 => self.block(Some(id), depth + 1)?,
                2 => {
                    let abbreviation = self.abbreviation()?;
                    let list = match described {
                        Some(block) if id == BLOCKINFO => self.info.entry(block).or_default(),
                        _ => &mut abbreviations,
                    };
                    list.push(abbreviation);
                    // Each block of the kind begins with a copy.
                    if list.len() > ABBREVIATIONS_MAX {
                        return Err(Malformed);
                    }
                }
                3 => {
                    let code = self.cursor.vbr(6)?;
                    let count = self.cursor.vbr(6)?;
                    self.operands.clear();
                    for _ in 0..count {
                        let operand = self.cursor.vbr(6)?;
                        self.operands.push(operand);
                    }
                    if id == BLOCKINFO {
                        if code == 1 {
                            described = self.operands.first().copied();
                        }
                    } else if !self.visitor.record(id, code, &self.operands, &[]) {
                        return Ok(());
                    }
                }
                abbreviated => {
                    let index = usize::try_from(abbreviated - 4).map_err(|_| Malformed)?;
                    let abbreviation = abbreviations.get(index).ok_or(Malformed)?.clone();
                    let blob = self.abbreviated(&abbreviation)?;
                    let (code, operands) = self.operands.split_first().ok_or(Malformed)?;
                    if id != BLOCKINFO && !self.visitor.record(id, *code, operands, blob) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn abbreviation(&mut self) -> Result<Abbreviation, Malformed> {
        let count = self.cursor.vbr(5)?;
        if count > ABBREVIATIONS_MAX as u64 {
            return Err(Malformed);
        }
        let mut encodings = Vec::new();
        for _ in 0..count {
            let encoding = if self.cursor.fixed(1)? == 1 {
                Encoding::Literal(self.cursor.vbr(8)?)
            } else {
                match self.cursor.fixed(3)? {
                    1 => Encoding::Fixed(self.encoding_width(64)?),
                    2 => Encoding::Vbr(self.encoding_width(32)?),
                    3 => Encoding::Array,
                    4 => Encoding::Char6,
                    5 => Encoding::Blob,
                    _ => return Err(Malformed),
                }
            };
            encodings.push(encoding);
        }
        // A record of literals alone takes no bits but its abbreviation's number.
        if encodings.iter().filter(|encoding| encoding.is_bitless()).count() > BITLESS_MAX {
            return Err(Malformed);
        }
        Ok(encodings.into())
    }

    fn encoding_width(&mut self, max: u64) -> Result<u32, Malformed> {
        let width = self.cursor.vbr(5)?;
        if width > max { Err(Malformed) } else { Ok(width as u32) }
    }

    fn scalar(&mut self, encoding: Encoding) -> Result<u64, Malformed> {
        match encoding {
            Encoding::Literal(value) => Ok(value),
            Encoding::Fixed(0) | Encoding::Vbr(0) => Ok(0),
            Encoding::Fixed(width) => self.cursor.fixed(width),
            Encoding::Vbr(width) => self.cursor.vbr(width),
            Encoding::Char6 => {
                let index = self.cursor.fixed(6)? as usize;
                let table = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._";
                Ok(u64::from(table[index]))
            }
            Encoding::Array | Encoding::Blob => Err(Malformed),
        }
    }

    /// Reads one abbreviated record into `operands` (its code first); returns its blob.
    fn abbreviated(&mut self, encodings: &[Encoding]) -> Result<&'a [u8], Malformed> {
        self.operands.clear();
        let mut blob: &'a [u8] = &[];
        let mut rest = encodings.iter();
        while let Some(&encoding) = rest.next() {
            match encoding {
                Encoding::Array => {
                    let &element = rest.next().ok_or(Malformed)?;
                    // Elements without bits could be any number; LLVM's reader refuses them, too.
                    if element.is_bitless() {
                        return Err(Malformed);
                    }
                    let count = self.cursor.vbr(6)?;
                    for _ in 0..count {
                        let value = self.scalar(element)?;
                        self.operands.push(value);
                    }
                }
                Encoding::Blob => {
                    let len = self.cursor.vbr(6)?;
                    blob = self.cursor.blob(len)?;
                }
                scalar => {
                    let value = self.scalar(scalar)?;
                    self.operands.push(value);
                }
            }
        }
        Ok(blob)
    }
}

#[cfg(test)]
mod tests {
    use super::super::bits::Bits;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_delivered_is_bounded_whatever_the_bits(
            body in proptest::collection::vec(any::<bool>(), 0..400),
        ) {
            // A block, lest nearly all of it end at its first bits.
            let (_, count) = count(Bits::default().block(2, 8, None, Bits(body)));
            prop_assert!(count.operands <= 400 * BITLESS_MAX);
        }
    }

    /// Everything is entered; counts what is delivered.
    #[derive(Default)]
    struct Count {
        records: usize,
        operands: usize,
    }

    impl Visitor for Count {
        fn block(&mut self, _parent: Option<u64>, _id: u64) -> Visit {
            Visit::Enter
        }

        fn record(&mut self, _block: u64, _code: u64, operands: &[u64], _blob: &[u8]) -> bool {
            self.records += 1;
            self.operands += operands.len();
            true
        }
    }

    fn count(bits: Bits) -> (Result<(), Malformed>, Count) {
        let mut count = Count::default();
        (walk(&bits.stream(), &mut count), count)
    }

    /// An unabbreviated record of three operands, at an abbreviation width of 3.
    fn record(bits: Bits) -> Bits {
        bits.fixed(3, 3).vbr(1, 6).vbr(3, 6).vbr(7, 6).vbr(8, 6).vbr(9, 6)
    }

    #[test]
    fn records_are_delivered() {
        let body = record(record(Bits::default())).fixed(0, 3);
        let (result, count) = count(Bits::default().block(2, 8, None, body));
        assert_eq!((result, count.records, count.operands), (Ok(()), 2, 6));
    }

    #[test]
    fn a_block_reads_nothing_behind_its_end() {
        // It claims one word, and its record takes two: the second is the next one's.
        let inner = record(Bits::default()).fixed(0, 3);
        let body = Bits::default().block(3, 9, Some(1), inner);
        let (result, count) = count(Bits::default().block(2, 8, None, body));
        assert_eq!((result, count.records), (Err(Malformed), 0));
    }

    /// An abbreviation of an array of `element` (its encoding's bits), and a record of it.
    fn array(element: impl Fn(Bits) -> Bits) -> Bits {
        let definition =
            Bits::default().fixed(2, 3).vbr(3, 5).fixed(1, 1).vbr(1, 8).fixed(0, 1).fixed(3, 3);
        let body = element(definition).fixed(4, 3).vbr(31, 6).align().fixed(0, 3);
        Bits::default().block(2, 8, None, body)
    }

    #[test]
    fn elements_of_an_array_take_bits() {
        let fixed = |width| move |bits: Bits| bits.fixed(0, 1).fixed(1, 3).vbr(width, 5);
        let (result, one_bit) = count(array(fixed(1)));
        assert_eq!((result, one_bit.operands), (Ok(()), 31));
        assert_eq!(count(array(fixed(0))).0, Err(Malformed));
        assert_eq!(count(array(|bits| bits.fixed(1, 1).vbr(5, 8))).0, Err(Malformed));
    }

    #[test]
    fn abbreviations_are_bounded() {
        let abbreviation = |bits: Bits| bits.fixed(2, 3).vbr(1, 5).fixed(1, 1).vbr(1, 8);
        for (number, expected) in
            [(ABBREVIATIONS_MAX, Ok(())), (ABBREVIATIONS_MAX + 1, Err(Malformed))]
        {
            let body = (0..number).fold(Bits::default(), |bits, _| abbreviation(bits)).fixed(0, 3);
            assert_eq!(count(Bits::default().block(2, 8, None, body)).0, expected, "{number}");
        }
        // Of literals alone: a record of them takes three bits, whatever their number.
        for (literals, expected) in [(BITLESS_MAX, Ok(())), (BITLESS_MAX + 1, Err(Malformed))] {
            let definition = Bits::default().fixed(2, 3).fixed(0b1_0000 | literals as u64 & 15, 5);
            let definition = definition.vbr(literals as u64 >> 4, 5);
            let body = (0..literals).fold(definition, |bits, _| bits.fixed(1, 1).vbr(7, 8));
            let body = body.fixed(4, 3).fixed(0, 3);
            assert_eq!(count(Bits::default().block(2, 8, None, body)).0, expected, "{literals}");
        }
        // A count of 289 in two chunks.
        let long = Bits::default().fixed(2, 3).fixed(0b1_0001, 5).fixed(0b1_0010, 5).fixed(1, 5);
        assert_eq!(count(Bits::default().block(2, 8, None, long)).0, Err(Malformed));
    }
}
