//! What may stand in a configuration, and what `check` says about it.

#[cfg(test)]
mod capabilities;
#[cfg(test)]
mod check;
#[cfg(test)]
mod limit;
#[cfg(test)]
mod settings;
