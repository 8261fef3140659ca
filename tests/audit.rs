//! The audit log: what a line holds, what `verify` finds, and what becomes of the file when the
//! process, the disk or somebody's editor does its worst.

#[path = "support/row.rs"]
mod row;

#[cfg(test)]
#[path = "audit/chain.rs"]
mod chain;

#[cfg(test)]
#[path = "audit/file.rs"]
mod file;
