//! What is compared: each figure's name, unit, direction, and where a report has it.

use super::{Better, FigureUnit};
use crate::gate::{Clock, Metric, Point};
use crate::recorder::Latency;
use crate::report::{Rate, Report};

/// One figure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) metric: Metric,
    pub(crate) unit: FigureUnit,
    pub(crate) better: Better,
}

/// The percentiles that are compared, of each distribution.
const POINTS: [Point; 3] = [Point::P50, Point::P95, Point::P99];

/// The figures of a workload, in the order of the table.
pub(crate) fn all(rate: Rate) -> Vec<Figure> {
    let (speed, requests) = match rate {
        Rate::Rows(_) => (Metric::RowsPerSecond, false),
        Rate::Requests(_) => (Metric::RequestsPerSecond, true),
    };
    let figure = |metric, unit, better| Figure { metric, unit, better };
    let lower = |metric, unit| figure(metric, unit, Better::Lower);
    let clocks: &[Clock] =
        if requests { &[Clock::Response, Clock::Service, Clock::TimeToFirstToken] } else { &[Clock::Response, Clock::Service] };
    let mut figures = vec![figure(speed, FigureUnit::PerSecond, Better::Higher)];
    for clock in clocks {
        figures.extend(POINTS.map(|point| lower(Metric::Latency(*clock, point), FigureUnit::Milliseconds)));
    }
    // More rows a second are more commits a second, larger batches are fewer: only at requests of a given load it is a cost.
    let writes = if requests { Better::Lower } else { Better::Neither };
    figures.extend([
        lower(Metric::ErrorRate, FigureUnit::Share),
        lower(Metric::CpuSecondsPerOperation, FigureUnit::Seconds),
        lower(Metric::MemoryBytesMax, FigureUnit::Bytes),
        figure(Metric::DatabaseWritesPerSecond, FigureUnit::PerSecond, writes),
        lower(Metric::WalBytes, FigureUnit::Bytes),
    ]);
    figures
}

impl Figure {
    /// The value of one run.
    pub(crate) fn of(&self, report: &Report) -> Option<f64> {
        let target = report.target.as_ref();
        let requests = matches!(report.throughput.rate, Rate::Requests(_));
        match self.metric {
            Metric::RowsPerSecond | Metric::RequestsPerSecond => report.throughput.rate.per_second().filter(|_| report.throughput.valid),
            Metric::Latency(clock, point) => {
                let latency = match clock {
                    Clock::Response => &report.latency.response,
                    Clock::Service => &report.latency.service,
                    _ => &report.http.as_ref()?.time_to_first_token,
                };
                match point {
                    Point::P50 => latency.p50_ms,
                    Point::P95 => latency.p95_ms,
                    _ => latency.p99_ms,
                }
            }
            Metric::ErrorRate => {
                let main = report.phases.iter().find(|phase| phase.name == "main")?.outcomes;
                (main.attempted > 0).then(|| (main.rejected + main.unknown) as f64 / main.attempted as f64)
            }
            // Of a service only its own process counts; what writes rows is this program, and SQLite within it.
            Metric::CpuSecondsPerOperation => {
                let seconds = if requests { target?.cpu_seconds } else { report.resources.load_cpu_seconds };
                seconds.filter(|_| report.outcomes.attempted > 0).map(|seconds| seconds / report.outcomes.attempted as f64)
            }
            Metric::MemoryBytesMax => {
                let bytes = if requests { target?.rss_bytes_max } else { report.resources.load_rss_bytes_max };
                bytes.map(|bytes| bytes as f64)
            }
            Metric::DatabaseWritesPerSecond => target?.database_writes_per_second,
            Metric::WalBytes => target?.wal_bytes.map(|bytes| bytes as f64),
            _ => None,
        }
    }

    /// The percentile over all runs of a side, in milliseconds, from their histograms merged: percentiles are never averaged.
    pub(crate) fn merged(&self, reports: &[Report]) -> Option<f64> {
        let Metric::Latency(clock, point) = self.metric else { return None };
        // If one run has answers enough for this percentile, all together have.
        reports.iter().find_map(|report| self.of(report))?;
        let mut all = Latency::default();
        for report in reports {
            let text = match clock {
                Clock::Response => &report.histograms.response,
                Clock::Service => &report.histograms.service,
                _ => &report.http.as_ref()?.time_to_first_token_histogram,
            };
            all.merge(&Latency::decode(text).ok()?);
        }
        let quantile = match point {
            Point::P50 => 0.5,
            Point::P95 => 0.95,
            _ => 0.99,
        };
        (all.count() > 0).then(|| all.roughly(quantile).as_secs_f64() * 1e3)
    }

    /// `value` related to what the run's machine can do, so that it means something beside another machine's; `None` where no
    /// machine's speed is in it, or it was not measured.
    pub(crate) fn calibrated(&self, value: f64, report: &Report) -> Option<f64> {
        let speed = report.environment.calibration.as_ref()?.cpu_loops_per_second;
        match self.metric {
            Metric::RowsPerSecond | Metric::RequestsPerSecond => Some(value / speed),
            Metric::Latency(..) | Metric::CpuSecondsPerOperation => Some(value * speed),
            _ => None,
        }
    }

    /// The value of each whole second of phase `main`, where the report has it.
    pub(crate) fn seconds(&self, report: &Report) -> Vec<f64> {
        let main: Vec<_> = report.timeline.iter().filter(|second| second.phase == "main").collect();
        let whole = main.get(1..main.len().saturating_sub(1)).unwrap_or_default();
        let values = whole.iter().filter_map(|second| match self.metric {
            Metric::RowsPerSecond | Metric::RequestsPerSecond if report.throughput.valid => Some(second.acknowledged as f64),
            Metric::Latency(Clock::Response, Point::P50) => second.response_p50_ms,
            Metric::Latency(Clock::Response, Point::P99) => second.response_p99_ms,
            Metric::Latency(Clock::Service, Point::P50) => second.service_p50_ms,
            Metric::Latency(Clock::Service, Point::P99) => second.service_p99_ms,
            _ => None,
        });
        values.collect()
    }
}
