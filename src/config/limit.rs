//! The range of every number, each with its reason. `config/driftgate.toml` repeats them for the
//! reader; what is deliberately not here is any default, which stands in `settings.rs`.

use core::ops::RangeInclusive;
use core::time::Duration;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

const fn span(ms_min: u64, ms_max: u64) -> RangeInclusive<Duration> {
    RangeInclusive::new(Duration::from_millis(ms_min), Duration::from_millis(ms_max))
}

/// Largest configuration file, in bytes: 10,000 peers in YAML take about 2 MiB.
pub const CONFIG_FILE_BYTES_MAX: u64 = 8 * MIB;
/// Largest key, token, credentials or certificate file, in bytes: a chain of certificates is the
/// longest of them.
pub const SECRET_FILE_BYTES_MAX: usize = 64 * 1024;
/// Most peers: what the fan-out is measured for (DESIGN section 8).
pub const PEERS_MAX: usize = 10_000;
/// Most entries of a short list (servers, hosts, origins): more is a mistake of a template.
pub const LIST_LEN_MAX: usize = 64;
/// Longest path or other text, in bytes: the longest path that Linux takes.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Longest path of a Unix socket, in bytes: `sun_path` without its closing zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Longest subject prefix, in bytes, so that prefix, two ids and the words stay under the 256
/// bytes that servers and tools are at ease with.
pub const PREFIX_BYTES_MAX: usize = 64;
/// Longest stream name, in bytes: it is also a folder name at the server.
pub const STREAM_NAME_BYTES_MAX: usize = 128;
/// Bytes of a bearer token: shorter ones can be guessed, longer ones do not fit a header line.
pub const TOKEN_BYTES: RangeInclusive<usize> = 16..=512;

/// Wait for a connection to one server: under the lower end every handshake fails, over the upper
/// one an outage looks like a slow start.
pub const CONNECT_TIMEOUT: RangeInclusive<Duration> = span(100, MINUTE);
/// Between pings: two that go unanswered end a half-open connection.
pub const PING_INTERVAL: RangeInclusive<Duration> = span(SECOND, 5 * MINUTE);
/// Packets in flight without an acknowledgement. The client's own command queue holds 2,048.
pub const WINDOW: RangeInclusive<usize> = 1..=2048;
/// Wait for one acknowledgement before the outcome counts as unknown.
pub const ACK_TIMEOUT: RangeInclusive<Duration> = span(100, MINUTE);
/// Copies of a stream that a server accepts; an even number adds cost and no safety.
pub const REPLICAS: [usize; 3] = [1, 3, 5];

/// Body of one report, in bytes: under the lower end no report fits, over the upper one it is not
/// a report.
pub const BODY_BYTES_MAX: RangeInclusive<u64> = KIB..=16 * MIB;
/// Connections on one listener: each costs a task and a buffer.
pub const CONNECTIONS_MAX: RangeInclusive<usize> = 1..=65_536;
/// Wait for the head of a request.
pub const HEADER_TIMEOUT: RangeInclusive<Duration> = span(100, MINUTE);
/// Longest time that any call of the runtime takes (P10).
pub const REPLY_TIMEOUT: RangeInclusive<Duration> = span(100, MINUTE);

/// Between two looks at the followed file: under the lower end an idle sidecar is not idle.
pub const TAIL_INTERVAL: RangeInclusive<Duration> = span(10, 10 * SECOND);

/// One report in so many is sent in caution. One would not be reduced (SPEC R21).
pub const CAUTION_EVERY: RangeInclusive<u32> = 2..=1000;
/// Good reports in a row that reopen. Beyond the upper end a gate would in effect never reopen.
pub const DWELL: RangeInclusive<u32> = 1..=100;
/// Silence that blocks: under a second no runtime keeps up, over a day nobody is watching.
pub const STALE_AFTER: RangeInclusive<Duration> = span(SECOND, 24 * HOUR);
/// Silence, or time blocked, that isolates.
pub const ISOLATES_AFTER: RangeInclusive<Duration> = span(SECOND, 30 * 24 * HOUR);
/// Wait for the broker's word that the cut is complete.
pub const BARRIER_TIMEOUT: RangeInclusive<Duration> = span(10, MINUTE);
/// Oldest packet that is accepted: the stream keeps packets for an hour, so more has no effect.
pub const PACKET_MAX_AGE: RangeInclusive<Duration> = span(SECOND, HOUR);
/// How far ahead a packet may be dated. Clocks further apart want mending, not allowance.
pub const CLOCK_SKEW_MAX: RangeInclusive<Duration> = span(0, 5 * MINUTE);

/// The highest lock: what the specification calls critical.
pub const LOCK_MAX: f64 = 0.7;
/// Closings that count as flapping: one is no flapping.
pub const FLAPPING_CLOSINGS: RangeInclusive<u32> = 2..=100;
/// Cycles in which they count.
pub const FLAPPING_CYCLES: RangeInclusive<u32> = 2..=10_000;

/// zstd level of snapshots. Levels above 19 need memory that a sidecar does not have.
pub const LEVEL: RangeInclusive<i32> = 1..=19;
/// Largest single snapshot, in plain bytes.
pub const SNAPSHOT_BYTES_MAX: RangeInclusive<u64> = KIB..=4 * GIB;
/// The whole spool on disk, in bytes. A volume's own limit evicts the pod instead of refusing, so
/// this stays below it.
pub const SPOOL_BYTES_MAX: RangeInclusive<u64> = MIB..=1024 * GIB;
/// Snapshots held in memory as bases and for readers, in bytes. Zero holds none.
pub const CACHE_BYTES_MAX: RangeInclusive<u64> = 0..=16 * GIB;
/// Full snapshots that are kept: one alone is lost with its one object.
pub const KEEP_FULL: RangeInclusive<u32> = 1..=1000;
/// Age below which no snapshot is collected.
pub const KEEP_FOR: RangeInclusive<Duration> = span(0, 30 * 24 * HOUR);
/// Bytes of one runtime at the broker.
pub const STORED_BYTES_MAX: RangeInclusive<u64> = MIB..=1024 * GIB;

/// Wait for the runtime to take one delivered packet.
pub const DELIVER_TIMEOUT: RangeInclusive<Duration> = span(10, MINUTE);

/// One file of the audit log, in bytes.
pub const AUDIT_BYTES_MAX: RangeInclusive<u64> = 64 * KIB..=16 * GIB;
/// Files of the audit log, the newest among them.
pub const AUDIT_FILES_MAX: RangeInclusive<u32> = 1..=1000;
