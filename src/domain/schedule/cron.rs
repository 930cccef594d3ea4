//! When a schedule is due: a cron expression in a time zone. Times are milliseconds since 1970.
//!
//! Where a clock is put forward, a run at a fixed time that does not exist that day is at the first moment after the hole;
//! where it is put back, such a run is at the first of the two. Runs of `*` and of steps follow the clock on the wall.

use std::cmp::Ordering;

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::{CivilDateTime, CronDateTime, Resolution, Weekday};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ZonedDateTime};

#[derive(Debug, Clone)]
pub struct Cron {
    cron: croner::Cron,
    zone: TimeZone,
    text: Box<str>,
    zone_name: Box<str>,
}

impl Cron {
    /// Reads the five fields of cron, or six with seconds before them, and the name of a zone like `Asia/Seoul` or `UTC`.
    pub fn parse(text: &str, zone: &str) -> Result<Cron, String> {
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| {
            format!("{text:?} is no cron expression ({error}); write minute, hour, day, month and weekday, as in \"0 2 * * *\", \
                 with seconds before them where they matter")
        })?;
        let known = TimeZone::get(zone).map_err(|_| {
            format!("there is no time zone {zone:?}; write a name of the IANA database, like Asia/Seoul, or UTC")
        })?;
        let cron = Cron { cron, zone: known, text: text.into(), zone_name: zone.into() };
        // From a moment of the past, so that the answer does not depend on when it is asked.
        match cron.next_after(0) {
            Some(_) => Ok(cron),
            None => Err(format!("{text:?} is never; there is no such day")),
        }
    }

    /// The first time after this one. `None`: there is none.
    pub fn next_after(&self, ms: u64) -> Option<u64> {
        let found = self.cron.find_next_occurrence(&self.moment(ms)?, false).ok()?;
        Some(found.ms()).filter(|found| *found > ms)
    }

    /// The last time that is not after this one.
    pub fn last_until(&self, ms: u64) -> Option<u64> {
        let found = self.cron.find_previous_occurrence(&self.moment(ms)?, true).ok()?;
        Some(found.ms()).filter(|found| *found <= ms)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn zone(&self) -> &str {
        &self.zone_name
    }

    /// In whole seconds, which is what expressions know.
    fn moment(&self, ms: u64) -> Option<Moment> {
        let time = Timestamp::from_second(i64::try_from(ms / 1000).ok()?).ok()?;
        Some(Moment(time.to_zoned_datetime(self.zone.clone())))
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Cron) -> bool {
        (&self.text, &self.zone_name) == (&other.text, &other.zone_name)
    }
}

impl Eq for Cron {}

/// A moment on a zone's wall, as the reader of expressions asks for it.
#[derive(Clone)]
struct Moment(ZonedDateTime);

impl Moment {
    fn ms(&self) -> u64 {
        u64::try_from(self.0.timestamp().as_millisecond()).unwrap_or(0)
    }
}

impl CronDateTime for Moment {
    fn to_civil(&self) -> CivilDateTime {
        let at = self.0.datetime();
        let [month, day, hour, minute, second] =
            [at.month(), at.day(), at.hour(), at.minute(), at.second()].map(|part| part.unsigned_abs().into());
        CivilDateTime::from_ymd_hms_opt(at.year().into(), month, day, hour, minute, second)
            .expect("a time of the calendar is one")
    }

    fn civil_weekday(&self) -> Weekday {
        Weekday::from_days_from_sunday(self.0.weekday().to_sunday_zero_offset().unsigned_abs().into())
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let part = |part: u32| i8::try_from(part).map_err(|_| CronError::InvalidDate);
        let year = i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?;
        let (month, day) = (part(civil.month())?, part(civil.day())?);
        let (hour, minute, second) = (part(civil.hour())?, part(civil.minute())?, part(civil.second())?);
        let at = DateTime::new(year, month, day, hour, minute, second, 0).map_err(|_| CronError::InvalidDate)?;
        let found = self.0.time_zone().to_ambiguous_zoned_datetime(at);
        let is = |found: Result<ZonedDateTime, jiff::Error>| found.map(Moment).map_err(|_| CronError::InvalidTime);
        Ok(match found.offset() {
            AmbiguousOffset::Unambiguous { .. } => Resolution::Single(is(found.unambiguous())?),
            AmbiguousOffset::Fold { .. } => Resolution::Ambiguous(is(found.clone().earlier())?, is(found.later())?),
            AmbiguousOffset::Gap { .. } => Resolution::Gap,
        })
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        self.0.checked_add(SignedDuration::from_secs(seconds)).ok().map(Moment)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.timestamp().cmp(&other.0.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> u64 {
        text.parse::<Timestamp>().unwrap().as_millisecond() as u64
    }

    #[test]
    fn times_by_table() {
        for (cron, zone, after, next) in [
            ("0 2 * * *", "Asia/Seoul", "2026-11-25T16:59:59Z", "2026-11-25T17:00:00Z"),
            ("0 2 * * *", "Asia/Seoul", "2026-11-25T17:00:00Z", "2026-11-26T17:00:00Z"),
            ("*/15 * * * *", "UTC", "2026-11-25T23:50:00Z", "2026-11-26T00:00:00Z"),
            // Six fields begin with seconds.
            ("0 0 2 * * *", "Asia/Seoul", "2026-11-25T16:59:59Z", "2026-11-25T17:00:00Z"),
            ("*/5 * * * * *", "UTC", "2026-11-25T23:59:55Z", "2026-11-26T00:00:00Z"),
            ("0 0 29 2 *", "UTC", "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 9 * * MON-FRI", "UTC", "2026-11-27T09:00:00Z", "2026-11-30T09:00:00Z"),
            ("0 0 L * *", "UTC", "2026-11-25T00:00:00Z", "2026-11-30T00:00:00Z"),
            // 02:30 is not there on the day on which Berlin's clocks go forward; on the day before and after it is.
            ("30 2 * * *", "Europe/Berlin", "2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z"),
            ("30 2 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"),
            // It is there twice when they go back: the first counts.
            ("30 2 * * *", "Europe/Berlin", "2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z"),
            ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
            // Each hour is each hour.
            ("0 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"),
            ("0 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"),
        ] {
            let cron = Cron::parse(cron, zone).unwrap();
            let shown = format!("{} {zone} after {after}", cron.as_str());
            let at = |ms: Option<u64>| ms.map(|ms| Timestamp::from_millisecond(ms as i64).unwrap().to_string());
            assert_eq!(at(cron.next_after(ms(after))).as_deref(), Some(next), "{shown}");
            assert_eq!(at(cron.last_until(ms(next))).as_deref(), Some(next), "{shown}, back");
            assert!(cron.last_until(ms(next) - 1).is_some_and(|last| last <= ms(after)), "{shown}, before");
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_what_would_do() {
        for (cron, zone, shows) in [
            ("", "UTC", "\"0 2 * * *\""),
            ("0 2 * *", "UTC", "\"0 2 * * *\""),
            ("0 0 0 2 * * *", "UTC", "\"0 2 * * *\""),
            ("60 0 2 * * *", "UTC", "\"0 2 * * *\""),
            ("61 * * * *", "UTC", "\"0 2 * * *\""),
            ("nightly", "UTC", "\"0 2 * * *\""),
            ("0 0 31 2 *", "UTC", "never"),
            ("0 2 * * *", "Seoul", "like Asia/Seoul"),
        ] {
            let fault = Cron::parse(cron, zone).unwrap_err();
            assert!(fault.contains(shows), "{cron} {zone}: {fault}");
        }
    }
}
