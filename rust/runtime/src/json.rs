//! JSON objects, written one field at a time.

use std::fmt::Write;

/// An object under way; [`Object::end`] gives it back as text.
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn new() -> Object {
        Object::on(String::new())
    }

    /// An object at the end of some text.
    pub(crate) fn on(mut text: String) -> Object {
        text.push('{');
        Object(text)
    }

    fn name(&mut self, name: &str) {
        if !self.0.ends_with('{') {
            self.0.push(',');
        }
        self.string(name);
        self.0.push(':');
    }

    fn string(&mut self, text: &str) {
        self.0.push('"');
        for character in text.chars() {
            match character {
                '"' | '\\' => self.0.extend(['\\', character]),
                '\0'..'\x20' => write!(self.0, "\\u{:04x}", u32::from(character)).expect("a string grows"),
                _ => self.0.push(character),
            }
        }
        self.0.push('"');
    }

    pub(crate) fn text(mut self, name: &str, value: &str) -> Object {
        self.name(name);
        self.string(value);
        self
    }

    pub(crate) fn number(mut self, name: &str, value: impl Into<u64>) -> Object {
        self.name(name);
        write!(self.0, "{}", value.into()).expect("a string grows");
        self
    }

    /// A time in microseconds, as traces have it, with its nanoseconds.
    pub(crate) fn micros(mut self, name: &str, ns: u64) -> Object {
        self.name(name);
        write!(self.0, "{}.{:03}", ns / 1000, ns % 1000).expect("a string grows");
        self
    }

    /// A text, a number or null.
    pub(crate) fn optional_text(self, name: &str, value: Option<&str>) -> Object {
        match value {
            Some(value) => self.text(name, value),
            None => self.null(name),
        }
    }

    pub(crate) fn optional_number(self, name: &str, value: Option<u64>) -> Object {
        match value {
            Some(value) => self.number(name, value),
            None => self.null(name),
        }
    }

    fn null(mut self, name: &str) -> Object {
        self.name(name);
        self.0.push_str("null");
        self
    }

    /// An object within this one.
    pub(crate) fn object(mut self, name: &str, fields: impl FnOnce(Object) -> Object) -> Object {
        self.name(name);
        Object(fields(Object::on(self.0)).end())
    }

    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Object;

    #[test]
    fn what_json_forbids_in_strings_is_escaped() {
        let object = Object::new()
            .text("a\"b", "line\nback\\slash é")
            .optional_number("n", None)
            .object("o", |o| o.number("x", 7_u64).micros("t", 1_002_003))
            .object("empty", |o| o);
        let text = r#"{"a\"b":"line\u000aback\\slash é","n":null,"o":{"x":7,"t":1002.003},"empty":{}}"#;
        assert_eq!(object.end(), text);
    }
}
