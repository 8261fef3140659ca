//! An operator's hold on a sidecar that runs, as a process of its own.

#[path = "support/mod.rs"]
mod support;

#[cfg(test)]
#[path = "operator/hold.rs"]
mod hold;
