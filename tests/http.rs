//! The local interface: the whole status table in-process, then the listener over raw sockets.
//!
//! Every raw test ends with a request that works: nothing a client does takes the listener down.

#[cfg(test)]
#[path = "http/rig.rs"]
mod rig;

#[cfg(test)]
#[path = "http/table.rs"]
mod table;

#[cfg(test)]
#[path = "http/door.rs"]
mod door;

#[cfg(test)]
#[path = "http/body.rs"]
mod body;

#[cfg(test)]
#[path = "http/connection.rs"]
mod connection;

#[cfg(test)]
#[path = "http/stream.rs"]
mod stream;

#[cfg(test)]
#[path = "http/socket.rs"]
mod socket;
