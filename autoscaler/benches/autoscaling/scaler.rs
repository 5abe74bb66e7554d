//! What all autoscalers see and say.

use perennial_autoscaler::Sample;

/// A replica, as an autoscaler can see it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Its name.
    pub id: u32,
    /// Whether it answers requests.
    pub ready: bool,
    /// Its load at this moment; `None` if it is not ready or could not be asked.
    pub sample: Option<Sample>,
}

/// All replicas, and how many were asked for.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// As many as the autoscaler asked for last.
    pub wanted: u32,
    /// Those that exist and are not being removed.
    pub pods: &'a [Seen],
}

/// An autoscaler with its own rhythm: it is asked every second and may answer as before.
pub trait Scaler {
    /// Replicas that shall be.
    fn tick(&mut self, now: f64, view: &View<'_>) -> u32;
}
