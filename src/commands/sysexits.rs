//! Exit codes of `sysexits.h`, as far as they are used.

/// The input is wrong.
pub const DATA_ERROR: u8 = 65;
/// The input cannot be opened.
pub const NO_INPUT: u8 = 66;
/// A listener, a server or another resource cannot be had.
pub const UNAVAILABLE: u8 = 69;
/// Something of the program's own went wrong.
pub const SOFTWARE: u8 = 70;
/// The output file cannot be created.
pub const CANNOT_CREATE: u8 = 73;
/// Reading or writing failed.
pub const IO_ERROR: u8 = 74;
/// Not now, perhaps later: the gate is closed.
pub const TEMPORARY: u8 = 75;
/// Whoever asks may not.
pub const NO_PERMISSION: u8 = 77;
/// The configuration, or what takes its place, is wrong.
pub const CONFIG: u8 = 78;
