//! Small drawings: scales, ticks, paths. All text is escaped here.

use std::fmt::Write as _;

use crate::words::{self, Clock};

/// For text and attributes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Controls have no place in a page, and some turn the direction of text.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escaped.push('\u{fffd}'),
            other if other.is_control() && other != '\n' => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// From values to places.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    pub low: f64,
    pub high: f64,
    pub from: f64,
    pub to: f64,
}

impl Axis {
    pub fn place(&self, value: f64) -> f64 {
        let span = self.high - self.low;
        let part = if span > 0.0 { (value - self.low) / span } else { 0.5 };
        self.from + part * (self.to - self.from)
    }

    /// Clipped to the axis, and a little beyond it.
    pub fn clipped(&self, value: f64) -> f64 {
        let (least, most) = (self.from.min(self.to) - 20.0, self.from.max(self.to) + 20.0);
        self.place(value).clamp(least, most)
    }
}

/// One picture.
pub struct Svg {
    pub width: f64,
    pub height: f64,
    body: String,
}

impl Svg {
    pub fn new(width: f64, height: f64) -> Self {
        Self {
            width,
            height,
            body: String::new(),
        }
    }

    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let _ = write!(
            self.body,
            "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    pub fn rect(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let _ = write!(
            self.body,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            from.0.min(to.0),
            from.1.min(to.1),
            (to.0 - from.0).abs(),
            (to.1 - from.1).abs()
        );
    }

    pub fn dot(&mut self, class: &str, at: (f64, f64), radius: f64) {
        let _ = write!(
            self.body,
            "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\"/>",
            at.0, at.1
        );
    }

    /// `anchor` is start, middle or end.
    pub fn text(&mut self, class: &str, at: (f64, f64), anchor: &str, text: &str) {
        let _ = write!(
            self.body,
            "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            at.0,
            at.1,
            escape(text)
        );
    }

    pub fn path(&mut self, class: &str, points: &[(f64, f64)], closed: bool) {
        let mut path = String::new();
        let mut last = (f64::NAN, f64::NAN);
        for (position, (x, y)) in points.iter().enumerate() {
            let at = ((x * 10.0).round() / 10.0, (y * 10.0).round() / 10.0);
            if at == last {
                continue;
            }
            last = at;
            let _ = write!(path, "{}{} {}", if position == 0 { "M" } else { "L" }, at.0, at.1);
        }
        if !path.is_empty() {
            let _ = write!(
                self.body,
                "<path class=\"{class}\" d=\"{path}{}\"/>",
                if closed { "Z" } else { "" }
            );
        }
    }

    /// What follows until [`Svg::unclip`] is seen only inside of this rectangle.
    pub fn clip(&mut self, name: &str, from: (f64, f64), to: (f64, f64)) {
        let _ = write!(self.body, "<clipPath id=\"{name}\">");
        self.rect("", from, to);
        let _ = write!(self.body, "</clipPath><g clip-path=\"url(#{name})\">");
    }

    pub fn unclip(&mut self) {
        self.body.push_str("</g>");
    }

    /// The picture with its name and a description for those who do not see it.
    pub fn finish(self, class: &str, title: &str, description: &str) -> String {
        format!(
            "<svg class=\"{class}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\"><title>{}</title><desc>{}</desc>{}</svg>",
            self.width,
            self.height,
            escape(title),
            escape(title),
            escape(description),
            self.body
        )
    }
}

/// About so many round values between two.
pub fn ticks(low: f64, high: f64, about: f64) -> Vec<f64> {
    let span = high - low;
    if !(span > 0.0 && span.is_finite()) {
        return vec![low];
    }
    let raw = span / about;
    let power = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= raw)
        .unwrap_or(10.0 * power);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last.min(first + 20))
        .map(|count| count as f64 * step)
        .collect()
}

/// Moments on an axis of time, with what they are called: whole days or hours, or numbers of requests.
pub fn moments(from: i64, to: i64, clock: Clock, about: i64) -> Vec<(i64, String)> {
    match clock {
        Clock::Count(count, pane) => {
            let requests = |seconds: i64| seconds as f64 * f64::from(count) / f64::from(pane);
            ticks(requests(from), requests(to), about as f64)
                .into_iter()
                .map(|value| {
                    let seconds = value * f64::from(pane) / f64::from(count);
                    (seconds.round() as i64, words::thousands(value.max(0.0) as u64))
                })
                .collect()
        }
        Clock::Time => {
            let hours = [1, 3, 6, 12, 24, 48, 96, 168, 336, 720, 2_160, 8_760];
            let least = (to - from) / about.max(1);
            let step = hours
                .into_iter()
                .map(|hours| hours * 3_600)
                .find(|step| *step >= least)
                .unwrap_or(31_536_000);
            let first = (from + step - 1).div_euclid(step);
            (first..=to.div_euclid(step))
                .map(|count| (count * step, short_time(count * step, step >= 86_400)))
                .collect()
        }
    }
}

/// `17 Oct`, or `17 Oct 06:00`.
pub fn short_time(seconds: i64, day: bool) -> String {
    let format = if day { "%-d %b" } else { "%-d %b %H:%M" };
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.strftime(format).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_input_becomes_markup() {
        assert_eq!(escape("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
        assert_eq!(escape("a\u{202e}b\u{7}"), "a\u{fffd}b\u{fffd}");
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 10.0, 5.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(3.0, 3.0, 5.0), [3.0]);
        assert!(ticks(0.0, f64::INFINITY, 5.0).len() == 1);
    }
}
