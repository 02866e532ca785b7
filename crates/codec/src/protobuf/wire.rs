//! The protobuf wire format: numbered pieces of a message, read from and written to bytes.

use super::ProtobufError;

/// One field's content.
pub(super) enum Piece<'a> {
    /// A varint, or eight or four fixed bytes.
    Number(u64),
    /// Text, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
}

impl<'a> Piece<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], ProtobufError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err(ProtobufError::Damaged("a number where bytes belong")),
        }
    }

    pub(super) fn number(&self) -> Result<u64, ProtobufError> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Bytes(_) => Err(ProtobufError::Damaged("bytes where a number belongs")),
        }
    }
}

/// Reads a message from its beginning to its end.
pub(super) struct Reader<'a>(&'a [u8]);

const SHORT: ProtobufError = ProtobufError::Damaged("unexpected EOF");

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next piece with its number.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Piece<'a>)>, ProtobufError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3)
            .map_err(|_| ProtobufError::Damaged("a field number too large"))?;
        let piece = match tag & 7 {
            0 => Piece::Number(self.varint()?),
            1 => Piece::Number(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| SHORT)?;
                Piece::Bytes(self.take(length)?)
            }
            5 => Piece::Number(u32::from_le_bytes(self.fixed()?).into()),
            _ => return Err(ProtobufError::Damaged("an unknown wire type")),
        };
        Ok(Some((number, piece)))
    }

    /// The next of several varints written together.
    pub(super) fn packed(&mut self) -> Result<Option<u64>, ProtobufError> {
        if self.0.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(SHORT)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Damaged("proto: integer overflow"))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        self.take(N)?.try_into().map_err(|_| SHORT)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }
}

pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field that holds a number. Negative ones are written as 64 bits, whatever their width.
pub(super) fn number(out: &mut Vec<u8>, field: u32, value: i64) {
    varint(out, u64::from(field) << 3);
    varint(out, value.cast_unsigned());
}

/// A field of eight fixed bytes.
pub(super) fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// What comes before the `length` bytes of a field.
pub(super) fn head(out: &mut Vec<u8>, field: u32, length: usize) {
    varint(out, u64::from(field) << 3 | 2);
    varint(out, length as u64);
}

/// A field that holds text or bytes.
pub(super) fn bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    head(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// A field that holds what `write` appends. Most are short: room for their length is made where they
/// are not.
pub(super) fn nested<E>(
    out: &mut Vec<u8>,
    field: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    varint(out, u64::from(field) << 3 | 2);
    let at = out.len();
    out.push(0);
    write(out)?;
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
        return Ok(());
    }
    let mut prefix = Vec::with_capacity(10);
    varint(&mut prefix, length as u64);
    let end = out.len();
    out.extend_from_slice(&prefix[1..]);
    out.copy_within(at + 1..end, at + prefix.len());
    out[at..at + prefix.len()].copy_from_slice(&prefix);
    Ok(())
}
