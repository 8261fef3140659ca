//! Questions on core NATS, ours and those of others.

use async_nats::{HeaderMap, Message, StatusCode, Subject};
use bytes::Bytes;
use tokio::time::Instant;

use super::{Link, LinkEvent, NotSent, NotTaken, Topic};
use crate::nats::presence;
use crate::nats::responder::{
    Dropped, QUESTION_BYTES_MAX, QUESTIONS_MAX, ServiceSubject, is_inbox,
};
use crate::protocol::packet::RuntimeId;
use crate::protocol::presence::Held;

/// What has come back to a question of ours. One that is too long says nothing.
pub(super) fn answered(id: u64, message: &Message) -> LinkEvent {
    let is_there = message.status != Some(StatusCode::NO_RESPONDERS);
    // A copy, because the slice would keep the connection's whole read buffer alive.
    let copy = || match &message.payload {
        payload if payload.len() > QUESTION_BYTES_MAX => Bytes::new(),
        payload => Bytes::copy_from_slice(payload),
    };
    LinkEvent::Answered { id, answer: is_there.then(copy) }
}

impl Link {
    /// Reads the presence of one runtime; `None` when the broker does not say. Needs
    /// [`Link::subscribe_acks`].
    pub fn presence(&self, owner: RuntimeId) -> impl Future<Output = Option<Held>> + Send + use<> {
        let requests = self.requests.clone();
        async move { presence::read(&requests, &owner).await }
    }

    /// The same of many, as far as the broker says.
    pub fn presences(
        &self,
        peers: Vec<RuntimeId>,
    ) -> impl Future<Output = Vec<(RuntimeId, Held)>> + Send + use<> {
        let requests = self.requests.clone();
        async move { presence::read_all(&requests, peers).await }
    }

    /// What stands in the bucket of presence: under the keys of `owners`, or all of it. `None` when
    /// the broker does not say.
    pub fn fleet(
        &self,
        owners: Option<Vec<RuntimeId>>,
    ) -> impl Future<Output = Option<Vec<(String, Held)>>> + Send + use<> {
        let requests = self.requests.clone();
        async move {
            match owners {
                None => presence::list(&requests).await.ok(),
                Some(owners) => {
                    let found = presence::read_all(&requests, owners).await;
                    Some(found.into_iter().map(|(id, held)| (id.to_string(), held)).collect())
                }
            }
        }
    }

    /// Subscribes to questions: [`LinkEvent::Asked`]. Twice is once. `instance` is the micro
    /// service's id, one token.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn open_services(
        &mut self,
        services: &[ServiceSubject],
        instance: &str,
    ) -> Result<(), NotTaken> {
        for service in services {
            if !self.connection.has(Topic::Service(*service))
                && let Some(subject) = self.responder.open(*service, &self.settings, instance)
            {
                self.open_service(*service, subject).map_err(NotTaken::of)?;
            }
        }
        Ok(())
    }

    /// Opens what the server has closed, when its pause is over.
    pub(super) fn open_again(&mut self, now: Instant) {
        for (service, subject) in self.responder.woke(now, &self.settings) {
            // Without room the connection is stalled and about to be severed.
            let _ = self.open_service(service, subject);
        }
    }

    fn open_service(&mut self, service: ServiceSubject, subject: String) -> Result<(), NotSent> {
        self.connection.subscribe_for(Topic::Service(service), subject, QUESTIONS_MAX)
    }

    /// Answers a question, in order with everything else that is sent. `payload` is not empty.
    ///
    /// # Errors
    /// [`Dropped`]: nothing is sent.
    pub fn respond(
        &mut self,
        reply: &Subject,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), Dropped> {
        if payload.is_empty() || !is_inbox(reply) {
            return Err(Dropped::Reply);
        }
        self.responder.admit()?;
        let sent = self.connection.publish(reply.clone(), None, headers, payload);
        sent.map_err(|_| Dropped::Connection)
    }

    /// 128 random bits in hex, for [`Self::ask`]; `None` when the system has no randomness.
    pub fn nonce(&mut self) -> Option<String> {
        self.connection.nonce()
    }

    /// Asks somebody on core NATS: [`LinkEvent::Answered`] with `id`. The answer comes to an inbox
    /// that `nonce` alone names, so that it says nothing of where acknowledgements arrive. An
    /// answer that never comes is the driver's deadline; [`Self::stop_asking`] follows it.
    ///
    /// # Errors
    /// [`NotTaken`]: nothing is sent.
    pub fn ask(
        &mut self,
        id: u64,
        subject: Subject,
        nonce: &str,
        payload: Bytes,
    ) -> Result<(), NotTaken> {
        let inbox = format!("{}.{nonce}", self.settings.inbox_prefix().as_str());
        let topic = Topic::Greeting(id);
        self.connection.subscribe_for(topic, inbox.clone(), QUESTIONS_MAX).map_err(NotTaken::of)?;
        let sent = self.connection.publish(subject, Some(inbox), HeaderMap::new(), payload);
        sent.map_err(NotTaken::of)
    }

    /// No answer is waited for any more.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn stop_asking(&mut self, id: u64) -> Result<(), NotTaken> {
        self.connection.unsubscribe(Topic::Greeting(id)).map_err(NotTaken::of)
    }
}
