//! The plots of docs/performance.md.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use serde_json::Value;

/// A line of a plot: its name and its points.
type Series = (String, Vec<(f64, f64)>);

const LOSSES: [(&str, f64); 4] =
    [("loss0", 0.01), ("loss0.1", 0.1), ("loss1", 1.0), ("loss5", 5.0)];
const RTTS: [(&str, f64); 4] = [("100us", 0.1), ("1ms", 1.0), ("10ms", 10.0), ("50ms", 50.0)];
/// The lowest goodput the axis shows, in MB/s.
const FLOOR: f64 = 0.02;

/// Goodput against loss, a line for each round trip.
pub(crate) fn against_loss(rows: &[Value], path: &Path) -> Result<()> {
    let series = RTTS.iter().map(|(rtt, _)| {
        let name = move |loss: &str| format!("1g-{rtt}-{loss}");
        (format!("RTT {rtt}"), LOSSES.map(|(loss, x)| (name(loss), x)))
    });
    draw(rows, series.collect(), "loss each way in percent (0 at the left edge)", 0.01..6.0, path)
}

/// Goodput against the round trip, a line for each loss.
pub(crate) fn against_rtt(rows: &[Value], path: &Path) -> Result<()> {
    let series = LOSSES.iter().map(|(loss, _)| {
        let name = move |rtt: &str| format!("1g-{rtt}-{loss}");
        (format!("{} % loss", &loss[4..]), RTTS.map(|(rtt, x)| (name(rtt), x)))
    });
    draw(rows, series.collect(), "round trip in ms", 0.08..60.0, path)
}

fn draw(
    rows: &[Value],
    lines: Vec<(String, [(String, f64); 4])>,
    x_label: &str,
    x_range: std::ops::Range<f64>,
    path: &Path,
) -> Result<()> {
    let points = |scenarios: &[(String, f64); 4], key: &str| -> Vec<(f64, f64)> {
        let value = |name: &str| rows.iter().find(|row| row["scenario"] == name)?[key].as_f64();
        scenarios.iter().filter_map(|(name, x)| Some((*x, value(name)?.max(FLOOR)))).collect()
    };
    let ours: Vec<Series> =
        lines.iter().map(|(name, at)| (format!("ours, {name}"), points(at, "ours_mb_s"))).collect();
    let stock: Vec<Series> = lines
        .iter()
        .map(|(name, at)| (format!("stock, {name}"), points(at, "burst_mb_s")))
        .collect();
    let drawn = || -> Result<(), Box<dyn std::error::Error>> {
        let root = SVGBackend::new(path, (760, 440)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption("Goodput at 1 Gbit/s, MTU 1500 (simulated)", ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(x_range.log_scale(), (FLOOR..200.0).log_scale())?;
        chart.configure_mesh().x_desc(x_label).y_desc("MB/s").draw()?;
        for (i, (name, points)) in ours.into_iter().enumerate() {
            let colour = Palette99::pick(i).stroke_width(2);
            chart
                .draw_series(LineSeries::new(points, colour))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
        }
        for (i, (name, points)) in stock.into_iter().enumerate() {
            let colour = Palette99::pick(i).stroke_width(1);
            chart
                .draw_series(DashedLineSeries::new(points, 5, 4, colour))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
        root.present()?;
        Ok(())
    };
    drawn().map_err(|error| anyhow!("{}: {error}", path.display()))
}
