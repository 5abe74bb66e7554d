//! How the loss went, as a drawing. Pure.

use std::fmt::Write as _;

use perennial_crds::retrain::Curve;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 26.0;
/// Lines across.
const RULES: u32 = 4;

/// An SVG; nothing if there is nothing to draw.
pub fn draw(curve: &Curve) -> Option<String> {
    let all = || curve.train.iter().chain(&curve.validation);
    let last = all().map(|point| point.0).max().filter(|last| *last > 0)?;
    let highest = all().map(|point| point.1).fold(f64::MIN, f64::max);
    // Loss begins at nothing, so that half the height is half the loss.
    let top = if highest > 0.0 { highest * 1.05 } else { 1.0 };
    let x = |step: u64| LEFT + (WIDTH - LEFT - RIGHT) * step as f64 / last as f64;
    let y = |loss: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - loss.max(0.0) / top);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Loss by steps\">");
    for rule in 0..=RULES {
        let loss = top * f64::from(rule) / f64::from(RULES);
        let at = y(loss);
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/><text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{loss:.2}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0
        );
    }
    for (step, anchor) in [(0, "start"), (last, "end")] {
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">step {step}</text>",
            x(step),
            HEIGHT - 6.0
        );
    }
    for (class, points) in [("train", &curve.train), ("validation", &curve.validation)] {
        let path: Vec<String> = points
            .iter()
            .map(|(step, loss)| format!("{:.1} {:.1}", x(*step), y(*loss)))
            .collect();
        if !path.is_empty() {
            let _ = write!(svg, "<path class=\"{class}\" d=\"M{}\"/>", path.join("L"));
        }
    }
    for (step, loss) in &curve.validation {
        let _ = write!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>", x(*step), y(*loss));
    }
    svg.push_str("</svg>");
    Some(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_lie_within_the_frame() {
        let curve = Curve {
            train: vec![(1, 4.0), (10, 1.0)],
            validation: vec![(0, 5.0), (10, 0.5)],
        };
        let svg = draw(&curve).expect("a drawing");
        assert!(svg.contains("class=\"train\"") && svg.contains("class=\"validation\"") && svg.contains("step 10"));
        assert!(
            !svg.contains("\"-") && !svg.contains(" -") && !svg.contains("NaN"),
            "{svg}"
        );
        assert_eq!(draw(&Curve::default()), None);
    }
}
