//! How the loss went, in as few points as last words have room for. Pure.

use perennial_crds::retrain::Curve;

use super::checkpoint::Record;

/// Points of a line.
const POINTS: usize = 24;

/// The course of a training.
#[must_use]
pub fn curve(record: &Record) -> Curve {
    let train = record.curve.iter().map(|point| (point.step, point.loss));
    let validation = record
        .measurements
        .iter()
        .map(|measured| (measured.step, measured.loss));
    Curve {
        train: thin(train.collect()),
        validation: thin(validation.collect()),
    }
}

/// Evenly spread points, the first and the last among them; three digits are enough for a drawing.
fn thin(points: Vec<(u64, f32)>) -> Vec<(u64, f64)> {
    let finite: Vec<_> = points.into_iter().filter(|(_, loss)| loss.is_finite()).collect();
    let kept = finite.len().min(POINTS);
    let place = |number: usize| {
        if kept < 2 {
            0
        } else {
            number * (finite.len() - 1) / (kept - 1)
        }
    };
    let kept = (0..kept).map(|number| finite[place(number)]);
    kept.map(|(step, loss)| (step, (f64::from(loss) * 1000.0).round() / 1000.0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_points_stay_and_of_many_the_ends_do() {
        assert_eq!(thin(Vec::new()), []);
        assert_eq!(thin(vec![(3, 1.23456)]), [(3, 1.235)]);
        assert_eq!(thin(vec![(1, f32::NAN), (2, 1.0)]), [(2, 1.0)]);
        let many: Vec<(u64, f32)> = (1..=1000).map(|step| (step, 1.0)).collect();
        let thinned = thin(many);
        assert_eq!((thinned.len(), thinned[0].0, thinned[POINTS - 1].0), (POINTS, 1, 1000));
        assert!(thinned.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
