//! The demo: the page that people see first, and a small back end that gives it something to show.

mod page;
mod vitals;

pub use page::{Facts, routes};
pub use vitals::{AVAILABLE as HAS_VITALS, publish as publish_vitals};
