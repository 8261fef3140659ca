//! The command line, one file per subcommand.

pub mod run;
pub mod check;
pub mod replay;
