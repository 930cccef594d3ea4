//! Where a store on disk lies whose folder nobody has named.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Config;

/// Where programs keep what they have to keep, by the rules of XDG.
pub fn state_folder(environment: &[(OsString, OsString)]) -> Option<PathBuf> {
    let path = |name: &str| {
        let value = environment.iter().find(|(known, _)| known == name).map(|(_, value)| PathBuf::from(value));
        value.filter(|path| path.is_absolute())
    };
    path("XDG_STATE_HOME").or_else(|| Some(path("HOME")?.join(".local/state"))).map(|state| state.join("fanfare"))
}

/// Names the folder of a store on disk that was given without one.
pub fn find_folder(config: &mut Config, state: Option<PathBuf>, faults: &mut Vec<String>) {
    if config.options.store != "disk" {
        return;
    }
    let given = Some(config.options.data.clone()).filter(|data| !data.is_empty());
    let whole =
        |path: String| std::path::absolute(&path).ok().and_then(|p| Some(p.to_str()?.to_owned())).unwrap_or(path);
    match given.map(whole).or_else(|| Some(state?.to_str()?.to_owned())) {
        Some(folder) => config.options.store = format!("disk:{folder}"),
        None => faults.push(
            "store: there is no folder to keep messages in: neither FANFARE_DATA nor XDG_STATE_HOME nor HOME names one; \
             write --store disk:PATH, or --store memory"
                .into(),
        ),
    }
}
