//! The room that knows NATS, against a real nats-server.

#[path = "../support/mod.rs"]
mod support;

#[cfg(test)]
mod assets;
#[cfg(test)]
mod link;
#[cfg(test)]
mod object;
#[cfg(test)]
mod object_faults;
#[cfg(test)]
mod responder;
#[cfg(test)]
mod subject;
