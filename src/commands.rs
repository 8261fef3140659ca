//! The command line, one file per subcommand. Each offers its arguments and a `run`.

pub mod run;
mod dev;
pub mod demo;
mod fleet;
mod api;
mod signals;
mod terminal;
mod columns;
pub mod files;
pub mod colour;
pub mod arguments;
pub mod completions;
pub mod replay;
pub mod verify;
pub mod check;
pub mod keygen;
pub mod inject;
pub mod audit;
pub mod send;
pub mod trace;
pub mod doctor;
pub mod status;
pub mod watch;
pub mod permissions;
pub mod schema;
pub mod snapshot;
pub mod sysexits;
