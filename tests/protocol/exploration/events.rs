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
    /// A twin is seen, or is gone.
    Fence,
    /// A good packet arrives.
    Arrive,
    /// A snapshot is to be accepted, has been stored, is quiet.
    Push,
    Stored,
    Quiet,
    QuietUnconfirmed,
}

/// All of them.
pub(crate) const EVENTS: [Event; 24] = [
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
    Event::Fence,
    Event::Arrive,
    Event::Push,
    Event::Stored,
    Event::Quiet,
    Event::QuietUnconfirmed,
];
