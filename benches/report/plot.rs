//! A figure over the number of sessions, both on logarithmic scales; or bars where there is one number.

use std::path::Path;

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::table::number;

pub struct Panel {
    /// Its name without `.svg`.
    pub file: String,
    pub title: String,
    pub unit: String,
    pub lines: Vec<Line>,
}

#[derive(Clone)]
pub struct Line {
    pub name: String,
    /// Sessions, and what was measured with so many.
    pub points: Vec<(f64, f64)>,
    pub ours: bool,
    /// Ours in another way, which is not the figure to look at.
    pub variant: bool,
    /// The least that is possible.
    pub floor: bool,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const FONT: &str = "sans-serif";
const WIDTH: u32 = 960;
const LEGEND: u32 = 290;

/// Of Okabe and Ito: told apart by everybody.
const OURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(0, 60, 110),
    RGBColor(60, 150, 160),
    RGBColor(120, 140, 220),
    RGBColor(0, 190, 200),
    RGBColor(110, 110, 130),
];
const OTHERS: [RGBColor; 6] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(140, 90, 40),
    RGBColor(90, 40, 130),
];
const FLOORS: [RGBColor; 2] = [RGBColor(60, 60, 60), RGBColor(150, 150, 150)];

pub fn draw(file: &Path, panel: &Panel) {
    let mut lines = panel.lines.clone();
    // A logarithm has no place for what is not above zero.
    lines.iter_mut().for_each(|line| line.points.retain(|&(_, y)| y > 0.0));
    if lines.iter().any(|line| line.points.len() > 1) {
        let sessions = || lines.iter().flat_map(|line| &line.points).map(|point| point.0);
        let least = sessions().filter(|&x| x > 0.0).fold(f64::MAX, f64::min);
        let most = sessions().fold(0.0, f64::max);
        // What knows no sessions is the same with any number of them.
        for line in &mut lines {
            if let [(0.0, y)] = line.points[..] {
                line.points = vec![(least, y), (most, y)];
            }
            line.points.retain(|&(x, _)| x > 0.0);
        }
        lines.retain(|line| !line.points.is_empty());
        curves(file, panel, &lines);
    } else {
        bars(file, panel);
    }
}

/// Ours and floors each have colours of their own.
fn colours(lines: &[Line]) -> Vec<RGBColor> {
    let mut used = [0; 3];
    let colours = lines.iter().map(|line| {
        let (kind, colours) = match line.floor {
            _ if line.ours || line.variant => (0, &OURS[..]),
            true => (1, &FLOORS[..]),
            false => (2, &OTHERS[..]),
        };
        used[kind] += 1;
        colours[(used[kind] - 1) % colours.len()]
    });
    colours.collect()
}

fn text(size: i32, colour: RGBColor) -> TextStyle<'static> {
    (FONT, size).into_font().color(&colour)
}

fn titled<'a>(file: &'a Path, panel: &Panel, height: u32) -> Area<'a> {
    let root = SVGBackend::new(file, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE).unwrap();
    root.draw(&Text::new(panel.title.clone(), (16, 12), text(20, BLACK))).unwrap();
    root.margin(44, 8, 8, 8)
}

fn curves(file: &Path, panel: &Panel, lines: &[Line]) {
    let (chart, legend) = titled(file, panel, 520).split_horizontally(WIDTH - LEGEND);
    let points = || lines.iter().flat_map(|line| &line.points);
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::MAX, 0_f64), |(least, most), value| (least.min(value), most.max(value)))
    };
    let (left, right) = range(&mut points().map(|point| point.0));
    let (low, high) = range(&mut points().map(|point| point.1));
    // Flat lines in the middle of at least a decade, so that noise does not look like a slope.
    let (low, high) = (low / 1.4, high * 1.4);
    let wider = (10.0 / (high / low)).max(1.0).sqrt();
    let mut chart = ChartBuilder::on(&chart)
        .margin_right(24)
        .x_label_area_size(48)
        .y_label_area_size(84)
        .build_cartesian_2d(
            (left / 1.15..right * 1.15).log_scale(),
            (low / wider..high * wider).log_scale(),
        )
        .unwrap();
    chart
        .configure_mesh()
        .x_desc("live sessions")
        .y_desc(panel.unit.clone())
        .axis_desc_style(text(16, BLACK))
        .label_style(text(14, BLACK))
        .x_label_formatter(&|x| number(*x).trim_end_matches(".0").to_owned())
        .y_label_formatter(&|y| plain(*y))
        .bold_line_style(BLACK.mix(0.18))
        .light_line_style(BLACK.mix(0.05))
        .draw()
        .unwrap();
    let colours = colours(lines);
    // Ours last, on top of the others.
    let mut order: Vec<_> = lines.iter().zip(&colours).collect();
    order.sort_by_key(|(line, _)| line.ours);
    for (line, colour) in order {
        let width = if line.ours { 4 } else { 2 };
        let style = colour.stroke_width(width);
        chart.draw_series(LineSeries::new(line.points.iter().copied(), style)).unwrap();
        let dots = line.points.iter().map(|&at| Circle::new(at, width + 1, colour.filled()));
        chart.draw_series(dots).unwrap();
    }
    list(&legend, lines, &colours);
}

/// From the highest at the right edge to the lowest, as the lines are.
fn list(area: &Area<'_>, lines: &[Line], colours: &[RGBColor]) {
    let last = |line: &Line| line.points.last().map_or(0.0, |point| point.1);
    let mut order: Vec<_> = lines.iter().zip(colours).collect();
    order.sort_by(|a, b| last(b.0).total_cmp(&last(a.0)));
    let mut y = 16;
    for (line, colour) in order {
        let width = if line.ours { 4 } else { 2 };
        let dash = vec![(0, y), (26, y)];
        area.draw(&PathElement::new(dash, colour.stroke_width(width))).unwrap();
        area.draw(&Circle::new((13, y), width + 1, colour.filled())).unwrap();
        for part in wrapped(&line.name) {
            let style = text(14, BLACK).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(part, (34, y), style)).unwrap();
            y += 18;
        }
        y += 8;
    }
}

/// In lines that fit beside the chart.
fn wrapped(name: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in name.split(' ') {
        let line = lines.last_mut().unwrap();
        if !line.is_empty() && line.chars().count() + word.chars().count() > 32 {
            lines.push(word.to_owned());
        } else {
            let space = if line.is_empty() { "" } else { " " };
            *line += &format!("{space}{word}");
        }
    }
    lines
}

/// 0.1, 1, 10, 1,000: no digits that say nothing.
fn plain(value: f64) -> String {
    if value < 1.0 {
        return format!("{value:.4}").trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let text = number(value);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// One below the other, on a scale that begins at zero.
fn bars(file: &Path, panel: &Panel) {
    const LABELS: i32 = 340;
    const HEIGHT: i32 = 28;
    let area = titled(file, panel, 60 + HEIGHT as u32 * panel.lines.len() as u32);
    let value = |line: &Line| line.points.first().map_or(0.0, |point| point.1);
    let most = panel.lines.iter().map(value).fold(f64::MIN_POSITIVE, f64::max);
    let width = f64::from(WIDTH as i32 - LABELS - 110);
    for (line, at) in panel.lines.iter().zip(0..) {
        let colour = if line.ours { OURS[0] } else { FLOORS[1] };
        let (top, middle) = (at * HEIGHT, at * HEIGHT + HEIGHT / 2);
        let end = LABELS + (value(line).max(0.0) / most * width) as i32;
        let bar = [(LABELS, top + 4), (end.max(LABELS + 1), top + HEIGHT - 4)];
        area.draw(&Rectangle::new(bar, colour.filled())).unwrap();
        let right = text(14, BLACK).pos(Pos::new(HPos::Right, VPos::Center));
        area.draw(&Text::new(line.name.clone(), (LABELS - 8, middle), right)).unwrap();
        let left = text(14, BLACK).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(number(value(line)), (end + 8, middle), left)).unwrap();
    }
}
