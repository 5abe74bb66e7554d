//! From files to features: lines are read once, turned into features by all cores, and forgotten.

pub mod azure;
mod lines;
mod openai;
mod perennial;
pub mod record;
pub mod time;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, Read};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use perennial_drift::features::{Encoder, Extractor, Features};
use perennial_drift::pane::layout::Layout;
use serde::Serialize;

use crate::arguments::{Format, Input};
use azure::Columns;
use lines::{LONGEST, Line, next_line, opened, progress};
use record::Record;

/// Lines that are worked on at a time.
const BATCH: usize = 2_048;
/// Bad lines that are named.
const NAMED: usize = 10;

/// Why a line was not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    Json(String),
    Cut,
    Encoding,
    Long,
    Time,
    NoTime,
    Value(&'static str),
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(why) => write!(formatter, "no JSON of this form: {why}"),
            Self::Cut => write!(formatter, "it ends in the middle: the file was cut off"),
            Self::Encoding => write!(formatter, "it is no UTF-8"),
            Self::Long => write!(formatter, "it is longer than {} MiB", LONGEST >> 20),
            Self::Time => write!(formatter, "its time is neither RFC 3339 nor seconds since 1970"),
            Self::NoTime => write!(formatter, "it has no time"),
            Self::Value(why) => write!(formatter, "{why}"),
        }
    }
}

fn json_error(error: &serde_json::Error) -> Refused {
    if error.is_eof() {
        return Refused::Cut;
    }
    // Values of the line are no part of a report.
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    let mut shown = String::new();
    for (position, part) in text.split('"').enumerate() {
        shown.push_str(if position % 2 == 0 { part } else { "…" });
    }
    Refused::Json(shown.replace("string …", "text"))
}

/// A line that was not used.
#[derive(Clone, Debug, Serialize)]
pub struct BadLine {
    pub file: String,
    pub line: u64,
    pub reason: String,
}

/// What was read.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub files: Vec<String>,
    pub formats: Vec<&'static str>,
    pub lines: u64,
    pub blank_lines: u64,
    pub bad_lines: u64,
    /// The first of them.
    pub bad: Vec<BadLine>,
    /// Used.
    pub requests: u64,
    /// Not between --from and --until.
    pub outside: u64,
    /// Older than one before them.
    pub out_of_order: u64,
    /// Requests by name of a field that is not used.
    pub ignored_fields: BTreeMap<String, u64>,
    #[serde(skip)]
    without_time: u64,
    #[serde(skip)]
    latest: f64,
}

/// The form of one file.
#[derive(Clone, Debug)]
enum Form {
    Perennial,
    OpenAi,
    Azure(Columns),
}

impl Form {
    fn name(&self) -> &'static str {
        match self {
            Self::Perennial => "perennial",
            Self::OpenAi => "openai",
            Self::Azure(_) => "azure",
        }
    }

    /// From the first line; whether that line is a header.
    fn of(line: &str, format: Format) -> Result<(Self, bool)> {
        let columns = || {
            Columns::of(line)
                .context("the first line does not name the columns TIMESTAMP, ContextTokens and GeneratedTokens")
        };
        Ok(match format {
            Format::Perennial => (Self::Perennial, false),
            Format::Openai => (Self::OpenAi, false),
            Format::Azure => (Self::Azure(columns()?), true),
            Format::Auto
                if !line.trim_start_matches('\u{feff}').trim_start().starts_with('{') && line.contains(',') =>
            {
                (Self::Azure(columns()?), true)
            }
            Format::Auto => {
                let fields: BTreeMap<String, serde::de::IgnoredAny> = serde_json::from_str(line).unwrap_or_default();
                let has = |names: &[&str]| names.iter().any(|name| fields.contains_key(*name));
                let open_ai = has(&["request", "response", "messages", "choices", "usage", "created", "body"]);
                (if open_ai { Self::OpenAi } else { Self::Perennial }, false)
            }
        })
    }

    fn record(&self, line: &str, number: u64) -> Result<Record, Refused> {
        match self {
            Self::Perennial => perennial::record(line),
            Self::OpenAi => openai::record(line),
            Self::Azure(columns) => columns.record(line, number),
        }
    }
}

/// One request that can be used.
pub struct Request {
    pub features: Features,
    /// Seconds since 1970; 0 where times are not looked at.
    pub time: f64,
    ignored: Vec<String>,
}

/// Reads input into requests.
pub struct Reader<'a> {
    input: &'a Input,
    extractor: Extractor,
    pub layout: Layout,
    pub summary: Summary,
}

impl<'a> Reader<'a> {
    pub fn new(input: &'a Input) -> Result<Self> {
        let (encoder, layout) = match input.embeddings {
            None => (Encoder::Ngrams, Layout::default()),
            Some((dimension, bandwidth)) => (
                // Which encoder made the vectors is known to whoever recorded them.
                Encoder::External {
                    dimension,
                    bandwidth,
                    identity: 0,
                },
                Layout::new(&format!("external-{dimension}-{bandwidth}")),
            ),
        };
        Ok(Self {
            input,
            extractor: Extractor::new(encoder).context("the lists of refusals cannot be used")?,
            layout,
            summary: Summary {
                latest: f64::NEG_INFINITY,
                ..Summary::default()
            },
        })
    }

    /// Reads files as one stream, in their order.
    pub fn read(&mut self, files: &[PathBuf], mut take: impl FnMut(&Request) -> Result<()>) -> Result<()> {
        let bar = progress(files, self.input.quiet);
        for file in files {
            let name = file.display().to_string();
            let raw: Box<dyn Read> = if file.as_os_str() == "-" {
                Box::new(std::io::stdin())
            } else {
                Box::new(File::open(file).with_context(|| format!("cannot open {name}"))?)
            };
            let lines = opened(Box::new(bar.wrap_read(raw)), file).with_context(|| format!("cannot read {name}"))?;
            self.summary.files.push(name.clone());
            self.file(&name, lines, &bar, &mut take)?;
        }
        bar.finish_and_clear();
        let summary = &self.summary;
        if summary.requests == 0 {
            if summary.lines == summary.blank_lines {
                bail!("{} is empty", summary.files.join(", "));
            }
            if summary.without_time > 0 && summary.without_time == summary.bad_lines {
                bail!("no request has a time: give --panes-of N to make panes by count instead");
            }
            let why: Vec<String> = summary
                .bad
                .iter()
                .map(|bad| format!("\n  {}:{}: {}", bad.file, bad.line, bad.reason))
                .collect();
            bail!(
                "none of {} lines can be used ({} bad, {} outside of --from and --until){}",
                summary.lines,
                summary.bad_lines,
                summary.outside,
                why.concat()
            );
        }
        Ok(())
    }

    fn file(
        &mut self,
        name: &str,
        mut lines: Box<dyn BufRead>,
        bar: &ProgressBar,
        take: &mut impl FnMut(&Request) -> Result<()>,
    ) -> Result<()> {
        let mut number = 0;
        let mut form: Option<Form> = None;
        loop {
            let mut batch: Vec<(u64, Line)> = Vec::with_capacity(BATCH);
            while batch.len() < BATCH {
                let Some(line) =
                    next_line(&mut lines).with_context(|| format!("{name} cannot be read beyond line {number}"))?
                else {
                    break;
                };
                number += 1;
                self.summary.lines += 1;
                match line {
                    Line::Text(text) if text.trim().is_empty() => self.summary.blank_lines += 1,
                    line => batch.push((number, line)),
                }
            }
            if batch.is_empty() {
                return Ok(());
            }
            let form = match &form {
                Some(form) => form,
                None => {
                    let first = match &batch[0].1 {
                        Line::Text(text) => text.as_str(),
                        Line::Refused(_) => "",
                    };
                    let (found, header) =
                        Form::of(first, self.input.format).with_context(|| format!("{name} cannot be used"))?;
                    if header {
                        batch.remove(0);
                    }
                    self.summary.formats.push(found.name());
                    form.insert(found)
                }
            };
            for (number, request) in self.requests(form, &batch) {
                self.took(name, number, request, take)?;
            }
            bar.set_message(format!("{} requests", crate::words::thousands(self.summary.requests)));
        }
    }

    /// Features of a batch, by all cores, in order.
    fn requests(&self, form: &Form, batch: &[(u64, Line)]) -> Vec<(u64, Result<Request, Refused>)> {
        let work = |part: &[(u64, Line)]| -> Vec<_> {
            part.iter()
                .map(|(number, line)| (*number, self.request(form, *number, line)))
                .collect()
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let size = batch.len().div_ceil(cores).max(64);
        std::thread::scope(|scope| {
            let parts: Vec<_> = batch.chunks(size).map(|part| scope.spawn(move || work(part))).collect();
            parts
                .into_iter()
                .zip(batch.chunks(size))
                // A thread ends without a result only when it panicked; then its part is done again, to say where.
                .flat_map(|(part, lines)| part.join().unwrap_or_else(|_| work(lines)))
                .collect()
        })
    }

    fn request(&self, form: &Form, number: u64, line: &Line) -> Result<Request, Refused> {
        let text = match line {
            Line::Text(text) => text,
            Line::Refused(refused) => return Err(refused.clone()),
        };
        let mut record = form.record(text, number)?;
        let time = match (record.time, self.input.panes_of) {
            (_, Some(_)) => 0.0,
            (Some(time), None) => time,
            (None, None) => return Err(Refused::NoTime),
        };
        if record.embedding.is_some() && self.input.embeddings.is_none() {
            record.ignored.push("embedding (used with --embeddings)".to_owned());
        }
        if record.id.is_empty() {
            // Without a name its line decides which of its words is sampled.
            record.id = number.to_string();
        }
        Ok(Request {
            features: self.extractor.features(&record.exchange()),
            time,
            ignored: record.ignored,
        })
    }

    fn took(
        &mut self,
        name: &str,
        number: u64,
        request: Result<Request, Refused>,
        take: &mut impl FnMut(&Request) -> Result<()>,
    ) -> Result<()> {
        let summary = &mut self.summary;
        let request = match request {
            Ok(request) => request,
            Err(refused) => {
                summary.bad_lines += 1;
                summary.without_time += u64::from(refused == Refused::NoTime);
                if summary.bad.len() < NAMED {
                    summary.bad.push(BadLine {
                        file: name.to_owned(),
                        line: number,
                        reason: refused.to_string(),
                    });
                }
                return Ok(());
            }
        };
        for field in &request.ignored {
            *summary.ignored_fields.entry(field.clone()).or_default() += 1;
        }
        let outside = self.input.from.is_some_and(|from| request.time < from)
            || self.input.until.is_some_and(|until| request.time >= until);
        if outside && self.input.panes_of.is_none() {
            summary.outside += 1;
            return Ok(());
        }
        if request.time < summary.latest {
            summary.out_of_order += 1;
        }
        summary.latest = summary.latest.max(request.time);
        summary.requests += 1;
        take(&request)
    }
}
