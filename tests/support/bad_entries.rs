//! Entries of the ingest queue that cannot be used, of every kind that is known, with the reason that each gets and what
//! the text to it shows.

use fanfare::domain::error::Reason;

pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn fields(list: &[(&str, &[u8])]) -> Fields {
    list.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect()
}

/// Kinds of bad stream entries, the reason each gets, and what its text shows.
pub fn bad_entries() -> Vec<(Fields, Reason, &'static str)> {
    let long = vec![b'1'; 70_000];
    let huge = vec![b'"'; 2 * 1024 * 1024];
    let deep = "[".repeat(40) + &"]".repeat(40);
    let many: Fields = (0..3_000).map(|n| (format!("f{n}").into_bytes(), b"x".to_vec())).collect();
    vec![
        (fields(&[("x", b"y")]), Reason::BadFrame, "\"topic\""),
        (fields(&[("channel", b"t"), ("message", b"1")]), Reason::BadFrame, "\"channel\" is called \"topic\""),
        (fields(&[("topic", b"t")]), Reason::MissingData, "\"text\""),
        (fields(&[("topic", b""), ("data", b"1")]), Reason::BadName, "empty"),
        (fields(&[("topic", b"a b"), ("data", b"1")]), Reason::BadName, "byte 1"),
        (fields(&[("topic", &[b'n'; 201]), ("data", b"1")]), Reason::BadName, "201"),
        (fields(&[("topic", b"$sys"), ("data", b"1")]), Reason::Forbidden, "hub's own"),
        (fields(&[("topic", b"t"), ("data", b"hello")]), Reason::BadJson, "plain text goes into"),
        (fields(&[("topic", b"t"), ("data", b"{'a': 1}")]), Reason::BadJson, "json.dumps"),
        (fields(&[("topic", b"t"), ("data", b"")]), Reason::BadJson, "data"),
        (fields(&[("topic", b"t"), ("data", deep.as_bytes())]), Reason::BadJson, "deeper"),
        (fields(&[("topic", b"t"), ("data", &long)]), Reason::TooLarge, "65536"),
        (fields(&[("topic", b"t"), ("data", &huge)]), Reason::TooLarge, "1048576"),
        (fields(&[("topic", b"t"), ("data", b"\xff\xfe")]), Reason::BadFrame, "not UTF-8"),
        (fields(&[("topic", b"t"), ("topic", b"t"), ("data", b"1")]), Reason::BadFrame, "twice"),
        (fields(&[("topic", b"t"), ("user", b"u"), ("data", b"1")]), Reason::BadFrame, "exclude"),
        (fields(&[("queue", b"$jobs"), ("data", b"1")]), Reason::BadName, "'$'"),
        (fields(&[("queue", b"jobs"), ("topic", b"t"), ("data", b"1")]), Reason::BadFrame, "exclude"),
        (fields(&[("queue", b"jobs"), ("data", b"1"), ("priority", b"high")]), Reason::BadFrame, "0 to 9"),
        (fields(&[("queue", b"jobs"), ("data", b"1"), ("delay", b"5"), ("group", b"g")]), Reason::BadFrame, "group"),
        (fields(&[("topic", b"t"), ("data", b"1"), ("ttl", b"soon")]), Reason::BadFrame, "seconds"),
        (fields(&[("topic", b"t"), ("data", b"1"), ("tags", b"[]")]), Reason::BadFrame, "tags"),
        (fields(&[("topic", b"t"), ("data", b"?"), ("enc", b"b64")]), Reason::BadFrame, "base64"),
        (fields(&[("topic", b"t"), ("data", b"1"), ("durability", b"ssd")]), Reason::BadFrame, "replica"),
        (fields(&[("topic", b"t"), ("data", b"1"), ("durability", b"replica")]), Reason::Forbidden, "durability"),
        (fields(&[("topic", b"t"), ("data", b"2"), ("idempotency_key", b"k")]), Reason::Conflict, "idempotency_key"),
        (
            vec![(b"\xac\xed\x00\x05t\x00\x05topic".to_vec(), b"\xac\xed\x00\x05t\x00\x01t".to_vec())],
            Reason::BadFrame,
            "StringRedisTemplate",
        ),
        (many, Reason::BadFrame, "1000 more fields"),
    ]
}

/// The same for elements of the list.
pub const BAD_ELEMENTS: [(&[u8], Reason, &str); 12] = [
    (b"", Reason::BadJson, "nothing"),
    (b"hello", Reason::BadJson, "byte 0"),
    (b"[]", Reason::BadFrame, "one JSON object"),
    (b"{", Reason::BadJson, "byte"),
    (b"{\"topic\":\"t\"}", Reason::MissingData, "\"text\""),
    (b"{\"data\":1}", Reason::BadFrame, "\"topic\""),
    (b"{\"topic\":7,\"data\":1}", Reason::BadFrame, "string"),
    (b"{\"topic\":\"t\",\"data\":NaN}", Reason::BadJson, "byte"),
    (b"{\"topic\":\"t\",\"data\":1}}", Reason::BadJson, "trailing"),
    (b"{\"topic\":\"t\",\"data\":\"\xff\"}", Reason::BadJson, "byte"),
    (b"{'topic': 't'}", Reason::BadJson, "json.dumps"),
    (b"{\"uuid\":\"1\",\"displayName\":\"X\",\"job\":\"Y\"}", Reason::BadFrame, "Laravel"),
];
