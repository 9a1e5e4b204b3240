//! Call sites: where in the user's program a call was made.
//!
//! A site is a small number; its name, `file:line`, is kept once for the process. So a call that
//! says where it comes from costs no allocation and no formatting.

use std::collections::HashMap;
use std::panic::Location;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// A place in the program that calls.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Site(u16);

#[derive(Default)]
struct Names {
    numbers: HashMap<String, u16>,
    names: Vec<String>,
}

static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

fn names() -> MutexGuard<'static, Names> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Site {
    /// No particular place.
    pub const UNKNOWN: Site = Site(0);

    /// The site `file:line`. A process has up to 65535 of them; any more are unknown.
    ///
    /// ```
    /// let site = isobit::Site::of("train.py", 12);
    /// assert_eq!(site, isobit::Site::of("train.py", 12));
    /// assert_eq!(site.name().as_deref(), Some("train.py:12"));
    /// ```
    pub fn of(file: &str, line: u32) -> Site {
        let name = format!("{file}:{line}");
        let mut names = names();
        if let Some(&number) = names.numbers.get(&name) {
            return Site(number);
        }
        let Ok(number) = u16::try_from(names.names.len() + 1) else { return Site::UNKNOWN };
        names.names.push(name.clone());
        names.numbers.insert(name, number);
        Site(number)
    }

    /// Where this is called.
    #[track_caller]
    pub fn here() -> Site {
        let place = Location::caller();
        Site::of(place.file(), place.line())
    }

    /// `file:line`.
    pub fn name(self) -> Option<String> {
        names().names.get(usize::from(self.0).checked_sub(1)?).cloned()
    }

    /// The site whose [`Site::number`] that is.
    pub(crate) fn numbered(number: u16) -> Site {
        Site(number)
    }

    pub(crate) fn number(self) -> u16 {
        self.0
    }
}
