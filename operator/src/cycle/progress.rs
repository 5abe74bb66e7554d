//! How far training is, as its Job tells. Pure.

use perennial_crds::retrain::TrainingProgress;

/// What is told of a training: in a hundred steps, because each is a write of the status.
#[derive(Debug, Default)]
pub struct Told {
    percent: Option<u128>,
    words: String,
}

impl Told {
    /// Takes what the Job tells now, and says what is told of it.
    pub fn tell(&mut self, progress: Option<&TrainingProgress>) -> Option<&str> {
        if let Some(progress) = progress.filter(|progress| progress.total_steps > 0) {
            // Whatever a Job says: the product has room.
            let done = u128::from(progress.step.min(progress.total_steps));
            let percent = done * 100 / u128::from(progress.total_steps);
            if self.percent != Some(percent) {
                self.percent = Some(percent);
                self.words = words(progress);
            }
        }
        self.percent.map(|_| self.words.as_str())
    }
}

fn words(progress: &TrainingProgress) -> String {
    let mut words = format!("step {} of {}", progress.step, progress.total_steps);
    if let Some(loss) = progress.loss.filter(|loss| loss.is_finite()) {
        words.push_str(&format!(", loss {loss:.3}"));
    }
    match progress.remaining_seconds {
        Some(seconds @ 0..=119) => words.push_str(&format!(", {seconds} s left")),
        Some(seconds @ 120..=7199) => words.push_str(&format!(", {} min left", seconds / 60)),
        Some(seconds) => words.push_str(&format!(", {} h left", seconds / 3600)),
        None => {}
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(step: u64, loss: Option<f64>, remaining_seconds: Option<u64>) -> TrainingProgress {
        TrainingProgress {
            step,
            total_steps: 1000,
            loss,
            remaining_seconds,
        }
    }

    #[test]
    fn it_is_told_in_words_and_not_at_every_step() {
        let mut told = Told::default();
        assert_eq!(told.tell(None), None);
        assert_eq!(told.tell(Some(&TrainingProgress::default())), None);
        let first = told
            .tell(Some(&progress(400, Some(1.2345), Some(66))))
            .map(str::to_owned);
        assert_eq!(first.as_deref(), Some("step 400 of 1000, loss 1.234, 66 s left"));
        assert_eq!(told.tell(Some(&progress(409, Some(1.1), Some(60)))), first.as_deref());
        assert_eq!(told.tell(None), first.as_deref());
        let endless = TrainingProgress {
            step: u64::MAX,
            total_steps: u64::MAX,
            ..TrainingProgress::default()
        };
        let said = format!("step {0} of {0}", u64::MAX);
        assert_eq!(Told::default().tell(Some(&endless)), Some(said.as_str()));
        assert_eq!(
            told.tell(Some(&progress(410, Some(f64::NAN), Some(600)))),
            Some("step 410 of 1000, 10 min left")
        );
    }
}
