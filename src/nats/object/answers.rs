//! The loop on a line's own thread: what arrives goes to whoever waits for it, and in the end the
//! subscriptions go.
//!
//! What deliberately is not here: sending, which callers do themselves (`line.rs`).

use std::sync::Arc;

use async_nats::{Client, Event, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{Notify, mpsc, oneshot};

use super::line::Desk;
use crate::nats::session::{self, ConnectFault, Connected, clipped};
use crate::nats::settings::Settings;

/// What the session's thread hands out once it is connected.
pub(super) struct Parts {
    pub(super) client: Client,
    pub(super) inbox: String,
}

/// An order to have no subscription left at the server.
#[derive(Debug)]
pub(super) struct Leave {
    /// A stream to ask about, where the server forbids us to publish to our own inbox.
    pub(super) stream: String,
    /// Told when the server has handled it.
    pub(super) done: oneshot::Sender<()>,
}

/// The session's work: connect, then hand answers to their callers until the connection is lost.
/// Returns why it ended.
pub(super) async fn run(
    settings: &Settings,
    desk: &Desk,
    ready: oneshot::Sender<Result<Parts, ConnectFault>>,
    mut leaving: mpsc::Receiver<Leave>,
) -> String {
    let Connected { client, mut notices, lost } = match session::connect(settings).await {
        Ok(connected) => connected,
        Err(fault) => {
            let text = fault.to_string();
            let _ = ready.send(Err(fault));
            return text;
        }
    };
    let inbox = client.new_inbox();
    let Ok(mut answers) = client.subscribe(format!("{inbox}.a.*")).await else {
        let _ = ready.send(Err(ConnectFault::Unreachable("the connection was lost".to_owned())));
        return desk.loss();
    };
    // Nobody listens any more: the deadline has severed us.
    let _ = ready.send(Ok(Parts { client: client.clone(), inbox: inbox.clone() }));
    loop {
        tokio::select! {
            () = lost.notified() => break,
            message = answers.next() => match message {
                Some(message) => desk.take(message),
                None => return desk.loss(),
            },
            notice = notices.recv() => match notice {
                Some(Event::ServerError(error)) => desk.note(clipped(&error.to_string())),
                // Something was dropped, and nothing is dropped silently here.
                Some(Event::SlowConsumer(_)) => {
                    return "messages arrived faster than they could be kept".to_owned();
                }
                Some(
                    Event::ClientError(_)
                    | Event::Closed
                    | Event::Connected
                    | Event::Disconnected
                    | Event::Draining
                    | Event::LameDuckMode,
                ) => {}
                None => return desk.loss(),
            },
            Some(Leave { stream, done }) = leaving.recv() => {
                if leave(&client, &inbox, &stream, &mut answers, &lost).await.is_some() {
                    // Whoever asked may have given up.
                    let _ = done.send(());
                }
                // Nothing is answered any more; the connection is about to be severed.
                lost.notified().await;
                break;
            }
        }
    }
    while let Ok(notice) = notices.try_recv() {
        if let Event::ServerError(error) = notice {
            desk.note(clipped(&error.to_string()));
        }
    }
    desk.loss()
}

/// Removes the subscription for answers and waits for an echo that removes its own: a server
/// handles one connection's commands in order, so nothing of ours is subscribed then. `None` when
/// the connection is lost.
async fn leave(
    client: &Client,
    inbox: &str,
    stream: &str,
    answers: &mut Subscriber,
    lost: &Arc<Notify>,
) -> Option<()> {
    let subject = Subject::from(format!("{inbox}.e"));
    answers.unsubscribe().await.ok()?;
    let mut echo = client.subscribe(subject.clone()).await.ok()?;
    echo.unsubscribe_after(1).await.ok()?;
    // Both ways of a barrier at once; the first answer counts, and the other finds nobody.
    client.publish(subject.clone(), Bytes::new()).await.ok()?;
    let question = format!("$JS.API.STREAM.INFO.{stream}");
    client.publish_with_reply(question, subject, Bytes::new()).await.ok()?;
    tokio::select! {
        () = lost.notified() => {
            // The loop above waits for the same sign.
            lost.notify_one();
            None
        }
        message = echo.next() => message.map(|_| ()),
    }
}
