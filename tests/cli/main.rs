//! The subcommands that an operator calls.

#[path = "../support/mod.rs"]
mod support;

#[cfg(test)]
mod demo;
#[cfg(test)]
mod line;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod picture;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod trace;
#[cfg(test)]
mod schema;

#[cfg(test)]
mod verify;
