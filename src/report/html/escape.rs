//! HTML that cannot be broken out of: whatever goes through this writer is text, never markup.
//!
//! Names of elements and attributes are `&'static str`, so they come from this crate's code. Everything else (file
//! names, class names, notes, numbers) passes through [`Escaped`]. There is no way to write a string as markup but
//! [`Html::asset`], which takes only what is compiled in.

use std::fmt::{self, Display, Write};

use crate::report::table::steers;

/// Names of attributes with their values, which are escaped.
pub(super) type Attributes<'a> = &'a [(&'static str, &'a dyn Display)];

/// A page, or a part of one, being written.
#[derive(Default)]
pub(super) struct Html {
    out: String,
}

impl Html {
    pub fn document() -> Self {
        Self { out: "<!DOCTYPE html>\n".to_owned() }
    }

    pub fn finish(self) -> String {
        self.out
    }

    /// An element with whatever `content` writes in it.
    pub fn within(
        &mut self,
        tag: &'static str,
        attributes: Attributes<'_>,
        content: impl FnOnce(&mut Self),
    ) -> &mut Self {
        self.void(tag, attributes);
        content(self);
        self.close(tag)
    }

    /// An element with text in it.
    pub fn element(
        &mut self,
        tag: &'static str,
        attributes: Attributes<'_>,
        text: impl Display,
    ) -> &mut Self {
        self.void(tag, attributes).text(text).close(tag)
    }

    /// An element without content and without an end, such as `img`.
    pub fn void(&mut self, tag: &'static str, attributes: Attributes<'_>) -> &mut Self {
        self.out.push('<');
        self.out.push_str(tag);
        for (name, value) in attributes {
            self.out.push(' ');
            self.out.push_str(name);
            self.out.push_str("=\"");
            self.text(value);
            self.out.push('"');
        }
        self.out.push('>');
        self
    }

    /// Text, escaped for content and for attributes in double quotes alike.
    pub fn text(&mut self, text: impl Display) -> &mut Self {
        // Writing to a string fails only where a `Display` does; what it wrote until then stays.
        let _ = write!(Escaped(&mut self.out), "{text}");
        self
    }

    /// A style sheet or script that is compiled into the crate: browsers read it as it is, up to its end tag.
    pub fn asset(&mut self, tag: &'static str, content: &'static str) -> &mut Self {
        self.void(tag, &[]);
        self.out.push_str(content);
        self.close(tag)
    }

    fn close(&mut self, tag: &'static str) -> &mut Self {
        self.out.push_str("</");
        self.out.push_str(tag);
        self.out.push_str(">\n");
        self
    }
}

/// Escapes what is written to it.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(c),
                // HTML has no way to write most control characters, and those that turn the direction of text could
                // make a name look like another.
                c if steers(c) => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Html;

    fn text(text: &str) -> String {
        let mut html = Html::default();
        html.element("p", &[("title", &text)], text);
        html.finish()
    }

    #[test]
    fn markup_is_text() {
        assert_eq!(
            text("<script>alert(1)</script>"),
            "<p title=\"&lt;script&gt;alert(1)&lt;/script&gt;\">&lt;script&gt;alert(1)&lt;/script&gt;</p>\n"
        );
    }

    #[test]
    fn quotes_do_not_end_an_attribute() {
        let html = text("\"><img src=x onerror='alert(1)'>&amp;");
        assert!(!html.contains("<img") && !html.contains("\"\""), "{html}");
        assert!(
            html.contains("title=\"&quot;&gt;&lt;img src=x onerror=&#39;alert(1)&#39;&gt;&amp;amp;\""),
            "{html}"
        );
    }

    #[test]
    fn nothing_but_the_five_entities_stands_for_a_special_character() {
        let all: String = (0..0x3000).filter_map(char::from_u32).collect();
        let mut html = Html::default();
        html.text(&all);
        let html = html.finish();
        assert!(!html.contains(['<', '>', '"', '\'']));
        for part in html.split('&').skip(1) {
            let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
            assert!(known.iter().any(|entity| part.starts_with(entity)), "{part}");
        }
    }

    #[test]
    fn control_and_direction_characters_are_shown_as_unknown() {
        assert_eq!(text("a\0b\u{1b}\u{202e}\u{2066}\r\u{85}").matches('\u{fffd}').count(), 2 * 6,);
        assert!(text("two\nlines").contains("two\nlines"));
    }
}
