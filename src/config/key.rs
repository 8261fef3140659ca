//! One key of the configuration: how it is read, what stands for it when it is absent, when a
//! change takes effect and how a changed value is tightened.
//!
//! `sections.rs` has one row per key; reading, comparing and both documents come from it. What is
//! deliberately not here: which keys there are, and what two of them must agree on.

use core::fmt::Write as _;

use serde_json::Value;

use super::source::ReadFile;

/// One value as it was written: a word of the environment, a string, a number or a truth value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Whether it is text. A bare number is no text, since YAML reads `007` as 7.
    pub(super) is_text: bool,
}

/// What a file or the environment gives for a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    One(Scalar),
    Many(Vec<Scalar>),
}

impl Raw {
    pub(super) fn text(text: &str) -> Self {
        Self::One(Scalar { text: text.to_owned(), is_text: true })
    }
}

/// Why a value was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// What would be right.
    pub(super) expected: String,
    /// Whether the value may be a secret and must not be shown.
    pub(super) is_secret: bool,
    /// The value, cut to a length that fits a line.
    pub(super) shown: Option<String>,
    /// Which entry of a list.
    pub(super) index: Option<usize>,
}

impl<T: Into<String>> From<T> for Refused {
    fn from(expected: T) -> Self {
        Self { expected: expected.into(), is_secret: false, shown: None, index: None }
    }
}

/// When a changed key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Effect {
    /// At once, by a reload.
    Live,
    /// At the next start. A reload that changes it is refused as a whole.
    Restart,
}

impl Effect {
    /// As the documents say it.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// What stands for an absent key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// This value.
    Default(&'static str),
    /// Nothing; what this means, and an example.
    Nothing(&'static str, &'static str),
    /// A mistake; what belongs there, and an example.
    Mistake(&'static str, &'static str),
}

impl Absent {
    /// The default or the example.
    #[must_use]
    pub fn value(self) -> &'static str {
        match self {
            Self::Default(value) | Self::Nothing(_, value) | Self::Mistake(_, value) => value,
        }
    }
}

/// How TOML writes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A number or a truth value.
    Bare,
    /// In quotes.
    Quoted,
    /// Entries in quotes, or bare ones.
    List(bool),
}

impl Form {
    /// A value as TOML writes it.
    #[must_use]
    pub fn toml(self, value: &str) -> String {
        let entries = || value.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        match self {
            Self::Bare => value.to_owned(),
            Self::Quoted => format!("\"{value}\""),
            Self::List(is_quoted) => {
                let mut list = String::new();
                for entry in entries() {
                    let comma = if list.is_empty() { "" } else { ", " };
                    let quote = if is_quoted { "\"" } else { "" };
                    // Writing into a String does not fail.
                    let _ = write!(list, "{comma}{quote}{entry}{quote}");
                }
                format!("[{list}]")
            }
        }
    }
}

type Parse<T> = Box<dyn Fn(&Raw, ReadFile<'_>) -> Result<T, Vec<Refused>>>;

/// How one key becomes a `T`. Made by the functions of `parse.rs`.
pub(super) struct Key<T> {
    pub(super) parse: Parse<T>,
    pub(super) form: Form,
    /// What may stand there, with its unit.
    pub(super) values: String,
    /// The same as JSON Schema.
    pub(super) shape: Value,
    pub(super) absent: Absent,
    nothing: Option<T>,
    tighten: Option<fn(&T, &T) -> T>,
}

impl<T: 'static> Key<T> {
    /// A key that takes one value.
    pub(super) fn new(
        form: Form,
        values: impl Into<String>,
        shape: Value,
        parse: impl Fn(&Scalar, ReadFile<'_>) -> Result<T, Refused> + 'static,
    ) -> Self {
        let one = move |raw: &Raw, read_file: ReadFile<'_>| match raw {
            Raw::One(scalar) => {
                parse(scalar, read_file).map_err(|refused| vec![refused.showing(scalar)])
            }
            Raw::Many(_) => Err(vec!["must be a single value, not a list or a table".into()]),
        };
        Self::of(form, values.into(), shape, Box::new(one))
    }

    /// A key of which `parse` reads whatever was given.
    pub(super) fn of(form: Form, values: String, shape: Value, parse: Parse<T>) -> Self {
        let absent = Absent::Default("");
        Self { parse, form, values, shape, absent, nothing: None, tighten: None }
    }

    /// The same, made into something else.
    pub(super) fn map<U: 'static>(self, make: impl Fn(T) -> U + 'static) -> Key<U> {
        let parse = self.parse;
        let made = move |raw: &Raw, read_file: ReadFile<'_>| parse(raw, read_file).map(&make);
        Key::of(self.form, self.values, self.shape, Box::new(made))
    }

    /// What it is when absent.
    pub(super) fn or(mut self, default: &'static str) -> Self {
        self.absent = Absent::Default(default);
        self
    }

    /// It must be given: `hint` says what belongs there. The example stands in to go on looking.
    pub(super) fn required(mut self, hint: &'static str, example: &'static str) -> Self {
        self.absent = Absent::Mistake(hint, example);
        self
    }

    /// It may be absent, which means what `meaning` says.
    pub(super) fn optional(self, meaning: &'static str, example: &'static str) -> Key<Option<T>> {
        let parse = self.parse;
        Key {
            parse: Box::new(move |raw, read_file| parse(raw, read_file).map(Some)),
            form: self.form,
            values: self.values,
            shape: self.shape,
            absent: Absent::Nothing(meaning, example),
            nothing: Some(None),
            tighten: None,
        }
    }

    /// A reload changes it. `tighten` takes the old value and the new one, and says which of them
    /// holds when the reload is refused for another key: the stricter.
    pub(super) fn live(mut self, tighten: fn(&T, &T) -> T) -> Self {
        self.tighten = Some(tighten);
        self
    }

    pub(super) fn effect(&self) -> Effect {
        if self.tighten.is_some() { Effect::Live } else { Effect::Restart }
    }

    /// What stands for it when nothing was given.
    pub(super) fn when_absent(self, read_file: ReadFile<'_>) -> Option<T> {
        let parsed = |text: &str| (self.parse)(&Raw::text(text), read_file).ok();
        self.nothing.or_else(|| parsed(self.absent.value()))
    }

    /// Replaces `old` by the stricter of the two, if a reload may change it at all.
    pub(super) fn tighten(&self, old: &mut T, new: &T) {
        if let Some(tighten) = self.tighten {
            *old = tighten(old, new);
        }
    }
}

impl Refused {
    /// A value that must not be shown.
    pub(super) fn secret(expected: impl Into<String>) -> Self {
        Self { is_secret: true, ..Self::from(expected) }
    }

    pub(super) fn showing(self, scalar: &Scalar) -> Self {
        const SHOWN_CHARS_MAX: usize = 80;
        let start: String = scalar.text.chars().take(SHOWN_CHARS_MAX).collect();
        let shown = match (start.len() < scalar.text.len(), scalar.is_text) {
            (true, _) => format!("{start:?}..."),
            (false, true) => format!("{start:?}"),
            (false, false) => start,
        };
        Self { shown: (!self.is_secret).then_some(shown), ..self }
    }
}

/// The old one, whatever the new one is: neither is stricter.
pub(super) fn keep<T: Clone>(old: &T, _: &T) -> T {
    old.clone()
}

/// The smaller one is stricter.
pub(super) fn lower<T: PartialOrd + Clone>(old: &T, new: &T) -> T {
    if new < old { new.clone() } else { old.clone() }
}

/// The greater one is stricter.
pub(super) fn higher<T: PartialOrd + Clone>(old: &T, new: &T) -> T {
    if new > old { new.clone() } else { old.clone() }
}

/// The smaller one is stricter, and any is stricter than none.
pub(super) fn lower_or_any<T: PartialOrd + Clone>(old: &Option<T>, new: &Option<T>) -> Option<T> {
    match (old, new) {
        (Some(old), Some(new)) => Some(lower(old, new)),
        (None, one) | (one, None) => one.clone(),
    }
}

/// The smaller one is stricter, and none is stricter than any.
pub(super) fn lower_or_none<T: PartialOrd + Clone>(old: &Option<T>, new: &Option<T>) -> Option<T> {
    old.as_ref().zip(new.as_ref()).map(|(old, new)| lower(old, new))
}

/// One key as the documents show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The full name, such as `nats.window`; a key of a list of tables as `peers[].id`.
    pub path: String,
    /// What it means, in whole sentences.
    pub meaning: String,
    /// What may stand there: the range with its unit, or the words.
    pub values: String,
    /// The same as JSON Schema.
    pub shape: Value,
    /// What stands for it when it is absent.
    pub absent: Absent,
    /// How TOML writes it.
    pub form: Form,
    /// When a change takes effect.
    pub effect: Effect,
}

impl Row {
    /// The name within its table.
    #[must_use]
    pub fn key(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }

    pub(super) fn new<T: 'static>(path: &str, key: &str, lines: &[&str], of: &Key<T>) -> Self {
        Self {
            path: format!("{path}.{key}"),
            meaning: lines.concat().trim().to_owned(),
            values: of.values.clone(),
            shape: of.shape.clone(),
            absent: of.absent,
            form: of.form,
            effect: of.effect(),
        }
    }
}

/// A table of keys, made by [`section!`].
pub(super) trait Section: Sized {
    /// Its name; of a list of tables with `[]`.
    const PATH: &'static str;
    /// What it is about.
    const ABOUT: &'static [&'static str];
    /// Its keys, in their order.
    fn rows() -> Vec<Row>;
    /// Reads it; `None` only when a required key of a list's entry is missing.
    fn read(table: &mut super::table::Table<'_, '_>) -> Option<Self>;
    /// Notes every key in which `new` differs.
    fn compare(&self, new: &Self, note: &mut dyn FnMut(&'static str, Effect));
    /// Takes over from `new` what is stricter.
    fn tighten(&mut self, new: &Self);
}

/// A table of the configuration with one row per key: its meaning, its type, and how it is read.
macro_rules! section {
    ($(#[doc = $about:literal])+ $name:ident at $path:literal {
        $($(#[doc = $doc:literal])+ $key:ident: $type:ty = $row:expr;)+
    }) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $key: $type,)+
        }

        impl $name {
            $(fn $key() -> Key<$type> { $row })+
        }

        impl Section for $name {
            const PATH: &'static str = $path;
            const ABOUT: &'static [&'static str] = &[$($about),+];

            fn rows() -> Vec<Row> {
                vec![$(Row::new($path, stringify!($key), &[$($doc),+], &Self::$key())),+]
            }

            fn read(table: &mut Table<'_, '_>) -> Option<Self> {
                $(let $key: Option<$type> = table.read(stringify!($key), Self::$key());)+
                Some(Self { $($key: $key?),+ })
            }

            fn compare(&self, new: &Self, note: &mut dyn FnMut(&'static str, Effect)) {
                $(if differ(&self.$key, &new.$key) {
                    note(stringify!($key), Self::$key().effect());
                })+
            }

            fn tighten(&mut self, new: &Self) {
                $(Self::$key().tighten(&mut self.$key, &new.$key);)+
            }
        }
    };
}
pub(super) use section;

/// Whether two values are not the same, marks included: they are as the writer wrote them.
pub(super) fn differ<T: PartialEq>(old: &T, new: &T) -> bool {
    old != new
}
