//! Silence, epochs and flapping: clocks that step, runtimes that restart, drift that swings around
//! a mark. What it may cost, and what it may never do.

#[path = "support/rig.rs"]
mod rig;

#[cfg(test)]
#[path = "flapping/swing.rs"]
mod swing;

#[cfg(test)]
#[path = "flapping/evidence.rs"]
mod evidence;
