//! A stream that gives up on a peer which reads nothing, or next to nothing.
//!
//! hyper has a timeout for heads, the routes have one for bodies; this is the third: a client that
//! asks and never reads would otherwise hold its connection, and the answer, for ever.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::io::{self, ErrorKind, IoSlice};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bytes that a peer has to take within the timeout when it lets an answer wait: 6.4 KiB/s with the
/// timeout of 10 s, far below what any reader on this machine does.
const PROGRESS_BYTES: usize = 64 * 1024;

/// Fails a write when the peer takes less than [`PROGRESS_BYTES`] in `timeout` while it lets bytes
/// wait.
pub(super) struct WriteTimeout<S> {
    stream: S,
    timeout: Duration,
    /// Runs from a write that is stuck until the peer has taken enough or everything.
    stuck: Option<Pin<Box<Sleep>>>,
    /// Bytes that it has taken meanwhile.
    taken: usize,
}

impl<S> WriteTimeout<S> {
    pub(super) fn new(stream: S, timeout: Duration) -> Self {
        Self { stream, timeout, stuck: None, taken: 0 }
    }

    /// Passes the outcome on, unless the time is up.
    fn limit<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
        progress: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(outcome) = outcome {
            if let Ok(value) = &outcome {
                self.taken = self.taken.saturating_add(progress(value));
            }
            if self.taken >= PROGRESS_BYTES {
                self.stuck = None;
                self.taken = 0;
            }
            return Poll::Ready(outcome);
        }
        if self.stuck.is_none() {
            self.taken = 0;
        }
        let timer = self.stuck.get_or_insert_with(|| Box::pin(sleep(self.timeout)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.limit(context, outcome, |bytes| *bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.limit(context, outcome, |bytes| *bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        // hyper flushes when it has written everything.
        self.limit(context, outcome, |()| PROGRESS_BYTES)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.limit(context, outcome, |()| PROGRESS_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_peer_that_reads_nothing_is_given_up() {
        let (near, mut far) = duplex(4);
        let mut stream = WriteTimeout::new(near, Duration::from_millis(50));
        stream.write_all(b"1234").await.unwrap();
        let mut read = [0; 4];
        far.read_exact(&mut read).await.unwrap();
        stream.write_all(b"5678").await.unwrap();
        let error = stream.write_all(b"9").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
