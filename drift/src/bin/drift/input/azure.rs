//! The CSV of Azure's LLM inference traces: TIMESTAMP, ContextTokens, GeneratedTokens.

use super::record::Record;
use super::{Refused, time};

/// Where the columns are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    timestamp: usize,
    context: usize,
    generated: usize,
    names: usize,
}

impl Columns {
    /// From the first line; `None` when it is no such header.
    pub fn of(header: &str) -> Option<Self> {
        let names = fields(header);
        let place = |wanted: &str| names.iter().position(|name| name.trim().eq_ignore_ascii_case(wanted));
        Some(Self {
            timestamp: place("TIMESTAMP")?,
            context: place("ContextTokens")?,
            generated: place("GeneratedTokens")?,
            names: names.len(),
        })
    }

    pub fn record(&self, line: &str, number: u64) -> Result<Record, Refused> {
        let fields = fields(line);
        if fields.len() != self.names {
            return Err(Refused::Value("it has another number of columns than the header"));
        }
        let count = |place: usize, why| fields[place].trim().parse::<u32>().map_err(|_| Refused::Value(why));
        Ok(Record {
            // A request has no name here; its place in the file is as good.
            id: number.to_string(),
            time: Some(time::from_text(&fields[self.timestamp]).ok_or(Refused::Time)?),
            prompt_tokens: Some(count(self.context, "ContextTokens is no whole number")?),
            output_tokens: Some(count(self.generated, "GeneratedTokens is no whole number")?),
            ..Record::default()
        })
    }
}

/// Fields of a line; quotes may hold commas, but no end of the line.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for character in line.trim_start_matches('\u{feff}').chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => {
                if let Some(field) = fields.last_mut() {
                    field.push(other);
                }
            }
        }
    }
    fields
}
