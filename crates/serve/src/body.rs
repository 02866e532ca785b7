//! One body type for requests and responses, and reading a body within a bound.
//!
//! Whole bodies stay `Bytes` without boxing: that is the hot path of reads.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::Incoming;

use crate::BoxError;

/// How many times its limit of a body that is too long is read and thrown away.
const DISCARDED: usize = 4;

/// A request or response body: nothing, bytes at hand, bytes off the network, or a stream.
pub struct Body(Kind);

enum Kind {
    Full(Full<Bytes>),
    Incoming(Incoming),
    Boxed(UnsyncBoxBody<Bytes, BoxError>),
}

impl Body {
    /// A body without bytes.
    pub fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// A body of bytes at hand.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Full(Full::new(bytes.into())))
    }

    /// A body whose chunks come from `stream`; an error ends the response uncleanly, so that the
    /// client notices.
    pub fn stream<S, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        Self::boxed(StreamBody::new(stream.map_ok(Frame::data)))
    }

    /// Any other body.
    pub fn boxed<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Kind::Boxed(body.map_err(Into::into).boxed_unsync()))
    }

    /// Reads the whole body, at most `limit` bytes.
    ///
    /// # Errors
    /// [`ReadError::TooLarge`] past the limit, [`ReadError::Broken`] when the peer goes away.
    pub async fn read(mut self, limit: usize) -> Result<Bytes, ReadError> {
        if let Kind::Full(full) = self.0 {
            let bytes =
                full.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            return if bytes.len() > limit {
                Err(ReadError::TooLarge { limit })
            } else {
                Ok(bytes)
            };
        }
        if self.size_hint().lower() > limit as u64 {
            self.discard(limit.saturating_mul(DISCARDED)).await;
            return Err(ReadError::TooLarge { limit });
        }
        match Limited::new(&mut self, limit).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                self.discard(limit.saturating_mul(DISCARDED)).await;
                Err(ReadError::TooLarge { limit })
            }
            Err(error) => Err(ReadError::Broken(error)),
        }
    }

    /// Reads on without keeping anything, so that a client which is still sending gets to read the answer:
    /// closing a connection with unread bytes resets it.
    async fn discard(mut self, most: usize) {
        let mut read = 0;
        while let Some(Ok(frame)) = self.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > most {
                return;
            }
        }
    }
}

/// Why a body could not be read whole.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The body is longer than the reader takes.
    #[error("body is larger than {limit} bytes")]
    TooLarge {
        /// The most that is taken, in bytes.
        limit: usize,
    },
    /// The connection failed before the end of the body.
    #[error("body ended early")]
    Broken(#[source] BoxError),
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Self {
        Self(Kind::Incoming(incoming))
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::full(text)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::full(bytes)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Full(full) => Pin::new(full).poll_frame(context).map_err(|never| match never {}),
            Kind::Incoming(incoming) => Pin::new(incoming).poll_frame(context).map_err(Into::into),
            Kind::Boxed(boxed) => Pin::new(boxed).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(full) => full.is_end_stream(),
            Kind::Incoming(incoming) => incoming.is_end_stream(),
            Kind::Boxed(boxed) => boxed.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(full) => full.size_hint(),
            Kind::Incoming(incoming) => incoming.size_hint(),
            Kind::Boxed(boxed) => boxed.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reading_stops_at_the_limit() {
        assert_eq!(Body::full("12345").read(5).await.unwrap(), "12345");
        assert!(matches!(
            Body::full("123456").read(5).await,
            Err(ReadError::TooLarge { limit: 5 })
        ));
        let chunks = || {
            futures::stream::iter(["123", "456"].map(|c| Ok::<_, std::io::Error>(Bytes::from(c))))
        };
        assert_eq!(Body::stream(chunks()).read(6).await.unwrap(), "123456");
        assert!(matches!(
            Body::stream(chunks()).read(5).await,
            Err(ReadError::TooLarge { limit: 5 })
        ));
    }

    #[tokio::test]
    async fn a_broken_stream_is_no_short_body() {
        let chunks = [Ok(Bytes::from("123")), Err(std::io::Error::other("gone"))];
        assert!(matches!(
            Body::stream(futures::stream::iter(chunks)).read(9).await,
            Err(ReadError::Broken(_))
        ));
    }
}
