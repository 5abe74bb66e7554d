//! What a terminal shows: its width, its colours, wrapped lines, tables.

use std::fmt::Write as _;
use std::io::IsTerminal;

/// How wide text may be, and whether it may have colours.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    pub width: usize,
    pub colour: bool,
}

impl Style {
    /// Of standard output.
    pub fn of_terminal() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let seen = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        Self {
            width: told.or(seen.filter(|_| terminal)).unwrap_or(110).clamp(40, 160),
            colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }

    pub fn paint(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    pub fn heading(self, text: &str) -> String {
        self.paint("1", text)
    }
}

/// A line with a name in front, wrapped.
pub fn line(text: &mut String, name: &str, value: &str, style: Style) {
    let indent = 14;
    let mut first = true;
    for part in wrapped(value, style.width.saturating_sub(indent)) {
        let name = if first { name } else { "" };
        first = false;
        let _ = writeln!(text, "  {name:<width$}{part}", width = indent - 2);
    }
}

/// Words in lines of at most this width, if they fit.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push(String::new());
            used = 0;
        }
        if let Some(last) = lines.last_mut() {
            if used > 0 {
                last.push(' ');
                used += 1;
            }
            last.push_str(word);
            used += length;
        }
    }
    lines
}

/// A table in the terminal's width: columns are left out in the order of `drop` until it fits.
pub fn table<const N: usize>(
    text: &mut String,
    header: &[&str; N],
    rows: &[[String; N]],
    drop: &[usize],
    style: Style,
    colour: impl Fn(usize) -> Option<&'static str>,
) {
    let widths: Vec<usize> = (0..N)
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([header[column].chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let mut shown: Vec<usize> = (0..N).collect();
    for column in drop {
        let width: usize = shown.iter().map(|column| widths[*column] + 2).sum();
        if width <= style.width {
            break;
        }
        shown.retain(|other| other != column);
    }
    let line = |cells: &dyn Fn(usize) -> String| {
        let cells: Vec<String> = shown
            .iter()
            .map(|column| {
                let cell = cells(*column);
                let fill = " ".repeat(widths[*column].saturating_sub(cell.chars().count()));
                cell + &fill
            })
            .collect();
        format!("  {}", cells.join("  ").trim_end())
    };
    let _ = writeln!(text, "{}", style.paint("2", &line(&|column| header[column].to_owned())));
    for (position, row) in rows.iter().enumerate() {
        let row = line(&|column| row[column].clone());
        let _ = writeln!(
            text,
            "{}",
            colour(position).map_or_else(|| row.clone(), |code| style.paint(code, &row))
        );
    }
}
