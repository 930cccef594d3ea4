//! One list of reasons for every door: frames, HTTP problems, dead letters, metrics and close codes.

use std::fmt;
use std::time::Duration;

/// Why something was not done. The word is the same in every door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    BadFrame,
    BadJson,
    BadName,
    MissingData,
    UnknownVerb,
    Unauthorized,
    Expired,
    Forbidden,
    Origin,
    NotFound,
    TooLarge,
    TooMany,
    RateLimited,
    NoLease,
    Conflict,
    StorageFull,
    Unconfirmed,
    Unavailable,
    Timeout,
    Busy,
    Internal,
}

impl Reason {
    pub const ALL: [Reason; 21] = [
        Reason::BadFrame,
        Reason::BadJson,
        Reason::BadName,
        Reason::MissingData,
        Reason::UnknownVerb,
        Reason::Unauthorized,
        Reason::Expired,
        Reason::Forbidden,
        Reason::Origin,
        Reason::NotFound,
        Reason::TooLarge,
        Reason::TooMany,
        Reason::RateLimited,
        Reason::NoLease,
        Reason::Conflict,
        Reason::StorageFull,
        Reason::Unconfirmed,
        Reason::Unavailable,
        Reason::Timeout,
        Reason::Busy,
        Reason::Internal,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Reason::BadFrame => "bad-frame",
            Reason::BadJson => "bad-json",
            Reason::BadName => "bad-name",
            Reason::MissingData => "missing-data",
            Reason::UnknownVerb => "unknown-verb",
            Reason::Unauthorized => "unauthorized",
            Reason::Expired => "expired",
            Reason::Forbidden => "forbidden",
            Reason::Origin => "origin",
            Reason::NotFound => "not-found",
            Reason::TooLarge => "too-large",
            Reason::TooMany => "too-many",
            Reason::RateLimited => "rate-limited",
            Reason::NoLease => "no-lease",
            Reason::Conflict => "conflict",
            Reason::StorageFull => "storage-full",
            Reason::Unconfirmed => "unconfirmed",
            Reason::Unavailable => "unavailable",
            Reason::Timeout => "timeout",
            Reason::Busy => "busy",
            Reason::Internal => "internal",
        }
    }

    pub fn parse(word: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|r| r.as_str() == word)
    }

    /// Whether the same request may succeed later without being changed.
    pub fn is_passing(self) -> bool {
        use Reason::*;
        matches!(self, RateLimited | StorageFull | Unconfirmed | Unavailable | Timeout | Busy | Internal)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reason with what was wrong and the way out, in words for the person who reads it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {text}")]
pub struct Problem {
    pub reason: Reason,
    pub text: String,
    /// Set only where trying again can help.
    pub retry_after: Option<Duration>,
}

impl Problem {
    pub fn new(reason: Reason, text: impl Into<String>) -> Problem {
        Problem { reason, text: text.into(), retry_after: None }
    }

    pub fn retry_after(mut self, wait: Duration) -> Problem {
        self.retry_after = Some(wait);
        self
    }
}

impl From<super::name::NameError> for Problem {
    fn from(error: super::name::NameError) -> Problem {
        Problem::new(Reason::BadName, error.to_string())
    }
}

impl From<super::position::BadPosition> for Problem {
    fn from(error: super::position::BadPosition) -> Problem {
        Problem::new(Reason::BadFrame, error.to_string())
    }
}

/// Close codes: 4000–4499 come back, 4500–4999 do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    Drain,
    Idle,
    Slow,
    Expired,
    Internal,
    Unauthorized,
    BadFrames,
    Forbidden,
    Origin,
    TooLarge,
    Limit,
    Replaced,
}

impl CloseCode {
    pub const ALL: [CloseCode; 12] = [
        CloseCode::Drain,
        CloseCode::Idle,
        CloseCode::Slow,
        CloseCode::Expired,
        CloseCode::Internal,
        CloseCode::Unauthorized,
        CloseCode::BadFrames,
        CloseCode::Forbidden,
        CloseCode::Origin,
        CloseCode::TooLarge,
        CloseCode::Limit,
        CloseCode::Replaced,
    ];

    pub fn code(self) -> u16 {
        match self {
            CloseCode::Drain => 4000,
            CloseCode::Idle => 4001,
            CloseCode::Slow => 4002,
            CloseCode::Expired => 4003,
            CloseCode::Internal => 4004,
            CloseCode::Unauthorized => 4500,
            CloseCode::BadFrames => 4501,
            CloseCode::Forbidden | CloseCode::Origin => 4502,
            CloseCode::TooLarge => 4503,
            CloseCode::Limit => 4504,
            CloseCode::Replaced => 4505,
        }
    }

    /// The word in the close frame: an error word where there is one.
    pub fn word(self) -> &'static str {
        match self {
            CloseCode::Drain => "drain",
            CloseCode::Idle => "idle",
            CloseCode::Slow => "slow",
            CloseCode::Expired => "expired",
            CloseCode::Internal => "internal",
            CloseCode::Unauthorized => "unauthorized",
            CloseCode::BadFrames => "bad-frame",
            CloseCode::Forbidden => "forbidden",
            CloseCode::Origin => "origin",
            CloseCode::TooLarge => "too-large",
            CloseCode::Limit => "too-many",
            CloseCode::Replaced => "replaced",
        }
    }
}
