//! A reply on its way from the upstream to who asked: every chunk goes on as it comes, except that the one which ends the reply waits
//! until the request is logged.

use std::io;
use std::time::Instant;

use bytes::Bytes;
use futures::stream::{self, Stream};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::scan::Scanner;
use super::ticket::Ticket;

/// Status in the log of a reply that broke off.
const BROKEN: u16 = 502;

/// A reply being passed on.
pub(super) struct Relay {
    pub(super) body: Incoming,
    pub(super) scanner: Scanner,
    pub(super) ticket: Ticket,
    pub(super) status: u16,
    /// One of the upstream's connections, in use until the end.
    pub(super) _permit: Option<OwnedSemaphorePermit>,
    /// The gateway waits no longer.
    pub(super) kill: CancellationToken,
}

impl Relay {
    /// The reply's chunks. An error among them breaks the reply off, as the upstream broke off its own.
    pub(super) fn chunks(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        stream::unfold(Some(self), |relay| async move {
            let mut relay = relay?;
            match relay.next().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some(relay))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let frame = tokio::select! {
                frame = self.body.frame() => frame,
                () = self.kill.cancelled() => return Err(self.broken("the gateway is stopping").await),
            };
            let chunk = match frame {
                Some(Ok(frame)) => frame.into_data(),
                Some(Err(error)) => return Err(self.broken(&error.to_string()).await),
                None => return self.whole().await.map(|()| None),
            };
            // Trailers are for the hop that sent them.
            let Ok(chunk) = chunk else { continue };
            self.scanner.take(&chunk, Instant::now());
            if self.scanner.done || self.body.is_end_stream() {
                self.whole().await?;
            }
            return Ok(Some(chunk));
        }
    }

    /// The reply has ended; its end may go on if it is logged as it must be.
    async fn whole(&mut self) -> io::Result<()> {
        // It is the gateway's to say, so it comes from the status: an error that is passed on whole is no success.
        let success = self.status < 400;
        if self.ticket.end(self.status, success, Some(&mut self.scanner)).await {
            return Ok(());
        }
        Err(io::Error::other("the request could not be logged"))
    }

    async fn broken(&mut self, reason: &str) -> io::Error {
        self.ticket.end(BROKEN, false, Some(&mut self.scanner)).await;
        io::Error::new(io::ErrorKind::UnexpectedEof, format!("the upstream broke its reply off: {reason}"))
    }
}
