//! The secret that webhooks are signed with, as Standard Webhooks write it: `whsec_` and the base64 of 24 to 64 bytes.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What a secret begins with, so that it is known for one wherever it turns up.
pub const PREFIX: &str = "whsec_";
const LEAST: usize = 24;
const MOST: usize = 64;

#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Reads what an operator wrote. The fault never shows it.
    pub fn parse(text: &str) -> Result<Secret, String> {
        let takes = format!(
            "it takes {PREFIX} and the base64 of {LEAST} to {MOST} random bytes; make one with: echo \
             {PREFIX}$(openssl rand -base64 32)"
        );
        let digits = text.strip_prefix(PREFIX).ok_or_else(|| format!("does not begin with {PREFIX}; {takes}"))?;
        let key = STANDARD.decode(digits).map_err(|_| format!("is not base64 behind {PREFIX}; {takes}"))?;
        match (LEAST..=MOST).contains(&key.len()) {
            true => Ok(Secret(key.into())),
            false => Err(format!("holds {} bytes; {takes}", key.len())),
        }
    }

    pub fn key(&self) -> &[u8] {
        &self.0
    }
}

/// Never shown.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_by_table_and_never_shown() {
        let good = format!("{PREFIX}{}", STANDARD.encode([7; 32]));
        let secret = Secret::parse(&good).unwrap();
        assert_eq!((secret.key(), format!("{secret:?}").as_str()), (&[7; 32][..], "whsec_***"));
        for (text, shows) in [
            ("", "begin with whsec_"),
            ("hunter2hunter2hunter2hunter2hunter2", "begin with whsec_"),
            ("whsec_hunter2?", "base64"),
            ("whsec_aHVudGVyMg==", "holds 7 bytes"),
        ] {
            let fault = Secret::parse(text).unwrap_err();
            assert!(
                fault.contains(shows) && fault.contains("openssl") && !fault.contains("hunter2"),
                "{text}: {fault}"
            );
        }
    }
}
