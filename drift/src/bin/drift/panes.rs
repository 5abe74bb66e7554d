//! Requests in panes of time, in any order; panes that are not filled just now are kept packed.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use perennial_drift::features::Features;
use perennial_drift::observe::{Assembler, Interval};
use perennial_drift::pane::Pane;
use perennial_drift::pane::key::{PaneKey, Source};
use perennial_drift::pane::layout::Layout;

/// Panes that are kept unpacked.
const OPEN: usize = 512;
/// Panes that a stretch of time may have; beyond it some time is certainly wrong.
const MOST: i64 = 5_000_000;

enum Slot {
    Open(Box<Pane>),
    Packed(Vec<u8>),
}

/// Panes by their beginning.
pub struct Panes {
    layout: Layout,
    seconds: u32,
    slots: BTreeMap<i64, Slot>,
    open: usize,
}

impl Panes {
    pub fn new(layout: &Layout, seconds: u32) -> Self {
        Self {
            layout: layout.clone(),
            seconds,
            slots: BTreeMap::new(),
            open: 0,
        }
    }

    /// Counts a request.
    pub fn add(&mut self, time: i64, features: &Features) -> Result<()> {
        let start = time - time.rem_euclid(i64::from(self.seconds));
        if !matches!(self.slots.get(&start), Some(Slot::Open(_))) {
            self.open(start)?;
        }
        if let Some(Slot::Open(pane)) = self.slots.get_mut(&start) {
            pane.add(features);
        }
        Ok(())
    }

    fn open(&mut self, start: i64) -> Result<()> {
        if self.open >= OPEN {
            for slot in self.slots.values_mut() {
                if let Slot::Open(pane) = slot {
                    *slot = Slot::Packed(pane.encode().context("a pane cannot be kept")?);
                }
            }
            self.open = 0;
        }
        let pane = match self.slots.get(&start) {
            Some(Slot::Packed(bytes)) => Pane::decode(&self.layout, bytes).context("a pane cannot be read again")?,
            _ => Pane::new(&self.layout, start, self.seconds),
        };
        self.slots.insert(start, Slot::Open(Box::new(pane)));
        self.open += 1;
        Ok(())
    }

    /// Beginning of the first pane and end of the last.
    pub fn span(&self) -> Option<(i64, i64)> {
        let (first, _) = self.slots.first_key_value()?;
        let (last, _) = self.slots.last_key_value()?;
        Some((*first, last + i64::from(self.seconds)))
    }

    /// Panes that begin before this time.
    pub fn before(&self, time: i64) -> u64 {
        self.slots.range(..time).count() as u64
    }

    /// All stretches of time in order, gaps included, from this time on. Panes before it are left out.
    pub fn intervals(self, from: Option<i64>) -> Result<impl Iterator<Item = Result<Interval>>> {
        let (first, end) = self.span().unwrap_or_default();
        let from = from.unwrap_or(first).min(end);
        if (end - from) / i64::from(self.seconds) > MOST {
            bail!(
                "the requests are from {} to {}, more than {MOST} panes: leave out those with wrong times by --from and --until",
                crate::words::time(first),
                crate::words::time(end)
            );
        }
        let mut assembler = Assembler::new(&self.layout, self.seconds, from);
        let source = Source {
            pod: "drift".to_owned(),
            boot: "replay".to_owned(),
        };
        let layout = self.layout;
        let panes = self.slots.into_iter().filter(move |(start, _)| *start >= from);
        Ok(panes.zip(0..).flat_map(move |((_, slot), sequence)| {
            let pane = match slot {
                Slot::Open(pane) => Ok(*pane),
                Slot::Packed(bytes) => Pane::decode(&layout, &bytes),
            };
            let key = PaneKey {
                source: source.clone(),
                sequence,
            };
            let closed = pane.map_err(anyhow::Error::from).and_then(|pane| {
                assembler.accept(key, &pane, pane.end())?;
                Ok(assembler.close(pane.end()))
            });
            match closed {
                Ok(intervals) => intervals.into_iter().map(Ok).collect::<Vec<_>>(),
                Err(error) => vec![Err(error)],
            }
        }))
    }
}
