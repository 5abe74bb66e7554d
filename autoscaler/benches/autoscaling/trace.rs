//! Requests over time: the format of the Azure LLM inference traces, and families of synthetic ones.
//!
//! Azure publishes CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens (github.com/Azure/AzurePublicDataset,
//! AzureLLMInferenceTrace_conv.csv and _code.csv).

use std::fmt::Write as _;

use crate::random::Random;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// Seconds since the beginning of the trace.
    pub at: f64,
    /// Tokens of the prompt.
    pub context: u32,
    /// Tokens of the answer.
    pub generated: u32,
}

/// Shapes of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// One day: quiet nights, two peaks, a tenth of noise.
    Day,
    /// A low base with bursts of three to six times as much, for two to ten minutes.
    Bursts,
    /// Ever new levels, each reached within five to fifteen minutes.
    Ramps,
    /// A rate that wanders (its logarithm is an Ornstein-Uhlenbeck process of ten minutes).
    Wander,
    /// Ramps, while half or all of the replicas cannot be asked for a few minutes every so often.
    Blind,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Day, Self::Bursts, Self::Ramps, Self::Wander, Self::Blind];

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Bursts => "bursts",
            Self::Ramps => "ramps",
            Self::Wander => "wander",
            Self::Blind => "blind",
        }
    }

    /// Length in seconds.
    pub fn seconds(self) -> f64 {
        if self == Self::Day { 86_400.0 } else { 28_800.0 }
    }

    /// Requests per second, second by second.
    fn rates(self, random: &mut Random) -> Vec<f64> {
        let seconds = self.seconds() as usize;
        match self {
            Self::Day => day(seconds, random),
            Self::Bursts => bursts(seconds, random),
            Self::Ramps | Self::Blind => ramps(seconds, random),
            Self::Wander => wander(seconds, random),
        }
    }
}

fn day(seconds: usize, random: &mut Random) -> Vec<f64> {
    let mut noise = 0.0;
    let start = random.between(0.0, 86_400.0);
    let rate = |second: usize| {
        noise = noise * (1.0 - 1.0 / 120.0) + 0.1 * (2.0_f64 / 120.0).sqrt() * random.normal();
        let hour = (second as f64 + start) / 3600.0 % 24.0;
        let peak =
            |at: f64, width: f64| (-((hour - at + 12.0).rem_euclid(24.0) - 12.0).powi(2) / (2.0 * width * width)).exp();
        (1.5 + 14.0 * peak(10.5, 2.2) + 12.0 * peak(15.5, 2.5)) * noise.exp()
    };
    (0..seconds).map(rate).collect()
}

fn bursts(seconds: usize, random: &mut Random) -> Vec<f64> {
    let mut rates = vec![3.0; seconds];
    let mut at = random.exponential(1.0 / 1200.0);
    while at < seconds as f64 {
        let (height, length, rise) = (
            random.between(6.0, 15.0),
            random.between(120.0, 600.0),
            random.between(5.0, 60.0),
        );
        let (first, last) = (at as usize, ((at + length) as usize).min(seconds));
        for (index, rate) in rates[first..last].iter_mut().enumerate() {
            let since = (first + index) as f64 - at;
            let part = (since / rise).min((length - since) / rise).clamp(0.0, 1.0);
            *rate += height * part;
        }
        at += length + random.exponential(1.0 / 1200.0);
    }
    rates
}

fn ramps(seconds: usize, random: &mut Random) -> Vec<f64> {
    let mut rates = Vec::with_capacity(seconds);
    let mut level = random.between(2.0, 10.0);
    while rates.len() < seconds {
        let (next, rise, hold) = (
            random.between(1.0, 20.0),
            random.between(300.0, 900.0),
            random.between(300.0, 1500.0),
        );
        let from = level;
        rates.extend((0..rise as usize).map(|second| from + (next - from) * second as f64 / rise));
        rates.extend(std::iter::repeat_n(next, hold as usize));
        level = next;
    }
    rates.truncate(seconds);
    rates
}

fn wander(seconds: usize, random: &mut Random) -> Vec<f64> {
    let mut log = 0.0;
    let rate = |_| {
        log = log * (1.0 - 1.0 / 600.0) + 0.6 * (2.0_f64 / 600.0).sqrt() * random.normal();
        (7.0 * f64::exp(log)).min(30.0)
    };
    (0..seconds).map(rate).collect()
}

/// A synthetic trace of a family.
pub fn synthetic(family: Family, seed: u64) -> Vec<Request> {
    let mut random = Random::new(seed * 31 + family as u64);
    let rates = family.rates(&mut random);
    let top = rates.iter().copied().fold(0.0, f64::max);
    let mut requests = Vec::new();
    let mut at = 0.0;
    // Thinning (Lewis and Shedler, 1979): candidates at the highest rate, kept with the odds of the present one.
    loop {
        at += random.exponential(top);
        let Some(rate) = rates.get(at as usize) else { break };
        if random.unit() * top < *rate {
            requests.push(Request {
                at,
                context: tokens(&mut random, 600.0, 1.0, 8000.0),
                generated: tokens(&mut random, 150.0, 0.8, 1500.0),
            });
        }
    }
    requests
}

/// Log-normal: many short, few long, as in the published traces.
fn tokens(random: &mut Random, median: f64, spread: f64, most: f64) -> u32 {
    (median * (spread * random.normal()).exp()).clamp(1.0, most) as u32
}

/// When some replicas cannot be asked: from, until, whether all of them or every second.
pub fn blackouts(family: Family, seed: u64) -> Vec<(f64, f64, bool)> {
    if family != Family::Blind {
        return Vec::new();
    }
    let mut random = Random::new(seed * 37 + 11);
    let mut at = 0.0;
    let mut all = Vec::new();
    while at < family.seconds() {
        at += random.exponential(1.0 / 900.0);
        let length = random.between(60.0, 400.0);
        all.push((at, at + length, random.unit() < 0.5));
        at += length;
    }
    all
}

/// Reads Azure's CSV.
///
/// # Errors
/// Names the line that cannot be read.
pub fn read(text: &str) -> Result<Vec<Request>, String> {
    let mut requests: Vec<Request> = Vec::new();
    let mut first = None;
    for (index, line) in text
        .lines()
        .enumerate()
        .skip(1)
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let wrong = || {
            format!(
                "line {}: expected TIMESTAMP,ContextTokens,GeneratedTokens, found {line:?}",
                index + 1
            )
        };
        let mut fields = line.trim().split(',');
        let mut next = || fields.next().ok_or_else(wrong);
        let time = seconds(next()?).ok_or_else(wrong)?;
        let mut number = || next()?.trim().parse::<f64>().map_err(|_| wrong());
        let (context, generated) = (number()? as u32, number()? as u32);
        let at = time - *first.get_or_insert(time);
        if requests.last().is_some_and(|last| last.at > at) {
            return Err(format!("line {}: earlier than the line before it", index + 1));
        }
        requests.push(Request { at, context, generated });
    }
    if requests.is_empty() {
        return Err("no request in it".to_owned());
    }
    Ok(requests)
}

/// Seconds of `2023-11-16 18:15:46.6805900`, counted from a day of no importance.
fn seconds(text: &str) -> Option<f64> {
    let (date, time) = text.trim().split_once([' ', 'T'])?;
    let mut date = date.split('-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    // Days from the civil calendar (Hinnant's algorithm), March first.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days =
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day;
    let time = time.split(['+', 'Z']).next()?;
    let mut parts = time.split(':').map(str::parse::<f64>);
    let (hours, minutes, seconds) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    Some(days as f64 * 86_400.0 + hours * 3600.0 + minutes * 60.0 + seconds)
}

/// Writes Azure's CSV, beginning at a made-up midnight, up to a time.
pub fn write(requests: &[Request], until: f64) -> String {
    let mut text = "TIMESTAMP,ContextTokens,GeneratedTokens\n".to_owned();
    for request in requests.iter().take_while(|request| request.at < until) {
        let whole = request.at as u64;
        let _ = writeln!(
            text,
            "2024-05-10 {:02}:{:02}:{:02}.{:07},{},{}",
            whole / 3600,
            whole / 60 % 60,
            whole % 60,
            (request.at.fract() * 1e7) as u64,
            request.context,
            request.generated
        );
    }
    text
}
