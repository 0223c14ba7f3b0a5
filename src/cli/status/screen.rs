//! The live view for a terminal that is left open.

use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize as _};
use ratatui::text::Line;
use ratatui::widgets::{Block, Gauge, Paragraph, Row, Table};

use super::Failure;
use super::report::Report;
use super::text::{HEAD, at_work, row};
use crate::cli::jobs::line;
use crate::jobs::Summary;

const EVERY: Duration = Duration::from_secs(1);

/// Shows reports until there is nothing more to see, or until q or Ctrl-C.
pub(super) fn watch(read: &mut dyn FnMut() -> Result<Report, Failure>) -> Result<(), Failure> {
    let mut terminal = ratatui::try_init()?;
    let mut shown = || -> Result<(), Failure> {
        loop {
            let report = read()?;
            terminal.draw(|frame| draw(frame, &report))?;
            if !report.goes_on() || asked_to_end(EVERY)? {
                return Ok(());
            }
        }
    };
    let result = shown();
    ratatui::try_restore()?;
    // What was last seen stays in the terminal.
    if result.is_ok() {
        super::text::plain(&mut crate::cli::output::Stdout, &read()?)?;
    }
    result
}

fn asked_to_end(within: Duration) -> std::io::Result<bool> {
    let until = Instant::now() + within;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if !event::poll(left)? {
            return Ok(false);
        }
        if let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                return Ok(true);
            }
        }
    }
}

fn rows(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

fn draw(frame: &mut Frame<'_>, report: &Report) {
    let far = rows(report.far.len() + usize::from(report.far_error.is_some()));
    let jobs = rows(report.jobs.len()).saturating_mul(3).saturating_add(far).max(1);
    let movers = match report.movers.len() {
        0 => 0,
        n => rows(n).saturating_add(4),
    };
    let [top, middle, bottom, last] = Layout::vertical([
        Constraint::Length(jobs),
        Constraint::Length(movers),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_jobs(frame, top, report);
    if movers > 0 {
        draw_movers(frame, middle, report);
        draw_longest(frame, bottom, report);
    }
    let mut end = "q: end".to_owned();
    for stopped in &report.stopped {
        for waiting in &stopped.waiting {
            end.push_str(&format!("; {}: {waiting}", stopped.mount));
        }
    }
    frame.render_widget(Line::from(end).dim(), last);
}

fn draw_jobs(frame: &mut Frame<'_>, area: Rect, report: &Report) {
    let mut far: Vec<_> = report
        .far
        .iter()
        .map(|job| Line::from(format!("{} ({}): {}", job.id(), job.word(), job.line())))
        .collect();
    far.extend(
        report
            .far_error
            .iter()
            .map(|error| Line::from(format!("jobs of other nodes are not known: {error}")).red()),
    );
    if report.jobs.is_empty() && far.is_empty() {
        frame.render_widget(Line::from("no job runs"), area);
        return;
    }
    let [own, others] = Layout::vertical([
        Constraint::Length(rows(report.jobs.len()).saturating_mul(3)),
        Constraint::Min(0),
    ])
    .areas(area);
    let areas = Layout::vertical(report.jobs.iter().map(|_| Constraint::Length(3))).split(own);
    for (job, area) in report.jobs.iter().zip(areas.iter()) {
        draw_job(frame, *area, job);
    }
    frame.render_widget(Paragraph::new(far), others);
}

#[expect(clippy::cast_precision_loss, reason = "a bar")]
fn draw_job(frame: &mut Frame<'_>, area: Rect, job: &Summary) {
    let [name, bar, _] = Layout::vertical([Constraint::Length(1); 3]).areas(area);
    let text = format!("{} ({})", job.id, job.phase.word());
    frame.render_widget(Line::from(text).bold(), name);
    let ratio = match job.found {
        0 => 0.0,
        found => job.counts.ended() as f64 / found as f64,
    };
    let gauge = Gauge::default()
        .ratio(ratio.clamp(0.0, 1.0))
        .label(line(job))
        .use_unicode(true);
    frame.render_widget(gauge, bar);
}

fn draw_movers(frame: &mut Frame<'_>, area: Rect, report: &Report) {
    let widths = HEAD.map(|title| Constraint::Length(rows(title.len())));
    let mut lines: Vec<_> = report
        .movers
        .iter()
        .map(|(name, mover)| match mover {
            Ok(mover) => Row::new(row(name, mover)),
            Err(_) => Row::new([name.as_str(), "silent"]).style(Style::new().red()),
        })
        .collect();
    lines.push(Row::new(row("all that answer", &report.sum())).style(Style::new().add_modifier(Modifier::BOLD)));
    let table = Table::new(lines, widths)
        .header(Row::new(HEAD).dim())
        .block(Block::bordered().title("movers"));
    frame.render_widget(table, area);
}

fn draw_longest(frame: &mut Frame<'_>, area: Rect, report: &Report) {
    let room = usize::from(area.height.saturating_sub(2));
    let lines: Vec<_> = report
        .longest(room)
        .into_iter()
        .map(|(name, running)| Line::from(format!("{name}: {}", at_work(running))))
        .collect();
    let view = Paragraph::new(lines).block(Block::bordered().title("longest at work"));
    frame.render_widget(view, area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::cli::status::report::example;

    #[test]
    fn the_screen_has_movers_their_sum_and_what_runs_longest_in_any_size() {
        let shown = |width, height| {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, &example())).unwrap();
            terminal.backend().to_string()
        };
        let screen = shown(100, 20);
        for wanted in [
            "restore-1 (silent): how far it is that node knows; on node7",
            "jobs of other nodes are not known",
            "mover2:9818",
            "silent",
            "all that answer",
            "4010",
            "lab/run7/big.h5",
            "q: end; /mnt/lustre: 40 actions, 7 of them readers' restores, wait until",
        ] {
            assert!(screen.contains(wanted), "no '{wanted}' in\n{screen}");
        }
        shown(10, 2);
    }
}
