//! The checksum of a row: what tells a damaged row from a good one.
//!
//! Every table of `schema.sql` ends with a column `crc`, which holds the sum over all columns before it, in their
//! order. Statements that write a row write it with the SQL function `crc(…)`, given those columns. A new table is
//! guarded by having that column and by writing it; `disk::check` and `disk::tally` find it by its name. In memory
//! nothing can be damaged unseen: there `crc` is 0 and costs nothing.

use crc32fast::Hasher;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result};

/// The column that holds the sum, the last one of its table.
pub const COLUMN: &str = "crc";

/// A sum that grows by one value after the other. Kind and length go into it, so that no two rows are written alike.
#[derive(Default)]
pub struct Sum(Hasher);

impl Sum {
    pub fn add(&mut self, value: ValueRef) {
        match value {
            ValueRef::Null => self.0.update(&[0]),
            ValueRef::Integer(number) => self.tagged(1, number.to_le_bytes()),
            ValueRef::Real(number) => self.tagged(2, number.to_le_bytes()),
            ValueRef::Text(text) => self.sized(3, text),
            ValueRef::Blob(bytes) => self.sized(4, bytes),
        }
    }

    pub fn finish(self) -> i64 {
        i64::from(self.0.finalize())
    }

    fn tagged(&mut self, tag: u8, number: [u8; 8]) {
        let mut bytes = [tag; 9];
        bytes[1..].copy_from_slice(&number);
        self.0.update(&bytes);
    }

    fn sized(&mut self, tag: u8, bytes: &[u8]) {
        self.tagged(tag, (bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}

/// Makes `crc(…)` known to a connection: the sum of its arguments, or 0 where nothing is guarded.
pub fn register(connection: &Connection, is_guarded: bool) -> Result<()> {
    connection.create_scalar_function(
        "crc",
        -1,
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC,
        move |values| {
            if !is_guarded {
                return Ok(0);
            }
            let mut sum = Sum::default();
            (0..values.len()).for_each(|i| sum.add(values.get_raw(i)));
            Ok(sum.finish())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sql_and_rust_agree_and_every_change_is_seen() {
        let connection = Connection::open_in_memory().unwrap();
        register(&connection, true).unwrap();
        let sum =
            |sql: &str| connection.query_row(&format!("SELECT crc({sql})"), [], |row| row.get::<_, i64>(0)).unwrap();
        let mut own = Sum::default();
        own.add(ValueRef::Integer(7));
        own.add(ValueRef::Blob(&[1, 2]));
        assert_eq!(sum("7, x'0102'"), own.finish());
        let all = ["NULL", "0", "1", "1.0", "''", "'1'", "x''", "x'31'", "'a', 'b'", "'ab', ''", "'', 'ab'", "1, NULL"];
        for (i, one) in all.iter().enumerate() {
            for other in &all[..i] {
                assert_ne!(sum(one), sum(other), "{one} and {other}");
            }
        }
    }

    #[test]
    fn where_nothing_is_guarded_it_is_nothing() {
        let connection = Connection::open_in_memory().unwrap();
        register(&connection, false).unwrap();
        assert_eq!(connection.query_row("SELECT crc(1, 'a')", [], |row| row.get::<_, i64>(0)), Ok(0));
    }
}
