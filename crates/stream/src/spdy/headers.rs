//! Name/value blocks and their compression: one zlib stream a direction for a connection's life,
//! primed with the protocol's dictionary (SPDY/3, section 2.6.10).

use std::sync::LazyLock;

use bytes::{Buf, BufMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::StreamError;

/// The most that one block may hold once decompressed, in bytes.
const LARGEST_BLOCK: usize = 64 * 1024;

/// Words of the dictionary that stand with their length before them.
const WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

/// The rest of the dictionary.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8\
charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::with_capacity(1423);
    for word in WORDS {
        dictionary.put_u32(word.len() as u32);
        dictionary.put_slice(word.as_bytes());
    }
    dictionary.put_slice(TAIL.as_bytes());
    dictionary
});

/// The headers of a stream: lower-case names, each with one value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Headers of pairs of name and value; names are put in lower case, as the protocol wants.
    pub fn new<const N: usize>(pairs: [(&str, &str); N]) -> Self {
        Self(
            pairs
                .iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned()))
                .collect(),
        )
    }

    /// The value of a header, whose name is compared without regard to case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn encode(&self) -> Vec<u8> {
        let mut block = Vec::new();
        block.put_u32(self.0.len() as u32);
        for (name, value) in &self.0 {
            for text in [name, value] {
                block.put_u32(text.len() as u32);
                block.put_slice(text.as_bytes());
            }
        }
        block
    }

    fn decode(mut block: &[u8]) -> Result<Self, StreamError> {
        const DAMAGED: StreamError = StreamError::Protocol("damaged header block");
        let text = |block: &mut &[u8]| {
            let length = block.try_get_u32().map_err(|_| DAMAGED)? as usize;
            let (text, rest) = block.split_at_checked(length).ok_or(DAMAGED)?;
            *block = rest;
            Ok::<_, StreamError>(String::from_utf8_lossy(text).into_owned())
        };
        let count = block.try_get_u32().map_err(|_| DAMAGED)?;
        let mut headers = Vec::new();
        for _ in 0..count.min(LARGEST_BLOCK as u32 / 8) {
            headers.push((text(&mut block)?, text(&mut block)?));
        }
        Ok(Self(headers))
    }
}

/// Compresses the blocks of one direction.
pub(super) struct Encoder(Compress);

impl Encoder {
    pub(super) fn new() -> Result<Self, StreamError> {
        let mut compress = Compress::new(Compression::default(), true);
        compress
            .set_dictionary(&DICTIONARY)
            .map_err(|_| StreamError::Protocol("zlib refuses the dictionary"))?;
        Ok(Self(compress))
    }

    pub(super) fn encode(&mut self, headers: &Headers) -> Result<Vec<u8>, StreamError> {
        let block = headers.encode();
        // Room for the worst case, so that one call flushes everything.
        let mut out = Vec::with_capacity(block.len() + block.len() / 8 + 128);
        self.0
            .compress_vec(&block, &mut out, FlushCompress::Sync)
            .map_err(|_| StreamError::Protocol("headers cannot be compressed"))?;
        Ok(out)
    }
}

/// Decompresses the blocks of one direction.
pub(super) struct Decoder {
    zlib: Decompress,
    primed: bool,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { zlib: Decompress::new(true), primed: false }
    }

    pub(super) fn decode(&mut self, mut input: &[u8]) -> Result<Headers, StreamError> {
        const DAMAGED: StreamError = StreamError::Protocol("damaged header compression");
        let mut out = Vec::with_capacity(4096);
        while !input.is_empty() {
            if out.len() == out.capacity() {
                out.reserve(out.capacity());
            }
            let before = self.zlib.total_in();
            let step = self.zlib.decompress_vec(input, &mut out, FlushDecompress::Sync);
            let consumed = usize::try_from(self.zlib.total_in() - before).map_err(|_| DAMAGED)?;
            input = &input[consumed..];
            match step {
                Ok(Status::Ok) if out.len() > LARGEST_BLOCK => {
                    return Err(StreamError::Protocol("header block too large"));
                }
                Ok(Status::Ok) => {}
                Ok(Status::BufError) if out.len() == out.capacity() => {}
                Ok(_) => break,
                Err(error) if error.needs_dictionary().is_some() && !self.primed => {
                    self.zlib.set_dictionary(&DICTIONARY).map_err(|_| DAMAGED)?;
                    self.primed = true;
                }
                Err(_) => return Err(DAMAGED),
            }
        }
        Headers::decode(&out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dictionary's Adler-32 is what every zlib stream of the protocol names.
    #[test]
    fn the_dictionary_is_the_protocols() {
        assert_eq!(DICTIONARY.len(), 1423);
        let mut compress = Compress::new(Compression::default(), true);
        assert_eq!(compress.set_dictionary(&DICTIONARY).unwrap(), 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_share_one_compression() {
        let (mut encoder, mut decoder) = (Encoder::new().unwrap(), Decoder::new());
        for number in 0..50 {
            let headers = Headers::new([("streamType", "stdout"), ("port", &number.to_string())]);
            let block = encoder.encode(&headers).unwrap();
            assert_eq!(decoder.decode(&block).unwrap(), headers);
        }
    }

    #[test]
    fn large_and_damaged_blocks_are_refused() {
        let mut encoder = Encoder::new().unwrap();
        let bomb = encoder.encode(&Headers::new([("a", &"x".repeat(LARGEST_BLOCK * 4))])).unwrap();
        assert!(Decoder::new().decode(&bomb).is_err());
        assert!(Decoder::new().decode(b"no zlib at all").is_err());
        assert!(Headers::decode(&[0, 0, 0, 9, 0, 0, 0, 200, 1]).is_err());
    }
}
