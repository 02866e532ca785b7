//! Compression of long answers, as upstream does it: the fastest level, for who asks, from a length on.

use std::io::Write as _;

use bytes::Bytes;
use codec::Encoding;
use flate2::{Compression, write::GzEncoder};
use futures::stream;
use http::{HeaderValue, Response, header};
use serve::Body;

use crate::endpoints::respond;

/// Answers no longer than this go out as they are, in bytes.
pub(super) const THRESHOLD: usize = 128 * 1024;

/// A response whose body is the pieces compressed.
pub(super) fn response(
    pieces: impl Iterator<Item = Bytes> + Send + 'static,
    encoding: Encoding,
) -> Response<Body> {
    let mut response =
        streamed(Body::stream(stream::iter(compressed(pieces))), encoding.media_type());
    respond::mark_gzip(&mut response);
    response
}

/// A response whose body comes bit by bit.
pub(super) fn streamed(body: Body, media: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Compresses piece by piece.
fn compressed(
    pieces: impl Iterator<Item = Bytes> + Send,
) -> impl Iterator<Item = std::io::Result<Bytes>> + Send {
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut pieces = pieces.fuse();
    std::iter::from_fn(move || {
        loop {
            let Some(piece) = pieces.next() else {
                return encoder.take().map(|encoder| encoder.finish().map(Bytes::from));
            };
            let writer = encoder.as_mut()?;
            if let Err(error) = writer.write_all(&piece) {
                encoder = None;
                return Some(Err(error));
            }
            let ready = std::mem::take(writer.get_mut());
            if !ready.is_empty() {
                return Some(Ok(ready.into()));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn compressed_pieces_make_one_whole() {
        let pieces = (0..50).map(|number| Bytes::from(format!("{number:>9000}")));
        let expected: Vec<u8> = pieces.clone().flat_map(|piece| piece.to_vec()).collect();
        let packed: Vec<u8> =
            compressed(pieces).flat_map(|piece| piece.expect("compresses").to_vec()).collect();
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).expect("gzip");
        assert!(packed.len() < expected.len() / 4 && unpacked == expected);
    }
}
