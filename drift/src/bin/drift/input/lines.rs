//! Files in lines, whatever they are packed in, and how far they are read.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};

use super::Refused;

/// The longest line.
pub const LONGEST: u64 = 64 << 20;

pub enum Line {
    Text(String),
    Refused(Refused),
}

pub fn next_line(lines: &mut Box<dyn BufRead>) -> std::io::Result<Option<Line>> {
    let mut bytes = Vec::new();
    let read = lines.take(LONGEST + 1).read_until(b'\n', &mut bytes)?;
    if read == 0 {
        return Ok(None);
    }
    if read as u64 > LONGEST {
        skip_line(lines)?;
        return Ok(Some(Line::Refused(Refused::Long)));
    }
    Ok(Some(match String::from_utf8(bytes) {
        Ok(text) => Line::Text(text.trim_end_matches(['\n', '\r']).to_owned()),
        Err(_) => Line::Refused(Refused::Encoding),
    }))
}

fn skip_line(lines: &mut Box<dyn BufRead>) -> std::io::Result<()> {
    loop {
        let buffer = lines.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |end| end + 1);
        lines.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}

/// Unpacked where it begins as gzip does.
pub fn opened(raw: Box<dyn Read>, file: &Path) -> std::io::Result<Box<dyn BufRead>> {
    let mut buffered = BufReader::with_capacity(1 << 18, raw);
    let packed = buffered.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    if packed || file.extension().is_some_and(|extension| extension == "gz") {
        Ok(Box::new(BufReader::with_capacity(
            1 << 18,
            MultiGzDecoder::new(buffered),
        )))
    } else {
        Ok(Box::new(buffered))
    }
}

/// A bar where sizes are known, else a spinner; nothing where nobody looks.
pub fn progress(files: &[PathBuf], quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let sizes: Option<u64> = files
        .iter()
        .map(|file| std::fs::metadata(file).ok().map(|data| data.len()))
        .sum();
    let (bar, template) = match sizes {
        Some(size) => (ProgressBar::new(size), "{bar:30} {percent:>3} %  {msg}  {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {msg}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
