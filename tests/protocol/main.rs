//! The pure part, from the numbers to the composed bridge: no broker, no clock.

#[path = "../support/mod.rs"]
mod support;

#[cfg(test)]
mod audit;
#[cfg(test)]
mod barrier;
#[cfg(test)]
mod bookkeeping;
#[cfg(test)]
mod bridge;
#[cfg(test)]
mod documents;
mod drift;
#[cfg(test)]
mod envelope;
#[cfg(test)]
mod evidence;
#[cfg(test)]
mod exchange;
#[cfg(test)]
mod exploration;
#[cfg(test)]
mod file_profiles;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod gate;
#[cfg(test)]
mod handshake;
#[cfg(test)]
mod linked_data;
#[cfg(test)]
mod packets;
#[cfg(test)]
mod presence;
#[cfg(test)]
mod profiles;
#[cfg(test)]
mod retries;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod schemas;
#[cfg(test)]
mod sending;
#[cfg(test)]
mod snapshot;
#[cfg(test)]
mod swing;
#[cfg(test)]
mod syntax;
#[cfg(test)]
mod trace;
#[cfg(test)]
mod vectors;
#[cfg(test)]
mod views;
