//! What may happen in the small world.

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Reports of each band.
    Good,
    Weak,
    Bad,
    Worse,
    /// A body that is no document.
    Unreadable,
    Hold,
    Release,
    /// The broker stores the oldest or the newest packet that it has not answered, and has so read
    /// all before it.
    StoreOldest,
    StoreNewest,
    /// It refuses the oldest for now, or for good.
    RefuseForNow,
    RefuseForGood,
    /// It echoes.
    Echo,
    Lose,
    Connect,
    /// The link did not take the packet that was just sent.
    Full,
    /// Time goes to the next deadline, or past all of them.
    Tick,
    Linger,
    /// The peer is removed, or listed again.
    Reload,
    /// The marks are tightened, or are the specification's again.
    Tighten,
    /// A twin is seen, or is gone.
    Fence,
    /// A good packet arrives.
    Arrive,
    Upload(Upload),
    /// `kill -9`, and a new life with what is on the disk.
    Restart,
}

/// What may happen to snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    /// One is to be accepted, has been stored.
    Push,
    Stored,
    /// The uploader has stopped.
    Quiet,
    QuietUnconfirmed,
    /// Its connection ends by itself.
    Lost,
    /// A peer's is to be fetched.
    Fetch,
    /// The spool of the earlier life has been read, and something in it waits.
    Recovered,
}

/// All of them.
pub(crate) const EVENTS: [Event; 29] = [
    Event::Good,
    Event::Weak,
    Event::Bad,
    Event::Worse,
    Event::Unreadable,
    Event::Hold,
    Event::Release,
    Event::StoreOldest,
    Event::StoreNewest,
    Event::RefuseForNow,
    Event::RefuseForGood,
    Event::Echo,
    Event::Lose,
    Event::Connect,
    Event::Full,
    Event::Tick,
    Event::Linger,
    Event::Reload,
    Event::Tighten,
    Event::Fence,
    Event::Arrive,
    Event::Upload(Upload::Push),
    Event::Upload(Upload::Stored),
    Event::Upload(Upload::Quiet),
    Event::Upload(Upload::QuietUnconfirmed),
    Event::Upload(Upload::Lost),
    Event::Upload(Upload::Fetch),
    Event::Upload(Upload::Recovered),
    Event::Restart,
];
